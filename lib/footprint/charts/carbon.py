"""Figures of the carbon chapters, one function each: labelled data in, an Altair chart out; captions do the titling.

Series differ by shape, label or outline as well as by colour; a missing value is drawn as a gap with its reason.
"""

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from footprint import spec
from footprint.charts.theme import COLOURS, SHAPES

WIDTH, HEIGHT = 620, 320
REGIONS = {"CA-QC": "Quebec", "US-CAL-CISO": "California", "US-NW-PACE": "PacifiCorp East"}
PARTS = {
    "die": ("#5b7fb5", ("die energy", "die gas", "die materials", "die")),
    "memory": ("#c98b3b", ("memory",)),
    "packaging": ("#7d9c5a", ("packaging",)),
    "board, cooling, casing": ("#9a6fb0", ("board", "cooling", "casing")),
    "assembly, transport, other": ("#8c8c8c", ("assembly", "transport", "end of life", "other")),
    "not split": ("#b8a888", ("unsplit",)),
    "host": ("#5c5c5c", ("host",)),
}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def embodied_bars(table: xr.Dataset, intervals: pd.DataFrame | None = None) -> alt.FacetChart:
    """Embodied carbon of cards by approach, stacked by part; from `carbon.compare`.

    intervals: rows of approach, gpu, low, high in kg (90 % of the draws), drawn as a line across the bar.
    """
    part = {component: name for name, (_, members) in PARTS.items() for component in members}
    stack = table["embodied_kg"].where(table["total_kg"].notnull())
    bars = stack.assign_coords(
        part=("component", [part[str(name)] for name in stack.component.values])
    )
    bars = (
        bars.groupby("part")
        .sum("component", skipna=True)
        .where(table["total_kg"].notnull())
        .rename("kg")
    )
    frame = bars.to_dataframe().reset_index()[["approach", "gpu", "part", "kg"]]
    frame = frame[frame["kg"] > 0].assign(layer="bar")
    gaps = table[["total_kg"]].to_dataframe().reset_index()
    gaps = gaps[gaps["total_kg"].isna()].assign(layer="gap", kg=0.0, reason=gaps["embodied_reason"])
    lines = (intervals if intervals is not None else pd.DataFrame()).assign(layer="interval")
    rows = pd.concat(
        [frame, gaps.drop(columns=["total_kg", "embodied_reason"]), lines], ignore_index=True
    )
    names = [name for name in PARTS if name in set(frame["part"])]
    cards = [_name(str(card)) for card in table.gpu.values]
    base = alt.Chart(rows.assign(gpu=rows["gpu"].map(_name))).encode(
        y=alt.Y("gpu:N", sort=cards, title=None)
    )
    colour = alt.Color(
        "part:N",
        sort=names,
        title=None,
        legend=alt.Legend(orient="top", columns=4),
        scale=alt.Scale(domain=names, range=[PARTS[name][0] for name in names]),
    )
    order = alt.Order("rank:Q")
    bar = base.transform_filter("datum.layer == 'bar'").transform_calculate(
        rank=f"indexof({names}, datum.part)"
    )
    bar = bar.mark_bar(stroke="white", strokeWidth=0.5).encode(
        x=alt.X("kg:Q", title="kg CO2e"),
        color=colour,
        order=order,
        tooltip=["gpu", "approach", "part", alt.Tooltip("kg:Q", format=".2f")],
    )
    gap = base.transform_filter("datum.layer == 'gap'").mark_text(align="left", dx=3, opacity=0.7)
    gap = gap.encode(
        x=alt.datum(0), text=alt.value("none"), tooltip=["gpu", "approach", "reason:N"]
    )
    layers = [bar, gap]
    if intervals is not None:
        rule = base.transform_filter("datum.layer == 'interval'").mark_rule(strokeWidth=2)
        layers.append(
            rule.encode(x="low:Q", x2="high:Q", tooltip=["gpu", "approach", "low:Q", "high:Q"])
        )
    approaches = [str(name) for name in table.approach.values]
    width = (WIDTH - 20 * len(approaches)) // len(approaches)
    panel = alt.layer(*layers).properties(width=width, height=HEIGHT)
    return panel.facet(column=alt.Column("approach:N", sort=approaches, title=None), spacing=12)


