"""Figures of the carbon pages.

Series differ by shape or label as well as by colour; a missing value is a gap with its reason.
"""

import calendar

import altair as alt
import pandas as pd
import xarray as xr

from footprint import spec
from footprint.charts import theme

PARTS = {
    "die": ("#5b7fb5", ("die energy", "die gas", "die materials", "die")),
    "memory": ("#c98b3b", ("memory",)),
    "packaging": ("#7d9c5a", ("packaging",)),
    "board, cooling, casing": ("#9a6fb0", ("board", "cooling", "casing")),
    "assembly, transport, other": ("#8c8c8c", ("assembly", "transport", "end of life", "other")),
    "not split": ("#b8a888", ("unsplit",)),
    "host": ("#5c5c5c", ("host",)),
}


def embodied_bars(table: xr.Dataset, intervals: pd.DataFrame) -> alt.FacetChart:
    """Embodied carbon of GPUs by method, stacked by part; from `carbon.compare`.

    intervals: rows of approach, gpu, low, high (kg, 90 %), drawn as a line across the bar.
    """
    part = {component: name for name, (_, members) in PARTS.items() for component in members}
    table = table.rename(embodied_method="approach")  # as the figure prints it
    kg = table["embodied_kg"].where(table["total_kg"].notnull()).to_dataframe()["embodied_kg"]
    bars = kg.groupby(["approach", "gpu", kg.index.get_level_values("component").map(part)]).sum()
    bars = bars[bars > 0].rename_axis(["approach", "gpu", "part"]).rename("kg").reset_index()
    totals = table["total_kg"].to_dataframe().reset_index()
    gaps = totals[totals["total_kg"].isna()].rename(columns={"embodied_reason": "reason"})
    gaps = gaps[["approach", "gpu", "reason"]]
    layers = {"bar": bars, "gap": gaps.assign(kg=0.0), "interval": intervals}
    rows = pd.concat([part.assign(layer=name) for name, part in layers.items()], ignore_index=True)
    names = [name for name in PARTS if name in set(bars["part"])]
    gpus = [spec.label(str(gpu)) for gpu in table["gpu"].values]
    base = alt.Chart(theme.labelled(rows, "gpu"))
    base = base.encode(y=alt.Y("gpu:N", sort=gpus, title=None))
    of = {name: base.transform_filter(f"datum.layer == '{name}'") for name in layers}
    hues = {name: PARTS[name][0] for name in names}
    bar = of["bar"].transform_calculate(rank=f"indexof({names}, datum.part)")
    bar = bar.mark_bar(stroke="white", strokeWidth=0.5).encode(
        x=alt.X("kg:Q", title="kg CO2e"),
        color=theme.styled(alt.Color, "part", hues, sort=names, legend=alt.Legend(columns=4)),
        order=alt.Order("rank:Q"),
        tooltip=theme.tips("gpu", "approach", "part", kg=".2f"),
    )
    reasons = theme.tips("gpu", "approach", "reason")
    gap = of["gap"].mark_text(align="left", dx=3, opacity=0.7)
    gap = gap.encode(x=alt.datum(0), text=alt.value("none"), tooltip=reasons)
    bounds = theme.tips("gpu", "approach", low=".2f", high=".2f")
    span = of["interval"].mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", tooltip=bounds)
    count = table.sizes["approach"]
    width = (theme.WIDTH - 20 * count) // count
    panel = alt.layer(bar, gap, span).properties(width=width, height=theme.HEIGHT)
    return panel.facet(**theme.panels(column=table["approach"].to_series()), spacing=12)


