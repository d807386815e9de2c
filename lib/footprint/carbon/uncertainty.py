"""How uncertain a card's making is: priors, draws that cards share where they share a cause, and what matters most.

A parameter is drawn once for each group it has in `priors.csv` (a node, a memory family, or all cards), from a stream
of its own: two cards of one node err together, and adding a card changes no other card's draws.
"""

import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy import special

from footprint import Refused, spec
from footprint.carbon.act import act_kg, die_yield, fab_row, measure, nearest_node, remark
from footprint.carbon.teardown import INPUTS, paper, teardown_factors, teardown_kg, vendor

Key = tuple[str, str]
YEAR_S = 365.25 * 86400
SCALED = ("die", "board", "cooling", "casing", "transport", "end of life")


def priors(*methods: str) -> dict[Key, dict[str, str]]:
    """Rows of `priors.csv` of these methods by (parameter, group); a later method overrides an earlier one."""
    rows = spec.table("priors")
    return {
        (row["parameter"], row["group"]): row
        for name in methods
        for row in rows
        if row["method"] == name
    }


def quantile(prior: dict[str, str], u: np.ndarray) -> np.ndarray:
    """The prior's value at probability u: normal (cut at low and high), uniform, triangular or loguniform."""
    low, high = float(prior["low"]), float(prior["high"])
    if prior["shape"] == "uniform":
        return low + u * (high - low)
    if prior["shape"] == "loguniform":
        return low * np.exp(u * math.log(high / low))
    if prior["shape"] == "triangular":
        mode, width = float(prior["mode"]), high - low
        rises, falls = (
            low + np.sqrt(u * width * (mode - low)),
            high - np.sqrt((1 - u) * width * (high - mode)),
        )
        return np.where(u * width < mode - low, rises, falls)
    if prior["shape"] == "normal":
        mean, sd = float(prior["mean"]), float(prior["sd"])
        below, above = special.ndtr((low - mean) / sd), special.ndtr((high - mean) / sd)
        return mean + sd * special.ndtri(below + u * (above - below))
    raise Refused(
        f"The shape {prior['shape']!r} of a prior is unknown; allowed: normal, uniform, triangular, loguniform."
    )


def stream(key: Key, n: int, seed: int) -> np.ndarray:
    """The key's own stream of n probabilities."""
    if n < 1 or seed < 0:
        raise Refused(
            f"n is {n} and seed {seed}; n of 1 or more and a seed of 0 or more are allowed."
        )
    name = zlib.crc32("/".join(key).encode())
    return np.random.default_rng([seed, name]).random(n)


def parameters(card: spec.GPU, method: str) -> dict[str, str]:
    """Uncertain parameters of a card by method, and the group that each belongs to."""
    node, family = f"{nearest_node(card.node):g}", card.memory_family
    if method == "act":
        by_node = ("epa_scale", "gas_position", "fab_g_per_kwh", "defects_per_cm2")
        return dict.fromkeys(by_node, node) | {"mpa_scale": "all", "memory_kg_per_gb": family}
    scales = {f"{name.replace(' ', '_')}_scale": "all" for name in SCALED}
    return {"defects_per_cm2": node, "memory_scale": family} | scales


def kilograms(card: spec.GPU, method: str, values: dict[str, np.ndarray]) -> np.ndarray:
    """Total kg CO2e of a card for drawn values: ACT with packages, or the scaled teardown; Murphy's yield in both."""
    good = die_yield(card.die_mm2, "murphy", defects_per_cm2=values["defects_per_cm2"])
    parts = _act_parts if method == "act" else _teardown_parts
    return sum(parts(card, good, values).values())


def _act_parts(card: spec.GPU, good: np.ndarray, values: dict[str, np.ndarray]) -> dict:
    row = fab_row(card.node)
    clean, dirty = row["gpa99_g_per_cm2"], row["gpa95_g_per_cm2"]
    gas = clean + values["gas_position"] * (dirty - clean)
    epa, mpa = (
        row["epa_kwh_per_cm2"] * values["epa_scale"],
        row["mpa_g_per_cm2"] * values["mpa_scale"],
    )
    memory = card.memory_GiB * values["memory_kg_per_gb"]
    packages = 1 + measure(card.id, "memory_packages")
    return act_kg(card.die_mm2, good, epa, gas, mpa, values["fab_g_per_kwh"], memory, packages)


