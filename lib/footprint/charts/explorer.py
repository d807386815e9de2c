"""The explorer: a figure that computes `carbon.token` in the browser, at the reader's settings.

Its Vega expressions run for every sample of the world, so each bar has its interval and each GPU
the probability that it is the best. Each point carries how its time and energy move with the two
errors of its GPU, to first order in logarithms: seconds x exp(time z_time), joules x exp(shared
z_time + power z_power), each with a slope below (`_low`) and above (`_high`) its median.
"""

import re

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, spec
from footprint.charts import theme

SLOPES = ("time", "shared", "power")
LIMITS = {"ttft": (0.2, 0.5, 1, 2, 5, 10), "tpot": (0.02, 0.05, 0.1, 0.2, 0.5)}  # s
ANY = 1e9  # a limit that none misses
INTENSITIES = [float(f"{value:.3g}") for value in np.geomspace(1, 1000, 9)]
PLOT, WORDS = 520, -120  # pixels: width of a plot, and where the words begin from its left
ITS = {  # what the figure opens with; the names are those of the page's address
    "model": "llama-7b",
    "engine": "serving",
    "batch": 8,
    "region": "CA-QC",
    "approach": carbon.MAIN,
    "ttft": ANY,
    "tpot": ANY,
    "first": "t4",
    "second": "rtx-6000-ada",
    "lifetime": 5.0,
    "utilisation": 0.5,
    "pue": 1.0,
    "own": 100,
    "host": 0,
    "host_kg": 0,
}
SLIDERS = {  # name -> (title, least, most, step)
    "lifetime": ("Lifetime (years)", 1, 10, 0.5),
    "utilisation": ("Utilisation", 0.05, 1, 0.05),
    "pue": ("PUE", 1, 2, 0.05),
    "own": ("Your grid (g/kWh)", 1, 1000, 1),
    "host": ("Host, W for each card", 0, 500, 10),
    "host_kg": ("Its making, kg", 0, 500, 1),
}
WHY = (  # a GPU has no bar
    "!isValid(datum.token_J) ? 'does not fit'"
    " : !isValid(world[datum.gpu][approach][0]) ? 'no value by ' + approach"
    " : datum.ttft_s > ttft ? 'first token too late'"
    " : datum.tpot_s > tpot ? 'next tokens too late' : ''"
)
DRAWN = {
    "z_time": "world[datum.gpu].z_time",
    "z_power": "world[datum.gpu].z_power",
    "kg": "world[datum.gpu][approach]",
    "g_per_kwh": "intensity",
    "draw": "draws",
}


def _moved(slope: str, error: str) -> str:
    """An error in logarithms, with the slope of its own side."""
    return f"datum.{error} * (datum.{error} < 0 ? datum.{slope}_low : datum.{slope}_high)"


POINT = {  # a GPU in one sample, at the settings: mg a token = slope x g/kWh + making
    "seconds": f"datum.token_s * exp({_moved('time', 'z_time')})",
    "joules": f"datum.token_J * exp({_moved('shared', 'z_time')} + {_moved('power', 'z_power')})"
    " + datum.seconds * (host + datum.idle_W * (1 / utilisation - 1))",
    "slope": f"datum.joules * pue * {1e3 * carbon.operational(1.0, 1.0):.8g}",
    "making": "(datum.kg + host_kg) * datum.seconds / (utilisation * lifetime)"
    f" * {1e3 * carbon.amortised(1.0, 1.0, 1.0):.8g}",
    "operational": "datum.slope * datum.g_per_kwh",
}