def tornado(sensitivity: xr.Dataset) -> alt.HConcatChart:
    """What matters for a GPU, from `carbon.sensitivity`: swings and Sobol indices."""
    rows = sensitivity.to_dataframe().reset_index().assign(median=sensitivity.attrs["median"])
    unit = {"kg": "kg CO2e per card"}.get(sensitivity.attrs["units"], sensitivity.attrs["units"])
    labels = alt.Y("label:N", sort=rows["label"].tolist(), title=None)
    hue = theme.COLOURS["embodied"]
    share = alt.Axis(format="%")
    base = alt.Chart(rows).encode(y=labels)
    swing = base.mark_bar(color=hue, opacity=0.75).encode(
        x=alt.X("low:Q", title=unit), x2="high:Q", tooltip=["label", "low", "high", "median"]
    )
    middle = alt.Chart(rows.head(1)).mark_rule(strokeDash=[4, 3]).encode(x="median:Q")
    total = base.mark_bar(color=hue, opacity=0.35).encode(
        x=alt.X("total_order:Q", title="Sobol index: total (bar), first order (dot)", axis=share),
        y=labels.copy().axis(labels=False, ticks=False),
        tooltip=["label", "first_order", "total_order"],
    )
    dot = base.mark_point(filled=True, color=hue).encode(x="first_order:Q")
    span = base.mark_rule().encode(x="total_order_low:Q", x2="total_order_high:Q")
    size = {"width": 240, "height": 28 * len(rows)}
    return alt.hconcat((swing + middle).properties(**size), (total + span + dot).properties(**size))


def hour_map(table: xr.DataArray) -> alt.LayerChart:
    """Grid intensity by month and hour, from `spec.typical`; a cross marks missing hours."""
    rows = table.to_dataframe().reset_index()
    months = list(calendar.month_abbr)[1:]
    rows["name"] = rows["month"].map(dict(enumerate(months, 1)))
    base = alt.Chart(rows).encode(
        x=alt.X("hour:O", title="hour of the day"), y=alt.Y("name:O", sort=months, title=None)
    )
    scale = alt.Scale(scheme="viridis", reverse=True)
    cells = base.mark_rect().encode(
        color=alt.Color("g_per_kwh:Q", title="g/kWh", scale=scale),
        tooltip=["name", "hour", alt.Tooltip("g_per_kwh:Q", format=".0f"), "missing"],
    )
    cross = base.transform_filter("datum.missing > 0").mark_point(
        shape="cross", angle=45, size=40, filled=True, color="black"
    )
    return alt.layer(cells, cross).properties(width=theme.WIDTH, height=theme.HEIGHT)


