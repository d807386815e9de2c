"""Figures of the decisions: who emits less, paybacks, the front, split phases, waiting, plans.

Colour is the GPU, the region or the embodied method; shape or dash tells series apart too.
"""

import altair as alt
import numpy as np
import pandas as pd

from footprint import carbon, spec
from footprint.charts import theme

GRID = alt.X(
    "g_per_kwh:Q",
    title="g CO2e per kWh",
    scale=alt.Scale(type="log", nice=False),
    axis=alt.Axis(values=[1, 10, 100, 1000]),
)
MOST_YEARS = 100  # a payback beyond is drawn as none
REGIONS = {zone: spec.zone_name(zone) for zone in theme.DOMAINS["zone"]}
OTHERS = "other cards"
PAIR = ("gpu", "evidence", "newer", "newer_evidence")  # who is compared, and what each rests on


def printed(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """These columns (a page carries no others), with printed names and four significant digits."""
    kept = rows[list(columns)]
    names = dict.fromkeys(("model", "gpu", "newer"), spec.label)
    names["zone"] = lambda zone: REGIONS.get(zone, zone)
    labels = {name: kept[name].map(named) for name, named in names.items() if name in kept}
    short = kept.select_dtypes("float").map(lambda value: float(f"{value:.4g}"))
    return kept.assign(**short, **labels)


def _series(field: str, styles: dict[str, tuple], **options) -> dict:
    """The colour and dash of each value of a field; styles: (colour, dash) by value."""
    hues = {name: hue for name, (hue, _) in styles.items()}
    dashes = {name: dash for name, (_, dash) in styles.items()}
    return {
        "color": theme.styled(alt.Color, field, hues, **options),
        "strokeDash": theme.styled(alt.StrokeDash, field, dashes, **options),
    }


def _by_method() -> dict:
    methods = {name: method for name, method in carbon.METHODS.items() if method.compared}
    styles = {name: (method.colour, list(method.dash)) for name, method in methods.items()}
    return _series("embodied_method", styles, title="embodied by")


def _shaped(field: str, hues: dict[str, str], **options) -> dict:
    """The colour of each of three values of a field, and a shape of its own."""
    shapes = dict(zip(hues, ("circle", "square", "triangle-up"), strict=True))
    return {
        "color": theme.styled(alt.Color, field, hues, **options),
        "shape": theme.styled(alt.Shape, field, shapes, **options),
    }


def _by_region() -> dict:
    hues = {name: theme.COLOURS[zone] for zone, name in REGIONS.items()}
    return _shaped("region", hues, sort=list(hues))


def _by_gpu(rows: pd.DataFrame) -> dict:
    """Colour and shape of the paper's GPUs and of all others; adds the column `named`."""
    cards = theme.DOMAINS["card"]
    rows["named"] = rows["gpu"].where(rows["gpu"].isin(cards), OTHERS)
    hues = {name: theme.COLOURS[name] for name in cards} | {OTHERS: theme.COLOURS["other"]}
    return _shaped("named", hues)


def winners(rows: pd.DataFrame, by: str = "embodied_method") -> alt.FacetChart:
    """The likelier GPU to emit less, by colour (deeper is surer), and the probability of `gpu`.

    rows: gpu, newer, model, batch, zone, evidence, probability (NaN where one of the two cannot
    serve), and the column `by`, a row of panels each.
    """
    columns = ["gpu", "newer", "model", "batch", "zone", "evidence", "probability", by]
    rows = printed(rows, *columns)
    odds, names = rows["probability"], rows[["gpu", "newer"]].iloc[0].tolist()
    rows["percent"] = [f"{value:.0%}".rstrip("%") if pd.notna(value) else "–" for value in odds]
    rows["less"] = np.where(odds > 0.5, *names)
    rows["sure"] = (odds.fillna(0.5) - 0.5).abs() * 2
    base = alt.Chart(rows).encode(
        x=alt.X("batch:O", title="batch", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("zone:N", title=None, sort=list(REGIONS.values())),
        tooltip=theme.tips("model", "zone", "batch", by, "evidence", probability=".0%"),
    )
    sure = alt.Opacity("sure:Q", scale=alt.Scale(domain=[0, 1], range=[0.03, 0.6]), legend=None)
    hue = theme.colour("less", title="emits less", values=names)
    cells = base.mark_rect().encode(color=hue, opacity=sure)
    panel = cells + base.mark_text(fontSize=10).encode(text="percent:N")
    panel = panel.properties(width=theme.PANEL["width"], height=66)
    return panel.facet(**theme.panels(column=rows["model"], row=rows[by]), spacing=8)


def odds(rows: pd.DataFrame, zones: pd.DataFrame) -> alt.FacetChart:
    """Probability that a GPU emits less than the newer one, by grid intensity and method.

    rows: PAIR, model, served (a row of panels each), g_per_kwh, embodied_method, probability.
    zones: zone, g_per_kwh, drawn as dotted lines.
    """
    columns = ["model", "served", "g_per_kwh", "embodied_method", "probability"]
    marks = zones.merge(rows[["model", "served"]].drop_duplicates(), how="cross")
    data = printed(pd.concat([rows, marks]), *PAIR, *columns, "zone")
    gpus = theme.in_order(data["gpu"].dropna())
    y = alt.Y(
        "probability:Q",
        title=f"P(the {gpus[0]} emits less)" if len(gpus) == 1 else "P(emits less)",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%"),
    )
    numbers = {"g_per_kwh": ".3g", "probability": ".0%"}
    tips = theme.tips(*PAIR, "model", "embodied_method", **numbers)
    lines = alt.Chart().transform_filter("isValid(datum.probability)").mark_line()
    lines = lines.encode(x=GRID, y=y, tooltip=tips, **_by_method())
    place = alt.Chart().transform_filter("isValid(datum.zone)")
    rules = place.mark_rule(strokeDash=[2, 3], opacity=0.6).encode(x=GRID)
    look = {"angle": 270, "align": "left", "baseline": "bottom", "fontSize": 9, "opacity": 0.8}
    words = place.mark_text(dx=4, dy=-2, **look).encode(x=GRID, y=alt.datum(0.52), text="zone:N")
    even = alt.Chart().transform_aggregate(rows="count()").mark_rule(opacity=0.5)
    panel = alt.layer(even.encode(y=alt.datum(0.5)), rules, words, lines, data=data)
    panel = panel.properties(width=theme.PANEL["width"], height=150)
    return panel.facet(**theme.panels(column=data["model"], row=rows["served"]))


def setups(rows: pd.DataFrame) -> alt.FacetChart:
    """Probability that a token emits less on a GPU than on the newer one, by set-up and region.

    rows: PAIR, model, setup, served (a row of panels each), zone, probability. Shaded: cannot tell.
    """
    columns = ["model", "setup", "served", "zone", "probability"]
    rows = printed(rows, *PAIR, *columns).rename(columns={"zone": "region"})
    first, gpus = rows["newer"].iloc[0], theme.in_order(rows["gpu"])
    last = gpus[0] if len(gpus) == 1 else "the other"
    words = f"datum.value == 0 ? '{first}' : datum.value == 1 ? '{last}' : 'even'"
    axis = alt.Axis(values=[0, 0.5, 1], labelExpr=words)
    x = alt.X("probability:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis)
    band = alt.Chart().transform_aggregate(rows="count()")  # one row a panel, so it is drawn once
    band = band.mark_rect(opacity=0.1).encode(x=alt.datum(0.25), x2=alt.datum(0.75))
    tips = theme.tips("model", "setup", "served", "region", *PAIR, probability=".0%")
    y = alt.Y("setup:N", title=None, sort=theme.in_order(rows["setup"]))
    dots = alt.Chart().mark_point(size=55, filled=False, opacity=1)
    dots = dots.encode(x=x, y=y, tooltip=tips, **_by_region())
    panel = alt.layer(band, dots, data=rows)
    panel = panel.properties(width=theme.PANEL["width"], height=alt.Step(22))
    return panel.facet(**theme.panels(column=rows["model"], row=rows["served"]))


def payback(rows: pd.DataFrame, lifetime_years: float = 5.0) -> alt.FacetChart:
    """Years until a replacement has paid back, by grid intensity; dashed: the lifetime of a GPU.

    rows: model, g_per_kwh, accounting (sunk or amortised), years, low, high (90 %; missing where
    it never pays back).
    """
    data = printed(rows, "model", "g_per_kwh", "accounting", "years", "low", "high")
    data["years"] = data["years"].where(data["years"] <= MOST_YEARS)
    styles = {"sunk": ("#7465b3", [1, 0]), "amortised": ("#b87a10", [4, 3])}
    legend = alt.Legend(symbolType="stroke")
    look = _series("accounting", styles, title="accounting", legend=legend)
    scale = alt.Scale(type="log", nice=False, clamp=True, domain=[0.01, MOST_YEARS])
    y = alt.Y("years:Q", title="years", scale=scale, axis=alt.Axis(values=[0.01, 0.1, 1, 10, 100]))
    numbers = dict.fromkeys(("g_per_kwh", "years", "low", "high"), ".3g")
    base = alt.Chart().encode(x=GRID, color=look["color"])
    low = alt.Y("low:Q", title="years", scale=scale)
    band = base.mark_area(opacity=0.15).encode(y=low, y2="high:Q")
    line = base.mark_line().encode(
        y=y, strokeDash=look["strokeDash"], tooltip=theme.tips("model", "accounting", **numbers)
    )
    limit = alt.Chart().mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(lifetime_years))
    panel = alt.layer(band, limit, line, data=data).properties(**theme.PANEL)
    return panel.facet(**theme.panels(column=data["model"]))


def front(rows: pd.DataFrame) -> alt.LayerChart:
    """Configurations by carbon and time of a decode step; those on the front are joined and named.

    rows: gpu, batch, tpot_ms, mg (a token), low, high, on_front.
    """
    rows = printed(rows, "gpu", "batch", "tpot_ms", "mg", "low", "high", "on_front")
    look = _by_gpu(rows)
    names = rows["gpu"] + ", " + rows["batch"].astype(str)
    rows["name"] = names.where(rows.index.isin(_spaced(rows)))
    edges = [rows["tpot_ms"].min() / 1.7, rows["tpot_ms"].max() * 1.1]  # a name stands to the left
    across = alt.Scale(type="log", nice=False, domain=edges)
    up = alt.Scale(type="log", nice=False, padding=20)
    base = alt.Chart(rows).encode(
        x=alt.X("tpot_ms:Q", title="ms for a decode step", scale=across),
        y=alt.Y("mg:Q", title="mg CO2e per generated token", scale=up),
    )
    numbers = dict.fromkeys(("tpot_ms", "mg", "low", "high"), ".3g")
    dots = base.mark_point(filled=True, size=45, opacity=0.8)
    dots = dots.encode(tooltip=theme.tips("gpu", "batch", **numbers), **look)
    slowest = rows.loc[rows["on_front"], "tpot_ms"].max()
    test = f"width > 400 || datum.tpot_ms == {slowest}"  # a phone has no room for all names
    roomy = alt.condition(test, alt.value(1), alt.value(0))
    best = base.transform_filter("datum.on_front")
    line = best.mark_line(opacity=0.5, strokeWidth=1).encode(order="tpot_ms:Q")
    spans = best.mark_rule(opacity=0.5).encode(y="low:Q", y2="high:Q")
    words = best.transform_filter("isValid(datum.name)")
    words = words.mark_text(align="right", dx=-7, dy=9, fontSize=10)
    words = words.encode(text="name:N", opacity=roomy)
    return alt.layer(line, spans, dots, words).properties(width=theme.WIDTH, height=360)


def _spaced(rows: pd.DataFrame, ratio: float = 1.25) -> list:
    """Rows of the front whose times lie far enough apart for their names."""
    kept, last = [], 0.0
    for at, time in rows.loc[rows["on_front"], "tpot_ms"].sort_values().items():
        if time > last * ratio:
            kept, last = [*kept, at], time
    return kept


def carbon_ratios(rows: pd.DataFrame) -> alt.FacetChart:
    """A token's carbon on a GPU over that on the newer one, by batch and region.

    rows: gpu (a row of panels each), newer, model, batch, zone, evidence, median, low, high (90 %).
    """
    columns = ["gpu", "newer", "model", "batch", "zone", "median", "low", "high", "evidence"]
    rows = printed(rows, *columns).rename(columns={"zone": "region"})
    look, gpus = _by_region(), theme.in_order(rows["gpu"])
    base = alt.Chart(rows).encode(
        x=alt.X("batch:O", title="batch", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("region:N", sort=list(REGIONS.values())),
        color=look["color"],
    )
    title = f"{gpus[0] if len(gpus) == 1 else 'ratio'} over {rows['newer'].iloc[0]}"
    y = alt.Y("median:Q", title=title, scale=alt.Scale(type="log", base=2, nice=False, padding=10))
    numbers = dict.fromkeys(("median", "low", "high"), ".2f")
    marks = theme.interval(
        base,
        y,
        rule={"strokeWidth": 1.5, "opacity": 0.6},
        point={"size": 34, "opacity": 1},
        shape=look["shape"],
        tooltip=theme.tips("gpu", "region", "batch", "evidence", **numbers),
    )
    even = alt.Chart(rows).mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1))
    panels = theme.panels(column=rows["model"], **({"row": rows["gpu"]} if len(gpus) > 1 else {}))
    return (even + marks).properties(**theme.PANEL).facet(**panels)


def split(rows: pd.DataFrame) -> alt.LayerChart:
    """GPUs by what prefill and decode add to a token; those on the front are joined.

    rows: gpu, prefill_mg, decode_mg (each at its best batch), prefill_batch, decode_batch,
    on_front.
    """
    columns = ["gpu", "prefill_mg", "decode_mg", "prefill_batch", "decode_batch", "on_front"]
    rows = printed(rows, *columns)
    rows["lifted"] = _lifted(rows)
    look = _by_gpu(rows)
    scale = alt.Scale(type="log", nice=False, padding=44)  # room for the names
    base = alt.Chart(rows).encode(
        x=alt.X("prefill_mg:Q", title="mg CO2e of prefill per generated token", scale=scale),
        y=alt.Y("decode_mg:Q", title="mg CO2e of decode per generated token", scale=scale),
    )
    tips = theme.tips("gpu", "prefill_batch", "decode_batch", prefill_mg=".2g", decode_mg=".2g")
    dots = base.mark_point(filled=True, size=50, opacity=0.85).encode(tooltip=tips, **look)
    best = base.transform_filter("datum.on_front")
    ring = best.mark_point(size=150, strokeWidth=1).encode(tooltip=["gpu:N"])
    line = best.mark_line(opacity=0.5, strokeWidth=1).encode(order="prefill_mg:Q")
    roomy = alt.condition(f"width > 400 || datum.named != '{OTHERS}'", alt.value(1), alt.value(0))
    words = [
        base.transform_filter(which)
        .mark_text(align="left", dx=8, dy=dy, fontSize=9)
        .encode(text="gpu:N", opacity=roomy)
        for which, dy in (("datum.lifted", -8), ("!datum.lifted", 0))
    ]
    return alt.layer(line, ring, dots, *words).properties(width=theme.WIDTH, height=380)


def _lifted(rows: pd.DataFrame, right: float = 0.3, level: float = 0.08) -> list[bool]:
    """Whether a GPU is so close to the right of another that its name has to stand above."""
    at = np.log(rows[["prefill_mg", "decode_mg"]].to_numpy())
    across, up = np.moveaxis(at[:, None] - at[None, :], -1, 0)
    return ((across > 0) & (across < right) & (np.abs(up) < level)).any(axis=1).tolist()


def waiting(rows: pd.DataFrame) -> alt.HConcatChart:
    """What waiting saves, and how long work then waits, by the hours that it may wait.

    rows: slack_h, saving (a share), wait_h (the mean), series (who waits and what is known).
    """
    rows = printed(rows, "slack_h", "saving", "wait_h", "series")
    hues, dashes = (
        ("#3f7fb5", "#7a6fb0", "#2f9079", "#b87a10"),
        ([1, 0], [6, 2], [2, 2], [8, 3, 2, 3]),
    )
    styles = dict(zip(theme.in_order(rows["series"]), zip(hues, dashes, strict=True), strict=False))
    legend = alt.Legend(columns=2, symbolType="stroke", labelLimit=300)
    base = alt.Chart(rows).encode(
        x=alt.X("slack_h:Q", title="hours that it may wait"),
        tooltip=theme.tips("series", slack_h="d", saving=".1%", wait_h=".1f"),
        **_series("series", styles, legend=legend),
    )
    axes = (
        alt.Y("saving:Q", title="less carbon", axis=alt.Axis(format="%")),
        alt.Y("wait_h:Q", title="hours that it waits, mean"),
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=22))
    panels = [line.encode(y=y).properties(width=(theme.WIDTH - 70) // 2, height=230) for y in axes]
    return alt.hconcat(*panels, spacing=24)


def plans(rows: pd.DataFrame) -> alt.LayerChart:
    """Tonnes a day of each plan, operational and embodied, with the 90 % interval of the sum.

    rows: plan, part (operational or embodied), tonnes, low and high (of the plan's sum).
    """
    rows = printed(rows, "plan", "part", "tonnes", "low", "high")
    order, axis = theme.in_order(rows["plan"]), alt.Axis(labelLimit=260)
    y = alt.Y("plan:N", title=None, sort=order, axis=axis)
    base = alt.Chart(rows).encode(y=y)
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
        tooltip=theme.tips("plan", low=".3g", high=".3g"),
    )
    return (bars + spans).properties(width=theme.WIDTH - 200, height=alt.Step(34))
