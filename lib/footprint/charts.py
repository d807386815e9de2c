"""Figures of performance and energy, one function a figure: points in (see `findings.points`), an Altair chart out.

Colour is the card, a panel is a model or a phase, shape tells modelled from measured. Bands and bars are intervals.
"""

import altair as alt
import numpy as np
import pandas as pd

from footprint import findings, theme

BATCH = alt.X(
    "batch:Q", title="batch size", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=[1, 2, 4, 8, 16, 32, 64])
)
PANEL = {"width": 150, "height": 190}


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with printed names of models and cards beside the ids."""
    return table.assign(
        model_name=table["model"].map(findings.label),
        card=table["device"].map(findings.label),
        batch=table["batch"].astype(int),
    )


def _curves(rows: pd.DataFrame, quantity: str, title: str, facets: dict, format: str = ".3s") -> alt.FacetChart:
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
    base = alt.Chart(rows[[*dict.fromkeys([*columns, *(f.shorthand.split(":")[0] for f in facets.values())])]]).encode(
        x=BATCH, color=theme.colour("card")
    )
    scale = alt.Scale(type="log", nice=False)
    y = alt.Y(f"{quantity}:Q", title=title, scale=scale)
    band = base.mark_area(opacity=0.16).encode(y=alt.Y(f"{quantity}_low:Q", title=title, scale=scale), y2=f"{quantity}_high:Q")
    tips = ["card:N", "model_name:N", "batch:Q", alt.Tooltip(f"{quantity}:Q", format=format), "kind:N"]
    line = base.mark_line().encode(y=y)
    dots = base.mark_point(size=34, filled=False).encode(y=y, shape=theme.shape("kind"), tooltip=tips)
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
    rows["what"] = np.where(rows["phase"] == "decode", "decode: a new token", "prefill: a prompt token")
    panels = {"row": alt.Row("what:N", title=None), "column": _by_model()}
    return _curves(rows, "energy_per_token_J", "joules a token", panels).resolve_scale(y="independent")


def ratios(table: pd.DataFrame, prompt: int, title: str) -> alt.FacetChart:
    """How many times the T4 takes what the RTX 6000 Ada takes, with 90 % intervals; below 1 the older card wins."""
    rows = table[(table["prompt_tokens"] == prompt) & table["phase"].isin(["prefill", "decode"])]
    rows = rows.assign(model_name=rows["model"].map(findings.label), batch=rows["batch"].astype(int))
    base = alt.Chart(rows).encode(x=BATCH, color=theme.colour("phase"))
    scale = alt.Scale(type="log", base=2)
    y = alt.Y("ratio:Q", title=title, scale=scale)
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.5).encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q",
                                                              xOffset="phase:N")  # fmt: skip
    tips = [
        "phase:N",
        "batch:Q",
        *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("ratio", "low", "high", "probability")),
    ]
    dots = base.mark_point(filled=True, size=42).encode(y=y, shape=theme.shape("phase"), tooltip=tips)
    even = alt.Chart(rows).mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(1))
    return (even + bars + dots).properties(**PANEL).facet(column=_by_model())


def memory(table: pd.DataFrame, cards: pd.DataFrame) -> alt.FacetChart:
    """Memory of the pairs against batch with each card's limit; what does not fit is a cross."""
    rows = _named(findings.at(table, phase="generate"))
    used = rows["memory_B"].fillna(rows["peak_memory_B"])
    rows = rows.assign(GiB=used / 2**30, fits=np.where(rows["status"] == "oom", "does not fit", "fits"),
                       prompt=rows["prompt_tokens"].astype(str) + " tokens",
                       limit=rows["device"].map(cards.set_index("id")["memory_GiB"].astype(float)))  # fmt: skip
    columns = ["card", "device", "model_name", "batch", "GiB", "fits", "prompt", "limit"]
    base = alt.Chart(rows.dropna(subset=["GiB"])[columns]).encode(x=BATCH, color=theme.colour("card"))
    y = alt.Y("GiB:Q", title="memory (GiB)", scale=alt.Scale(type="log", base=2))
    line = base.mark_line().encode(y=y, strokeDash=alt.StrokeDash("prompt:N", title="prompt"))
    shapes = alt.Shape("fits:N", title=None, scale=alt.Scale(domain=["fits", "does not fit"], range=["circle", "cross"]))
    dots = base.mark_point(filled=True, size=40).encode(y=y, shape=shapes, tooltip=["card:N", "batch:Q", "GiB:Q", "prompt:N"])
    limit = base.mark_rule(strokeDash=[2, 3]).encode(y="limit:Q", x=alt.X())
    return (limit + line + dots).properties(**PANEL).facet(column=_by_model())


