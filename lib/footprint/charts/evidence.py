"""Figures of the evidence: claims, measurements, bounds and predictions."""

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd
import xarray as xr

from footprint import spec
from footprint.charts import theme

NO_PROCESSOR = "No measured run of a processor is at hand."
CAUSES = {
    "reading": ("reading weights", "#3f7fb5"),
    "traffic": ("KV cache and activations", "#7a6fb0"),
    "multiplying": ("arithmetic", "#c2693d"),
    "waiting": ("latency of kernels", "#94836a"),
    "host": ("host launches kernels", "#b58a2e"),
    "cap": ("power cap", "#b3589a"),
}


def bound(table: pd.DataFrame) -> alt.LayerChart:
    """Decode rate of the CPU runs at batch 1 beside the bound of their memory bandwidth."""
    if not len(table):
        return theme.note(NO_PROCESSOR)
    rows = table.assign(name=table["model"].map(spec.label) + ", " + table["dtype"])
    names = theme.in_order(rows.sort_values("parameters")["name"])
    base = alt.Chart(rows).encode(
        y=alt.Y("name:N", title=None, sort=names),
        yOffset=alt.YOffset("engine:N", sort=theme.in_order(rows["engine"])),
    )
    scale = alt.Scale(type="log", nice=False)
    limit = base.mark_tick(thickness=2, size=14).encode(
        x=alt.X("bound_tokens_per_s:Q", scale=scale, title="tokens a second")
    )
    numbers = dict.fromkeys(("tokens_per_s", "bound_tokens_per_s", "share"), ".3g")
    marks = theme.interval(
        base,
        alt.X("tokens_per_s:Q", scale=scale, title="tokens a second"),
        "least",
        "most",
        rule={"strokeWidth": 1.2},
        point={"size": 70},
        color=theme.colour("engine", values=rows["engine"]),
        shape=theme.shape("weights"),
        tooltip=theme.tips("name", "engine", "weights", **numbers),
    )
    return (limit + marks).properties(width=520, height=alt.Step(20))


