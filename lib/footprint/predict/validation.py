"""How far the predictor was off on measurements that it had not seen: whole cards, models or sources left out in turn.

Reads `data/cross_validation.csv`, which `python -m footprint.predict.fit` writes: for each public measurement the value that
was expected by a fit without its card (`gpu_`), without its model (`model_`) and without its source (`source_`).
The errors of other tools stand in `data/peers.csv`.
"""

import numpy as np
import pandas as pd

from footprint import Refused, spec
from footprint.energy import findings
from footprint.predict import model as predict
from footprint.predict import observed

HALVES = ("fp16", "bf16")
LEFT_OUT = ("gpu", "model", "source")
QUANTITIES = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "e2e_s": "whole request",
    "power_W": "power",
    "energy_J": "energy",
}


def residuals(left_out: str = "gpu") -> pd.DataFrame:
    """One row a 16-bit measurement: its value, what was expected without its card, model or source, and the bounds (90 %).

    Added: `error` (expected / value - 1), `distance` (its size, |ln|-symmetric as a share), `covered` (NaN without bounds).
    """
    if left_out not in LEFT_OUT:
        raise Refused(f"Left out can be {', '.join(LEFT_OUT)}; {left_out!r} is none of them.")
    rows = pd.DataFrame(spec.table("cross_validation"))
    rows = rows[rows["dtype"].isin(HALVES)].reset_index(drop=True)
    names = [f"{left_out}_{end}" for end in ("expected", "low", "high")]
    numbers = ["batch", "prompt_tokens", "output_tokens", "value", "fitted", *names]
    rows[numbers] = rows[numbers].apply(pd.to_numeric, errors="coerce")
    rows = rows.rename(columns=dict(zip(names, ("expected", "low", "high"), strict=True)))
    inside = (rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])
    error = rows["expected"] / rows["value"] - 1
    return rows.assign(
        error=error, distance=error.abs(), covered=inside.where(rows["low"].notna()).astype(float)
    )


def summary(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Median and 90th percentile of the size of the error, coverage and median half-width, by a column."""
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


def roofline(rows: pd.DataFrame) -> pd.Series:
    """What a plain roofline of published peaks expects of the TTFT and TPOT rows; NaN for all others.

    The larger of arithmetic over peak rate and bytes over bandwidth, as untuned analytic tools take it.
    """
    known, expected = observed.known(), pd.Series(np.nan, rows.index)
    for row in rows[rows["quantity"].isin(["ttft_s", "tpot_s"])].itertuples():
        shape, card = known[row.model], known[row.gpu]
        prefill = row.quantity == "ttft_s"
        new, past = (
            (row.prompt_tokens, 0) if prefill else (1, row.prompt_tokens + row.output_tokens / 2)
        )
        moved = shape.weight_bytes("fp16") + row.batch * past * shape.kv_bytes_per_token("fp16")
        compute = shape.flops(new, past, row.batch) / (card.peak_fp16_tflops * 1e12)
        expected[row.Index] = max(compute, moved / (card.bandwidth_GBps * 1e9))
    return expected


def processors(points: pd.DataFrame) -> pd.DataFrame:
    """Decode at batch 1 of the measured processor runs, beside what `predict` expects of the rates probed in the same run.

    Rates count once for a run; the model's parameters of cards play no part in it. `distance` is the size of the error.
    """
    rows = []
    for run in findings.processors(points).itertuples():
        card = predict.gpu_from_probe(run.device, run.bandwidth, run.matmul, run.memory_GiB)
        at = {"batch": 1, "prompt": int(run.prompt_tokens), "output": int(run.output_tokens)}
        expected = predict.windows(run.model, card, engine=run.engine, dtype=run.dtype, **at)[
            "tpot_s"
        ].item()
        measured = run.time_s / (run.output_tokens - 1)
        rows.append(
            {
                "model": findings.label(run.model),
                "dtype": run.dtype,
                "place": run.place,
                "GB/s": run.bandwidth,
                "measured (ms)": measured * 1e3,
                "expected (ms)": expected * 1e3,
                "distance": abs(expected / measured - 1),
            }
        )
    return pd.DataFrame(rows)


def peers() -> pd.DataFrame:
    """Errors that users of other predictors report, one row a tool and quantity, and ours on the same points.

    Medians of the size of (expected / measured - 1) of a time; where a report states an error without its points, that
    one (a mean), and NaN for ours. Ours is `predict` as it stands, whose fit holds other measurements of the same card.
    """
    rows = pd.DataFrame(spec.table("peers"))
    numbers = [
        "batch",
        "prompt_tokens",
        "output_tokens",
        "expected",
        "measured",
        "stated_error_pct",
    ]
    rows[numbers] = rows[numbers].astype(float)
    rate = rows["unit"] == "tokens/s"
    ratio = (rows["expected"] / rows["measured"]).where(~rate, rows["measured"] / rows["expected"])
    seconds = (rows["measured"] / 1e3).where(
        ~rate, rows["batch"] * rows["output_tokens"] / rows["measured"]
    )
    theirs = (ratio - 1).abs().fillna(rows["stated_error_pct"] / 100)
    ours = (pd.Series([_serving(row) for row in rows.itertuples()]) / seconds - 1).abs()
    table = rows.assign(theirs=theirs, ours=ours, rows=rows["measured"].notna())
    grouped = table.groupby(["tool", "version", "quantity"], sort=False)
    found = grouped.agg({"rows": "sum", "theirs": "median", "ours": "median"}).reset_index()
    return found.assign(
        quantity=found["quantity"].map(QUANTITIES), rows=found["rows"].where(found["rows"] > 0)
    )


def _serving(row) -> float:
    """Seconds that `predict` expects of a row of peers.csv; NaN where its setting is not stated."""
    if row.gpu == "-":
        return np.nan
    at = {"batch": row.batch, "prompt": row.prompt_tokens, "output": row.output_tokens}
    found = predict.windows(row.model, row.gpu, engine=row.engine, **at).squeeze()
    whole = found["ttft_s"] + found["tpot_s"] * (row.output_tokens - 1)
    return float(found["ttft_s"] if row.quantity == "ttft_s" else whole)
