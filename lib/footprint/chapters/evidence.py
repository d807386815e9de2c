"""The numbers of the pages on the evidence: how runs are measured, the model's errors, sensors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from footprint import predict, spec
from footprint.chapters.book import LARGE, PAPER, Book
from footprint.charts import theme
from footprint.charts.evidence import NO_PROCESSOR
from footprint.energy import runs
from footprint.predict import gemm
from footprint.predict import validation as left_out

EXAMPLE = (
    "No card was measured in this copy, so what follows is the sensor card of a scripted one, "
    "whose name says *FAKE*: the real bindings and the real programme on a fake driver, an example "
    "of what `footprint sensor --device cuda:0` leaves of yours ({ref}`your-gpu`)."
)
ABSENT = (
    "**The two cards were not at hand.** Their times and energies come from a model that was "
    "calibrated on other people's public measurements of other cards, with intervals. One run on "
    "each card replaces it ({ref}`reproduce`)."
)
PARTLY = (
    "**What was not measured is modelled.** Times and energies of all other points come from a "
    "model that was calibrated on other people's public measurements, with intervals. A run "
    "replaces it ({ref}`reproduce`)."
)


SPLITS = {"gpu": "card", "both": "die and sources"}


def _scripted_loads() -> pd.DataFrame:
    """Windows of scripted boards whose true energy is known, a row a load."""
    loads = pd.DataFrame(spec.table("sensor_coverage"))
    numbers = loads.filter(regex="^windows$|_pct$").astype(float)
    return loads.assign(**numbers)


def method(book: Book) -> dict:
    """How a run goes: closure of its phases, coverage of its energy interval, its prompts."""
    loads = _scripted_loads()
    covered = loads["coverage_pct"].min()
    plain = loads[~loads["load"].str.contains("gain")]
    prompts = spec.table("prompts")
    tick_s, share = 0.1, 0.01
    return {
        "closure": runs.closure(book.runs),
        "loads": len(loads),
        "windows": loads["windows"].min(),
        "held": "in each of them, for every load and sensor"
        if covered == 100
        else f"in {covered:.0f} % of them or more",
        "half_width_pct": plain["half_width_pct"].median(),
        "seconds": 5,
        "meter_pct": 6,
        "gain_pct": 5,
        "without_gain_pct": plain["half_width_without_gain_pct"].median(),
        "held_without_gain_pct": plain["coverage_without_gain_pct"].min(),
        "prompts": len(prompts),
        "tasks": len({row["task"] for row in prompts}),
        "lengths": len(spec.table("azure_lengths")),
        "tick_ms": tick_s * 1e3,
        "share": share,
        "edges_ms": tick_s * 1e3 / 6**0.5,
        "needed_s": 1.96 * tick_s / 6**0.5 / share,
    }


def validation(book: Book) -> dict:
    """How far the model was off on GPUs, models and sources that it had not seen."""
    from scipy.stats import binom

    rows = {name: left_out.residuals(name) for name in left_out.LEFT_OUT}
    cards = rows["gpu"]
    errors = _judged(cards)
    over = {name: left_out.over_gpus(_judged(rows[name])) for name in ("gpu", "both")}
    seldom, apart = (table.set_index("quantity") for table in over.values())
    energies = errors[errors["quantity"] == "energy_J"]["gpu"].value_counts()
    by_gpu = left_out.summary(errors, "gpu").set_index("gpu")
    both = by_gpu.reindex([book.old, book.new]).fillna({"rows": 0})  # NaN where nobody measured
    worst = by_gpu.sort_values("median error").iloc[-1]
    plain = cards.assign(plain=left_out.plain_roofline(cards)).dropna(subset=["plain"])
    named = errors.assign(card=errors["gpu"].map(spec.label))
    covered, count = cards["covered"], int(cards["covered"].count())
    by_source = cards.groupby("measured_by")["covered"].mean().dropna()
    processors = left_out.processors(runs.processors(book.runs))
    return {
        "error": seldom["error"],
        "covered": seldom["coverage"].mean(),
        "apart_error": apart["error"],
        "apart_covered": apart["coverage"].mean(),
        "joules_covered": apart.loc["energy_J", "coverage"],
        "over_gpus": _over_gpus(over),
        "old_energies": int(energies.get(book.old, 0)),
        "new_energies": int(energies.get(book.new, 0)),
        "old_error": both.loc[book.old, "median error"],
        "old_rows": int(both.loc[book.old, "rows"]),
        "new_error": both.loc[book.new, "median error"],
        "new_rows": int(both.loc[book.new, "rows"]),
        "cards": cards,
        "quantities": left_out.QUANTITIES,
        "plain_error": (plain["plain"] / plain["value"] - 1).abs().median(),
        "plain_rows": len(plain),
        "ours_error": plain["distance"].median(),
        "parameters": len(spec.table("parameters")),
        "measurements": len(spec.table("measurements")),
        "sources": len({row["source"] for row in spec.table("measurements")}),
        "by_quantity": _by_quantity(rows),
        "products": gemm.errors(predict.parameters()),
        "by_card": left_out.summary(named, "card"),
        "worst": spec.label(worst.name),
        "worst_error": worst["median error"],
        "worst_rows": worst["rows"],
        "by_engine": left_out.summary(errors, "engine").assign(status="derived"),
        "processors": processors,
        "processors_said": _model_said(processors),
        "count": count,
        "held": int(covered.sum()),
        "fewest": int(binom.ppf(0.025, count, 0.9)),
        "by_source": by_source,
        "tests": len(by_source),
        **_causes(book),
        **_peers(),
    }


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["quantity"].isin(left_out.QUANTITIES)]


def _over_gpus(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Errors and coverage of each quantity where each GPU counts once, by what was left out."""
    parts = []
    for name, table in tables.items():
        part = table.assign(quantity=table["quantity"].map(left_out.QUANTITIES))
        part.insert(0, "left out", SPLITS[name])
        parts.append(part)
    return pd.concat(parts).assign(status="derived")


