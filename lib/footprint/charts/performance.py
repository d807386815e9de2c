"""Figures of performance and energy, one function a figure: points in (see `findings.points`), an Altair chart out.

Colour is the card, a panel is a model or a phase, shape tells modelled from measured. Bands and bars are intervals.
"""

import sys

import altair as alt
import numpy as np
import pandas as pd

from footprint.carbon import totals
from footprint.charts import theme
from footprint.energy import findings

BATCH = alt.X(
    "batch:Q",
    title="batch size",
    scale=alt.Scale(type="log", base=2),
    axis=alt.Axis(values=[1, 2, 4, 8, 16, 32, 64]),
)
REGIONS = {"CA-QC": "Quebec", "US-CAL-CISO": "California", "US-NW-PACE": "PacifiCorp East"}
PANEL = {"width": 150, "height": 190}


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with printed names of models and cards beside the ids."""
    return table.assign(
        model_name=table["model"].map(findings.label),
        card=table["device"].map(findings.label),
        batch=table["batch"].astype(int),
    )


def _curves(
    rows: pd.DataFrame, quantity: str, title: str, facets: dict, format: str = ".3s"
) -> alt.FacetChart:
    """Curves against batch with their interval as a band, one colour a card, shape by kind."""
    columns = [
        "card",
        "device",
        "model_name",
        "phase",
        "batch",
        "kind",
        quantity,
        f"{quantity}_low",
        f"{quantity}_high",
    ]
    base = alt.Chart(
        rows[[*dict.fromkeys([*columns, *(f.shorthand.split(":")[0] for f in facets.values())])]]
    ).encode(x=BATCH, color=theme.colour("card"))
    scale, axis = alt.Scale(type="log", nice=False), alt.Axis(tickCount=4)
    y = alt.Y(f"{quantity}:Q", title=title, scale=scale, axis=axis)
    band = base.mark_area(opacity=0.16).encode(
        y=alt.Y(f"{quantity}_low:Q", title=title, scale=scale), y2=f"{quantity}_high:Q"
    )
    tips = [
        "card:N",
        "model_name:N",
        "batch:Q",
        alt.Tooltip(f"{quantity}:Q", format=format),
        "kind:N",
    ]
    line = base.mark_line().encode(y=y)
    dots = base.mark_point(size=34, filled=False).encode(
        y=y, shape=theme.shape("kind"), tooltip=tips
    )
    return (band + line + dots).properties(**PANEL).facet(**facets)


def _by_model() -> alt.Column:
    order = [findings.label(model) for model, _ in findings.PAIRS[::2]]
    return alt.Column("model_name:N", title=None, sort=order)


def _phase_rows(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    rows = _named(table[table["phase"].isin(["prefill", "decode"])])
    return rows.dropna(subset=[quantity])


def latency(table: pd.DataFrame, prompt: int) -> alt.FacetChart:
    """TTFT and TPOT of the pairs against batch: rows are phases, panels are models."""
    rows = _phase_rows(findings.at(table, prompt_tokens=prompt), "time_s")
    steps = np.where(rows["phase"] == "decode", rows["output_tokens"] - 1, 1)
    for end in ("", "_low", "_high"):
        rows[f"time_s{end}"] = rows[f"time_s{end}"] / steps
    rows["what"] = np.where(rows["phase"] == "decode", "TPOT: a decode step", "TTFT: a prefill")
    panels = {"row": alt.Row("what:N", title=None, sort="descending"), "column": _by_model()}
    return _curves(rows, "time_s", "seconds", panels).resolve_scale(y="independent")


def energy_per_token(table: pd.DataFrame, prompt: int) -> alt.FacetChart:
    """Energy a token of prefill (a prompt token) and decode (a generated token) against batch."""
    rows = _phase_rows(findings.at(table, prompt_tokens=prompt), "energy_per_token_J")
    rows["what"] = np.where(
        rows["phase"] == "decode", "decode: a new token", "prefill: a prompt token"
    )
    panels = {"row": alt.Row("what:N", title=None), "column": _by_model()}
    return _curves(rows, "energy_per_token_J", "joules a token", panels).resolve_scale(
        y="independent"
    )


def ratios(table: pd.DataFrame, prompt: int, title: str) -> alt.FacetChart:
    """How many times the T4 takes what the RTX 6000 Ada takes, with 90 % intervals; below 1 the older card wins."""
    rows = table[(table["prompt_tokens"] == prompt) & table["phase"].isin(["prefill", "decode"])]
    rows = rows.assign(
        model_name=rows["model"].map(findings.label), batch=rows["batch"].astype(int)
    )
    base = alt.Chart(rows).encode(x=BATCH, color=theme.colour("phase"))
    scale = alt.Scale(type="log", base=2)
    y = alt.Y("ratio:Q", title=title, scale=scale)
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.5).encode(
        y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"
    )
    tips = [
        "phase:N",
        "batch:Q",
        *(
            alt.Tooltip(f"{name}:Q", format=".2f")
            for name in ("ratio", "low", "high", "probability")
        ),
    ]
    dots = base.mark_point(filled=True, size=42).encode(
        y=y, shape=theme.shape("phase"), tooltip=tips
    )
    even = alt.Chart(rows).mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1))
    return (even + bars + dots).properties(**PANEL).facet(column=_by_model())


def memory(table: pd.DataFrame, cards: pd.DataFrame) -> alt.FacetChart:
    """Memory of each model against batch, with the two cards' memory as lines: above a line it does not fit."""
    rows = findings.at(table, phase="generate")
    used = rows["memory_B"].fillna(rows["peak_memory_B"]) / 2**30
    rows = _named(rows.assign(GiB=used, prompt=rows["prompt_tokens"].astype(str) + " tokens"))
    curves = (
        rows.groupby(["model_name", "batch", "prompt"], sort=False)["GiB"]
        .max()
        .reset_index()
        .assign(card="")
    )
    limit = dict(zip(cards["name"], cards["memory_GiB"].astype(float), strict=True))
    ends = pd.DataFrame(
        {"card": name, "limit": limit[name], "model_name": model}
        for name in theme.DOMAINS["card"]
        for model in curves["model_name"].unique()
    )
    data = pd.concat([curves, ends], ignore_index=True)
    scale = alt.Scale(type="log", base=2)
    y = alt.Y("GiB:Q", title="memory (GiB)", scale=scale)
    base = alt.Chart(data)
    line = base.mark_line(point=True).encode(
        x=BATCH,
        y=y,
        strokeDash=alt.StrokeDash("prompt:N", title="prompt"),
        tooltip=["batch:Q", "GiB:Q", "prompt:N"],
    )
    line = line.transform_filter("isValid(datum.GiB)")
    rule = base.mark_rule(strokeWidth=1.6).encode(
        y=alt.Y("limit:Q", scale=scale), color=theme.colour("card")
    )
    rule = rule.transform_filter("isValid(datum.limit)")
    return (rule + line).properties(**PANEL).facet(column=_by_model())