def _teardown_parts(card: spec.GPU, good: np.ndarray, values: dict[str, np.ndarray]) -> dict:
    family = card.memory_family
    scales = {name: values[f"{name.replace(' ', '_')}_scale"] for name in SCALED} | {
        family: values["memory_scale"]
    }
    factors = {
        name: factor * scales[name] for name, factor in teardown_factors().items() if name in scales
    }
    return teardown_kg(
        card.die_mm2, good, factors, family, {name: measure(card.id, name) for name in INPUTS}
    )


def _known(method: str, memory: str) -> dict[Key, dict[str, str]]:
    if method not in ("act", "teardown") or memory not in ("wide", "act"):
        allowed = "methods act, teardown, vendor and paper, memory wide and act"
        raise Refused(
            f"Draws by the method {method!r} with memory {memory!r} are unknown; allowed are {allowed}."
        )
    return priors(method, "act-memory") if method == "act" and memory == "act" else priors(method)


def embodied_draws(
    gpu: str | spec.GPU | Sequence,
    n: int = 10_000,
    seed: int = 0,
    method: str = "act",
    memory: str = "wide",
) -> xr.DataArray:
    """n draws of a card's embodied emissions in kg CO2e (dims gpu for several cards, draw); same seed, same numbers.

    `act` draws die, memory and packages around ACT with Murphy's yield; memory is `wide` (all sources) or `act` (ACT's
    own DRAM table). `teardown` draws whole cards. `vendor` and `paper` state no uncertainty: every draw is their value.
    """
    many = not isinstance(gpu, str | spec.GPU)
    cards = [spec.gpu(one) if isinstance(one, str) else one for one in (gpu if many else [gpu])]
    if method in ("vendor", "paper"):
        fixed = {"vendor": vendor, "paper": paper}[method]
        rows = [np.full(n, sum(fixed(card)[0].values())) for card in cards]
        status, uncertainty = (
            fixed(cards[0])[1]["status"],
            "none is published; every draw is the published value",
        )
    else:
        rows = _rows(cards, n, seed, method, _known(method, memory))
        status, uncertainty = "modelled", "priors.csv"
    kg = np.stack(rows)
    reasons = [
        remark(card.id) if np.isnan(row[0]) else "" for card, row in zip(cards, kg, strict=True)
    ]
    coords = {"gpu": [card.id for card in cards], "embodied_reason": ("gpu", reasons)}
    attrs = {
        "units": "kg",
        "long_name": "embodied emissions of the card",
        "method": method,
        "seed": seed,
    }
    attrs |= {"status": status, "uncertainty": uncertainty, "memory": memory}
    draws = xr.DataArray(kg, coords, ("gpu", "draw"), "embodied_kg", attrs)
    return draws if many else draws.isel(gpu=0)


def _rows(
    cards: list[spec.GPU], n: int, seed: int, method: str, known: dict[Key, dict[str, str]]
) -> list[np.ndarray]:
    """n draws of each card; a parameter that cards share is drawn once."""
    drawn: dict[Key, np.ndarray] = {}
    rows = []
    for card in cards:
        keys = {name: (name, group) for name, group in parameters(card, method).items()}
        drawn |= {
            key: quantile(known[key], stream(key, n, seed))
            for key in keys.values()
            if key not in drawn
        }
        rows.append(
            np.broadcast_to(
                kilograms(card, method, {name: drawn[key] for name, key in keys.items()}), n
            )
        )
    return rows


def use_draws(n: int = 10_000, seed: int = 0) -> xr.Dataset:
    """n draws of how a card is used: lifetime_years, utilisation, pue (dimension draw)."""
    found = {}
    for (name, group), prior in priors("use").items():
        attrs = {"units": prior["unit"], "long_name": prior["label"]}
        found[name] = ("draw", quantile(prior, stream((name, group), n, seed)), attrs)
    return xr.Dataset(found, attrs={"seed": seed})


def summary(draws: xr.DataArray, level: float = 0.9) -> xr.Dataset:
    """mean, median, low and high (a central interval of `level`) over the dimension sample (or draw)."""
    over = "sample" if "sample" in draws.dims else "draw"
    if not 0 < level < 1:
        raise Refused(f"The level is {level}; a share between 0 and 1 is allowed.")
    tails = (1 - level) / 2
    cut = draws.quantile([tails, 0.5, 1 - tails], over, skipna=False)
    found = {"mean": draws.mean(over, skipna=False)}
    found |= {
        name: cut.isel(quantile=at, drop=True) for at, name in enumerate(("low", "median", "high"))
    }
    return xr.Dataset(found, attrs=draws.attrs | {"level": level})


