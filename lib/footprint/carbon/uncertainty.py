"""How uncertain embodied carbon is: priors, samples, and which inputs matter most.

A parameter is sampled once for each group that it has in `priors.csv` (a node, a memory family, or
all GPUs), from a random stream of its own: GPUs of one node err together, and another GPU changes
no GPU's samples.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy import special

from footprint import Refused, spec
from footprint.carbon.act import remark
from footprint.carbon.equation import YEAR_S
from footprint.carbon.methods import METHODS, Prior, method_named

Key = tuple[str, str]


def priors(*methods: str) -> dict[Key, dict]:
    """Rows of `priors.csv` by (parameter, group); a later method overrides an earlier one."""
    rows = spec.rows("priors")
    return {
        (row["parameter"], row["group"]): row
        for name in methods
        for row in rows
        if row["method"] == name
    }


def quantile(prior: dict, u: np.ndarray) -> np.ndarray:
    """The value of a prior at probability u; a normal prior is cut at its low and high."""
    # `scipy.stats` agrees to within 1e-12, but takes half a second to load in each page's process.
    low, high = prior["low"], prior["high"]
    if prior["shape"] == "uniform":
        return low + u * (high - low)
    if prior["shape"] == "loguniform":
        return low * np.exp(u * np.log(high / low))
    if prior["shape"] == "triangular":
        mode, width = prior["mode"], high - low
        rises = low + np.sqrt(u * width * (mode - low))
        falls = high - np.sqrt((1 - u) * width * (high - mode))
        return np.where(u * width < mode - low, rises, falls)
    if prior["shape"] == "normal":
        mean, sd = prior["mean"], prior["sd"]
        below, above = special.ndtr((low - mean) / sd), special.ndtr((high - mean) / sd)
        return mean + sd * special.ndtri(below + u * (above - below))
    raise Refused(
        f"The shape {prior['shape']!r} of a prior is unknown; "
        "allowed: normal, uniform, triangular, loguniform."
    )


def stream(key: Key, n: int, seed: int) -> np.ndarray:
    """The key's own stream of n probabilities."""
    if n < 1 or seed < 0:
        raise Refused(
            f"n is {n} and seed {seed}; n of 1 or more and a seed of 0 or more are allowed."
        )
    name = zlib.crc32("/".join(key).encode())
    return np.random.default_rng([seed, name]).random(n)


def prior_of(method: str, memory: str = "wide") -> tuple[Prior, dict[Key, dict[str, str]]]:
    """The prior of a method and its rows of `priors.csv`; `Refused` if it states none."""
    chosen = method_named(method)
    prior = (METHODS[chosen.sampled_as] if chosen.sampled_as else chosen).prior
    if prior is None or memory not in prior.rows:
        known = "; ".join(
            f"{name} with memory {' or '.join(other.prior.rows)}"
            for name, other in METHODS.items()
            if other.prior
        )
        raise Refused(
            f"How uncertain {method!r} is with memory {memory!r} is unknown; known are {known}."
        )
    return prior, priors(*prior.rows[memory])


def embodied_draws(
    gpu: str | spec.GPU | Sequence,
    n: int = 10_000,
    seed: int = 0,
    method: str = "act",
    memory: str = "wide",
) -> xr.DataArray:
    """n samples of a GPU's embodied emissions in kg CO2e, dims (gpu, sample); (sample) for one GPU.

    The same seed gives the same numbers. method: `act` samples die, memory and packages around ACT
    with Murphy's yield, `teardown` whole GPUs; one that states no uncertainty has its value in
    every sample. memory: `wide` (all sources) or `act` (ACT's own DRAM table).
    """
    many = not isinstance(gpu, str | spec.GPU)
    gpus = [spec.gpu(one) if isinstance(one, str) else one for one in (gpu if many else [gpu])]
    chosen = method_named(method)
    if chosen.prior or chosen.sampled_as or memory != "wide":
        rows = _rows(gpus, n, seed, *prior_of(method, memory))
        status, uncertainty = "modelled", "priors.csv"
    else:
        values = [chosen.value(one, **chosen.settings) for one in gpus]
        rows = [np.full(n, sum(kg.values())) for kg, _ in values]
        status = values[0][1]["status"]
        uncertainty = "none is published; every sample is the published value"
    kg = np.stack(rows)
    gap = np.isnan(kg[:, 0])
    reasons = [remark(one.id) if lacks else "" for one, lacks in zip(gpus, gap, strict=True)]
    coords = {"gpu": [one.id for one in gpus], "embodied_reason": ("gpu", reasons)}
    attrs = {
        "units": "kg",
        "long_name": "embodied emissions of the GPU",
        "method": method,
        "seed": seed,
        "status": status,
        "uncertainty": uncertainty,
        "memory": memory,
    }
    samples = xr.DataArray(kg, coords, ("gpu", "sample"), "embodied_kg", attrs)
    return samples if many else samples.isel(gpu=0)


def _rows(
    gpus: list[spec.GPU], n: int, seed: int, prior: Prior, known: dict[Key, dict[str, str]]
) -> list[np.ndarray]:
    """n samples of each GPU; a parameter that GPUs share is sampled once."""
    sampled: dict[Key, np.ndarray] = {}
    rows = []
    for gpu in gpus:
        keys = prior.parameters(gpu)
        for key in keys.items():
            if key not in sampled:
                sampled[key] = quantile(known[key], stream(key, n, seed))
        kg = prior.samples(gpu, {name: sampled[name, group] for name, group in keys.items()})
        rows.append(np.broadcast_to(kg, n))
    return rows


