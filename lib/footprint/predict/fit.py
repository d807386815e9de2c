"""The calibration: fits the parameters of the GPU model to published measurements and judges it on what was left out.

`python -m footprint.predict.fit` (two minutes, deterministic) reads data/measurements.csv and the priors in
data/parameters.csv, and writes the fitted values there and the left-out predictions to data/cross_validation.csv.
Left out in turn: whole cards, whole models, whole sources; each time everything is fitted anew.
"""

import csv
from importlib.resources import files

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from footprint import spec
from footprint.predict import intervals, roofline
from footprint.predict.observed import expected, known, measurements, setting

SCATTER = {
    "power_W": 0.08,
    "matmul_TFLOPs": 0.15,
    "copy_GBps": 0.1,
    "ttft_s": 0.1,
}  # of the data; other times 8 %
FITTED = ("time", "power", "protocol")
SPLITS = ("gpu", "model", "source")
PROVENANCE = {
    "source": "this project",
    "accessed": "2026-11-22",
    "status": "modelled",
    "licence": "Apache-2.0",
}


def priors(*groups: str) -> pd.DataFrame:
    """Priors of the parameters of these groups: index name, columns prior_median and prior_log_sd."""
    rows = pd.DataFrame(spec.table("parameters")).set_index("name")
    return rows.loc[rows["group"].isin(groups), ["prior_median", "prior_log_sd"]].astype(float)


