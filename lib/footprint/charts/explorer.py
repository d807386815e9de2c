"""The explorer: one figure that computes in the browser what `carbon.token` computes here, at the reader's settings.

Its expressions are Vega's and run once a change for every state of the world, so that each bar has its interval and each GPU
the probability that it is the best. A page cannot sample as the library does, so each point carries how its time and energy
move with the GPU's two errors, to first order in logarithms: seconds x exp(time z_time), joules x exp(shared z_time +
power z_power), each with a slope below (`_low`) and one above its middle (`_high`).
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
    "!isValid(datum.token_J) ? 'does not fit' : !isValid(world[datum.gpu][approach][0]) ? 'no value by ' + approach"
    " : datum.ttft_s > ttft ? 'first token too late' : datum.tpot_s > tpot ? 'next tokens too late' : ''"
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


POINT = {  # a GPU in one state of the world, at the settings: mg a token = slope x g/kWh + making, as `carbon.token` has it
    "seconds": f"datum.token_s * exp({_moved('time', 'z_time')})",
    "joules": f"datum.token_J * exp({_moved('shared', 'z_time')} + {_moved('power', 'z_power')})"
    " + datum.seconds * (host + datum.idle_W * (1 / utilisation - 1))",
    "slope": f"datum.joules * pue * {1e3 * carbon.operational(1.0, 1.0):.8g}",
    "making": "(datum.kg + host_kg) * datum.seconds / (utilisation * lifetime)"
    f" * {1e3 * carbon.amortised(1.0, 1.0, 1.0):.8g}",
    "operational": "datum.slope * datum.g_per_kwh",
}


def figure(points: pd.DataFrame, world: xr.Dataset, grids: pd.DataFrame) -> alt.VConcatChart:
    """Controls, the answer in words, all GPUs ranked, and two of them against the grid's intensity.

    points: a row a model, engine, batch and GPU that fits: token_s, token_J, ttft_s, tpot_s, idle_W and the slopes. world:
    time_error, power_error, embodied_kg and `year`, the place of each sample's year. grids: name and g/kWh by year, by zone.
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
    """Errors and embodied carbon of a GPU, sample by sample, to three digits; None where a method has no value."""
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
    """A table of the figure, by name, its columns but for the names being numbers."""
    numbers = dict.fromkeys(columns, "number")
    return alt.NamedData(name, format=alt.CsvDataFormat(type="csv", parse=numbers))


def _controls(points: pd.DataFrame, gpus: list[str], zones: dict[str, str]) -> list[alt.Parameter]:
    """The controls, in the order in which they are reached."""
    models, engines, batches = (
        list(dict.fromkeys(points[name])) for name in ("model", "engine", "batch")
    )
    methods = [name for name, method in carbon.METHODS.items() if method.compared]
    within = {name: [ANY, *seconds] for name, seconds in LIMITS.items()}
    said = {
        name: ["any time", *(f"{s:g} s" if s >= 1 else f"{1e3 * s:g} ms" for s in seconds)]
        for name, seconds in LIMITS.items()
    }
    labels = [spec.label(gpu) for gpu in gpus]
    choose = {
        "model": ("Model", models, [spec.label(name) for name in models]),
        "batch": ("Batch", sorted(batches), None),
        "engine": ("Engine", engines, None),
        "region": ("Grid", [*zones, "own"], [*zones.values(), "your own (below)"]),
        "approach": ("Embodied by", methods, None),
        "ttft": ("First token within", within["ttft"], said["ttft"]),
        "tpot": ("Each next within", within["tpot"], said["tpot"]),
        "first": ("Compare", gpus, labels),
        "second": ("with", gpus, labels),
    }
    bound = {
        name: alt.binding_select(
            name=title, options=options, **({"labels": words} if words else {})
        )
        for name, (title, options, words) in choose.items()
    }
    for name, (title, least, most, step) in SLIDERS.items():
        bound[name] = alt.binding_range(min=least, max=most, step=step, name=title)
    return [alt.param(name=name, value=ITS[name], bind=bind) for name, bind in bound.items()]


def _worlds(points: pd.DataFrame, pair: bool = False) -> alt.Chart:
    """Every GPU (or the two that are compared, where they serve) in every state of the world, with what `POINT` says."""
    base = alt.Chart(_read("cards", []))
    if pair:
        base = base.transform_filter("datum.gpu == first || datum.gpu == second")
    fields = [name for name in points if name != "key"]
    found = alt.LookupData(_read("points", fields), key="key", fields=fields)
    base = base.transform_calculate(key="model + '|' + engine + '|' + batch + '|' + datum.gpu")
    base = base.transform_lookup(lookup="key", from_=found).transform_calculate(why=WHY)
    if pair:
        base = base.transform_filter("!datum.why")
    base = base.transform_calculate(**DRAWN).transform_flatten(list(DRAWN))
    for name, text in POINT.items():
        base = base.transform_calculate(**{name: text})
    return base


def _ends(base: alt.Chart, of: str, groupby: list[str], count: int) -> alt.Chart:
    """`low` and `high` of a quantity in one of the rows of each group, null in the others: its 5th and 95th percentile."""
    order = [alt.SortField(of)]
    base = base.transform_window(
        place="row_number()", sort=order, groupby=groupby, frame=[None, None]
    )
    at = {name: max(1, round(share * count)) for name, share in (("low", 0.05), ("high", 0.95))}
    return base.transform_calculate(
        **{name: f"datum.place == {place} ? datum.{of} : null" for name, place in at.items()}
    )


