"""Figures of plans: phases on cards of their own, work that waits, and the day of a large service.

Rows in, an Altair chart out; series differ by dash, shape or label as well as by colour.
"""

import altair as alt
import numpy as np
import pandas as pd

from footprint.charts import theme
from footprint.charts.carbon import WIDTH
from footprint.charts.decide import printed
from footprint.charts.performance import roomy

SERIES = ("#3f7fb5", "#7a6fb0", "#2f9079", "#b87a10")
DASHES = ([1, 0], [6, 2], [2, 2], [8, 3, 2, 3])


def split(rows: pd.DataFrame) -> alt.LayerChart:
    """Cards by what prefill and decode add to a token; joined: the cards that no other beats in both phases.

    rows: gpu, prefill_mg, decode_mg (each in its best batch), prefill_batch, decode_batch, on_front.
    """
    rows = printed(
        rows, "gpu", "prefill_mg", "decode_mg", "prefill_batch", "decode_batch", "on_front"
    )
    cards = theme.DOMAINS["card"]
    rows["card"] = rows["gpu"].where(rows["gpu"].isin(cards), "other cards")
    rows["lifted"] = _lifted(rows)
    domain, hues = (
        [*cards, "other cards"],
        [*(theme.COLOURS[name] for name in cards), theme.COLOURS["other"]],
    )
    scale = alt.Scale(type="log", nice=False, padding=44)  # room for the names
    base = alt.Chart(rows).encode(
        x=alt.X("prefill_mg:Q", title="mg CO2e of prefill per generated token", scale=scale),
        y=alt.Y("decode_mg:Q", title="mg CO2e of decode per generated token", scale=scale),
    )
    amounts = (alt.Tooltip(f"{name}:Q", format=".2g") for name in ("prefill_mg", "decode_mg"))
    dots = base.mark_point(filled=True, size=50, opacity=0.85).encode(
        color=alt.Color("card:N", title=None, scale=alt.Scale(domain=domain, range=hues)),
        shape=alt.Shape(
            "card:N",
            title=None,
            scale=alt.Scale(domain=domain, range=["circle", "square", "triangle-up"]),
        ),
        tooltip=["gpu:N", *amounts, "prefill_batch:O", "decode_batch:O"],
    )
    best = base.transform_filter("datum.on_front")
    ring = best.mark_point(size=150, strokeWidth=1).encode(tooltip=["gpu:N"])
    line = best.mark_line(opacity=0.5, strokeWidth=1).encode(order="prefill_mg:Q")
    words = [
        base.transform_filter(which)
        .mark_text(align="left", dx=8, dy=dy, fontSize=9)
        .encode(text="gpu:N", opacity=roomy("card"))
        for which, dy in (("datum.lifted", -8), ("!datum.lifted", 0))
    ]
    return alt.layer(line, ring, dots, *words).properties(width=WIDTH, height=380)


def _lifted(rows: pd.DataFrame, near=(0.3, 0.08)) -> list[bool]:
    """Cards so close to the right of another that its name would run into them: theirs go above."""
    at = np.log(rows[["prefill_mg", "decode_mg"]].to_numpy())
    away = at[:, None] - at[None, :]
    return (
        ((away[..., 0] > 0) & (away[..., 0] < near[0]) & (np.abs(away[..., 1]) < near[1]))
        .any(axis=1)
        .tolist()
    )


def waiting(rows: pd.DataFrame) -> alt.HConcatChart:
    """What waiting saves, and how long it then is, over the hours that work may wait.

    rows: slack_h, saving (a share), wait_h (the mean), series (who waits and what is known).
    """
    names = list(dict.fromkeys(rows["series"]))
    rows = printed(rows, "slack_h", "saving", "wait_h", "series")
    look = {"title": None, "legend": alt.Legend(columns=2, symbolType="stroke", labelLimit=300)}
    colour = alt.Color(
        "series:N", scale=alt.Scale(domain=names, range=list(SERIES[: len(names)])), **look
    )
    dash = alt.StrokeDash(
        "series:N", scale=alt.Scale(domain=names, range=list(DASHES[: len(names)])), **look
    )
    tips = [
        "series:N",
        "slack_h:Q",
        alt.Tooltip("saving:Q", format=".1%"),
        alt.Tooltip("wait_h:Q", format=".1f"),
    ]
    base = alt.Chart(rows).encode(
        x=alt.X("slack_h:Q", title="hours that it may wait"),
        color=colour,
        strokeDash=dash,
        tooltip=tips,
    )
    panels = (
        base.mark_line(point=alt.OverlayMarkDef(size=22))
        .encode(y=y)
        .properties(width=(WIDTH - 70) // 2, height=230)
        for y in (
            alt.Y("saving:Q", title="less carbon", axis=alt.Axis(format="%")),
            alt.Y("wait_h:Q", title="hours that it waits, mean"),
        )
    )
    return alt.hconcat(*panels, spacing=24)


def plans(rows: pd.DataFrame) -> alt.LayerChart:
    """Tonnes a day of each plan, operational and embodied, with the 90 % interval of the whole.

    rows: plan, part (operational or embodied), tonnes, low and high (of the plan's whole, the same in both rows).
    """
    names = list(dict.fromkeys(rows["plan"]))
    rows = printed(rows, "plan", "part", "tonnes", "low", "high")
    base = alt.Chart(rows).encode(
        y=alt.Y("plan:N", title=None, sort=names, axis=alt.Axis(labelLimit=260))
    )
    bars = base.mark_bar(opacity=0.85, height=16).encode(
        x=alt.X("sum(tonnes):Q", title="t CO2e a day"),
        color=theme.colour("part"),
        order=alt.Order("part:N", sort="descending"),
        tooltip=["plan:N", "part:N", alt.Tooltip("sum(tonnes):Q", format=".3g")],
    )
    whole = base.transform_filter("datum.part == 'operational'")
    spans = whole.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", title="t CO2e a day"),
        x2="high:Q",
        tooltip=["plan:N", *(alt.Tooltip(f"{name}:Q", format=".3g") for name in ("low", "high"))],
    )
    return (bars + spans).properties(width=WIDTH - 200, height=alt.Step(34))
