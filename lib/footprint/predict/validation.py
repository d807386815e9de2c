"""How far the model was off on GPUs, models or sources that a fit had not seen.

Reads `data/cross_validation.csv`, which `python -m footprint.predict.fit` writes: for each public
measurement the value that was expected by a fit without its GPU (`gpu_`), without its model
(`model_`), without its source (`source_`), and without its die and all sources that measured its
GPU (`both_`). The errors of other tools stand in `data/peers.csv`.
"""

import numpy as np
import pandas as pd

from footprint import Refused, spec
from footprint.predict import model

HALVES = ("fp16", "bf16")
LEFT_OUT = ("gpu", "model", "source", "both")
QUANTITIES = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "e2e_s": "whole request",
    "power_W": "power",
    "energy_J": "energy",
}


def residuals(left_out: str = "gpu") -> pd.DataFrame:
    """One row a 16-bit measurement, with what a fit expected that had not seen it (see above).

    `low` and `high` bound the 90 % interval. Added: `error` (expected / value - 1), `distance` (its
    size, |ln|-symmetric as a share), `covered` (NaN without bounds).
    """
    if left_out not in LEFT_OUT:
        raise Refused(f"Left out can be {', '.join(LEFT_OUT)}; {left_out!r} is none of them.")
    rows = spec.frame("cross_validation")
    rows = rows[rows["dtype"].isin(HALVES)].reset_index(drop=True)
    ends = ("expected", "low", "high")
    rows = rows.rename(columns={f"{left_out}_{end}": end for end in ends})
    inside = (rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])
    error = rows["expected"] / rows["value"] - 1
    return rows.assign(
        error=error, distance=error.abs(), covered=inside.where(rows["low"].notna()).astype(float)
    )


def summary(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Size and bias of the error, coverage and half-width of the intervals, by a column."""
    groups = rows.assign(width=np.sqrt(rows["high"] / rows["low"]) - 1).groupby(by, sort=False)
    return pd.DataFrame(
        {
            "rows": groups.size(),
            "median error": groups["distance"].median(),
            "90th percentile": groups["distance"].quantile(0.9),
            "bias": groups["error"].median(),
            "coverage": groups["covered"].mean(),
            "half-width": groups["width"].median(),
        }
    ).reset_index()


def over_gpus(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors and coverage by quantity where each GPU counts once, with standard errors over GPUs.

    error: mean over GPUs of the median of each; coverage: mean over the cells of a GPU, a source
    and a quantity; sources: how many measured it.
    """
    names = ["quantity", "gpu"]
    medians = rows.groupby(names, sort=False)["distance"].median().groupby("quantity", sort=False)
    cells = rows.groupby([*names, "measured_by"], sort=False)["covered"].mean()
    return pd.DataFrame(
        {
            "GPUs": medians.size(),
            "sources": rows.groupby("quantity")["measured_by"].nunique(),
            "error": medians.mean(),
            "standard error": medians.sem(),
            "coverage": cells.groupby("quantity", sort=False).mean(),
        }
    ).reset_index()


def plain_roofline(rows: pd.DataFrame) -> pd.Series:
    """What a plain roofline of published peaks expects of TTFT and TPOT rows; NaN for others.

    The larger of arithmetic over peak rate and bytes over bandwidth, as untuned analytic tools take
    it.
    """
    known, expected = spec.known(), pd.Series(np.nan, rows.index)
    for row in rows[rows["quantity"].isin(["ttft_s", "tpot_s"])].itertuples():
        shape, gpu, prefill = known[row.model], known[row.gpu], row.quantity == "ttft_s"
        new = row.prompt_tokens if prefill else 1
        past = 0 if prefill else row.prompt_tokens + row.output_tokens / 2
        moved = shape.weight_bytes("fp16") + row.batch * past * shape.kv_bytes_per_token("fp16")
        compute_s = shape.flops(new, past, row.batch) / (gpu.peak_fp16_tflops * 1e12)
        expected[row.Index] = max(compute_s, moved / (gpu.bandwidth_GBps * 1e9))
    return expected


def processors(runs: pd.DataFrame) -> pd.DataFrame:
    """Decode of measured processor runs, beside what the model expects of the rates they probed.

    runs: one row a run with model, engine, dtype, place, prompt_tokens, output_tokens, time_s of
    the decode, and the probe's bandwidth (GB/s), matmul (GFLOP/s) and memory_GiB. The model's
    parameters of GPUs play no part in it.
    """
    rows = []
    for run in runs[runs["model"].isin(spec.models())].itertuples():
        probed = model.gpu_from_probe(run.device, run.bandwidth, run.matmul, run.memory_GiB)
        at = {"batch": 1, "prompt": int(run.prompt_tokens), "output": int(run.output_tokens)}
        engine = spec.ENGINES.get(run.engine, run.engine)
        windows = model.windows(run.model, probed, engine=engine, dtype=run.dtype, **at)
        expected, measured = windows["tpot_s"].item(), run.time_s / (run.output_tokens - 1)
        rows.append(
            {
                "model": spec.label(run.model),
                "dtype": run.dtype,
                "engine": run.engine,
                "weights": run.weights,
                "place": run.place,
                "GB/s": run.bandwidth,
                "measured (ms)": measured * 1e3,
                "expected (ms)": expected * 1e3,
                "distance": abs(expected / measured - 1),
            }
        )
    return pd.DataFrame(rows)


def peers() -> pd.DataFrame:
    """Errors that users of other predictors report, and ours on the same points.

    Medians of the size of (expected / measured - 1) of a time; where a report states an error
    without its points, that one (a mean), and NaN for ours. Ours is the model as it stands, whose
    fit holds other measurements of the same GPU.
    """
    rows = spec.frame("peers")
    rate = rows["unit"] == "tokens/s"
    ratio = (rows["expected"] / rows["measured"]).where(~rate, rows["measured"] / rows["expected"])
    tokens = rows["batch"] * rows["output_tokens"]
    seconds = (rows["measured"] / 1e3).where(~rate, tokens / rows["measured"])
    table = rows.assign(
        theirs=(ratio - 1).abs().fillna(rows["stated_error_pct"] / 100),
        ours=(pd.Series([_serving_s(row) for row in rows.itertuples()]) / seconds - 1).abs(),
        rows=rows["measured"].notna(),
    )
    grouped = table.groupby(["tool", "version", "quantity"], sort=False)
    tools = grouped.agg({"rows": "sum", "theirs": "median", "ours": "median"}).reset_index()
    quantity, count = tools["quantity"].map(QUANTITIES), tools["rows"]
    return tools.assign(quantity=quantity, rows=count.where(count > 0))


def _serving_s(row) -> float:
    """Seconds that the model expects of a row of peers.csv; NaN where its setting is not stated."""
    if row.gpu == "-":
        return np.nan
    at = {"batch": row.batch, "prompt": row.prompt_tokens, "output": row.output_tokens}
    expected = model.windows(row.model, row.gpu, engine=row.engine, **at).squeeze()
    whole = expected["ttft_s"] + expected["tpot_s"] * (row.output_tokens - 1)
    return float(expected["ttft_s"] if row.quantity == "ttft_s" else whole)