def cards(table: pd.DataFrame) -> alt.LayerChart:
    """Where the cards stand: memory bandwidth against peak fp16 rate, the paper's two named in colour."""
    size, limits = (
        {"width": 640, "height": 380},
        {"bandwidth_GBps": (250, 11000), "peak_fp16_tflops": (55, 1300)},
    )
    rows = table.assign(**{name: table[name].astype(float) for name in (*limits, "tdp_W")})
    rows["pair"] = rows["id"].where(rows["id"].isin(["t4", "rtx-6000-ada"]), "other")
    x, y = (
        alt.X(
            "bandwidth_GBps:Q",
            title="memory bandwidth (GB/s)",
            scale=alt.Scale(type="log", domain=limits["bandwidth_GBps"]),
        ),
        alt.Y(
            "peak_fp16_tflops:Q",
            title="peak fp16 rate (TFLOP/s)",
            axis=alt.Axis(tickCount=5),
            scale=alt.Scale(type="log", domain=limits["peak_fp16_tflops"]),
        ),
    )
    shown = rows[["name", "pair", "bandwidth_GBps", "peak_fp16_tflops", "tdp_W", "release_year"]]
    tips = ["name:N", "bandwidth_GBps:Q", "peak_fp16_tflops:Q", "tdp_W:Q", "release_year:N"]
    dots = (
        alt.Chart(shown)
        .mark_circle(opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=theme.colour("pair", legend=None),
            tooltip=tips,
            size=alt.Size(
                "tdp_W:Q", title="power cap (W)", legend=alt.Legend(values=[70, 300, 700])
            ),
        )
    )
    spots = [
        (np.log(rows[name]) - np.log(low)) / np.log(high / low) * size[side]
        for (name, (low, high)), side in zip(limits.items(), size, strict=True)
    ]
    shown = shown.assign(
        dy=_apart(spots[0].to_numpy(), spots[1].to_numpy(), rows["name"].to_numpy())
    )
    names = [
        alt.Chart(part)
        .mark_text(align="left", dx=11, dy=dy, fontSize=10)
        .encode(x=x, y=y, text="name:N", opacity=roomy("pair"))
        for dy, part in shown.groupby("dy")
    ]
    return alt.layer(dots, *names).properties(**size)


