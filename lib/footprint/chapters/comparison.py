"""Two GPUs beside each other: what they are, how long they take, what they use."""

from dataclasses import replace

import pandas as pd
import xarray as xr

from footprint import spec
from footprint.chapters.book import Book
from footprint.charts import theme
from footprint.energy import findings
from footprint.predict import model as predict
from footprint.predict import roofline

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
    whole, less = (
        predict.windows("llama-7b", gpu, **sizes).squeeze(drop=True) for gpu in (new, half)
    )
    slower = less[["ttft_s", "tpot_s"]] / whole[["ttft_s", "tpot_s"]] - 1
    many, long = sizes["batch"][-1], sizes["prompt"][-1]
    one, most = slower.sel(batch=1, prompt=128), slower.sel(batch=many, prompt=long)
    streamed = spec.model("llama-7b").streamed_parameters * spec.bytes_of("fp16")
    small, large = spec.gpu("l4").bandwidth_GBps, spec.gpu("l40s").bandwidth_GBps
    return {
        "bandwidth": new.bandwidth_GBps / old.bandwidth_GBps,
        "rate": new.peak_fp16_tflops / old.peak_fp16_tflops,
        "cap": new.tdp_W / old.tdp_W,
        "evidence": theme.kinds(cards.loc[cards["id"].isin([old.id, new.id]), "status"]),
        "cards": cards,
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


def performance(book: Book) -> dict:
    """Times of two GPUs, the bound of each, what an engine changes, what fits; and processors, measured."""
    ratios = findings.versus(book.pairs, "time_s")
    by_phase = ratios.groupby("phase")["ratio"].agg(["min", "max"])
    bounds = _bounds(book.pairs)
    steps = _steps()
    lead = steps.sel(gpu=book.old, batch=1) / steps.sel(gpu=book.new, batch=1)
    processors = findings.processors(book.rows)
    return {
        "pairs": book.pairs,
        "ratios": ratios,
        "evidence": theme.kinds(ratios["kind"]),
        "prefill_least": by_phase.loc["prefill", "min"],
        "prefill_most": by_phase.loc["prefill", "max"],
        "decode_least": by_phase.loc["decode", "min"],
        "decode_most": by_phase.loc["decode", "max"],
        "bounds": bounds,
        "bound_least": bounds["TPOT over bound"].min(),
        "bound_most": bounds["TPOT over bound"].max(),
        "eager_least": float(lead.sel(engine="eager").min()),
        "eager_most": float(lead.sel(engine="eager").max()),
        "serving_least": float(lead.sel(engine="serving").min()),
        "serving_most": float(lead.sel(engine="serving").max()),
        "engines": _step_table(steps),
        "cards": pd.DataFrame(spec.table("gpus")),
        "processors": processors,
        "processors_said": _processors_said(processors["share"]),
        **_room("llama-7b", book.old),
    }


def _bounds(pairs: pd.DataFrame) -> pd.DataFrame:
    """TPOT and TTFT at batch 1 beside the least that published bandwidth and peak rate allow."""
    rows = []
    at_one = findings.at(pairs, batch=1, prompt_tokens=128).set_index(["model", "device", "phase"])
    for model, gpu in findings.PAIRS:
        shape, card = spec.model(model), spec.gpu(gpu)
        step = shape.streamed_parameters * spec.bytes_of("fp16") / (card.bandwidth_GBps * 1e9)
        first = max(step, shape.flops(128) / (card.peak_fp16_tflops * 1e12))
        prefill, decode = at_one.loc[(model, gpu, "prefill")], at_one.loc[(model, gpu, "decode")]
        tpot = decode["time_s"] / (decode["output_tokens"] - 1)
        rows.append(
            {
                "model": shape.name,
                "card": card.name,
                "TPOT bound (ms)": step * 1e3,
                "TPOT (ms)": tpot * 1e3,
                "TPOT over bound": tpot / step,
                "TTFT bound (ms)": first * 1e3,
                "TTFT (ms)": prefill["time_s"] * 1e3,
                "TTFT over bound": prefill["time_s"] / first,
                "status": decode["kind"],
            }
        )
    return pd.DataFrame(rows)


def _steps() -> xr.DataArray:
    """Modelled ms of a decode step at batch 1 and 64 with the eager loop and a serving engine; NaN where it does not fit."""
    models, gpus = (list(dict.fromkeys(ids)) for ids in zip(*findings.PAIRS, strict=True))
    sizes = {"batch": [1, 64], "prompt": 128, "output": 128}
    windows = predict.windows(models, gpus, engine=["eager", "serving"], **sizes)
    windows = windows.squeeze(drop=True)
    return windows["tpot_s"].where(windows["fits"]) * 1e3


def _step_table(steps: xr.DataArray) -> pd.DataFrame:
    wide = steps.to_series().unstack(["batch", "engine"]).reindex(findings.PAIRS)
    wide.columns = [f"{engine}, batch {batch} (ms)" for batch, engine in wide.columns]
    table = wide.reset_index().rename(columns={"gpu": "card"})
    names = {column: table[column].map(findings.label) for column in ("model", "card")}
    return table.assign(**names, status="modelled")


def _processors_said(share: pd.Series) -> str:
    if not len(share):
        return "No measured run of a processor is at hand."
    said = (
        f"The runs below were measured, on the processors at hand. At batch 1 they reach {share.min():.0%} to "
        f"{share.max():.0%} of the bound that {{eq}}`eq-decode-bound` gives with the memory bandwidth probed in the "
        f"same run, {share.median():.0%} in the median. "
    )
    if (share > 1).any():
        said += (
            f"A share above one ({(share > 1).sum()} of {len(share)}) says that the probe is a sample and no ceiling: "
            "neighbours on a shared machine slowed the probe more than the run. "
        )
    return said + (
        "They say nothing about a T4 or an RTX 6000 Ada; they show that where the weights do not fit a cache, "
        "reading them takes most of a step."
    )


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
    joules = "energy_per_token_J"
    ratios = findings.versus(book.pairs, joules)
    small = findings.at(ratios, model="llama-1b", phase="decode", batch=1, prompt_tokens=128)
    decode = findings.at(ratios, phase="decode")["ratio"]
    cap = _beside_the_cap(book.pairs)
    share = cap.groupby("card")["share of the cap"].median()
    engines = _engines(book)
    lead = engines.xs(book.old, level="device") / engines.xs(book.new, level="device")
    full = engines.loc[("llama-7b", book.new)]
    terms = pd.DataFrame(spec.table("sensor_coverage")).melt("load", list(TERMS), "term", "pct")
    terms = terms.assign(term=terms["term"].map(TERMS), pct=terms["pct"].astype(float))
    middle = terms.groupby("term")["pct"].median()
    measured = findings.at(book.rows, kind="measured")
    large = findings.at(
        book.pairs, model="llama-7b", device=book.new, phase="decode", prompt_tokens=128
    ).set_index("batch")
    return {
        "pairs": book.pairs,
        "ratios": ratios,
        "evidence": theme.kinds(ratios["kind"]),
        "small": small["ratio"].iloc[0],
        "small_low": small["low"].iloc[0],
        "small_high": small["high"].iloc[0],
        "least": decode.min(),
        "most": decode.max(),
        "cap": cap,
        "old_cap": share[findings.label(book.old)],
        "new_cap": share[findings.label(book.new)],
        "lone_eager": lead.loc["llama-1b", ("eager", 1)],
        "lone_serving": lead.loc["llama-1b", ("serving", 1)],
        "full_eager": lead.loc["llama-1b", ("eager", 64)],
        "full_serving": lead.loc["llama-1b", ("serving", 64)],
        "large_eager_J": full["eager", 64],
        "large_serving_J": full["serving", 64],
        "many": 64,
        "engines": _engine_table(engines),
        "terms": terms,
        "gain_pct": middle["gain of the board"],
        "between_pct": middle["power between samples"],
        "ticks_pct": middle["ticks of the counter"],
        "measured": len(measured),
        "with_energy": measured["energy_J"].notna().sum(),
        "one_J": large.loc[1, joules],
        "many_J": large.loc[64, joules],
        "fewer": large.loc[1, joules] / large.loc[64, joules],
        "large_evidence": theme.badge(large.loc[1, "kind"]),
    }


def _beside_the_cap(pairs: pd.DataFrame) -> pd.DataFrame:
    """Power and joules of a decoded token at batch 1 beside the power cap and what a step would use at it."""
    rows = findings.at(pairs, phase="decode", batch=1, prompt_tokens=128)
    gpus = [spec.gpu(name) for name in rows["device"]]
    watts = pd.Series([gpu.tdp_W for gpu in gpus], index=rows.index)
    return pd.DataFrame(
        {
            "model": rows["model"].map(findings.label),
            "card": [gpu.name for gpu in gpus],
            "cap (W)": watts,
            "power (W)": rows["power_W"],
            "share of the cap": rows["power_W"] / watts,
            "at the cap (J)": watts * rows["time_s"] / (rows["output_tokens"] - 1),
            "J a token": rows["energy_per_token_J"],
            "low": rows["energy_per_token_J_low"],
            "high": rows["energy_per_token_J_high"],
            "status": rows["kind"],
        }
    )


def _engines(book: Book) -> pd.DataFrame:
    """Joules of a decoded token at batch 1 and 64: a row a pair, columns engine and batch."""
    engines = {"eager": book.pairs, "serving": book.serving}
    rows = pd.concat({name: table for name, table in engines.items()}, names=["by"]).reset_index(0)
    rows = findings.at(rows, phase="decode", prompt_tokens=128)
    rows = rows[rows["batch"].isin([1, 64])]
    wide = rows.pivot(
        index=["model", "device"], columns=["by", "batch"], values="energy_per_token_J"
    )
    return wide.reindex(findings.PAIRS)


def _engine_table(engines: pd.DataFrame) -> pd.DataFrame:
    shown = {
        f"{engine}, batch {batch} (J)": engines[engine, batch]
        for batch in (1, 64)
        for engine in ("eager", "serving")
    }
    table = pd.DataFrame(shown).reset_index().rename(columns={"device": "card"})
    names = {column: table[column].map(findings.label) for column in ("model", "card")}
    return table.assign(**names, status="modelled")