def figure(points: pd.DataFrame, world: xr.Dataset, grids: pd.DataFrame) -> alt.VConcatChart:
    """Controls, the answer in words, all GPUs ranked, and two of them by grid intensity.

    points: a row a model, engine, batch and GPU that fits, with token_s, token_J, ttft_s, tpot_s,
    idle_W and the slopes. world: time_error, power_error, embodied_kg, and `year`, the place of
    each sample's year. grids: the name and the g/kWh by year of each zone.
    """
    gpus, count = world["gpu"].values.tolist(), world.sizes["sample"]
    names = ["model", "engine", "batch", "gpu"]
    slopes = {f"{name}{end}": 3 for name in SLOPES for end in ("_low", "_high")}
    keyed = points.round(slopes).assign(key=points[names].astype(str).agg("|".join, axis=1))
    keyed = keyed.drop(columns=names)
    carried = {
        "card": {gpu: spec.label(gpu) for gpu in gpus},
        "grid": dict(zip(grids.index, grids.drop(columns="name").values.tolist(), strict=True)),
        "world": {gpu: _samples(world.sel(gpu=gpu)) for gpu in gpus},
        "draws": list(range(count)),
    }
    sets = [alt.param(name=name, value=value) for name, value in carried.items()]
    sets += _controls(points, gpus, grids["name"].to_dict())
    years = ", ".join(f"grid[region][{place}]" for place in world["year"].values)
    own = f"region == 'own' ? [{', '.join(['own'] * count)}] : [{years}]"
    sets.append(alt.param(name="intensity", expr=own))
    views = [_answer(keyed), _ranking(keyed, count), _pair(keyed, count)]
    chart = alt.vconcat(*views, spacing=18).add_params(*sets)
    chart.datasets = {"cards": _csv(pd.DataFrame({"gpu": gpus})), "points": _csv(keyed)}
    return chart.resolve_scale(color="independent", strokeDash="independent")


def _samples(world: xr.Dataset) -> dict[str, list[float | None]]:
    """Samples of a GPU's errors and embodied carbon, to three digits; None where unknown."""
    columns = {"z_time": world["time_error"], "z_power": world["power_error"]}
    columns |= {str(each["embodied_method"].item()): each for each in world["embodied_kg"]}
    return {
        name: [None if np.isnan(value) else float(f"{value:.3g}") for value in values.values]
        for name, values in columns.items()
    }


def _csv(table: pd.DataFrame) -> str:
    """A table as text, with four significant digits and no zero before a point."""
    text = table.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    return re.sub(r"(?<=,)0\.", ".", text)


def _read(name: str, columns) -> alt.NamedData:
    """A table of the figure by name, with these columns as numbers."""
    numbers = dict.fromkeys(columns, "number")
    return alt.NamedData(name, format=alt.CsvDataFormat(type="csv", parse=numbers))


def _controls(points: pd.DataFrame, gpus: list[str], zones: dict[str, str]) -> list[alt.Parameter]:
    """The controls, in the order in which they are reached."""
    models = theme.in_order(points["model"])
    methods = [name for name, method in carbon.METHODS.items() if method.compared]
    labels = {"labels": [spec.label(gpu) for gpu in gpus]}

    def within(name: str, limits: tuple[float, ...]) -> alt.BindRadioSelect:
        words = [f"{limit:g} s" if limit >= 1 else f"{1e3 * limit:g} ms" for limit in limits]
        return select(name=name, options=[ANY, *limits], labels=["any time", *words])

    select = alt.binding_select
    bound = {
        "model": select(name="Model", options=models, labels=[spec.label(name) for name in models]),
        "batch": select(name="Batch", options=sorted(theme.in_order(points["batch"]))),
        "engine": select(name="Engine", options=theme.in_order(points["engine"])),
        "region": select(
            name="Grid", options=[*zones, "own"], labels=[*zones.values(), "your own (below)"]
        ),
        "approach": select(name="Embodied by", options=methods),
        "ttft": within("First token within", LIMITS["ttft"]),
        "tpot": within("Each next within", LIMITS["tpot"]),
        "first": select(name="Compare", options=gpus, **labels),
        "second": select(name="with", options=gpus, **labels),
    }
    for name, (title, least, most, step) in SLIDERS.items():
        bound[name] = alt.binding_range(min=least, max=most, step=step, name=title)
    return [alt.param(name=name, value=ITS[name], bind=bind) for name, bind in bound.items()]


def _worlds(points: pd.DataFrame, pair: bool = False) -> alt.Chart:
    """Every GPU, or the compared `pair` where it serves, in every sample, with what POINT says."""
    base = alt.Chart(_read("cards", []))
    if pair:
        base = base.transform_filter("datum.gpu == first || datum.gpu == second")
    fields = [name for name in points if name != "key"]
    at = alt.LookupData(_read("points", fields), key="key", fields=fields)
    base = base.transform_calculate(key="model + '|' + engine + '|' + batch + '|' + datum.gpu")
    base = base.transform_lookup(lookup="key", from_=at).transform_calculate(why=WHY)
    if pair:
        base = base.transform_filter("!datum.why")
    base = base.transform_calculate(**DRAWN).transform_flatten(list(DRAWN))
    return base.transform_calculate(**POINT)