def tornado(found: xr.Dataset) -> alt.HConcatChart:
    """What matters for one card, from `draws.sensitivity`: swings about the median, and total Sobol indices."""
    rows = found.to_dataframe().reset_index()
    rows["median"] = found.attrs["median"]
    unit = {"kg": "kg CO2e per card"}.get(found.attrs["units"], found.attrs["units"])
    base = alt.Chart(rows).encode(y=alt.Y("label:N", sort=rows["label"].tolist(), title=None))
    bar = base.mark_bar(color=COLOURS["embodied"], opacity=0.75).encode(
        x=alt.X("low:Q", title=unit), x2="high:Q", tooltip=["label", "low", "high", "median"]
    )
    middle = alt.Chart(rows.head(1)).mark_rule(strokeDash=[4, 3]).encode(x="median:Q")
    total = base.mark_bar(color=COLOURS["embodied"], opacity=0.35).encode(
        x=alt.X(
            "total_order:Q",
            title="Sobol index: total (bar), first order (dot)",
            axis=alt.Axis(format="%"),
        ),
        y=alt.Y(
            "label:N",
            sort=rows["label"].tolist(),
            title=None,
            axis=alt.Axis(labels=False, ticks=False),
        ),
        tooltip=["label", "first_order", "total_order"],
    )
    dot = base.mark_point(filled=True, color=COLOURS["embodied"]).encode(x="first_order:Q")
    span = base.mark_rule().encode(x="total_order_low:Q", x2="total_order_high:Q")
    size = {"width": 240, "height": 28 * len(rows)}
    return alt.hconcat((bar + middle).properties(**size), (total + span + dot).properties(**size))


def hour_map(table: xr.DataArray) -> alt.LayerChart:
    """A year of grid intensity as months by hours of the day, from `spec.typical`; a cross marks missing hours."""
    rows = table.to_dataframe().reset_index()
    rows["name"] = [MONTHS[month - 1] for month in rows["month"]]
    base = alt.Chart(rows).encode(
        x=alt.X("hour:O", title="hour of the day", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("name:O", sort=list(MONTHS), title=None),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("g_per_kwh:Q", title="g/kWh", scale=alt.Scale(scheme="yelloworangebrown")),
        tooltip=["name", "hour", alt.Tooltip("g_per_kwh:Q", format=".0f"), "missing"],
    )
    cross = base.transform_filter("datum.missing > 0").mark_point(
        shape="cross", angle=45, size=40, filled=True
    )
    return alt.layer(cells, cross.encode(color=alt.value("black"))).properties(
        width=WIDTH, height=HEIGHT
    )


def operational_regions(rows: pd.DataFrame) -> alt.LayerChart:
    """Operational carbon by region on two bases.

    rows: zone, gpu, kind (lifecycle or direct), evidence (measured or modelled), g per generated token, low and high (90 %).
    """
    rows = _readable(rows)
    kinds = {"lifecycle": "square", "direct": "triangle"}
    shape = alt.Shape(
        "kind:N", title=None, scale=alt.Scale(domain=list(kinds), range=list(kinds.values()))
    )
    base = alt.Chart(rows).encode(
        y=alt.Y("zone:N", title=None, sort=list(dict.fromkeys(rows["zone"]))),
        yOffset=alt.YOffset("gpu:N", sort=list(dict.fromkeys(rows["gpu"]))),
        color=_by_card(rows),
    )
    x = alt.X(
        "mg:Q",
        title="mg CO2e per generated token",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~g"),
    )
    span = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    dot = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=x, shape=shape, tooltip=list(rows.columns)
    )
    layers = [span, dot]
    for kind, offset in zip(kinds, (-10, 14), strict=True):
        text = base.transform_filter(f"datum.kind == '{kind}'").mark_text(dy=offset, fontSize=10)
        layers.append(text.encode(x=x, text=alt.Text("mg:Q", format=".2~g")))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def total_per_token(rows: pd.DataFrame) -> alt.FacetChart:
    """The two carbons stacked per card, a panel for each region with its own scale.

    rows: zone, gpu, carbon (operational or embodied), g, kind (measured or modelled), low and high of the sum (90 %).
    """
    rows = _readable(rows)
    cards, zones = (list(dict.fromkeys(rows[name])) for name in ("gpu", "zone"))
    rows["share"] = rows["mg"] / rows.groupby(["zone", "gpu"])["mg"].transform("sum")
    base = alt.Chart(rows).encode(y=alt.Y("gpu:N", title=None, sort=cards))
    carbon = ["operational", "embodied"]
    bar = base.mark_bar().encode(
        x=alt.X("mg:Q", title="mg CO2e per generated token"),
        color=alt.Color(
            "carbon:N",
            title=None,
            sort=carbon,
            scale=alt.Scale(domain=carbon, range=[COLOURS[name] for name in carbon]),
        ),
        opacity=alt.Opacity(
            "kind:O", title=None, scale=alt.Scale(domain=["measured", "modelled"], range=[1, 0.7])
        ),
        order=alt.Order("carbon:N", sort="descending"),
        tooltip=["gpu", "zone", "carbon", "mg", "kind", alt.Tooltip("share:Q", format=".1%")],
    )
    whole = base.transform_filter("datum.carbon == 'embodied'")
    span = whole.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    label = whole.transform_calculate(text="format(datum.share, '.1%') + ' embodied'")
    label = label.mark_text(align="left", dx=6).encode(x="high:Q", text="text:N")
    panel = alt.layer(bar, span, label).properties(width=WIDTH - 100, height=36 * len(cards))
    return panel.facet(row=alt.Row("zone:N", title=None, sort=zones)).resolve_scale(x="independent")


