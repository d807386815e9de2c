"""The explorer: one figure that computes in the browser what `totals.per_token` computes here, at the reader's settings.

Its data are the tables of `explore`; its expressions are Vega's and run once a change for every state of the world, so that
each bar has its interval and each card the probability that it is the best.
"""

import altair as alt
import numpy as np
import pandas as pd

from footprint.carbon import totals
from footprint.carbon.equation import J_PER_KWH
from footprint.carbon.uncertainty import YEAR_S
from footprint.charts import explore, theme
from footprint.charts.carbon import REGIONS
from footprint.decide import compare as decide
from footprint.energy import findings

LIMITS = {"ttft": (0.2, 0.5, 1, 2, 5, 10), "tpot": (0.02, 0.05, 0.1, 0.2, 0.5)}  # s
ANY = 1e9  # a limit that none misses
INTENSITIES = [float(f"{value:.3g}") for value in np.geomspace(1, 1000, 9)]
PLOT, WORDS = 520, -120  # pixels: width of a plot, and where the words begin from its left
ITS = {
    "model": "llama-7b",
    "engine": "serving",
    "batch": 8,
    "region": totals.ZONES[0],
    "approach": totals.MAIN,
    "ttft": ANY,
    "tpot": ANY,
    "first": "t4",
    "second": "rtx-6000-ada",
    "lifetime": totals.YEARS,
    "utilisation": 0.5,
    "pue": 1.0,
    "own": 100,
    "host": 0,
    "host_kg": 0,
}


def _off(slope: str, error: str) -> str:
    """An error in logarithms, with the slope of its own side."""
    return f"datum.{error} * (datum.{error} < 0 ? datum.{slope}_low : datum.{slope}_high)"


WHY = (  # a card has no bar
    "!isValid(datum.energy_J) ? 'does not fit' : !isValid(world[datum.gpu][approach][0]) ? 'no value by ' + approach"
    " : datum.ttft_s > ttft ? 'first token too late' : datum.tpot_s > tpot ? 'next tokens too late' : ''"
)
DRAWN = {
    "z_time": "world[datum.gpu].z_time",
    "z_power": "world[datum.gpu].z_power",
    "kg": "world[datum.gpu][approach]",
    "g_per_kwh": "intensity",
    "draw": "draws",
}
POINT = {  # a card in one state of the world, at the settings: mg a token = slope x g/kWh + making
    "seconds": f"datum.busy_s * exp({_off('time', 'z_time')})",
    "slope": f"(datum.energy_J * exp({_off('shared', 'z_time')} + {_off('power', 'z_power')})"
    f" + datum.seconds * (host + datum.idle_W * (1 / utilisation - 1))) * pue * {1e3 / J_PER_KWH:.8g}",
    "making": f"(datum.kg + host_kg) * datum.seconds / (utilisation * lifetime) * {1e6 / YEAR_S:.8g}",
    "operational": "datum.slope * datum.g_per_kwh",
}


def figure(points: pd.DataFrame, worlds: pd.DataFrame, grids: pd.DataFrame) -> alt.VConcatChart:
    """Controls, the answer in words, all cards ranked, and two of them against the grid's intensity.

    points, worlds, grids: from `explore`.
    """
    cards = list(dict.fromkeys(worlds["gpu"]))
    keyed = explore.keyed(points)
    labels = {name: findings.label(name) for name in cards}
    one = worlds[worlds["gpu"] == cards[0]]
    carried = {
        "card": labels,
        "grid": dict(zip(grids.index, grids.drop(columns="name").values.tolist(), strict=True)),
        "world": explore.by_card(worlds),
        "draws": one["draw"].tolist(),
    }
    sets = [alt.param(name=name, value=value) for name, value in carried.items()]
    sets += _controls(
        list(dict.fromkeys(points["model"])), labels, grids["name"].to_dict() | REGIONS
    )
    at = {place: f"grid[region][{place}]" for place in range(len(totals.YEARS_KNOWN))}
    in_year = "[" + ", ".join(at[place] for place in one["year"]) + "]"
    sets.append(
        alt.param(
            name="intensity",
            expr=f"region == 'own' ? [{', '.join(['own'] * len(one))}] : {in_year}",
        )
    )
    chart = alt.vconcat(
        _answer(keyed), _ranking(keyed, len(one)), _pair(keyed, len(one)), spacing=18
    ).add_params(*sets)
    chart.datasets = {
        "cards": explore.csv(pd.DataFrame({"gpu": cards})),
        "points": explore.csv(keyed),
    }
    return chart.resolve_scale(color="independent", strokeDash="independent")