def _ends(base: alt.Chart, of: str, groupby: list[str], count: int) -> alt.Chart:
    """The 5th and 95th percentile of a quantity, `low` and `high` in one row of each group."""
    across = {"sort": [alt.SortField(of)], "groupby": groupby, "frame": [None, None]}
    base = base.transform_window(place="row_number()", **across)
    at = {name: max(1, round(share * count)) for name, share in (("low", 0.05), ("high", 0.95))}
    return base.transform_calculate(
        **{name: f"datum.place == {place} ? datum.{of} : null" for name, place in at.items()}
    )


def _ranking(points: pd.DataFrame, count: int) -> alt.LayerChart:
    """The 5th and 95th percentile of a quantity: `low` and `high` in one row of each group."""
    base = _worlds(points).transform_calculate(
        whole="datum.why ? null : datum.operational + datum.making",
        order="datum.why ? 1e30 : datum.whole",
    )
    base = base.transform_joinaggregate(least="min(order)", groupby=["draw"])
    base = _ends(base, "whole", ["gpu"], count).transform_calculate(
        best="datum.order == datum.least && !datum.why ? 1 : 0"
    )
    means = ("best", "order", "making", "operational", "whole")
    base = base.transform_aggregate(
        groupby=["gpu", "why"],
        low="max(low)",
        high="max(high)",
        **{name: f"mean({name})" for name in means},
    )
    base = base.transform_calculate(
        name="card[datum.gpu]",
        zero="0",
        edge="datum.why ? 0 : datum.high",
        first_part="'operational'",
        second_part="'embodied'",
        said="datum.why ? datum.why"
        " : datum.best > 0 ? 'best in ' + format(100 * datum.best, '.0f') + ' %' : ''",
    )
    chosen = "datum.label == card[first] || datum.label == card[second]"
    bold = {"condition": {"test": chosen, "value": "bold"}, "value": "normal"}
    title = "mg CO2e for a generated token: mean, and 90 % interval"
    x = {"title": title, "axis": alt.Axis(tickCount=6)}
    numbers = dict.fromkeys(("whole", "low", "high", "operational", "making"), ".3g")
    order = alt.EncodingSortField("order", op="min")
    base = base.encode(
        y=alt.Y("name:N", title=None, sort=order, axis=alt.Axis(labelFontWeight=bold)),
        tooltip=theme.tips("name", **numbers, best=".0%"),
    )
    ends = {"first_part": ("zero", "operational"), "second_part": ("operational", "whole")}
    bars = [
        base.mark_bar(opacity=0.85, height=11).encode(
            x=alt.X(f"{start}:Q", **x),
            x2=f"{end}:Q",
            color=theme.colour(part, values=theme.DOMAINS["part"]),
        )
        for part, (start, end) in ends.items()
    ]
    reach = base.mark_rule(strokeWidth=1.4).encode(x=alt.X("low:Q", **x), x2="high:Q")
    words = base.mark_text(align="left", dx=6, fontSize=10)
    words = words.encode(x=alt.X("edge:Q", **x), text="said:N")
    return alt.layer(*bars, reach, words).properties(width=PLOT, height=alt.Step(18))