def _by_quantity(rows: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Errors of each quantity with GPUs, models or sources left out."""
    parts = []
    for name, each in rows.items():
        part = left_out.summary(_judged(each), "quantity")
        part["quantity"] = part["quantity"].map(left_out.QUANTITIES)
        part.insert(0, "left out", SPLITS.get(name, name))
        parts.append(part)
    return pd.concat(parts).assign(status="derived")


def _causes(book: Book) -> dict:
    """What a decode step of the eager loop waits for, by the model."""
    gpus, sizes = [book.old, book.new], {"batch": [1, 64], **book.length}
    fits = predict.windows(list(PAPER), gpus, **sizes)["fits"]
    causes = (predict.causes(list(PAPER), gpus, **sizes).where(fits) * 1e3).rename("ms")
    one = causes.sel(model=LARGE, gpu=book.old, batch=1).squeeze(drop=True)
    streamed = spec.model(LARGE).streamed_parameters * spec.bytes_of("fp16")
    return {
        "causes": causes.squeeze(drop=True).to_dataframe().reset_index().dropna(),
        "step_ms": float(one.sum()),
        "cause_ms": one,
        "other_ms": float(one.sel(cause=["traffic", "multiplying"]).sum()),
        "bound_ms": streamed / spec.gpu(book.old).bandwidth_GBps / 1e6,
    }


def _peers() -> dict:
    """Errors that users of other predictors report, and ours on the same points."""
    peers = left_out.peers()
    beside = peers.dropna(subset=["ours"])
    words = [
        f"{row.quantity} {row.theirs:.0%} by {row.tool}, {row.ours:.0%} by ours"
        for row in beside.itertuples()
    ]
    formats = {"theirs": "{:.1%}", "ours": "{:.0%}", "rows": "{:.0f}"}
    shown = {
        name: peers[name].map(text.format).mask(peers[name].isna(), "–")
        for name, text in formats.items()
    }
    status = peers["rows"].isna().map({True: "published", False: "derived"})
    return {
        "peers_said": "; ".join(words),
        "peers_rows": beside["rows"].sum(),
        "peers": peers.assign(**shown, status=status),
    }


def _model_said(rows: pd.DataFrame) -> str:
    if not len(rows):
        return NO_PROCESSOR
    return (
        "A processor is a card too: with the bandwidth and the matrix rate that a run probed, and "
        "nothing else of that machine, the model expects the decode steps of the measured "
        f"processor runs at batch 1 with a median error of {rows['distance'].median():.0%} "
        f"({len(rows)} runs, the worst {rows['distance'].max():.0%})."
    )


def processors(book: Book) -> dict:
    """Decode that was measured on processors: its bound, both engines, both kinds of weights."""
    rows = _bounded(runs.processors(book.runs))
    return {
        "processors": rows,
        "processors_said": _processors_said(book, rows["share"]),
        "both_engines": _both_engines(rows),
        "weights_said": _weights_said(rows),
    }


def _bounded(processors: pd.DataFrame) -> pd.DataFrame:
    """Runs of processors beside the rate that the probed bandwidth allows."""
    rows = processors[processors["model"].isin(spec.models())]
    weights_B = [
        spec.model(row.model).streamed_parameters * spec.bytes_of(row.dtype)
        for row in rows.itertuples()
    ]
    bound = rows["bandwidth"] * 1e9 / np.array(weights_B)
    return rows.assign(bound_tokens_per_s=bound, share=rows["tokens_per_s"] / bound)


def _both_engines(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs of processors that were measured with the eager and with the compiled engine."""
    rows = rows.assign(ms=1e3 * rows["time_s"] / (rows["output_tokens"] - 1))
    keys, wide = ["model", "dtype", "weights", "place", "device"], pd.DataFrame()
    if {"eager", "compiled"} <= set(rows["engine"]):
        wide = rows.pivot(index=keys, columns="engine", values=["ms", "share", "compile_s"])
        wide = wide.dropna(subset=[("ms", "eager"), ("ms", "compiled")])
    if wide.empty:
        return wide
    columns = {f"{engine} (ms)": wide["ms", engine] for engine in ("eager", "compiled")}
    columns["compiled over eager"] = wide["ms", "compiled"] / wide["ms", "eager"]
    for engine in ("eager", "compiled"):
        columns[f"{engine}, share of the bound"] = wide["share", engine]
    columns["compilation (s)"] = wide["compile_s", "compiled"]
    table = pd.DataFrame(columns).reset_index().drop(columns=["place", "device"])
    return theme.labelled(table.assign(status="measured"), "model")


def _weights_said(rows: pd.DataFrame) -> str:
    """How long random weights take beside trained ones of the same shape, engine and dtype."""
    keys = ["model", "engine", "dtype", "place", "device"]
    wide = rows.pivot_table(index=keys, columns="weights", values="time_s")
    wide = wide.reindex(columns=["random", "trained"]).dropna().reset_index()
    if wide.empty:
        return "No shape was measured with trained and with random weights."
    ratios = [
        f"{row.random / row.trained:.2f} times ({row.engine})"
        for row in wide.itertuples(index=False)
    ]
    shape = " and ".join(map(spec.label, pd.unique(wide["model"])))
    return (
        f"Random weights of {shape} took {' and '.join(ratios)} as long as the trained ones: what "
        "a step takes depends on the shape. What it draws may differ, and a processor without a "
        "counter cannot tell."
    )


def _processors_said(book: Book, share: pd.Series) -> str:
    if not len(share):
        return NO_PROCESSOR
    words = (
        "The runs below were measured, on the processors at hand. At batch 1 they reach "
        f"{share.min():.0%} to {share.max():.0%} of the bound that {{eq}}`eq-decode-bound` gives "
        f"with the memory bandwidth probed in the same run, {share.median():.0%} in the median. "
    )
    if (share > 1).any():
        words += (
            f"A share above one ({(share > 1).sum()} of {len(share)}) says that the probe is a "
            "sample and no ceiling: neighbours on a shared machine slowed the probe more than the "
            "run. "
        )
    return words + (
        f"They say nothing about a {spec.label(book.old)} or an {spec.label(book.new)}; they show "
        "that where the weights do not fit a cache, reading them takes most of a step."
    )


def sensor(
    book: Book, boards: Sequence[xr.Dataset] = (), values: Sequence[pd.DataFrame] = ()
) -> dict:
    """Coverage of the energy interval by load and sensor; `boards`: sensor cards and `values`."""
    columns = {
        "says": "load and sensor",
        "coverage_pct": "held (%)",
        "half_width_pct": "half-width (%)",
        "bias_pct": "bias (%)",
        "coverage_without_gain_pct": "held, no gain (%)",
        "half_width_without_gain_pct": "half-width, no gain (%)",
        "status": "status",
    }
    scripted = all("FAKE" in board.attrs["device_name"] for board in boards)
    names = [f"{board.attrs['device_name']} {board.attrs['device_hash'][:4]}" for board in boards]
    status = "derived" if scripted else "measured"
    shown = [
        table.assign(card=name, status=status) for name, table in zip(names, values, strict=True)
    ]
    return {
        "example": EXAMPLE if scripted else "",
        "boards": dict(zip(names, boards, strict=True)),
        "values": pd.concat(shown) if shown else pd.DataFrame(),
        "loads": _scripted_loads()[list(columns)].rename(columns=columns),
    }


def limits(book: Book) -> dict:
    """Which of the paper's pairs are measured in this copy."""
    seen = book.seen([book.old, book.new])
    return {
        "measured": int(seen.sum()),
        "modelled": int((~seen).sum()),
        "absent": PARTLY if seen.any() else ABSENT,
        "points": book.rows,
    }