def _milligrams(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """The rows in milligrams with printed names; `name`: GPU, evidence, and a model if rare."""
    rare = rows["model"] != rows["model"].mode()[0]
    mg = {name: rows[of] * 1e3 for name, of in {"mg": value, "low": "low", "high": "high"}.items()}
    rows = theme.labelled(rows, "gpu", "model", "zone").assign(**mg)
    model = (", " + rows["model"]).where(rare, "")
    return rows.assign(name=rows["gpu"] + ", " + rows["evidence"] + model)


def _by_evidence(rows: pd.DataFrame) -> alt.Opacity:
    """Full for what was measured, paler for what was not."""
    shades = {"measured": 1, "mixed": 0.85, "modelled": 0.7}
    if "mixed" not in set(rows["evidence"]):
        del shades["mixed"]
    scale = alt.Scale(domain=list(shades), range=list(shades.values()))
    return alt.Opacity("evidence:O", title=None, scale=scale)


def operational_regions(rows: pd.DataFrame) -> alt.LayerChart:
    """Operational carbon of a generated token by region on two bases.

    rows: zone, gpu, model, batch, basis (lifecycle or direct), evidence; median, low, high in g.
    """
    columns = ["zone", "gpu", "model", "batch", "basis", "evidence", "name", "mg", "low", "high"]
    rows = _milligrams(rows, "median")[columns]
    base = alt.Chart(rows).encode(
        y=alt.Y("zone:N", title=None, sort=theme.in_order(rows["zone"])),
        yOffset=alt.YOffset("name:N", sort=theme.in_order(rows["name"])),
        color=theme.colour("gpu", values=rows["gpu"]),
    )
    title = "mg CO2e per generated token"
    x = alt.X("mg:Q", title=title, scale=alt.Scale(type="log"), axis=alt.Axis(format="~g"))
    marks = theme.interval(
        base,
        x,
        rule={"strokeWidth": 2},
        point={"size": 90},
        opacity=_by_evidence(rows),
        shape=theme.styled(alt.Shape, "basis", {"lifecycle": "square", "direct": "triangle"}),
        tooltip=columns,
    )
    texts = [
        base.transform_filter(f"datum.basis == '{name}'")
        .mark_text(dy=offset, fontSize=10)
        .encode(x=x, text=alt.Text("mg:Q", format=".2~g"))
        for name, offset in {"lifecycle": -10, "direct": 14}.items()
    ]
    return alt.layer(marks, *texts).properties(width=theme.WIDTH, height=theme.HEIGHT)


def total_per_token(rows: pd.DataFrame) -> alt.FacetChart:
    """Both carbons of a generated token stacked by GPU, a panel a region with its own scale.

    rows: zone, gpu, model, batch, carbon (operational or embodied), evidence; g, and low and high
    (90 %) of the sum.
    """
    columns = ["zone", "gpu", "model", "batch", "carbon", "evidence", "name", "mg", "low", "high"]
    rows = _milligrams(rows, "g")[columns]
    names = theme.in_order(rows["name"])
    rows["share"] = rows["mg"] / rows.groupby(["zone", "name"])["mg"].transform("sum")
    base = alt.Chart(rows).encode(y=alt.Y("name:N", title=None, sort=names))
    bar = base.mark_bar().encode(
        x=alt.X("mg:Q", title="mg CO2e per generated token"),
        color=theme.colour("carbon", values=["operational", "embodied"]),
        opacity=_by_evidence(rows),
        order=alt.Order("carbon:N", sort="descending"),
        tooltip=theme.tips("name", "zone", "carbon", "batch", mg=".3g", share=".1%"),
    )
    whole = base.transform_filter("datum.carbon == 'embodied'")
    span = base.transform_filter("datum.carbon == 'operational'").mark_rule(strokeWidth=2)
    label = whole.transform_calculate(text="format(datum.share, '.1%') + ' embodied'")
    label = label.mark_text(align="left", dx=6).encode(x="high:Q", text="text:N")
    panel = alt.layer(bar, span.encode(x="low:Q", x2="high:Q"), label)
    panel = panel.properties(width=theme.WIDTH - 150, height=36 * len(names))
    return panel.facet(**theme.panels(row=rows["zone"])).resolve_scale(x="independent")


def embodied_share(rows: pd.DataFrame) -> alt.FacetChart:
    """Share of embodied in total carbon over batch, a panel for each region.

    rows: zone, gpu, batch, evidence; share, low, high (90 %).
    """
    rows = rows[["zone", "gpu", "batch", "share", "low", "high", "evidence"]]
    rows = theme.labelled(rows, "gpu", "zone")
    base = alt.Chart(rows).encode(
        x=alt.X("batch:Q", title="batch", scale=alt.Scale(type="log", base=2)),
        color=theme.colour("gpu", values=rows["gpu"]),
    )
    percent = alt.Axis(format="%")
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", axis=percent), y2="high:Q")
    line = base.mark_line().encode(
        y=alt.Y("share:Q", title="embodied share of the total"),
        strokeDash=alt.StrokeDash("gpu:N", legend=None),
    )
    dot = base.mark_point(filled=True, size=40).encode(
        y="share:Q", shape=theme.shape("evidence", rows["evidence"]), tooltip=list(rows.columns)
    )
    width = (theme.WIDTH - 60) // max(rows["zone"].nunique(), 1)
    panel = alt.layer(band, line, dot).properties(width=width, height=theme.HEIGHT - 60)
    return panel.facet(**theme.panels(column=rows["zone"]))