def embodied_share(rows: pd.DataFrame) -> alt.FacetChart:
    """Share of embodied in total carbon over batch, a panel for each region.

    rows: zone, gpu, batch, share, low, high (90 %), kind (measured or modelled).
    """
    rows = _readable(rows)
    zones = list(dict.fromkeys(rows["zone"]))
    base = alt.Chart(rows).encode(
        x=alt.X("batch:Q", title="batch", scale=alt.Scale(type="log", base=2)), color=_by_card(rows)
    )
    band = base.mark_area(opacity=0.2).encode(
        y=alt.Y("low:Q", axis=alt.Axis(format="%")), y2="high:Q"
    )
    line = base.mark_line().encode(
        y=alt.Y("share:Q", title="embodied share of the total"),
        strokeDash=alt.StrokeDash("gpu:N", legend=None),
    )
    known = ["measured", "modelled"]
    kinds = alt.Shape(
        "kind:N", title=None, scale=alt.Scale(domain=known, range=[SHAPES[kind] for kind in known])
    )
    dot = base.mark_point(filled=True, size=40).encode(
        y="share:Q", shape=kinds, tooltip=list(rows.columns)
    )
    panel = alt.layer(band, line, dot).properties(
        width=(WIDTH - 60) // max(len(zones), 1), height=HEIGHT - 60
    )
    return panel.facet(column=alt.Column("zone:N", title=None, sort=zones))


def _name(card: str) -> str:
    """The card's name where the table knows it."""
    return spec.gpu(card).name if card in spec.gpus() else card


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    """Cards (and their kind of evidence, where it is given) and regions by name, the card's id kept; grams as milligrams."""
    named = rows.assign(
        card=rows["gpu"], gpu=rows["gpu"].map(_name), zone=rows["zone"].replace(REGIONS)
    )
    if "evidence" in rows:
        named["gpu"] = named["gpu"] + ", " + rows["evidence"]
    if "g" not in rows:
        return named
    return named.assign(mg=rows["g"] * 1e3, low=rows["low"] * 1e3, high=rows["high"] * 1e3).drop(
        columns="g"
    )


def _by_card(rows: pd.DataFrame) -> alt.Color:
    """One fixed hue a card where the theme has one, greys for the others."""
    cards = rows.drop_duplicates("card")
    others = [f"hsl(0, 0%, {shade:.0f}%)" for shade in np.linspace(35, 65, len(cards))]
    hues = [COLOURS.get(card, grey) for card, grey in zip(cards["card"], others, strict=True)]
    names = cards["gpu"].tolist()
    return alt.Color("gpu:N", title=None, sort=names, scale=alt.Scale(domain=names, range=hues))
