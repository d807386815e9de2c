"""Two GPUs beside each other: what they are, how long they take, what they use."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from footprint import decide, predict, spec
from footprint.chapters.book import LARGE, PROMPTS, SMALL, Book
from footprint.chapters.evidence import processors
from footprint.charts import theme
from footprint.predict import roofline
from footprint.trace.points import ends, phase_tokens

FULL = 64  # batch of a GPU that is full
TIMES_MODELLED = (
    "The times of the two cards are modelled until somebody runs the notebooks on them: "
    "{ref}`validation` tells how far the model has been off on cards that others measured, and "
    "{ref}`reproduce` how to replace it."
)
TERMS = {
    "u_quantisation_pct": "ticks of the counter",
    "u_sampling_pct": "power between samples",
    "u_gain_pct": "gain of the board",
}


def hardware(book: Book) -> dict:
    """What two GPUs offer, and what hangs on the peak rate that is disputed."""
    old, new = spec.gpu(book.old), spec.gpu(book.new)
    cards = pd.DataFrame(spec.table("gpus"))
    half = replace(new, peak_fp16_tflops=new.peak_fp16_tflops / 2)
    sizes = {"batch": [1, 16], "prompt": [128, 512], "output": 128}
    times = ["ttft_s", "tpot_s"]
    whole = predict.windows(LARGE, new, **sizes)[times].squeeze(drop=True)
    slower = predict.windows(LARGE, half, **sizes)[times].squeeze(drop=True) / whole - 1
    many, long = sizes["batch"][-1], sizes["prompt"][-1]
    one, most = slower.sel(batch=1, prompt=128), slower.sel(batch=many, prompt=long)
    streamed = spec.model(LARGE).streamed_parameters * spec.bytes_of("fp16")
    small, large = spec.gpu("l4").bandwidth_GBps, spec.gpu("l40s").bandwidth_GBps
    return {
        "bandwidth": new.bandwidth_GBps / old.bandwidth_GBps,
        "rate": new.peak_fp16_tflops / old.peak_fp16_tflops,
        "cap": new.tdp_W / old.tdp_W,
        "evidence": theme.kinds(cards.loc[cards["id"].isin([old.id, new.id]), "status"]),
        "cards": cards,
        "named": [gpu for gpu in book.gpus if gpu in spec.gpus()],
        "ridges": _ridges(cards),
        "models": _models(),
        "slower_prefill": float(one["ttft_s"]),
        "slower_long_prefill": float(most["ttft_s"]),
        "many": many,
        "long": long,
        "slower_decode": float(one["tpot_s"]),
        "l4_GBps": small,
        "l40s_GBps": large,
        "weights_GB": streamed / 1e9,
        "l4_ms": streamed / small / 1e6,
        "l40s_ms": streamed / large / 1e6,
    }


def _ridges(cards: pd.DataFrame) -> pd.DataFrame:
    """Ridge point and what a watt gives, a row a GPU."""
    columns = ["peak_fp16_tflops", "bandwidth_GBps", "memory_GiB", "tdp_W"]
    shown = cards[["name", "node"]].join(cards[columns].astype(float))
    shown["ridge"] = shown["peak_fp16_tflops"] * 1e12 / (shown["bandwidth_GBps"] * 1e9)
    shown["GB/s per W"] = shown["bandwidth_GBps"] / shown["tdp_W"]
    shown["TFLOP/s per W"] = shown["peak_fp16_tflops"] / shown["tdp_W"]
    shown["status"] = cards["status"]
    return shown.rename(columns=lambda name: name.replace("_", " "))


def _models() -> pd.DataFrame:
    """Shapes of the models, a row each."""
    return pd.DataFrame(
        {
            "id": model.id,
            "architecture of": model.name,
            "parameters": model.parameters,
            "layers": model.layers,
            "hidden": model.hidden,
            "heads": f"{model.heads} / {model.kv_heads}",
            "weights fp16 (GiB)": model.weight_bytes("fp16") / 2**30,
            "KV cache (KiB a token)": model.kv_bytes_per_token("fp16") / 2**10,
            "status": "derived",
        }
        for model in map(spec.model, spec.models())
    )


def ratios(points: xr.Dataset, quantity: str, over: str, under: str) -> pd.DataFrame:
    """The ratio of two GPUs at every point that both have, a row a point (see `decide.versus`)."""
    sides = [points.sel(gpu=gpu) for gpu in (over, under)]
    rows = decide.versus(*sides, quantity).to_dataframe().dropna(subset="ratio").reset_index()
    return rows.assign(over=over, under=under)


def _against_the_newer(book: Book, quantity: str) -> pd.DataFrame:
    """The ratio of each other GPU of the cast to the newer of the two that are compared."""
    others = [gpu for gpu in book.gpus if gpu != book.new]
    return pd.concat([ratios(book.at(), quantity, gpu, book.new) for gpu in others])


def _per_step(points: xr.Dataset) -> xr.Dataset:
    """The points with the time of one prefill and of one decode step."""
    steps = xr.where(points["phase"] == "decode", points["output"] - 1, 1)
    return points.assign(time_s=points["time_s"] / steps)


def _per_token(points: xr.Dataset) -> xr.Dataset:
    """The points with the energy of one prompt token and of one decoded token."""
    return points.assign(energy_J=points["energy_J"] / phase_tokens(points))


def _basis(book: Book, modelled: str) -> str:
    """What the values of the two GPUs rest on; `modelled`: the words if neither was measured."""
    seen = book.seen([book.old, book.new])
    if not seen.any():
        return modelled
    return (
        f"{int(seen.sum())} of the {seen.size} pairs of a model and one of the two cards were "
        "measured; what was not, at some batch or at all, is modelled, and marked so: "
        "{ref}`validation` tells how far the model has been off."
    )


def _energies_modelled(book: Book) -> str:
    """Which of the two GPUs has a power that others measured, and that the model was fitted to."""
    powers = {row["gpu"] for row in spec.table("measurements") if row["quantity"] == "power_W"}
    seen = [spec.label(gpu) for gpu in (book.old, book.new) if gpu in powers]
    whose = ["watts of neither card", f"watts of the {''.join(seen)} alone", "watts of both cards"]
    return (
        "The energies of the two cards are modelled, from a fit in which "
        f"{whose[len(seen)]} took part, and their intervals are as wide as that makes them."
    )


def performance(book: Book) -> dict:
    """Times of two GPUs and their bounds, what an engine changes, what fits, and processors."""
    steps = _per_step(book.at())
    both = ratios(book.points.sel(engine="eager"), "time_s", book.old, book.new)
    bounds = _bounds(steps.sel(batch=1))
    engines = _per_step(book.points.sel(**book.length)).sel(batch=[1, FULL], phase="decode")
    one = engines["time_s"].sel(batch=1)
    lead = one.sel(gpu=book.old) / one.sel(gpu=book.new)
    return {
        "steps": steps,
        "ratios": _against_the_newer(book, "time_s"),
        "ratio": both.groupby("phase")["ratio"].agg(["min", "max"]).stack(),
        "evidence": theme.kinds(both["evidence"]),
        "basis": _basis(book, TIMES_MODELLED),
        "bounds": bounds,
        "over_bound": bounds["TPOT over bound"],
        "lead": lead.to_series().groupby("engine").agg(["min", "max"]).stack(),
        "engines": _by_engine(engines, engines["time_s"] * 1e3, "ms"),
        **_memory(book),
        **processors(book),
        **_room(LARGE, book.old),
    }


def _bounds(steps: xr.Dataset) -> pd.DataFrame:
    """TPOT and TTFT at batch 1 beside the least that published bandwidth and peak rate allow."""
    rows = []
    models = [name for name in steps.model.values if name in spec.models()]
    gpus = [name for name in steps.gpu.values if name in spec.gpus()]
    for model, gpu in itertools.product(map(spec.model, models), map(spec.gpu, gpus)):
        here = steps.sel(model=model.id, gpu=gpu.id)
        if here["time_s"].isnull().all():
            continue
        weights_B = model.streamed_parameters * spec.bytes_of(str(here["dtype"].item()))
        step = weights_B / (gpu.bandwidth_GBps * 1e9)
        first = max(step, model.flops(int(steps.prompt)) / (gpu.peak_fp16_tflops * 1e12))
        row = {"model": model.name, "card": gpu.name}
        for name, phase, bound in (("TPOT", "decode", step), ("TTFT", "prefill", first)):
            time = here["time_s"].sel(phase=phase).item()
            row |= {f"{name} bound (ms)": bound * 1e3, f"{name} (ms)": time * 1e3}
            row |= {f"{name} over bound": time / bound}
        rows.append(row | {"status": here["evidence"].sel(phase="decode").item()})
    return pd.DataFrame(rows)


def _by_engine(points: xr.Dataset, values: xr.DataArray, unit: str) -> pd.DataFrame:
    """Values by model and GPU (rows) and by batch and engine; evidence is `mixed` if it differs."""
    stacked = {"pair": ("model", "gpu"), "column": ("batch", "engine")}
    table = values.reset_coords(drop=True).stack(stacked).transpose("pair", "column").to_pandas()
    table.columns = [f"{engine}, batch {batch} ({unit})" for batch, engine in table.columns]
    evidence = points["evidence"].stack(stacked).transpose("pair", "column")
    kinds = [set(each) - {"not run"} for each in evidence.values]
    status = [" ".join(each) if len(each) < 2 else "mixed" for each in kinds]
    rows = table.assign(status=status).dropna(how="all", subset=list(table))
    return theme.labelled(rows.reset_index(names=["model", "card"]), "model", "card")


def _memory(book: Book) -> dict:
    """Memory that models need, that measured runs took, and that the GPUs have, in GiB."""
    points = book.points
    prompts = sorted({*PROMPTS, book.length["prompt"]})
    models = [name for name in book.models if name in spec.models()]
    sizes = {"batch": points.batch.values, "prompt": prompts, "output": book.length["output"]}
    needed = predict.windows(models, [book.old, book.new], **sizes)["memory_B"].max("gpu")
    curves = (needed.squeeze(drop=True) / 2**30).rename("GiB").to_dataframe().reset_index()
    seen = book.rows[(book.rows["kind"] == "measured") & book.rows["device"].isin(book.gpus)]
    seen = seen.rename(columns={"device": "gpu", "prompt_tokens": "prompt", "kind": "evidence"})
    keys = ["model", "gpu", "batch", "prompt", "evidence"]
    peaks = (seen.groupby(keys)["peak_memory_B"].max() / 2**30).rename("GiB").reset_index()
    return {
        "needed": curves.assign(prompt=curves["prompt"].astype(str) + " tokens"),
        "peaks": peaks.assign(prompt=peaks["prompt"].astype(str) + " tokens"),
        "limits": {gpu: spec.gpu(gpu).memory_GiB for gpu in book.gpus if gpu in spec.gpus()},
    }


def _room(model: str, gpu: str) -> dict:
    """How much of a GPU's memory is left for the KV cache once the weights are in it."""
    shape, card = spec.model(model), spec.gpu(gpu)
    usable = predict.usable_bytes(card)
    free, token = usable - shape.weight_bytes("fp16"), shape.kv_bytes_per_token("fp16")
    length = 256
    saved = shape.parameters * (spec.bytes_of("fp16") - roofline.WEIGHT_BYTES[roofline.Dtype.int8])
    return {
        "memory_GiB": card.memory_GiB,
        "usable_GiB": usable / 2**30,
        "weights_GiB": shape.weight_bytes("fp16") / 2**30,
        "free_GiB": free / 2**30,
        "token_MiB": token / 2**20,
        "tokens": free / token,
        "sequences": int(free / token / length),
        "length": length,
        "bits": 8,
        "saved_GiB": saved / 2**30,
    }


