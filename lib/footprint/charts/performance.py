"""Figures of performance and energy, from points (see `trace.points`).

Colour is the GPU, a panel is a model or a phase, shape is the evidence; bands are intervals.
"""

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from footprint import spec
from footprint.charts import theme
from footprint.trace.points import ends


def bounded(points: xr.Dataset, quantity: str) -> pd.DataFrame:
    """The points of a quantity as rows, with the bounds of its 90 % interval (_low, _high).

    Models and GPUs have their printed names; what was not run or did not fit is left out.
    """
    bounds = {f"{quantity}_{end}": values for end, values in ends(points, quantity).items()}
    labels = {name: points[name] for name in ("evidence", "weights")}
    table = xr.Dataset({quantity: points[quantity], **bounds}).assign_coords(labels)
    rows = table.to_dataframe().dropna(subset=[quantity]).reset_index()
    rows = rows[["model", "gpu", "batch", "phase", *labels, quantity, *bounds]]
    return theme.labelled(rows, "model", "gpu")


def _curves(rows: pd.DataFrame, quantity: str, title: str, phases: dict) -> alt.FacetChart:
    """Curves against batch with bands: a colour a GPU, a row a phase, a column a model."""
    rows = rows.assign(what=rows["phase"].map(phases))
    base = alt.Chart(rows).encode(x=theme.BATCH, color=theme.colour("gpu", values=rows["gpu"]))
    scale = alt.Scale(type="log", nice=False)
    y = alt.Y(f"{quantity}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=4))
    band = base.mark_area(opacity=0.16).encode(
        y=alt.Y(f"{quantity}_low:Q", title=title, scale=scale), y2=f"{quantity}_high:Q"
    )
    tips = theme.tips("gpu", "model", "batch", "evidence", "weights", **{quantity: ".3s"})
    dots = base.mark_point(size=34, filled=False).encode(
        y=y, shape=theme.shape("evidence"), tooltip=tips
    )
    panel = (band + base.mark_line().encode(y=y) + dots).properties(**theme.PANEL)
    row = alt.Row("what:N", title=None, sort=list(phases.values()))
    panels = panel.facet(row=row, **theme.panels(column=rows["model"]))
    return panels.resolve_scale(y="independent")


def latency(points: xr.Dataset) -> alt.FacetChart:
    """TTFT and TPOT against batch; time_s is that of a prefill and of a decode step."""
    phases = {"prefill": "TTFT: a prefill", "decode": "TPOT: a decode step"}
    return _curves(bounded(points, "time_s"), "time_s", "seconds", phases)


def energy_per_token(points: xr.Dataset) -> alt.FacetChart:
    """Energy a token against batch; energy_J is that of a prompt token and a generated one."""
    phases = {"decode": "decode: a new token", "prefill": "prefill: a prompt token"}
    return _curves(bounded(points, "energy_J"), "energy_J", "joules a token", phases)


def ratios(rows: pd.DataFrame) -> alt.FacetChart:
    """Ratios of pairs of GPUs with 90 % intervals, a row of panels each; below 1 the first wins.

    rows: model, over and under (ids of the GPUs), phase, batch, ratio, low, high, probability,
    evidence.
    """
    rows = theme.labelled(rows, "model", "over", "under")
    rows["pair"] = rows["over"] + " over " + rows["under"]
    base = alt.Chart(rows).encode(x=theme.BATCH, color=theme.colour("phase"))
    title = rows["pair"].iloc[0] if rows["pair"].nunique() == 1 else "ratio"
    y = alt.Y("ratio:Q", title=title, scale=alt.Scale(type="log", base=2))
    numbers = dict.fromkeys(("ratio", "low", "high", "probability"), ".2f")
    marks = theme.interval(
        base,
        y,
        rule={"strokeWidth": 1.5, "opacity": 0.5},
        point={"size": 42},
        shape=theme.shape("evidence", rows["evidence"]),
        tooltip=theme.tips("pair", "phase", "batch", "evidence", **numbers),
    )
    even = alt.Chart(rows).mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1))
    several = {"row": rows["pair"]} if rows["pair"].nunique() > 1 else {}
    panels = theme.panels(column=rows["model"], **several)
    return (even + marks).properties(**theme.PANEL).facet(**panels)


def memory(
    curves: pd.DataFrame, measured: pd.DataFrame, limits: dict[str, float]
) -> alt.FacetChart:
    """Memory of each model against batch, below a line for the memory of each GPU.

    curves: model, batch, prompt, GiB. measured: the same with gpu and evidence, the peaks of runs.
    limits: GiB by the id of the GPU.
    """
    lines = pd.DataFrame(
        {"gpu": name, "limit": limit, "model": model}
        for name, limit in limits.items()
        for model in curves["model"].unique()
    )
    seen = measured.rename(columns={"GiB": "peak"})
    data = pd.concat([theme.labelled(rows, "gpu") for rows in (seen, lines)], ignore_index=True)
    data = theme.labelled(pd.concat([curves, data], ignore_index=True), "model")
    scale = alt.Scale(type="log", base=2)
    y = alt.Y("GiB:Q", title="memory (GiB)", scale=scale)
    base = alt.Chart(data).encode(x=theme.BATCH)
    line = base.transform_filter("isValid(datum.GiB)").mark_line(point=True)
    line = line.encode(
        y=y,
        strokeDash=alt.StrokeDash("prompt:N", title="prompt"),
        tooltip=theme.tips("batch", "prompt", GiB=".3g"),
    )
    colour = theme.colour("gpu", values=map(spec.label, limits))
    rule = alt.Chart(data).transform_filter("isValid(datum.limit)").mark_rule(strokeWidth=1.6)
    rule = rule.encode(y=alt.Y("limit:Q", scale=scale), color=colour)
    dots = base.transform_filter("isValid(datum.peak)").mark_point(size=34, filled=True)
    dots = dots.encode(
        y=alt.Y("peak:Q", scale=scale),
        color=colour,
        shape=theme.shape("evidence"),
        tooltip=theme.tips("gpu", "batch", "prompt", "evidence", peak=".3g"),
    )
    layers = rule + line + dots if len(measured) else rule + line
    return layers.properties(**theme.PANEL).facet(**theme.panels(column=data["model"].dropna()))


