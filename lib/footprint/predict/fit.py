"""The calibration: the GPU model fitted to published measurements, and judged on those left out.

`python -m footprint.predict.fit` (two minutes, deterministic) reads data/measurements.csv and the
priors in data/parameters.csv, and writes the fitted values there and the left-out predictions to
data/cross_validation.csv. Left out in turn: whole GPUs, whole models, whole sources, and a GPU's
die with its sources; each time everything is fitted anew.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from footprint import spec
from footprint.predict import intervals, model, roofline
from footprint.predict.intervals import from_logs
from footprint.predict.roofline import Dtype, Engine
from footprint.predict.validation import HALVES, LEFT_OUT, residuals, summary
from footprint.spec.tables import DATA

# Scatter of the measurements (logarithms); 8 % where nothing is said.
SCATTER = {"power_W": 0.08, "matmul_TFLOPs": 0.15, "copy_GBps": 0.1, "ttft_s": 0.1}
FITTED = ("time", "power", "protocol")
SETTING = ["gpu", "model", "engine", "software", "dtype", "load"]
SIZES = ["batch", "prompt_tokens", "output_tokens"]
RECENT = ("watt-counts",)  # sources that ran a serving engine of 2025 or later
PRODUCTS = 16  # four of them in a layer, which have a quarter of its latency
PROVENANCE = {
    "source": "this project",
    "accessed": "2026-11-22",
    "status": "modelled",
    "licence": "Apache-2.0",
}


@cache
def measurements() -> pd.DataFrame:
    """The published measurements: the rows of data/measurements.csv."""
    return spec.frame("measurements").astype({name: float for name in (*SIZES, "chunk_tokens")})


class Cases(NamedTuple):
    """Models, GPUs, engines and dtypes of rows of measurements, as arrays (row,)."""

    models: roofline.Models
    gpus: roofline.GPUs
    engine: np.ndarray
    dtype: np.ndarray


def cases(p: dict[str, float], rows: pd.DataFrame) -> Cases:
    """The arrays of these rows; bare kernels count as a serving engine's, whatever the model."""
    names = rows["model"].replace("-", "llama-7b")
    models, of_model = np.unique(names.to_numpy(), return_inverse=True)
    gpus, of_gpu = np.unique(rows["gpu"].to_numpy(), return_inverse=True)
    m = roofline.model_arrays([spec.known()[name] for name in models])
    g = roofline.gpu_arrays(p, [spec.known()[name] for name in gpus])
    engine = rows["engine"].replace("kernels", "serving").map(lambda name: Engine[name])
    return Cases(
        roofline.each(m, lambda array: array[of_model]),
        roofline.each(g, lambda array: array[of_gpu]),
        engine.to_numpy(dtype=int),
        rows["dtype"].map(lambda name: Dtype[name]).to_numpy(dtype=int),
    )