def sensitivity(
    gpu: str | spec.GPU,
    method: str = "act",
    n: int = 2048,
    seed: int = 0,
    use: bool = False,
    memory: str = "wide",
) -> xr.Dataset:
    """What matters: Sobol indices (scipy's Saltelli estimator) and one-at-a-time swings of each uncertain parameter.

    Dimension parameter, the largest total index first: first_order and total_order with 90 % bootstrap intervals, low
    and high (the result with this parameter at its 5th and 95th percentile and all others at their medians). The result
    is kg, or with `use` grams of amortised emissions per busy hour, lifetime and utilisation drawn too. n is a power of
    two. A parameter of something that the card does not have (a T4's casing) is left out.
    """
    card = spec.gpu(gpu) if isinstance(gpu, str) else gpu
    known = _known(method, memory) | priors("use")
    keys = list(parameters(card, method).items()) + (
        [("lifetime_years", "all"), ("utilisation", "all")] if use else []
    )

    medians = {key[0]: quantile(known[key], np.array([0.5])) for key in keys}

    def result(u: np.ndarray) -> np.ndarray:
        values = medians | {
            key[0]: quantile(known[key], row) for key, row in zip(keys, u, strict=True)
        }
        kg = kilograms(card, method, values)
        return (
            kg * 1000 * 3600 / (values["lifetime_years"] * YEAR_S * values["utilisation"])
            if use
            else kg
        )

    swing = _swings(result, len(keys))
    if not np.isfinite(swing["low"]).all():
        raise Refused(
            f"The {method} method lacks an input of {card.id}, so nothing can be said of its sensitivity."
        )
    keys = [
        key for key, low, high in zip(keys, swing["low"], swing["high"], strict=True) if low != high
    ]
    swing = {name: values[swing["low"] != swing["high"]] for name, values in swing.items()}
    indices = _indices(result, len(keys), n, seed)
    coords = {
        "parameter": [name for name, _ in keys],
        "label": ("parameter", [known[key]["label"] for key in keys]),
    }
    whole = xr.Dataset(
        {name: ("parameter", values) for name, values in (indices | swing).items()}, coords
    )
    whole.attrs = {
        "gpu": card.id,
        "method": method,
        "units": "g per busy hour" if use else "kg",
        "level": 0.9,
    }
    whole.attrs |= {
        "median": float(result(np.full((len(keys), 1), 0.5))[0]),
        "samples": n,
        "seed": seed,
    }
    return whole.sortby("total_order", ascending=False)


def _swings(result: Callable, count: int) -> dict[str, np.ndarray]:
    """The result with one parameter at its 5th or 95th percentile, the others at their medians."""
    middle = np.full((count, count), 0.5)
    return {
        name: result(middle + (at - 0.5) * np.eye(count))
        for name, at in (("low", 0.05), ("high", 0.95))
    }


def _indices(result: Callable, count: int, n: int, seed: int) -> dict[str, np.ndarray]:
    """First-order and total Sobol indices with bootstrap intervals, the same for the same seed."""
    if n < 2 or n & (n - 1):
        raise Refused(f"n is {n}; a power of two is allowed.")
    from scipy import (
        stats,
    )  # here, since it takes a third of a second to load and each page of the book is a process

    generator, runs = np.random.default_rng(seed), {}

    def estimate(
        f_A: np.ndarray, f_B: np.ndarray, f_AB: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        runs.update(f_A=f_A, f_B=f_B, f_AB=f_AB)
        return _saltelli(f_A, f_B, f_AB)

    sobol = stats.sobol_indices(
        func=result, n=n, dists=[stats.uniform()] * count, method=estimate, rng=generator
    )
    found = {"first_order": sobol.first_order, "total_order": sobol.total_order}
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
    for name, low, high in zip(tuple(found), interval.low, interval.high, strict=True):
        found |= {f"{name}_low": low, f"{name}_high": high}
    return {name: np.ravel(values) for name, values in found.items()}


def _saltelli(f_A: np.ndarray, f_B: np.ndarray, f_AB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First-order and total indices (output, parameter) from runs (output, n) and (parameter, output, n); Saltelli 2010."""
    variance = np.var([f_A, f_B], axis=(0, -1))
    first, total = np.mean(f_B * (f_AB - f_A), axis=-1), np.mean((f_A - f_AB) ** 2, axis=-1) / 2
    return (first / variance).T, (total / variance).T
