"""Figures of the evidence: how sure a claim is, what was measured, how near a bound or a prediction came."""

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd
import xarray as xr

from footprint.charts import theme
from footprint.energy import findings
from footprint.predict import validation

WIDE = 450  # leaves room for words on the right


def bound(table: pd.DataFrame) -> alt.LayerChart:
    """Measured decode rate of the CPU runs at batch 1 beside the bound that the memory bandwidth of the same run sets."""
    if not len(table):
        return theme.note("No measured run of a processor is at hand.")
    rows = table.assign(name=table["model"].map(findings.label) + ", " + table["dtype"])
    base = alt.Chart(rows).encode(y=alt.Y("name:N", title=None, sort=alt.SortField("parameters")))
    scale = alt.Scale(type="log", nice=False)
    limit = base.mark_tick(thickness=2, size=22).encode(
        x=alt.X("bound_tokens_per_s:Q", scale=scale, title="tokens a second")
    )
    reach = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("least:Q", scale=scale), x2="most:Q")
    tips = [
        "name:N",
        *(
            alt.Tooltip(f"{name}:Q", format=".3g")
            for name in ("tokens_per_s", "bound_tokens_per_s", "share")
        ),
    ]
    dots = base.mark_point(filled=True, size=70).encode(
        x=alt.X("tokens_per_s:Q", scale=scale),
        color=theme.colour("weights"),
        shape=theme.shape("weights"),
        tooltip=tips,
    )
    return (limit + reach + dots).properties(width=520, height=alt.Step(38))


def scoreboard(table: pd.DataFrame, again: pd.DataFrame) -> alt.LayerChart:
    """The probability of each claim (filled) and what it is `again` with another engine (hollow), with the band in which
    nothing can be told."""
    rows = table[["id", "probability", "verdict", "because"]].assign(
        kind=table["status"], again=again["probability"]
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    x = alt.X(
        "probability:Q",
        title="probability that the claim holds",
        scale=alt.Scale(domain=[0, 1]),
        axis=axis,
    )
    band = (
        alt.Chart(pd.DataFrame({"low": [0.25], "high": [0.75]}))
        .mark_rect(opacity=0.1)
        .encode(x=alt.X("low:Q"), x2="high:Q")
    )
    base = alt.Chart(rows).encode(y=alt.Y("id:N", title=None, sort=None))
    line = base.mark_rule(opacity=0.4).encode(x=x, x2="again:Q")
    told = ["id:N", "verdict:N", "probability:Q", "again:Q", "because:N"]
    dots = base.mark_point(filled=True, size=80).encode(
        x=x, shape=theme.shape("kind", legend=None), tooltip=told
    )
    other = base.mark_point(filled=False, size=80, shape="diamond").encode(
        x="again:Q", tooltip=told
    )
    words = base.mark_text(align="left", dx=12).encode(x=alt.datum(1), text="verdict:N")
    return (band + line + other + dots + words).properties(width=WIDE, height=alt.Step(24))


def closure(rows: pd.DataFrame) -> alt.LayerChart:
    """Prefill plus decode over generate of the measured runs, a strip a run."""
    if not len(rows):
        return theme.note("No measured run is at hand.")
    rows = rows.assign(run=rows["model"].map(findings.label) + " (" + rows["place"] + ")")
    base = alt.Chart(rows[["run", "closure", "batch", "prompt_tokens", "repeat"]])
    dots = base.mark_circle(size=26, opacity=0.6).encode(
        x=alt.X("closure:Q", title="(prefill + decode) / generate", scale=alt.Scale(zero=False)),
        y=alt.Y("run:N", title=None, axis=alt.Axis(labelLimit=240)),
        tooltip=["run:N", "batch:Q", "prompt_tokens:Q", "repeat:Q", "closure:Q"],
    )
    even = base.mark_rule(strokeDash=[2, 3]).encode(x=alt.datum(1))
    return (even + dots).properties(width=480, height=alt.Step(26))


def budget(table: pd.DataFrame) -> alt.Chart:
    """Standard uncertainty of each term of the error budget, a strip a load (columns load, term, pct)."""
    return (
        alt.Chart(table)
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("pct:Q", title="standard uncertainty (% of the energy of a window)"),
            y=alt.Y("load:N", title=None, sort=None),
            color=alt.Color("term:N", title=None),
            shape=alt.Shape("term:N", title=None),
            tooltip=["load:N", "term:N", alt.Tooltip("pct:Q", format=".2g")],
        )
        .properties(width=440, height=alt.Step(20))
    )


CAUSES = {
    "reading": ("reading weights", "#3f7fb5"),
    "traffic": ("KV cache and activations", "#7a6fb0"),
    "multiplying": ("arithmetic", "#c2693d"),
    "waiting": ("latency of kernels", "#94836a"),
    "host": ("host launches kernels", "#b58a2e"),
    "cap": ("power cap", "#b3589a"),
}


def causes(table: pd.DataFrame) -> alt.FacetChart:
    """What a decode step waits for: a row a card and batch, a panel a model (columns card, batch, model, cause, ms)."""
    names = [name for name, _ in CAUSES.values()]
    rows = table.assign(
        rank=table["cause"].map(list(CAUSES).index),
        cause=table["cause"].map(lambda name: CAUSES[name][0]),
    )
    rows = rows.assign(at=rows["card"] + ", batch " + rows["batch"].astype(str))
    bars = (
        alt.Chart(rows.drop(columns=["card", "batch"]))
        .mark_bar()
        .encode(
            x=alt.X("ms:Q", title="milliseconds of a decode step"),
            y=alt.Y("at:N", title=None, sort=None),
            color=alt.Color(
                "cause:N",
                sort=names,
                title=None,
                legend=alt.Legend(orient="top", columns=3),
                scale=alt.Scale(domain=names, range=[shade for _, shade in CAUSES.values()]),
            ),
            order="rank:Q",
            tooltip=["model:N", "at:N", "cause:N", alt.Tooltip("ms:Q", format=".3g")],
        )
    )
    return bars.properties(width=170, height=alt.Step(22)).facet(
        column=alt.Column("model:N", title=None, sort=list(dict.fromkeys(table["model"])))
    )