def _read(name: str, columns) -> alt.NamedData:
    """A table of the figure, by name, its columns but for the names being numbers."""
    return alt.NamedData(
        name, format=alt.CsvDataFormat(type="csv", parse=dict.fromkeys(columns, "number"))
    )


def _controls(
    models: list[str], cards: dict[str, str], zones: dict[str, str]
) -> list[alt.Parameter]:
    """The controls, in the order in which they are reached."""
    within = {name: [ANY, *seconds] for name, seconds in LIMITS.items()}
    said = {
        name: ["any time", *(f"{s:g} s" if s >= 1 else f"{1e3 * s:g} ms" for s in found[1:])]
        for name, found in within.items()
    }
    choose = {
        "model": ("Model", models, [findings.label(name) for name in models]),
        "batch": ("Batch", list(decide.BATCHES), None),
        "engine": ("Engine", list(explore.ENGINES), None),
        "region": ("Grid", [*zones, "own"], [*zones.values(), "your own (below)"]),
        "approach": ("Embodied by", list(totals.APPROACHES), None),
        "ttft": ("First token within", within["ttft"], said["ttft"]),
        "tpot": ("Each next within", within["tpot"], said["tpot"]),
        "first": ("Compare", list(cards), list(cards.values())),
        "second": ("with", list(cards), list(cards.values())),
    }
    slide = {
        "lifetime": ("Lifetime (years)", 1, 10, 0.5),
        "utilisation": ("Utilisation", 0.05, 1, 0.05),
        "pue": ("PUE", 1, 2, 0.05),
        "own": ("Your grid (g/kWh)", 1, 1000, 1),
        "host": ("Host, W for each card", 0, 500, 10),
        "host_kg": ("Its making, kg", 0, 500, 1),
    }
    bound = {
        name: alt.binding_select(
            options=options, name=title, **({"labels": labels} if labels else {})
        )
        for name, (title, options, labels) in choose.items()
    }
    bound |= {
        name: alt.binding_range(min=low, max=high, step=step, name=title)
        for name, (title, low, high, step) in slide.items()
    }
    return [alt.param(name=name, value=ITS[name], bind=bind) for name, bind in bound.items()]


def _worlds(points: pd.DataFrame, pair: bool = False) -> alt.Chart:
    """Every card (or the two that are compared, where they serve) in every state of the world, with what `POINT` says."""
    base = alt.Chart(_read("cards", []))
    if pair:
        base = base.transform_filter("datum.gpu == first || datum.gpu == second")
    fields = [name for name in points if name != "key"]
    base = base.transform_calculate(key="model + '|' + engine + '|' + batch + '|' + datum.gpu")
    base = base.transform_lookup(
        lookup="key", from_=alt.LookupData(_read("points", fields), key="key", fields=fields)
    )
    base = base.transform_calculate(why=WHY)
    if pair:
        base = base.transform_filter("!datum.why")
    base = base.transform_calculate(**DRAWN).transform_flatten(list(DRAWN))
    for name, text in POINT.items():
        base = base.transform_calculate(**{name: text})
    return base