def scoreboard(table: pd.DataFrame, again: pd.DataFrame) -> alt.LayerChart:
    """The probability of each claim with one engine (filled) and `again` with another (hollow).

    The shaded band is the one in which nothing can be told.
    """
    rows = table[["id", "probability", "verdict", "because"]].assign(
        evidence=table["status"], again=again["probability"]
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("probability:Q", title="probability that the claim holds", scale=scale, axis=axis)
    band = alt.Chart(pd.DataFrame({"low": [0.25], "high": [0.75]})).mark_rect(opacity=0.1)
    base = alt.Chart(rows).encode(y=alt.Y("id:N", title=None, sort=None))
    tips = ["id:N", "verdict:N", "probability:Q", "again:Q", "because:N"]
    dots = base.mark_point(filled=True, size=80).encode(
        x=x, shape=theme.shape("evidence", legend=None), tooltip=tips
    )
    other = base.mark_point(filled=False, size=80, shape="diamond").encode(
        x="again:Q", tooltip=tips
    )
    words = base.mark_text(align="left", dx=12).encode(x=alt.datum(1), text="verdict:N")
    line = base.mark_rule(opacity=0.4).encode(x=x, x2="again:Q")
    layers = band.encode(x=alt.X("low:Q"), x2="high:Q") + line + other + dots + words
    return layers.properties(width=450, height=alt.Step(24))  # leaves room for the verdicts


def closure(rows: pd.DataFrame) -> alt.LayerChart:
    """Prefill plus decode over generate of measured runs, a strip a run."""
    if not len(rows):
        return theme.note("No measured run is at hand.")
    rows = rows.assign(run=rows["model"].map(spec.label) + " (" + rows["place"] + ")")
    base = alt.Chart(rows[["run", "closure", "batch", "prompt_tokens", "repeat"]])
    dots = base.mark_circle(size=26, opacity=0.6).encode(
        x=alt.X("closure:Q", title="(prefill + decode) / generate", scale=alt.Scale(zero=False)),
        y=alt.Y("run:N", title=None, axis=alt.Axis(labelLimit=240)),
        tooltip=["run:N", "batch:Q", "prompt_tokens:Q", "repeat:Q", "closure:Q"],
    )
    even = base.mark_rule(strokeDash=[2, 3]).encode(x=alt.datum(1))
    return (even + dots).properties(width=480, height=alt.Step(26))


def budget(table: pd.DataFrame) -> alt.Chart:
    """Standard uncertainty of each term of the error budget by load (columns load, term, pct)."""
    points = alt.Chart(table).mark_point(filled=True, size=60)
    chart = points.encode(
        x=alt.X("pct:Q", title="standard uncertainty (% of the energy of a window)"),
        y=alt.Y("load:N", title=None, sort=None),
        color=alt.Color("term:N", title=None),
        shape=alt.Shape("term:N", title=None),
        tooltip=theme.tips("load", "term", pct=".2g"),
    )
    return chart.properties(width=440, height=alt.Step(20))


def causes(table: pd.DataFrame) -> alt.FacetChart:
    """What a decode step waits for, by model, GPU and batch.

    table: columns gpu, batch, model, cause (see CAUSES), ms.
    """
    names = {cause: name for cause, (name, _) in CAUSES.items()}
    hues = dict(CAUSES.values())
    rows = pd.DataFrame(
        {
            "model": table["model"].map(spec.label),
            "at": table["gpu"].map(spec.label) + ", batch " + table["batch"].astype(str),
            "cause": table["cause"].map(names),
            "rank": table["cause"].map(list(CAUSES).index),
            "ms": table["ms"],
        }
    )
    colour = theme.styled(alt.Color, "cause", hues, sort=list(hues))
    bars = alt.Chart(rows).mark_bar()
    bars = bars.encode(
        x=alt.X("ms:Q", title="milliseconds of a decode step"),
        y=alt.Y("at:N", title=None, sort=None),
        color=colour.legend(orient="top", columns=3),
        order="rank:Q",
        tooltip=theme.tips("model", "at", "cause", ms=".3g"),
    )
    panels = bars.properties(width=170, height=alt.Step(22))
    return panels.facet(**theme.panels(column=rows["model"]))


def thinned(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows, evenly chosen."""
    return rows.iloc[:: math.ceil(len(rows) / most)]


def switches(board: xr.Dataset) -> pd.DataFrame:
    """Readings around each switch of a square-wave load: columns edge, since_s, power_W."""
    readings = board[["time_s", "power_W"]].to_dataframe()
    rows = [
        readings.assign(edge=edge, since_s=readings["time_s"] - moment)
        for edge, name in {"load on": "switch_on_s", "load off": "switch_off_s"}.items()
        for moment in board[name].values
    ]
    shown = pd.concat(rows, ignore_index=True)[["edge", "since_s", "power_W"]]
    return shown[shown["since_s"].between(-0.2, 1.4, inclusive="neither")]


def edges(boards: Mapping[str, xr.Dataset], most: int = 600) -> alt.FacetChart:
    """What a sensor shows around each switch of a square-wave load, by board, thinned evenly."""
    rows = [
        thinned(panel.sort_values("since_s"), most).assign(card=name)
        for name, board in boards.items()
        for _, panel in switches(board).groupby("edge")
    ]
    dots = alt.Chart(pd.concat(rows).round({"since_s": 4, "power_W": 2}))
    dots = dots.mark_circle(size=12, opacity=0.4).encode(
        x=alt.X("since_s:Q", title="seconds since the switch"),
        y=alt.Y("power_W:Q", title="power shown (W)"),
        tooltip=["card:N", "since_s:Q", "power_W:Q"],
    )
    edge = alt.Column("edge:N", title=None, sort=["load on", "load off"])
    return dots.properties(width=250, height=180).facet(
        row=alt.Row("card:N", title=None), column=edge
    )


def coverage(table: pd.DataFrame) -> alt.Chart:
    """Number of points by device, model and evidence (columns device, model, kind)."""
    rows = table.rename(columns={"kind": "evidence"})
    rows = rows.value_counts(["device", "model", "evidence"], sort=False)
    rows = theme.labelled(rows.rename("points").reset_index(), "device", "model")
    points = alt.Chart(rows).mark_point(filled=True)
    chart = points.encode(
        x=alt.X("device:N", title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("model:N", title=None),
        color=theme.colour("evidence"),
        shape=theme.shape("evidence"),
        size=alt.Size("points:Q", title="points", scale=alt.Scale(range=[60, 400])),
        tooltip=["device:N", "model:N", "evidence:N", "points:Q"],
    )
    return chart.properties(width=alt.Step(110), height=alt.Step(30))


def predicted(rows: pd.DataFrame, quantities: Mapping[str, str], most: int = 1800):
    """Expected over measured for left-out measurements, thinned evenly.

    quantities: their names by id, a panel each.
    """
    ratio = rows["expected"] / rows["value"]
    rows = rows.assign(ratio=ratio, what=rows["quantity"].map(quantities)).dropna(subset=["what"])
    names = ["gpu", "model", "engine", "software", "batch", "value", "expected", "ratio", "what"]
    base = alt.Chart(thinned(rows, most)[names])
    scale = alt.Scale(type="log", domain=[0.33, 3], clamp=True)
    axis = alt.Axis(values=[0.5, 0.8, 1, 1.25, 2])
    logarithmic = alt.Scale(type="log", nice=False)
    dots = base.mark_circle(size=14, opacity=0.45).encode(
        x=alt.X("value:Q", title="measured", scale=logarithmic).axis(format="~s", tickCount=4),
        y=alt.Y("ratio:Q", title="expected / measured", scale=scale, axis=axis),
        color=theme.colour("engine"),
        tooltip=["gpu:N", "model:N", "software:N", "batch:Q", "value:Q", "expected:Q"],
    )
    even = base.mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1))
    panels = alt.Facet("what:N", title=None, sort=list(quantities.values()))
    chart = (even + dots).properties(width=165, height=150).facet(facet=panels, columns=3)
    return chart.resolve_scale(x="independent")


def errors(table: pd.DataFrame, by: str) -> alt.LayerChart:
    """Median and 90th percentile of the error by a column of `validation.summary`."""
    order = alt.SortField("rows", order="descending")
    base = alt.Chart(table).encode(y=alt.Y(f"{by}:N", title=None, sort=order))
    title = "size of the error: median (dot) to 90th percentile"
    x = alt.X("median error:Q", title=title, axis=alt.Axis(format="%"))
    line = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(x=x, x2="90th percentile:Q")
    shares = dict.fromkeys(("median error", "90th percentile", "coverage"), ".1%")
    dots = base.mark_circle(size=70).encode(
        x=x, tooltip=[*theme.tips(by), "rows:Q", *theme.tips(**shares)]
    )
    count = base.mark_text(align="left", dx=6, fontSize=10)
    count = count.encode(x="90th percentile:Q", text="rows:Q")
    return (line + dots + count).properties(width=480, height=alt.Step(20))