def _pair(points: pd.DataFrame, count: int) -> alt.LayerChart:
    """Two GPUs against the intensity of the grid, where they tie, and the grid that is set."""
    both = _worlds(points, pair=True).transform_calculate(g=str(INTENSITIES))
    both = both.transform_flatten(["g"])
    both = both.transform_calculate(mg="datum.slope * datum.g + datum.making")
    both = _ends(both, "mg", ["gpu", "g"], count)
    summary = {"low": "max(low)", "high": "max(high)", "mean": "mean(mg)"}
    both = both.transform_aggregate(groupby=["gpu", "g"], **summary)
    both = both.transform_calculate(which="datum.gpu == first ? 'this' : 'that'")
    log = alt.Scale(type="log", nice=False)
    grid = alt.Scale(type="log", nice=False, domain=[1, 1000])
    x = alt.X("g:Q", title="g CO2e per kWh", scale=grid).axis(values=[1, 10, 100, 1000])
    y = {"title": "mg a token", "scale": log, "axis": alt.Axis(tickCount=4, format="~g")}
    said = "datum.label == 'this' ? card[first] : card[second]"
    names = alt.Legend(title=None, symbolType="stroke", labelExpr=said)
    hues = {"this": theme.COLOURS["t4"], "that": theme.COLOURS["rtx-6000-ada"]}
    hue = theme.styled(alt.Color, "which", hues, legend=names)
    dashes = {"this": [1, 0], "that": [6, 3]}
    band = both.mark_area(opacity=0.18, interpolate="monotone")
    band = band.encode(x=x, y=alt.Y("low:Q", **y), y2="high:Q", color=hue)
    line = both.mark_line(interpolate="monotone").encode(
        x=x,
        y=alt.Y("mean:Q", **y),
        color=hue,
        strokeDash=theme.styled(alt.StrokeDash, "which", dashes, legend=names),
    )
    ties = _ties(points).transform_filter("isValid(datum.tie)")
    ties = ties.transform_quantile("tie", probs=[0.05, 0.5, 0.95], as_=["share", "g"])
    ties = ties.transform_filter("datum.g >= 1 && datum.g <= 1000")
    dash = alt.condition("datum.share == 0.5", alt.value([1, 0]), alt.value([2, 3]))
    tied = ties.mark_rule(opacity=0.7).encode(x=x, strokeDash=dash)
    here = _ties(points).transform_aggregate(g="mean(g_per_kwh)")
    here = here.mark_point(shape="triangle-down", filled=True, size=60, opacity=1)
    views = band + line + tied + here.encode(x=x, y=alt.value(-4))
    return views.properties(width=PLOT, height=200)


def _ties(points: pd.DataFrame) -> alt.Chart:
    """A row a sample: the intensity at which both GPUs tie, and whether the first emits less."""
    base = _worlds(points, pair=True).transform_calculate(whole="datum.operational + datum.making")
    of = {
        f"{which}_{name}": f"datum.gpu == {which} ? datum.{name} : null"
        for which in ("first", "second")
        for name in ("slope", "making", "whole")
    }
    base = base.transform_calculate(**of).transform_aggregate(
        groupby=["draw"], g_per_kwh="mean(g_per_kwh)", **{name: f"max({name})" for name in of}
    )
    return base.transform_calculate(
        both="isValid(datum.first_whole) && isValid(datum.second_whole)",
        over="(datum.second_making - datum.first_making)"
        " / (datum.first_slope - datum.second_slope)",
        tie="datum.both && datum.over > 0 ? datum.over : null",
        wins="!datum.both ? null : datum.first_whole < datum.second_whole ? 1 : 0",
    )


def _answer(points: pd.DataFrame) -> alt.Chart:
    """The pair's answer in words."""
    row = _ties(points).transform_aggregate(
        wins="mean(wins)", ties="valid(tie)", count="valid(wins)", tie="median(tie)"
    )
    won = "format(100 * datum.wins, '.0f') + ' %'"
    tied = "format(100 * datum.ties / datum.count, '.0f') + ' %'"
    row = row.transform_calculate(
        said="first == second ? 'Choose two different cards.'"
        " : !datum.count ? 'One of the two has no value here.'"
        " : card[first] + ' emits less than ' + card[second]"
        f" + ' in ' + {won} + ' of the draws.'",
        then="first == second || !datum.count ? '' : !datum.ties ? 'No grid turns that.'"
        " : 'They tie at ' + format(datum.tie, '.2~r')"
        f" + ' g/kWh (median; ' + {tied} + ' of the draws have a tie).'",
    )
    base = row.mark_text(align="left", baseline="top", fontSize=13).encode(x=alt.value(WORDS))
    lines = [
        base.encode(y=alt.value(at), text=f"{name}:N") for name, at in (("said", 0), ("then", 19))
    ]
    return alt.layer(*lines).properties(width=PLOT, height=34)