def _ranking(points: pd.DataFrame, count: int) -> alt.LayerChart:
    """All GPUs, least carbon first: both parts, the interval, and how often the GPU is the best of all."""
    base = _worlds(points).transform_calculate(
        whole="datum.why ? null : datum.operational + datum.making"
    )
    base = base.transform_calculate(order="datum.why ? 1e30 : datum.whole")
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
        said="datum.why ? datum.why : datum.best > 0 ? 'best in ' + format(100 * datum.best, '.0f') + ' %' : ''",
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
    parts = theme.DOMAINS["part"]
    scale = alt.Scale(domain=parts, range=[theme.COLOURS[name] for name in parts])

    def bar(part: str, start: str, end: str) -> alt.Chart:
        colour = alt.Color(f"{part}:N", scale=scale, title=None)
        mark = base.mark_bar(opacity=0.85, height=11)
        return mark.encode(x=alt.X(f"{start}:Q", **x), x2=f"{end}:Q", color=colour)

    reach = base.mark_rule(strokeWidth=1.4).encode(x=alt.X("low:Q", **x), x2="high:Q")
    words = base.mark_text(align="left", dx=6, fontSize=10)
    words = words.encode(x=alt.X("edge:Q", **x), text="said:N")
    bars = bar("first_part", "zero", "operational") + bar("second_part", "operational", "whole")
    return (bars + reach + words).properties(width=PLOT, height=alt.Step(18))


def _pair(points: pd.DataFrame, count: int) -> alt.LayerChart:
    """Two GPUs against the intensity of the grid, where they tie, and the grid that is set."""
    both = _worlds(points, pair=True).transform_calculate(g=str(INTENSITIES))
    both = both.transform_flatten(["g"])
    both = both.transform_calculate(mg="datum.slope * datum.g + datum.making")
    both = _ends(both, "mg", ["gpu", "g"], count)
    both = both.transform_aggregate(
        groupby=["gpu", "g"], low="max(low)", high="max(high)", mean="mean(mg)"
    )
    both = both.transform_calculate(which="datum.gpu == first ? 'this' : 'that'")
    log = alt.Scale(type="log", nice=False)
    x = alt.X(
        "g:Q", title="g CO2e per kWh", scale=alt.Scale(type="log", nice=False, domain=[1, 1000])
    )
    x = x.axis(values=[1, 10, 100, 1000])
    y = {"title": "mg a token", "scale": log, "axis": alt.Axis(tickCount=4, format="~g")}
    said = "datum.label == 'this' ? card[first] : card[second]"
    names = alt.Legend(title=None, symbolType="stroke", labelExpr=said)
    domain = ["this", "that"]
    hues = alt.Scale(domain=domain, range=[theme.COLOURS["t4"], theme.COLOURS["rtx-6000-ada"]])
    hue = alt.Color("which:N", legend=names, scale=hues)
    dashes = alt.Scale(domain=domain, range=[[1, 0], [6, 3]])
    band = both.mark_area(opacity=0.18, interpolate="monotone")
    band = band.encode(x=x, y=alt.Y("low:Q", **y), y2="high:Q", color=hue)
    line = both.mark_line(interpolate="monotone").encode(
        x=x,
        y=alt.Y("mean:Q", **y),
        color=hue,
        strokeDash=alt.StrokeDash("which:N", legend=names, scale=dashes),
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
    """One row a state of the world: the intensity at which both GPUs emit the same, or null, and whether the first wins."""
    base = _worlds(points, pair=True).transform_calculate(whole="datum.operational + datum.making")
    names = [
        (which, name) for which in ("first", "second") for name in ("slope", "making", "whole")
    ]
    base = base.transform_calculate(
        **{
            f"{which}_{name}": f"datum.gpu == {which} ? datum.{name} : null"
            for which, name in names
        }
    )
    base = base.transform_aggregate(
        groupby=["draw"],
        g_per_kwh="mean(g_per_kwh)",
        **{f"{which}_{name}": f"max({which}_{name})" for which, name in names},
    )
    base = base.transform_calculate(
        both="isValid(datum.first_whole) && isValid(datum.second_whole)",
        over="(datum.second_making - datum.first_making) / (datum.first_slope - datum.second_slope)",
    )
    return base.transform_calculate(
        tie="datum.both && datum.over > 0 ? datum.over : null",
        wins="!datum.both ? null : datum.first_whole < datum.second_whole ? 1 : 0",
    )


def _answer(points: pd.DataFrame) -> alt.Chart:
    """The pair's answer in words."""
    row = _ties(points).transform_aggregate(
        wins="mean(wins)", ties="valid(tie)", count="valid(wins)", tie="median(tie)"
    )
    won, tied = (
        f"format(100 * datum.{share}, '.0f') + ' %'" for share in ("wins", "ties / datum.count")
    )
    row = row.transform_calculate(
        said="first == second ? 'Choose two different cards.' : !datum.count ? 'One of the two has no value here.' : "
        f"card[first] + ' emits less than ' + card[second] + ' in ' + {won} + ' of the draws.'",
        then="first == second || !datum.count ? '' : !datum.ties ? 'No grid turns that.' : 'They tie at ' + "
        f"format(datum.tie, '.2~r') + ' g/kWh (median; ' + {tied} + ' of the draws have a tie).'",
    )
    base = row.mark_text(align="left", baseline="top", fontSize=13).encode(x=alt.value(WORDS))
    lines = [
        base.encode(y=alt.value(at), text=f"{name}:N") for name, at in (("said", 0), ("then", 19))
    ]
    return alt.layer(*lines).properties(width=PLOT, height=34)
