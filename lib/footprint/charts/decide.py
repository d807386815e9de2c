"""Figures of the decisions: who wins where, ties, paybacks, the front, and one that readers set themselves.

Rows in, an Altair chart out. Colour is the card, or the approach to embodied carbon; a second cue tells series apart too.
"""

import altair as alt
import pandas as pd

from footprint.carbon import totals
from footprint.charts import theme
from footprint.charts.carbon import REGIONS, WIDTH
from footprint.charts.theme import PANEL
from footprint.energy import findings

APPROACHES = {
    "ACT": "#3f7fb5",
    "ACT with priors": "#7a6fb0",
    "teardown": "#b87a10",
    "paper": "#8a8f98",
}
GRID = alt.X(
    "g_per_kwh:Q",
    title="g CO2e per kWh",
    scale=alt.Scale(type="log", nice=False),
    axis=alt.Axis(values=[1, 10, 100, 1000]),
)
MOST_YEARS = 100  # a payback beyond is drawn as none
DASHES = {"ACT": [1, 0], "ACT with priors": [6, 2], "teardown": [2, 2], "paper": [8, 3, 2, 3]}


def _by_model() -> alt.Column:
    order = [findings.label(model) for model, _ in findings.PAIRS[::2]]
    return alt.Column("model:N", title=None, sort=order)