def cards(table: pd.DataFrame, named: list[str]) -> alt.LayerChart:
    """The GPUs of the table by memory bandwidth and peak fp16 rate, those `named` in colour."""
    size = {"width": 640, "height": 380}
    limits = {"bandwidth_GBps": (250, 11000), "peak_fp16_tflops": (55, 1300)}
    rows = table.astype(dict.fromkeys((*limits, "tdp_W"), float))
    rows["pair"] = rows["id"].where(rows["id"].isin(named), "other")
    scales = {name: alt.Scale(type="log", domain=ends) for name, ends in limits.items()}
    x = alt.X("bandwidth_GBps:Q", title="memory bandwidth (GB/s)", scale=scales["bandwidth_GBps"])
    y = alt.Y(
        "peak_fp16_tflops:Q",
        title="peak fp16 rate (TFLOP/s)",
        axis=alt.Axis(tickCount=5),
        scale=scales["peak_fp16_tflops"],
    )
    shown = rows[["name", "pair", *limits, "tdp_W", "release_year"]]
    watts = alt.Legend(values=[70, 300, 700])
    dots = (
        alt.Chart(shown)
        .mark_circle(opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=theme.colour("pair", values=[*named, "other"], legend=None),
            tooltip=["name:N", *(f"{name}:Q" for name in (*limits, "tdp_W")), "release_year:N"],
            size=alt.Size("tdp_W:Q", title="power cap (W)", legend=watts),
        )
    )
    spots = [
        np.log(rows[name] / limits[name][0]) / np.log(limits[name][1] / limits[name][0]) * side
        for name, side in zip(limits, size.values(), strict=True)
    ]
    shown = shown.assign(dy=_apart(*np.array(spots), rows["name"].to_numpy()))
    names = [
        alt.Chart(part)
        .mark_text(align="left", dx=11, dy=dy, fontSize=10)
        .encode(x=x, y=y, text="name:N", opacity=roomy("pair"))
        for dy, part in shown.groupby("dy")
    ]
    return alt.layer(dots, *names).properties(**size)


def roomy(field: str) -> alt.Opacity:
    """The opacity of names, which hides those of `other` GPUs on a narrow screen."""
    test = f"width > 400 || !test(/other/, datum.{field})"
    return alt.condition(test, alt.value(1), alt.value(0))


def _apart(x: np.ndarray, y: np.ndarray, names: np.ndarray) -> np.ndarray:
    """The vertical shift of each label in pixels, so that no two labels overlap."""
    placed: list[tuple[float, float, float]] = []
    shifts = np.zeros(len(names), dtype=int)
    for i in np.argsort(-x):
        wide = 5.6 * len(names[i])
        for shift in (0, 12, -12, 24, -24, 36, -36, 48):
            clear = all(
                x[i] > left + length or left > x[i] + wide or abs(y[i] - shift - height) > 11
                for left, length, height in placed
            )
            if clear:
                break
        shifts[i] = shift
        placed.append((x[i], wide, y[i] - shift))
    return shifts


def headline(rows: pd.DataFrame) -> alt.FacetChart:
    """Grams of a million tokens: both carbons stacked, the interval of the total, the batch.

    rows: model, gpu, zone, batch, operational, embodied, low, high (of the total; all in g),
    evidence, and `counted`: both carbons, or operational carbon if the embodied one is unknown.
    """
    rows = theme.labelled(rows, "model", "gpu", "zone").rename(columns={"zone": "region"})
    alone = rows["counted"].map({"both carbons": "", "operational carbon": ", operational alone"})
    rows["chosen"] = "batch " + rows["batch"].astype(str) + alone
    kept = ["gpu", "region", "model", "chosen", "low", "high", "evidence"]
    shown = rows.melt(kept, theme.DOMAINS["part"], "part", "grams")
    base = alt.Chart(shown).encode(y=alt.Y("gpu:N", title=None, sort=list(rows["gpu"].unique())))
    numbers = dict.fromkeys(("grams", "low", "high"), ".3g")
    bars = base.mark_bar(height=15).encode(
        x=alt.X("grams:Q", title="g CO2e", axis=alt.Axis(tickCount=4)),
        color=theme.colour("part"),
        tooltip=theme.tips("gpu", "chosen", "part", "evidence", **numbers),
        order=alt.Order("part:N", sort="descending"),
    )
    whole = base.transform_filter("datum.part == 'embodied'")
    reach = whole.mark_rule(strokeWidth=1).encode(x=alt.X("low:Q", title="g CO2e"), x2="high:Q")
    words = whole.mark_text(align="left", dx=4, fontSize=10).encode(
        x=alt.X("high:Q", title="g CO2e"), text="chosen:N"
    )
    panel = (bars + reach + words).properties(width=165, height=alt.Step(26))
    panels = panel.facet(**theme.panels(row=rows["model"], column=rows["region"]))
    return panels.resolve_scale(x="independent")