def _ends(base: alt.Chart, of: str, groupby: list[str], count: int) -> alt.Chart:
    """`low` and `high` of a quantity in one of the rows of each group, null in the others: its 5th and 95th percentile."""
    base = base.transform_window(
        place="row_number()", sort=[alt.SortField(of)], groupby=groupby, frame=[None, None]
    )
    at = {name: max(1, round(share * count)) for name, share in (("low", 0.05), ("high", 0.95))}
    return base.transform_calculate(
        **{name: f"datum.place == {place} ? datum.{of} : null" for name, place in at.items()}
    )


def _ranking(points: pd.DataFrame, count: int) -> alt.LayerChart:
    """All cards, least carbon first: both parts, the interval, and how often the card is the best of all."""
    base = _worlds(points).transform_calculate(
        whole="datum.why ? null : datum.operational + datum.making"
    )
    base = base.transform_calculate(order="datum.why ? 1e30 : datum.whole")
    base = base.transform_joinaggregate(least="min(order)", groupby=["draw"])
    base = _ends(base, "whole", ["gpu"], count).transform_calculate(
        best="datum.order == datum.least && !datum.why ? 1 : 0"
    )
    base = base.transform_aggregate(
        groupby=["gpu", "why"],
        low="max(low)",
        high="max(high)",
        **{name: f"mean({name})" for name in ("best", "order", "making", "operational", "whole")},
    )
    base = base.transform_calculate(
        name="card[datum.gpu]",
        zero="0",
        edge="datum.why ? 0 : datum.high",
        first_part="'operational'",
        second_part="'embodied'",
        said="datum.why ? datum.why : datum.best > 0 ? 'best in ' + format(100 * datum.best, '.0f') + ' %' : ''",
    )
    bold = {
        "condition": {
            "test": "datum.label == card[first] || datum.label == card[second]",
            "value": "bold",
        },
        "value": "normal",
    }
    x = {
        "title": "mg CO2e for a generated token: mean, and 90 % interval",
        "axis": alt.Axis(tickCount=6),
    }
    tips = [
        alt.Tooltip(f"{name}:Q", format=".3g")
        for name in ("whole", "low", "high", "operational", "making")
    ]
    base = base.encode(
        y=alt.Y(
            "name:N",
            title=None,
            sort=alt.EncodingSortField("order", op="min"),
            axis=alt.Axis(labelFontWeight=bold),
        ),
        tooltip=["name:N", *tips, alt.Tooltip("best:Q", format=".0%")],
    )
    scale = alt.Scale(
        domain=theme.DOMAINS["part"], range=[theme.COLOURS[name] for name in theme.DOMAINS["part"]]
    )

    def bar(part: str, start: str, end: str) -> alt.Chart:
        colour = alt.Color(f"{part}:N", scale=scale, title=None)
        return base.mark_bar(opacity=0.85, height=11).encode(
            x=alt.X(f"{start}:Q", **x), x2=f"{end}:Q", color=colour
        )

    reach = base.mark_rule(strokeWidth=1.4).encode(x=alt.X("low:Q", **x), x2="high:Q")
    words = base.mark_text(align="left", dx=6, fontSize=10).encode(
        x=alt.X("edge:Q", **x), text="said:N"
    )
    bars = bar("first_part", "zero", "operational") + bar("second_part", "operational", "whole")
    return (bars + reach + words).properties(width=PLOT, height=alt.Step(18))