def expected(p: dict[str, float], rows: pd.DataFrame, ready: Cases | None = None) -> pd.DataFrame:
    """What the model expects of each row.

    Columns: value, the shares of the causes in its time and power, indices of engine and memory.
    """
    m, g, engine, dtype = ready or cases(p, rows)
    recent = rows["source"].isin(RECENT).to_numpy()
    r = roofline.rates(p, m, g, engine, dtype, recent=recent)
    batch, prompt, output = rows[SIZES].to_numpy().T
    chunk = np.where(rows["chunk_tokens"] > 0, rows["chunk_tokens"], np.inf)
    closed = (rows["load"] == "closed").to_numpy()
    cold = (rows["software"] == "llama.cpp main").to_numpy()
    context = np.maximum(prompt + output, 1)
    memory = roofline.memory(p, m, r, engine, batch, prompt, context)
    room = np.maximum(roofline.largest_batch(p, m, r, engine, prompt, context, 0.9 * g.bytes), 1)
    # A serving engine queues what does not fit.
    side = np.where(engine == Engine.serving, np.minimum(batch, room), batch)
    prefill = roofline.forward_pass(p, m, r, side, np.maximum(prompt, 1), 0.0, chunk)
    decode = roofline.forward_pass(p, m, r, side, 1.0, prompt + np.maximum(output - 2, 0) / 2)
    steps = np.maximum(output - 1, 0)
    once = prefill.time + steps * decode.time
    power = roofline.power(g, r, prefill.joules + steps * decode.joules, once)
    watts = np.minimum(power.watts * np.where(closed, p["closed_power"], 1), g.cap)
    whole = batch / side * once * np.where(closed, p["closed_time"], 1)
    # A queue is served until it is empty: its rates are of whole requests, and of its thin end too.
    queue, drain = (rows["load"] == "queue").to_numpy(), 1 + rows["drain_pct"].to_numpy() / 100
    capped = p["cap_relief"] * r.capped_flop_J / r.room_W
    values = {
        "ttft_s": batch / side * prefill.time + cold * p["cold_s"],
        "tpot_s": drain * np.where(queue, whole / np.maximum(output, 1), decode.time),
        "e2e_s": whole,
        "power_W": watts,
        "energy_J": drain * watts * whole,
        "layer_matrices_s": _layer_s(p, m, r, batch * prompt),
        "memory_GiB": memory / 2**30,
        "matmul_TFLOPs": 1e-12 / roofline.soft4(1 / r.compute, capped),
        "copy_GBps": r.bandwidth / 1e9,
    }
    quantity = rows["quantity"].to_numpy()
    value = np.select([quantity == name for name in values], list(values.values()), np.nan)
    of_prefill = prefill.time / once
    of_step = (quantity == "tpot_s") & ~queue
    part = np.select([quantity == "ttft_s", of_step], [1.0, 0.0], of_prefill)
    columns = {"value": value}
    for name in intervals.CAUSES:
        columns[name] = part * prefill.shares[name] + (1 - part) * decode.shares[name]
    columns |= {"joules": power.joules, "floor": power.floor}
    columns |= {"memory_index": g.memory, "engine_index": engine, "loaded": g.loaded}
    return pd.DataFrame(columns, index=rows.index)


def _layer_s(p: dict[str, float], m: roofline.Models, r: roofline.Rates, tokens):
    """Seconds of the four matrix products of one decoder layer."""
    moved, flops = 2 * m.layer_weights, 2 * m.layer_weights * (tokens + r.half_tokens)
    needed = p["cap_relief"] * (moved * r.byte_J + flops * r.capped_flop_J) / r.room_W
    return roofline.soft4(roofline.soft3(moved / r.read, flops / r.compute) + r.layer_s / 4, needed)


def products_us(p: dict[str, float], rows: pd.DataFrame, ready: Cases | None = None) -> np.ndarray:
    """Microseconds of single matrix products: rows with gpu, dtype, m, n and k (data/gemm.csv)."""
    m, g, engine, dtype = ready or cases(p, as_kernels(rows))
    r = roofline.rates(p, m, g, engine, dtype, recent=False)
    weights, tokens = (rows["n"] * rows["k"]).to_numpy(dtype=float), rows["m"].to_numpy()
    read, compute = weights * r.weight_bytes / r.read, 2 * weights / r.compute
    busy = roofline.soft3(read, compute * (tokens + r.half_tokens))
    return 1e6 * (busy + r.layer_s / PRODUCTS)


def as_kernels(rows: pd.DataFrame) -> pd.DataFrame:
    """Products as rows of bare kernels, which have no model."""
    return rows.assign(model="-", engine="kernels")


def priors(*groups: str) -> pd.DataFrame:
    """Priors of the parameters of these groups: prior_median and prior_log_sd by name."""
    rows = spec.frame("parameters").set_index("name")
    return rows.loc[rows["group"].isin(groups), ["prior_median", "prior_log_sd"]]