def energy(book: Book) -> dict:
    """Joules of a token, eager and with a serving engine, and what a window knows of its energy."""
    tokens = _per_token(book.points).sel(**book.length)
    joules = tokens.sel(engine="eager")
    both = ratios(book.points.sel(engine="eager"), "energy_J", book.old, book.new)
    decode = both[both["phase"] == "decode"].set_index(["model", "batch", "prompt", "output"])
    small = decode.loc[SMALL, 1, *book.length.values()]
    cap = _beside_the_cap(book.at(), joules)
    engines = tokens.sel(batch=[1, FULL], phase="decode")
    token_J = engines["energy_J"]
    lead = token_J.sel(gpu=book.old) / token_J.sel(gpu=book.new)
    large = token_J.sel(model=LARGE, gpu=book.new)
    terms = pd.DataFrame(spec.table("sensor_coverage")).melt("load", list(TERMS), "term", "pct")
    terms = terms.assign(term=terms["term"].map(TERMS), pct=terms["pct"].astype(float))
    measured = book.rows[book.rows["kind"] == "measured"]
    one = large.sel(engine="eager", batch=1)
    return {
        "joules": joules,
        "ratios": _against_the_newer(book, "energy_J"),
        "evidence": theme.kinds(both["evidence"]),
        "basis": _basis(book, _energies_modelled(book)),
        "small": small[["ratio", "low", "high"]].astype(float),
        "decode": decode["ratio"],
        "cap": cap,
        "of_cap": cap.groupby("card")["share of the cap"]
        .median()
        .rename({spec.label(book.old): "old", spec.label(book.new): "new"}),
        "lead": lead.sel(model=SMALL, engine=["eager", "serving"]),
        "large_J": large.sel(engine=["eager", "serving"]),
        "many": FULL,
        "engines": _by_engine(engines, token_J, "J"),
        "terms": terms,
        "term_pct": terms.groupby("term")["pct"].median(),
        "measured": len(measured),
        "with_energy": measured["energy_J"].notna().sum(),
        "fewer": float(one / large.sel(engine="eager", batch=FULL)),
        "large_evidence": theme.kinds([one["evidence"].item()]),
    }


def _beside_the_cap(points: xr.Dataset, joules: xr.Dataset) -> pd.DataFrame:
    """Power and joules of a decoded token at batch 1 beside those at the power cap."""
    points, joules = points.sel(batch=1, phase="decode"), joules.sel(batch=1, phase="decode")
    caps = [spec.gpu(gpu).tdp_W if gpu in spec.gpus() else np.nan for gpu in points.gpu.values]
    cap = xr.DataArray(caps, {"gpu": points.gpu})
    power = points["energy_J"] / points["time_s"]
    columns = {
        "cap (W)": cap,
        "power (W)": power,
        "share of the cap": power / cap,
        "at the cap (J)": cap * points["time_s"] / (points["output"] - 1),
        "J a token": joules["energy_J"],
        **ends(joules, "energy_J"),
        "status": joules["evidence"],
    }
    columns = {name: values.reset_coords(drop=True) for name, values in columns.items()}
    rows = xr.Dataset(columns).to_dataframe(["model", "gpu"]).dropna(subset="J a token")
    rows = rows.reset_index().rename(columns={"gpu": "card"})
    return theme.labelled(rows, "model", "card")