def _pair(points: pd.DataFrame, count: int) -> alt.LayerChart:
    """Two cards against the intensity of the grid, where they tie, and the grid that is set."""
    both = _worlds(points, pair=True).transform_calculate(g=str(INTENSITIES))
    both = both.transform_flatten(["g"]).transform_calculate(
        mg="datum.slope * datum.g + datum.making"
    )
    both = _ends(both, "mg", ["gpu", "g"], count)
    both = both.transform_aggregate(
        groupby=["gpu", "g"], low="max(low)", high="max(high)", mean="mean(mg)"
    )
    both = both.transform_calculate(which="datum.gpu == first ? 'this' : 'that'")
    x = alt.X(
        "g:Q",
        title="g CO2e per kWh",
        scale=alt.Scale(type="log", nice=False, domain=[1, 1000]),
        axis=alt.Axis(values=[1, 10, 100, 1000]),
    )
    y = {
        "title": "mg a token",
        "scale": alt.Scale(type="log", nice=False),
        "axis": alt.Axis(tickCount=4, format="~g"),
    }
    names = alt.Legend(
        title=None,
        symbolType="stroke",
        labelExpr="datum.label == 'this' ? card[first] : card[second]",
    )
    domain = ["this", "that"]
    hues = alt.Scale(domain=domain, range=[theme.COLOURS["t4"], theme.COLOURS["rtx-6000-ada"]])
    hue = alt.Color("which:N", legend=names, scale=hues)
    dashes = alt.StrokeDash(
        "which:N", legend=names, scale=alt.Scale(domain=domain, range=[[1, 0], [6, 3]])
    )
    band = both.mark_area(opacity=0.18, interpolate="monotone").encode(
        x=x, y=alt.Y("low:Q", **y), y2="high:Q", color=hue
    )
    line = both.mark_line(interpolate="monotone").encode(
        x=x, y=alt.Y("mean:Q", **y), color=hue, strokeDash=dashes
    )
    ties = _ties(points).transform_filter("isValid(datum.tie)")
    ties = ties.transform_quantile("tie", probs=[0.05, 0.5, 0.95], as_=["share", "g"])
    ties = ties.transform_filter("datum.g >= 1 && datum.g <= 1000")
    dash = alt.condition("datum.share == 0.5", alt.value([1, 0]), alt.value([2, 3]))
    tied = ties.mark_rule(opacity=0.7).encode(x=x, strokeDash=dash)
    here = (
        _ties(points)
        .transform_aggregate(g="mean(g_per_kwh)")
        .mark_point(shape="triangle-down", filled=True, size=60, opacity=1)
    )
    return (band + line + tied + here.encode(x=x, y=alt.value(-4))).properties(
        width=PLOT, height=200
    )


def _ties(points: pd.DataFrame) -> alt.Chart:
    """One row a state of the world: the intensity at which both cards emit the same, or null, and whether the first wins."""
    base = _worlds(points, pair=True).transform_calculate(whole="datum.operational + datum.making")
    for which in ("first", "second"):
        kept = {
            f"{which}_{name}": f"datum.gpu == {which} ? datum.{name} : null"
            for name in ("slope", "making", "whole")
        }
        base = base.transform_calculate(**kept)
    sums = {
        f"{which}_{name}": f"max({which}_{name})"
        for which in ("first", "second")
        for name in ("slope", "making", "whole")
    }
    base = base.transform_aggregate(groupby=["draw"], g_per_kwh="mean(g_per_kwh)", **sums)
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
    percent = {
        name: f"format(100 * datum.{text}, '.0f') + ' %'"
        for name, text in (("w", "wins"), ("t", "ties / datum.count"))
    }
    row = row.transform_calculate(
        said="first == second ? 'Choose two different cards.' : !datum.count ? 'One of the two has no value here.' : "
        f"card[first] + ' emits less than ' + card[second] + ' in ' + {percent['w']} + ' of the draws.'",
        then="first == second || !datum.count ? '' : !datum.ties ? 'No grid turns that.' : 'They tie at ' + "
        f"format(datum.tie, '.2~r') + ' g/kWh (median; ' + {percent['t']} + ' of the draws have a tie).'",
    )
    base = row.mark_text(align="left", baseline="top", fontSize=13).encode(x=alt.value(WORDS))
    first, then = (
        base.encode(y=alt.value(at), text=f"{name}:N") for name, at in (("said", 0), ("then", 19))
    )
    return (first + then).properties(width=PLOT, height=34)