def thinned(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows, evenly chosen."""
    return rows.iloc[:: math.ceil(len(rows) / most)]


def switches(board: xr.Dataset) -> pd.DataFrame:
    """Every edge of the square wave of a sensor card laid over the others: columns edge, since_s, power_W."""
    rows = []
    for edge, name in {"load on": "switch_on_s", "load off": "switch_off_s"}.items():
        for moment in board[name].values:
            since = board["time_s"].values - moment
            near = (since > -0.2) & (since < 1.4)
            shown = {"since_s": since[near], "power_W": board["power_W"].values[near]}
            rows.append(pd.DataFrame({"edge": edge, **shown}))
    return pd.concat(rows, ignore_index=True)


def edges(boards: Mapping[str, xr.Dataset], most: int = 600) -> alt.FacetChart:
    """What a sensor shows around each switch of a square-wave load, by the board's name, thinned evenly."""
    rows = []
    for name, board in boards.items():
        for edge, panel in switches(board).groupby("edge"):
            thin = thinned(panel.sort_values("since_s"), most)
            rows.append(thin.assign(card=name, edge=edge))
    dots = (
        alt.Chart(pd.concat(rows).round({"since_s": 4, "power_W": 2}))
        .mark_circle(size=12, opacity=0.4)
        .encode(
            x=alt.X("since_s:Q", title="seconds since the switch"),
            y=alt.Y("power_W:Q", title="power shown (W)"),
            tooltip=["card:N", "since_s:Q", "power_W:Q"],
        )
    )
    order = ["load on", "load off"]
    return dots.properties(width=250, height=180).facet(
        row=alt.Row("card:N", title=None), column=alt.Column("edge:N", title=None, sort=order)
    )


def coverage(table: pd.DataFrame) -> alt.Chart:
    """Points at hand by device and model, measured and modelled told apart."""
    rows = table.groupby(["device", "model", "kind"]).size().rename("points").reset_index()
    rows = rows.assign(
        card=rows["device"].map(findings.label), name=rows["model"].map(findings.label)
    )
    return (
        alt.Chart(rows)
        .mark_point(filled=True)
        .encode(
            x=alt.X("card:N", title=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("name:N", title=None),
            color=theme.colour("kind"),
            shape=theme.shape("kind"),
            size=alt.Size("points:Q", title="points", scale=alt.Scale(range=[60, 400])),
            tooltip=["card:N", "name:N", "kind:N", "points:Q"],
        )
        .properties(width=alt.Step(110), height=alt.Step(30))
    )


def predicted(rows: pd.DataFrame, most: int = 1800) -> alt.FacetChart:
    """Expected over measured for left-out measurements (`validation.residuals`), a panel a quantity, thinned evenly."""
    rows = rows.assign(
        ratio=rows["expected"] / rows["value"], what=rows["quantity"].map(validation.QUANTITIES)
    )
    rows = thinned(rows.dropna(subset=["what"]), most)
    base = alt.Chart(
        rows[["gpu", "model", "engine", "software", "batch", "value", "expected", "ratio", "what"]]
    )
    scale = alt.Scale(type="log", domain=[0.33, 3], clamp=True)
    dots = base.mark_circle(size=14, opacity=0.45).encode(
        x=alt.X(
            "value:Q",
            title="measured",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(format="~s", tickCount=4),
        ),
        y=alt.Y(
            "ratio:Q",
            title="expected / measured",
            scale=scale,
            axis=alt.Axis(values=[0.5, 0.8, 1, 1.25, 2]),
        ),
        color=theme.colour("engine"),
        tooltip=["gpu:N", "model:N", "software:N", "batch:Q", "value:Q", "expected:Q"],
    )
    even = base.mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1))
    panels = alt.Facet("what:N", title=None, sort=list(validation.QUANTITIES.values()))
    chart = (even + dots).properties(width=165, height=150).facet(facet=panels, columns=3)
    return chart.resolve_scale(x="independent")


def errors(table: pd.DataFrame, by: str) -> alt.LayerChart:
    """Median and 90th percentile of the size of the error by a column of `validation.summary`, most rows first."""
    y = alt.Y(f"{by}:N", title=None, sort=alt.SortField("rows", order="descending"))
    x = alt.X(
        "median error:Q",
        title="size of the error: median (dot) to 90th percentile",
        axis=alt.Axis(format="%"),
    )
    base = alt.Chart(table).encode(y=y)
    line = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(x=x, x2="90th percentile:Q")
    tips = [
        f"{by}:N",
        "rows:Q",
        *(
            alt.Tooltip(f"{name}:Q", format=".1%")
            for name in ("median error", "90th percentile", "coverage")
        ),
    ]
    dots = base.mark_circle(size=70).encode(x=x, tooltip=tips)
    count = base.mark_text(align="left", dx=6, fontSize=10).encode(
        x="90th percentile:Q", text="rows:Q"
    )
    return (line + dots + count).properties(width=480, height=alt.Step(20))