def printed(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """These columns (a page carries no others), with printed names and four significant digits."""
    names = {
        "model": findings.label,
        "gpu": findings.label,
        "zone": lambda zone: REGIONS.get(zone, zone),
    }
    kept = rows[list(columns)]
    short = {
        name: kept[name].map(lambda value: float(f"{value:.4g}"))
        for name in kept.select_dtypes("float")
    }
    return kept.assign(
        **short, **{name: kept[name].map(read) for name, read in names.items() if name in kept}
    )


def _by_approach(**options) -> dict:
    names = list(APPROACHES)
    colour = alt.Scale(domain=names, range=list(APPROACHES.values()))
    dash = alt.Scale(domain=names, range=list(DASHES.values()))
    return {
        "color": alt.Color("approach:N", title="embodied by", scale=colour, **options),
        "strokeDash": alt.StrokeDash("approach:N", title="embodied by", scale=dash),
    }


def _by_region() -> dict:
    """Colour and shape of a region."""
    names = list(REGIONS.values())
    hues, shapes = [theme.COLOURS[zone] for zone in REGIONS], ["circle", "square", "triangle-up"]
    return {
        "color": alt.Color(
            "region:N", title=None, sort=names, scale=alt.Scale(domain=names, range=hues)
        ),
        "shape": alt.Shape(
            "region:N", title=None, sort=names, scale=alt.Scale(domain=names, range=shapes)
        ),
    }


def winners(rows: pd.DataFrame, by: str = "approach") -> alt.FacetChart:
    """Who emits less, cell by cell: the likelier card's colour, the deeper the surer; the number is the T4's probability.

    rows: model, batch, zone, probability (NaN where a card cannot serve), and the column `by`, a row of panels each.
    """
    rows = printed(rows, "model", "batch", "zone", "probability", by).assign(
        percent=[
            f"{value:.0%}".rstrip("%") if pd.notna(value) else "–" for value in rows["probability"]
        ],
        card=["T4" if value > 0.5 else "RTX 6000 Ada" for value in rows["probability"].fillna(0)],
        sure=(rows["probability"].fillna(0.5) - 0.5).abs() * 2,
    )
    base = alt.Chart(rows).encode(
        x=alt.X("batch:O", title="batch", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("zone:N", title=None, sort=list(REGIONS.values())),
        tooltip=[
            "model:N",
            "zone:N",
            "batch:O",
            f"{by}:N",
            alt.Tooltip("probability:Q", format=".0%"),
        ],
    )
    sure = alt.Opacity("sure:Q", scale=alt.Scale(domain=[0, 1], range=[0.03, 0.6]), legend=None)
    cells = base.mark_rect().encode(color=theme.colour("card", title="emits less"), opacity=sure)
    words = base.mark_text(fontSize=10).encode(text="percent:N")
    panel = (cells + words).properties(width=PANEL["width"], height=66)
    order = list(dict.fromkeys(rows[by]))
    return panel.facet(
        column=_by_model(), row=alt.Row(f"{by}:N", title=None, sort=order), spacing=8
    )


def odds(rows: pd.DataFrame, zones: pd.DataFrame) -> alt.FacetChart:
    """Probability that the T4 emits less over the intensity of the grid, by approach; dotted: the three regions.

    rows: model, served (how the cards serve, a row of panels each), g_per_kwh, approach, probability. zones: zone, g_per_kwh.
    """
    marks = zones.merge(rows[["model", "served"]].drop_duplicates(), how="cross")
    data = printed(
        pd.concat([rows, marks]), "model", "served", "g_per_kwh", "approach", "probability", "zone"
    )
    y = alt.Y(
        "probability:Q",
        title="P(the T4 emits less)",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%"),
    )
    tips = ["model:N", "approach:N", "g_per_kwh:Q", alt.Tooltip("probability:Q", format=".0%")]
    lines = alt.Chart().transform_filter("isValid(datum.probability)").mark_line()
    lines = lines.encode(x=GRID, y=y, tooltip=tips, **_by_approach())
    place = alt.Chart().transform_filter("isValid(datum.zone)")
    rules = place.mark_rule(strokeDash=[2, 3], opacity=0.6).encode(x=GRID)
    words = place.mark_text(
        angle=270, align="left", baseline="bottom", fontSize=9, dx=4, dy=-2, opacity=0.8
    )
    words = words.encode(x=GRID, y=alt.datum(0.52), text="zone:N")
    even = (
        alt.Chart()
        .transform_aggregate(rows="count()")
        .mark_rule(opacity=0.5)
        .encode(y=alt.datum(0.5))
    )
    panel = alt.layer(even, rules, words, lines, data=data).properties(
        width=PANEL["width"], height=150
    )
    return panel.facet(
        column=_by_model(),
        row=alt.Row("served:N", title=None, sort=list(dict.fromkeys(rows["served"]))),
    )


def setups(rows: pd.DataFrame) -> alt.FacetChart:
    """Probability that the T4 emits less by what is counted, a row a set-up, a mark a region; shaded: cannot tell.

    rows: model, setup, served (a row of panels each), zone, probability.
    """
    rows = printed(rows, "model", "setup", "served", "zone", "probability").rename(
        columns={"zone": "region"}
    )
    axis = alt.Axis(
        values=[0, 0.5, 1],
        labelExpr="datum.value == 0 ? 'RTX 6000 Ada' : datum.value == 1 ? 'T4' : 'even'",
    )
    x = alt.X("probability:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis)
    band = alt.Chart().transform_aggregate(
        rows="count()"
    )  # one row a panel, so that it is drawn once
    band = band.mark_rect(opacity=0.1).encode(x=alt.datum(0.25), x2=alt.datum(0.75))
    dots = (
        alt.Chart()
        .mark_point(size=55, filled=False, opacity=1)
        .encode(
            x=x,
            y=alt.Y("setup:N", title=None, sort=list(dict.fromkeys(rows["setup"]))),
            tooltip=[
                "model:N",
                "setup:N",
                "served:N",
                "region:N",
                alt.Tooltip("probability:Q", format=".0%"),
            ],
            **_by_region(),
        )
    )
    panel = alt.layer(band, dots, data=rows).properties(width=PANEL["width"], height=alt.Step(22))
    return panel.facet(
        column=_by_model(),
        row=alt.Row("served:N", title=None, sort=list(dict.fromkeys(rows["served"]))),
    )


def payback(rows: pd.DataFrame, lifetime_years: float = totals.YEARS) -> alt.FacetChart:
    """Years until a replacement has paid back, over the intensity of the grid; dashed: the lifetime of a card.

    rows: model, g_per_kwh, accounting (sunk or amortised), years, low, high (90 %; missing where it never does).
    """
    data = printed(rows, "model", "g_per_kwh", "accounting", "years", "low", "high")
    data["years"] = data["years"].where(data["years"] <= MOST_YEARS)
    kinds = ["sunk", "amortised"]
    look = {"title": "accounting", "legend": alt.Legend(symbolType="stroke")}
    colour = alt.Color(
        "accounting:N", scale=alt.Scale(domain=kinds, range=["#7465b3", "#b87a10"]), **look
    )
    dash = alt.StrokeDash(
        "accounting:N", scale=alt.Scale(domain=kinds, range=[[1, 0], [4, 3]]), **look
    )
    scale = alt.Scale(type="log", nice=False, clamp=True, domain=[0.01, MOST_YEARS])
    y = alt.Y("years:Q", title="years", scale=scale, axis=alt.Axis(values=[0.01, 0.1, 1, 10, 100]))
    tips = [
        "model:N",
        "accounting:N",
        *(alt.Tooltip(f"{name}:Q", format=".3g") for name in ("g_per_kwh", "years", "low", "high")),
    ]
    base = alt.Chart().encode(x=GRID, color=colour)
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("low:Q", title="years", scale=scale), y2="high:Q"
    )
    line = base.mark_line().encode(y=y, strokeDash=dash, tooltip=tips)
    limit = alt.Chart().mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(lifetime_years))
    return alt.layer(band, limit, line, data=data).properties(**PANEL).facet(column=_by_model())


def front(rows: pd.DataFrame) -> alt.LayerChart:
    """Configurations by carbon and by the reader's wait for a token; joined and named: those that no other beats.

    rows: gpu, batch, tpot_ms, mg (a token), low, high, on_front.
    """
    rows = printed(rows, "gpu", "batch", "tpot_ms", "mg", "low", "high", "on_front")
    named = theme.DOMAINS["card"]
    rows["card"] = rows["gpu"].where(rows["gpu"].isin(named), "other cards")
    rows["name"] = (rows["gpu"] + ", " + rows["batch"].astype(str)).where(
        rows.index.isin(_apart(rows))
    )
    first = float(rows["tpot_ms"].min())  # its name stands to its left
    base = alt.Chart(rows).encode(
        x=alt.X(
            "tpot_ms:Q",
            title="ms for a decode step",
            scale=alt.Scale(
                type="log", nice=False, domain=[first / 1.7, rows["tpot_ms"].max() * 1.1]
            ),
        ),
        y=alt.Y(
            "mg:Q",
            title="mg CO2e per generated token",
            scale=alt.Scale(type="log", nice=False, padding=20),
        ),
    )
    tips = [
        "gpu:N",
        "batch:O",
        *(alt.Tooltip(f"{name}:Q", format=".3g") for name in ("tpot_ms", "mg", "low", "high")),
    ]
    domain, hues = (
        [*named, "other cards"],
        [*(theme.COLOURS[name] for name in named), theme.COLOURS["other"]],
    )
    shapes = alt.Scale(domain=domain, range=["circle", "square", "triangle-up"])
    dots = base.mark_point(filled=True, size=45, opacity=0.8).encode(
        color=alt.Color("card:N", title=None, scale=alt.Scale(domain=domain, range=hues)),
        shape=alt.Shape("card:N", title=None, scale=shapes),
        tooltip=tips,
    )
    slowest = rows.loc[rows["on_front"], "tpot_ms"].max()
    room = alt.condition(
        f"width > 400 || datum.tpot_ms == {slowest}", alt.value(1), alt.value(0)
    )  # a phone has none for all
    best = base.transform_filter("datum.on_front")
    line = best.mark_line(opacity=0.5, strokeWidth=1).encode(order="tpot_ms:Q")
    spans = best.mark_rule(opacity=0.5).encode(y="low:Q", y2="high:Q")
    words = (
        best.transform_filter("isValid(datum.name)")
        .mark_text(align="right", dx=-7, dy=9, fontSize=10)
        .encode(text="name:N", opacity=room)
    )
    return alt.layer(line, spans, dots, words).properties(width=WIDTH, height=360)


def _apart(rows: pd.DataFrame, ratio: float = 1.25) -> list:
    """Rows of the front whose times lie far enough apart for their names to stand beside each other."""
    kept, last = [], 0.0
    for at, time in rows[rows["on_front"]].sort_values("tpot_ms")["tpot_ms"].items():
        if time > last * ratio:
            kept, last = [*kept, at], time
    return kept


def carbon_ratios(rows: pd.DataFrame) -> alt.FacetChart:
    """How many times the T4 emits what the RTX 6000 Ada emits for a token, over batch, by region, with 90 % intervals.

    rows: model, batch, zone, median, low, high, kind (measured, modelled or mixed).
    """
    rows = printed(rows, "model", "batch", "zone", "median", "low", "high", "kind").rename(
        columns={"zone": "region"}
    )
    look = _by_region()
    base = alt.Chart(rows).encode(
        x=alt.X("batch:O", title="batch", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("region:N", sort=list(REGIONS.values())),
        color=look["color"],
    )
    scale = alt.Scale(type="log", base=2, nice=False, padding=10)
    title = "T4 over RTX 6000 Ada"
    y = alt.Y("median:Q", title=title, scale=scale)
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"
    )
    tips = [
        "region:N",
        "batch:O",
        "kind:N",
        *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("median", "low", "high")),
    ]
    dots = base.mark_point(filled=True, size=34, opacity=1).encode(
        y=y, shape=look["shape"], tooltip=tips
    )
    even = alt.Chart(rows).mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1))
    return (even + bars + dots).properties(**PANEL).facet(column=_by_model())