def roomy(field: str) -> alt.Opacity:
    """Opacity of names in a crowd: where a phone has no room for all of them, only the paper's two cards are named."""
    return alt.condition(
        f"width > 400 || !test(/other/, datum.{field})", alt.value(1), alt.value(0)
    )


def _apart(x: np.ndarray, y: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Vertical shift of each label, in pixels, so that no two labels to the right of their dots overlap."""
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


def headline(numbers: pd.DataFrame) -> alt.FacetChart:
    """Grams for a million tokens at the batch of least carbon, from `totals.headline`; the line is the total's interval."""
    rows = findings.at(numbers, choice="least carbon")
    rows = rows.assign(card=rows["gpu"].map(findings.label), name=rows["model"].map(findings.label))
    rows["region"] = rows["zone"].map(REGIONS)
    rows["chosen"] = "batch " + rows["batch"].astype(str)
    rows = rows.assign(low=rows["total_mg_low"] * 1e3, high=rows["total_mg_high"] * 1e3)
    stacks = [
        rows.assign(part=part, grams=rows[f"{part}_mg"] * 1e3) for part in theme.DOMAINS["part"]
    ]
    shown = pd.concat(stacks)[
        ["card", "region", "name", "chosen", "part", "grams", "low", "high", "status"]
    ]
    base = alt.Chart(shown).encode(y=alt.Y("card:N", title=None, sort=theme.DOMAINS["card"]))
    title = "g CO2e"
    tips = [
        "card:N",
        "chosen:N",
        "part:N",
        *(alt.Tooltip(f"{name}:Q", format=".3g") for name in ("grams", "low", "high")),
        "status:N",
    ]
    bars = base.mark_bar(height=15).encode(
        x=alt.X("grams:Q", title=title, axis=alt.Axis(tickCount=4)),
        color=theme.colour("part"),
        tooltip=tips,
        order=alt.Order("part:N", sort="descending"),
    )
    line = base.transform_filter("datum.part == 'embodied'").mark_rule(strokeWidth=1)
    reach = line.encode(x=alt.X("low:Q", title=title), x2="high:Q")
    words = line.mark_text(align="left", dx=4, fontSize=10).encode(
        x=alt.X("high:Q", title=title), text="chosen:N"
    )
    panels = {
        "row": alt.Row(
            "name:N",
            title=None,
            sort=[findings.label(model) for model in dict.fromkeys(numbers["model"])],
        ),
        "column": alt.Column("region:N", title=None, sort=list(REGIONS.values())),
    }
    panel = (bars + reach + words).properties(width=165, height=alt.Step(26))
    return panel.facet(**panels).resolve_scale(x="independent")


def readme() -> alt.FacetChart:
    """The README's figure, from the committed runs: `python -m footprint.charts.performance book/assets/headline.svg`."""
    points = findings.at(findings.points(findings.runs()), place="committed")
    return headline(totals.headline(findings.six_pairs(points))).properties(background="white")


if __name__ == "__main__":
    theme.enable()
    readme().save(sys.argv[1])