def fit(rows: pd.DataFrame, fixed: dict[str, float], start=None) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the parameters and their standard errors: least squares on ln(expected / measured).

    A cell (one card, source, engine, dtype and quantity) of n rows weighs as much as sqrt(n) of them, quantised rows
    a quarter; residuals beyond their scatter count linearly (pseudo-Huber); priors are Gaussian in the logarithm.
    Energy rows are left out (they are power x time), memory is fitted apart.
    """
    rows = rows[~rows["quantity"].isin(("energy_J", "memory_GiB"))]
    prior = priors(*FITTED)
    middle, width = np.log(prior["prior_median"].to_numpy()), prior["prior_log_sd"].to_numpy()
    measured = np.log(rows["value"].to_numpy())
    cell = (
        rows.groupby(["gpu", "source", "engine", "dtype", "quantity"])["value"]
        .transform("size")
        .to_numpy()
    )
    weight = (
        cell**-0.25
        * np.where(rows["dtype"].str.startswith("int"), 0.5, 1)
        / rows["quantity"].map(SCATTER).fillna(0.08).to_numpy()
    )

    ready = setting(fixed, rows)

    def residuals(x):
        p = fixed | dict(zip(prior.index, np.exp(x), strict=True))
        off = weight * (np.log(expected(p, rows, ready)["value"].to_numpy()) - measured)
        return np.concatenate(
            [np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1)), (x - middle) / width]
        )

    found = least_squares(residuals, middle if start is None else start, x_scale=width)
    return found.x, np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))


def idle(p: dict[str, float]) -> dict[str, float]:
    """Idle watts = constant + share of the cap (+ HBM), least squares over the cards whose idle power is published."""
    gpus = [
        item
        for item in known().values()
        if isinstance(item, spec.GPU) and not np.isnan(item.idle_W)
    ]
    terms = np.array([(1.0, gpu.tdp_W, roofline.memory_of(gpu) == 0) for gpu in gpus])
    found = np.linalg.lstsq(terms, np.array([gpu.idle_W for gpu in gpus]), rcond=None)[0]
    return dict(zip(("idle_W", "idle_share", "idle_hbm_W"), found, strict=True))


def memory(p: dict[str, float], rows: pd.DataFrame) -> dict[str, float]:
    """Copies of the cache, activations and context that fit the 16-bit rows of peak memory best."""
    rows = rows[(rows["quantity"] == "memory_GiB") & ~rows["dtype"].str.startswith("int")]
    names = ("memory_copies_eager", "memory_activations", "memory_context_GB")

    def residuals(x):
        return np.log(
            expected(p | dict(zip(names, np.exp(x), strict=True)), rows)["value"] / rows["value"]
        )

    start = np.log(priors("memory").loc[list(names), "prior_median"].to_numpy())
    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.05)
    half = intervals.quantile(np.abs(residuals(found.x).to_numpy()), np.ones(len(rows)))
    return dict(zip(names, np.exp(found.x), strict=True)) | {"memory_half_width": half}


def left_out(p: dict[str, float], rows: pd.DataFrame, split: str, start) -> pd.DataFrame:
    """Each row as expected by a fit to the rows of the other cards, models or sources; `off` = ln expected / measured."""
    parts, names = [], priors(*FITTED).index
    for group in rows[split].unique():
        inside = rows[split] == group
        x = fit(rows[~inside], p, start)[0]
        own = p | dict(zip(names, np.exp(x), strict=True))
        parts.append(
            rows[inside].join(expected(own, rows[inside]).rename(columns={"value": "expected"}))
        )
    found = pd.concat(parts).loc[rows.index]
    return found.assign(off=np.log(found["expected"] / found["value"]))


def run() -> tuple[dict[str, float], dict[str, float], pd.DataFrame]:
    """Parameters, the standard errors of the logarithms of the fitted ones, and the cross-validation table."""
    p = {row["name"]: float(row["value"]) for row in spec.table("parameters")}
    rows = measurements()
    p |= idle(p)
    p |= memory(p, rows)
    rows = rows[rows["quantity"] != "memory_GiB"]
    x, error = fit(rows, p)
    names, spreads = priors(*FITTED).index, priors("spread")
    p |= dict(zip(names, np.exp(x), strict=True))
    errors = dict(zip(names, error, strict=True))
    p |= {f"spread_memory_{kind}": errors[f"bandwidth_{kind}"] for kind in roofline.MEMORIES[:3]}
    p |= {f"spread_joules_{kind}": errors[f"byte_nJ_{kind}"] for kind in ("hbm", "gddr")}
    left = {split: left_out(p, rows, split, x) for split in SPLITS}
    judged = rows["quantity"].isin(intervals.LEVELS)
    full = judged & rows["dtype"].isin(("fp16", "bf16"))
    other = (rows["engine"] == "graphs") & (
        rows["quantity"] == "tpot_s"
    )  # 4 bits: more than one program of this class
    p |= intervals.fit(p, left["gpu"][full | other], spreads)
    new, same = (intervals.levels(p, left[split][full]) for split in ("gpu", "model"))
    quantised = intervals.levels(p, left["gpu"][judged & ~full])
    for name in new:
        p |= {f"level_{name}_new": max(new[name], same[name]), f"level_{name}_known": same[name]}
        p[f"level_{name}_quantised"] = max(quantised[name], p[f"level_{name}_new"])
    table = rows.assign(fitted=expected(p, rows)["value"])
    for split in SPLITS:
        half = (
            intervals.nested(p, left[split][full | other], spreads, split)
            .where(full)
            .reindex(rows.index)
        )
        value = left[split]["expected"]
        table = table.assign(
            **{
                split + "_expected": value,
                split + "_low": value * np.exp(-half),
                split + "_high": value * np.exp(half),
            }
        )
    return p, errors, table


def accuracy(table: pd.DataFrame, split: str, *keys: str) -> pd.DataFrame:
    """Figures of the 16-bit rows when each group of `split` was left out, by `keys` and overall where there are none.

    Columns: rows, median and p90 of |expected / measured - 1|, bias (median of the signed one), covered (share inside
    the 90 % interval), half_width (median of high / expected - 1).
    """
    table = table[table["dtype"].isin(("fp16", "bf16"))]
    off = table[f"{split}_expected"] / table["value"] - 1
    inside = table["value"].between(table[f"{split}_low"], table[f"{split}_high"])
    inside = inside.astype(float).where(table[f"{split}_low"].notna())
    wide = table[f"{split}_high"] / table[f"{split}_expected"] - 1
    found = table[list(keys)].assign(
        rows=1, off=off, error=off.abs(), covered=inside, half_width=wide
    )
    groups = found.groupby(list(keys))
    return pd.DataFrame(
        {
            "rows": groups["rows"].sum(),
            "median": groups["error"].median(),
            "p90": groups["error"].quantile(0.9),
            "bias": groups["off"].median(),
            "covered": groups["covered"].mean(),
            "half_width": groups["half_width"].median(),
        }
    )


def save(p: dict[str, float], errors: dict[str, float], table: pd.DataFrame) -> None:
    """Write the values into data/parameters.csv and the left-out predictions into data/cross_validation.csv."""
    folder = files("footprint").joinpath("data")
    rows = [dict(row) for row in spec.table("parameters")]
    for row in rows:
        row["value"] = f"{p[row['name']]:.5g}"
        row["log_se"] = f"{errors[row['name']]:.3g}" if row["name"] in errors else row["log_se"]
    with folder.joinpath("parameters.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    kept = [
        "gpu",
        "model",
        "engine",
        "software",
        "dtype",
        "load",
        "batch",
        "prompt_tokens",
        "output_tokens",
        "quantity",
    ]
    ends = [f"{split}_{end}" for split in SPLITS for end in ("expected", "low", "high")]
    table = table[[*kept, "value", "fitted", *ends]].assign(
        measured_by=table["source"], **PROVENANCE
    )
    numbers = ["value", "fitted", *ends, "batch", "prompt_tokens", "output_tokens"]
    table[numbers] = table[numbers].map(lambda number: f"{number:.4g}")
    table.to_csv(folder.joinpath("cross_validation.csv"), index=False, lineterminator="\n")


if __name__ == "__main__":
    parameters, standard_errors, crossed = run()
    save(parameters, standard_errors, crossed)
    for left in SPLITS:
        print(f"Left out: each {left} in turn\n{accuracy(crossed, left, 'quantity').round(3)}\n")