def fit(
    rows: pd.DataFrame, fixed: dict[str, float], start=None, products: pd.DataFrame | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the parameters and their standard errors, by least squares on logarithms.

    A cell (one GPU, source, engine, dtype and quantity) of n rows weighs as much as sqrt(n) of
    them, quantised rows a quarter; residuals beyond their scatter count linearly (pseudo-Huber);
    priors are Gaussian in the logarithm. Energy rows are left out (they are power x time), memory
    is fitted apart. products: single matrix products (none: those of data/gemm.csv).
    """
    products = spec.frame("gemm") if products is None else products
    from scipy.optimize import least_squares  # here: slow to load, and no page of the book fits

    rows = rows[~rows["quantity"].isin(("energy_J", "memory_GiB"))]
    prior = priors(*FITTED)
    middle, width = np.log(prior["prior_median"].to_numpy()), prior["prior_log_sd"].to_numpy()
    measured = np.log(rows["value"].to_numpy())
    cells = rows.groupby(["gpu", "source", "engine", "dtype", "quantity"])["value"]
    quantised = np.where(rows["dtype"].str.startswith("int"), 0.5, 1)
    scatter = rows["quantity"].map(SCATTER).fillna(0.08).to_numpy()
    scatter = np.hypot(scatter, rows["drain_pct"].to_numpy() / 200)  # half of it is an estimate
    weight = cells.transform("size").to_numpy() ** -0.25 * quantised / scatter
    ready, ready_kernels = cases(fixed, rows), cases(fixed, as_kernels(products))
    of_gpu = products.groupby("gpu")["us"].transform("size").to_numpy()
    weight = np.concatenate([weight, of_gpu**-0.25 / 0.08])
    measured = np.concatenate([measured, np.log(products["us"].to_numpy())])

    def residuals(x):
        p = fixed | from_logs(prior.index, x)
        value = expected(p, rows, ready)["value"].to_numpy()
        value = np.concatenate([value, products_us(p, products, ready_kernels)])
        off = weight * (np.log(value) - measured)
        huber = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1))
        return np.concatenate([huber, (x - middle) / width])

    found = least_squares(residuals, middle if start is None else start, x_scale=width)
    return found.x, np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))


def idle() -> dict[str, float]:
    """Idle watts = constant + share of the cap (+ HBM), fitted to those that are published."""
    gpus = [item for item in spec.known().values() if isinstance(item, spec.GPU)]
    gpus = [gpu for gpu in gpus if not np.isnan(gpu.idle_W)]
    terms = np.array([(1.0, gpu.tdp_W, gpu.memory_family == "hbm") for gpu in gpus])
    found = np.linalg.lstsq(terms, np.array([gpu.idle_W for gpu in gpus]), rcond=None)[0]
    return dict(zip(("idle_W", "idle_share", "idle_hbm_W"), found, strict=True))


def memory(p: dict[str, float], rows: pd.DataFrame) -> dict[str, float]:
    """Copies of the cache, activations and context that fit the 16-bit rows of peak memory best."""
    from scipy.optimize import least_squares  # here, as above

    rows = rows[(rows["quantity"] == "memory_GiB") & ~rows["dtype"].str.startswith("int")]
    names = ["memory_copies_eager", "memory_activations", "memory_context_GB"]

    def residuals(x):
        return np.log(expected(p | from_logs(names, x), rows)["value"] / rows["value"])

    start = np.log(priors("memory").loc[names, "prior_median"].to_numpy())
    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.05)
    half = intervals.covering(np.abs(residuals(found.x)))
    return from_logs(names, found.x) | {"memory_half_width": half}


def _folds(rows: pd.DataFrame, split: str) -> Iterator[tuple[pd.Series, Callable]]:
    """The rows that are judged together, and a function that tells which rows a fit must not see.

    split: gpu, model, source; or `both`, where a GPU is judged by a fit that has seen neither its
    die nor a source that measured it.
    """
    if split != "both":
        for group in rows[split].unique():
            yield rows[split] == group, lambda table, group=group: table[split] == group
        return
    known = spec.known()
    for gpu in rows["gpu"].unique():
        die = (known[gpu].architecture, known[gpu].die_mm2)
        dies = {
            name
            for name in rows["gpu"].unique()
            if (known[name].architecture, known[name].die_mm2) == die
        } | {gpu}
        sources = set(rows.loc[rows["gpu"] == gpu, "source"])
        yield (
            rows["gpu"] == gpu,
            lambda table, dies=dies, sources=sources: (
                table["gpu"].isin(dies) | table["source"].isin(sources)
            ),
        )


def left_out(p: dict[str, float], rows: pd.DataFrame, split: str, start) -> pd.DataFrame:
    """Each row as a fit to the others expects it, and `off`, the logarithm of expected / value."""
    parts, names, products = [], priors(*FITTED).index, spec.frame("gemm")
    for inside, unseen in _folds(rows, split):
        seen = products[~unseen(products.assign(model="-"))]
        own = p | from_logs(names, fit(rows[~unseen(rows)], p, start, seen)[0])
        mine = rows[inside]
        parts.append(mine.join(expected(own, mine).rename(columns={"value": "expected"})))
    expectations = pd.concat(parts).loc[rows.index]
    return expectations.assign(off=np.log(expectations["expected"] / expectations["value"]))


def calibrate() -> tuple[dict[str, float], dict[str, float], pd.DataFrame]:
    """All parameters, standard errors of the fitted logarithms, and the cross-validation table."""
    p = dict(model.parameters())
    rows = measurements()
    p |= idle()
    p |= memory(p, rows)
    rows = rows[rows["quantity"] != "memory_GiB"]
    x, error = fit(rows, p)
    names, spreads = priors(*FITTED).index, priors("spread")
    p |= from_logs(names, x)
    errors = dict(zip(names, error, strict=True))
    for kind in ("hbm", "hbm3", "gddr", "gddr_ecc"):
        p[f"spread_memory_{kind}"] = errors[f"bandwidth_{kind}"]
    for kind in ("hbm", "hbm3", "gddr"):
        p[f"spread_joules_{kind}"] = errors[f"byte_nJ_{kind}"]
    left = {split: left_out(p, rows, split, x) for split in LEFT_OUT}
    judged = rows["quantity"].isin(intervals.LEVELS)
    full = judged & rows["dtype"].isin(HALVES)
    # 4 bits: more than one program of this class
    used = full | ((rows["engine"] == "graphs") & (rows["quantity"] == "tpot_s"))
    p |= intervals.fit(p, left["gpu"][used], spreads)
    new, same = intervals.levels(p, left["gpu"][full]), intervals.levels(p, left["model"][full])
    quantised = intervals.levels(p, left["gpu"][judged & ~full])
    for name in new:
        p |= {f"level_{name}_new": max(new[name], same[name]), f"level_{name}_known": same[name]}
        p[f"level_{name}_quantised"] = max(quantised[name], p[f"level_{name}_new"])
    table = rows.assign(fitted=expected(p, rows)["value"])
    for split in LEFT_OUT:
        half = intervals.nested(p, left[split][used], spreads, split).where(full)
        half, value = half.reindex(rows.index), left[split]["expected"]
        bounds = {"expected": value, "low": value * np.exp(-half), "high": value * np.exp(half)}
        table = table.assign(**{f"{split}_{end}": column for end, column in bounds.items()})
    return p, errors, table


def save(p: dict[str, float], errors: dict[str, float], table: pd.DataFrame) -> None:
    """Write data/parameters.csv and data/cross_validation.csv anew."""
    rows = pd.DataFrame(spec.table("parameters"))
    rows["value"] = rows["name"].map(lambda name: f"{p[name]:.5g}")
    fitted = rows["name"].isin(list(errors))
    rows.loc[fitted, "log_se"] = rows.loc[fitted, "name"].map(lambda name: f"{errors[name]:.3g}")
    rows.to_csv(DATA.joinpath("parameters.csv"), index=False, lineterminator="\n")
    ends = [f"{split}_{end}" for split in LEFT_OUT for end in ("expected", "low", "high")]
    kept = table[[*SETTING, *SIZES, "quantity", "value", "fitted", *ends]]
    kept = kept.assign(measured_by=table["source"], **PROVENANCE)
    numbers = ["value", "fitted", *ends, *SIZES]
    kept[numbers] = kept[numbers].map(lambda number: f"{number:.4g}")
    kept.to_csv(DATA.joinpath("cross_validation.csv"), index=False, lineterminator="\n")


if __name__ == "__main__":
    save(*calibrate())
    for split in LEFT_OUT:
        shown = summary(residuals(split), "quantity").round(3).to_string(index=False)
        print(f"Left out: each {split} in turn\n{shown}\n")