def use_draws(n: int = 10_000, seed: int = 0) -> xr.Dataset:
    """n samples of how a GPU is used: lifetime_years, utilisation, pue (dimension sample)."""
    samples = {}
    for (name, group), prior in priors("use").items():
        attrs = {"units": prior["unit"], "long_name": prior["label"]}
        samples[name] = ("sample", quantile(prior, stream((name, group), n, seed)), attrs)
    return xr.Dataset(samples, attrs={"seed": seed})


def summary(draws: xr.DataArray, level: float = 0.9) -> xr.Dataset:
    """Mean, median, low and high (a central interval of `level`) over the dimension sample."""
    if not 0 < level < 1:
        raise Refused(f"The level is {level}; a share between 0 and 1 is allowed.")
    tails = (1 - level) / 2
    cut = draws.quantile([tails, 0.5, 1 - tails], "sample", skipna=False)
    parts = {"mean": draws.mean("sample", skipna=False)}
    for at, name in enumerate(("low", "median", "high")):
        parts[name] = cut.isel(quantile=at, drop=True)
    return xr.Dataset(parts, attrs=draws.attrs | {"level": level})


def sensitivity(
    gpu: str | spec.GPU,
    method: str = "act",
    n: int = 2048,
    seed: int = 0,
    use: bool = False,
    memory: str = "wide",
) -> xr.Dataset:
    """Which inputs matter: Sobol indices and one-at-a-time swings of each uncertain parameter.

    Dimension parameter, the largest total index first. first_order and total_order (scipy's
    Saltelli estimator) have 90 % bootstrap intervals; low and high are the result with this
    parameter at its 5th and 95th percentile and all others at their medians. The result is in kg,
    or with `use` in grams amortised per busy hour, lifetime and utilisation sampled, too. n is a
    power of two. A parameter of something that the GPU lacks (a T4's casing) is left out.
    """
    record = spec.gpu(gpu) if isinstance(gpu, str) else gpu
    prior, rows = prior_of(method, memory)
    rows = rows | priors("use")
    keys = list(prior.parameters(record).items())
    keys += [("lifetime_years", "all"), ("utilisation", "all")] if use else []
    medians = {key[0]: quantile(rows[key], np.array([0.5])) for key in keys}

    def result(u: np.ndarray) -> np.ndarray:
        values = dict(medians)
        for key, row in zip(keys, u, strict=True):
            values[key[0]] = quantile(rows[key], row)
        kg = prior.samples(record, values)
        if not use:
            return kg
        return kg * 1000 * 3600 / (values["lifetime_years"] * YEAR_S * values["utilisation"])

    apart = 0.45 * np.eye(len(keys))  # from the median to the 5th and to the 95th percentile
    swing = {"low": result(0.5 - apart), "high": result(0.5 + apart)}
    if not np.isfinite(swing["low"]).all():
        raise Refused(
            f"The {method} method lacks an input of {record.id}, "
            "so nothing can be said of its sensitivity."
        )
    moves = swing["low"] != swing["high"]
    keys = [key for key, counts in zip(keys, moves, strict=True) if counts]
    indices = _indices(result, len(keys), n, seed)
    columns = indices | {name: values[moves] for name, values in swing.items()}
    coords = {
        "parameter": [name for name, _ in keys],
        "label": ("parameter", [rows[key]["label"] for key in keys]),
    }
    attrs = {
        "gpu": record.id,
        "method": method,
        "units": "g per busy hour" if use else "kg",
        "level": 0.9,
        "median": float(result(np.full((len(keys), 1), 0.5))[0]),
        "samples": n,
        "seed": seed,
    }
    whole = xr.Dataset({name: ("parameter", row) for name, row in columns.items()}, coords, attrs)
    return whole.sortby("total_order", ascending=False)


def _indices(result: Callable, count: int, n: int, seed: int) -> dict[str, np.ndarray]:
    """First-order and total Sobol indices with bootstrap intervals, the same for the same seed."""
    if n < 2 or n & (n - 1):
        raise Refused(f"n is {n}; a power of two is allowed.")
    from scipy import stats  # here, since it takes half a second to load

    generator, runs = np.random.default_rng(seed), {}

    def estimate(f_A, f_B, f_AB) -> tuple[np.ndarray, np.ndarray]:
        runs.update(f_A=f_A, f_B=f_B, f_AB=f_AB)
        return _saltelli(f_A, f_B, f_AB)

    sobol = stats.sobol_indices(
        func=result, n=n, dists=[stats.uniform()] * count, method=estimate, rng=generator
    )
    indices = {"first_order": sobol.first_order, "total_order": sobol.total_order}
    # scipy's own `bootstrap` of these indices takes no seed, so their runs are resampled here.
    interval = stats.bootstrap(
        [np.arange(n)],
        lambda rows: np.stack(_saltelli(**{name: f[..., rows] for name, f in runs.items()})),
        n_resamples=200,
        confidence_level=0.9,
        method="BCa",
        vectorized=False,
        rng=generator,
    ).confidence_interval
    for name, low, high in zip(tuple(indices), interval.low, interval.high, strict=True):
        indices |= {f"{name}_low": low, f"{name}_high": high}
    return {name: np.ravel(values) for name, values in indices.items()}


def _saltelli(f_A: np.ndarray, f_B: np.ndarray, f_AB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First-order and total indices (output, parameter) from three sets of runs; Saltelli 2010."""
    variance = np.var([f_A, f_B], axis=(0, -1))
    first, total = np.mean(f_B * (f_AB - f_A), axis=-1), np.mean((f_A - f_AB) ** 2, axis=-1) / 2
    return (first / variance).T, (total / variance).T