def cards(table: pd.DataFrame) -> alt.LayerChart:
    """Where the cards stand: memory bandwidth against peak fp16 rate, the paper's two named in colour."""
    rows = table.assign(**{name: table[name].astype(float) for name in ("bandwidth_GBps", "peak_fp16_tflops", "tdp_W")})
    rows["pair"] = rows["id"].where(rows["id"].isin(["t4", "rtx-6000-ada"]), "other")
    base = alt.Chart(rows[["id", "name", "pair", "bandwidth_GBps", "peak_fp16_tflops", "tdp_W", "release_year"]]).encode(
        x=alt.X("bandwidth_GBps:Q", title="memory bandwidth (GB/s)", scale=alt.Scale(type="log", nice=False, padding=24)),
        y=alt.Y("peak_fp16_tflops:Q", title="peak fp16 rate (TFLOP/s)", scale=alt.Scale(type="log", nice=False, padding=24)),
    )
    tips = ["name:N", "bandwidth_GBps:Q", "peak_fp16_tflops:Q", "tdp_W:Q", "release_year:N"]
    dots = base.mark_circle(opacity=0.85).encode(
        color=theme.colour("pair", legend=None), size=alt.Size("tdp_W:Q", title="power cap (W)"), tooltip=tips
    )
    names = base.mark_text(align="left", dx=9, dy=3, fontSize=10).encode(text="name:N")
    return (dots + names).properties(width=620, height=360)


def bound(table: pd.DataFrame) -> alt.LayerChart:
    """Measured decode rate of the CPU runs at batch 1 beside the bound that the memory bandwidth of the same run sets."""
    rows = table.assign(name=table["model"].map(findings.label) + ", " + table["dtype"])
    base = alt.Chart(rows).encode(y=alt.Y("name:N", title=None, sort=alt.SortField("parameters")))
    scale = alt.Scale(type="log", nice=False)
    limit = base.mark_tick(thickness=2, size=22).encode(x=alt.X("bound_tokens_per_s:Q", scale=scale, title="tokens a second"))
    reach = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("least:Q", scale=scale), x2="most:Q")
    tips = [
        "name:N",
        *(alt.Tooltip(f"{name}:Q", format=".3g") for name in ("tokens_per_s", "bound_tokens_per_s", "share")),
    ]
    dots = base.mark_point(filled=True, size=70).encode(
        x=alt.X("tokens_per_s:Q", scale=scale),
        color=theme.colour("weights"),
        shape=theme.shape("weights"),
        tooltip=tips,
    )
    return (limit + reach + dots).properties(width=520, height=alt.Step(38))


def scoreboard(table: pd.DataFrame) -> alt.LayerChart:
    """The probability of each claim, with the band in which nothing can be told."""
    rows = table[["id", "probability", "verdict", "status", "because"]]
    x = alt.X("probability:Q", title="probability that the claim holds", scale=alt.Scale(domain=[0, 1]),
              axis=alt.Axis(format="%"))  # fmt: skip
    band = (
        alt.Chart(pd.DataFrame({"low": [0.25], "high": [0.75]})).mark_rect(opacity=0.1).encode(x=alt.X("low:Q"), x2="high:Q")
    )
    base = alt.Chart(rows).encode(y=alt.Y("id:N", title=None, sort=None))
    line = base.mark_rule(opacity=0.4).encode(x=x, x2=alt.datum(0.5))
    dots = base.mark_point(filled=True, size=70).encode(
        x=x, color=theme.colour("kind", legend=None), tooltip=["id:N", "verdict:N", "probability:Q", "because:N"]
    )
    words = base.mark_text(align="left", dx=10).encode(x=x, text="verdict:N")
    return (band + line + dots + words).properties(width=520, height=alt.Step(24))


def closure(rows: pd.DataFrame) -> alt.LayerChart:
    """Prefill plus decode over generate of the measured runs, a strip a run."""
    rows = rows.assign(run=rows["model"].map(findings.label) + " (" + rows["place"] + ")")
    base = alt.Chart(rows[["run", "closure", "batch", "prompt_tokens", "repeat"]])
    dots = base.mark_circle(size=26, opacity=0.6).encode(
        x=alt.X("closure:Q", title="(prefill + decode) / generate", scale=alt.Scale(zero=False)),
        y=alt.Y("run:N", title=None), tooltip=["run:N", "batch:Q", "prompt_tokens:Q", "repeat:Q", "closure:Q"],
    )  # fmt: skip
    even = base.mark_rule(strokeDash=[2, 3]).encode(x=alt.datum(1))
    return (even + dots).properties(width=480, height=alt.Step(26))


def coverage(table: pd.DataFrame) -> alt.Chart:
    """Points at hand by device and model, measured and modelled told apart."""
    rows = table.groupby(["device", "model", "kind"]).size().rename("points").reset_index()
    rows = rows.assign(card=rows["device"].map(findings.label), name=rows["model"].map(findings.label))
    return (
        alt.Chart(rows)
        .mark_point(filled=True)
        .encode(
            x=alt.X("name:N", title=None, axis=alt.Axis(labelAngle=-30)),
            y=alt.Y("card:N", title=None),
            color=theme.colour("kind"),
            shape=theme.shape("kind"),
            size=alt.Size("points:Q", title="points", scale=alt.Scale(range=[60, 400])),
            tooltip=["card:N", "name:N", "kind:N", "points:Q"],
        )
        .properties(width=440, height=alt.Step(34))
    )
