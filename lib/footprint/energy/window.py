"""The windows of a trace with their energies: the error budget of each, or why it has none."""

from pathlib import Path

import numpy as np
import xarray as xr

from footprint import trace
from footprint.energy import uncertainty as budget
from footprint.energy.integrate import USABLE, Spans, integral, slope, spans, status

HISTORY = ("power_update_s", "power_average_s", "counter_tick_s")  # how long readings remember
LEAST_TICKS = 5  # of a span between two pauses
ALIGNED = 0.75  # ticks that are known to this share of their period are worth aligning to
IDLE = ("idle_loaded", "idle_bare")
DISAGREE = {"idle": 0.10, "busy": 0.05}
POINT = ("phase", "batch", "prompt_tokens", "output_tokens", "lengths")
DERIVED = {
    "duration_s": ("s", "length of the window (of one iteration in a modelled run)"),
    "counter_J": ("J", "energy by the counter, aligned to its ticks"),
    "integrated_J": ("J", "energy by the integral of the sampled power"),
    "residual": ("1", "counter over integral, minus one"),
    "energy_J": ("J", "energy of the window by the run's energy source"),
    "u_repeat": ("J", "standard uncertainty: spread between repeats of the point"),
    "u_quantisation": ("J", "standard uncertainty: ticks of the counter, spacing of the samples"),
    "u_sampling": ("J", "standard uncertainty: what the sensor misses, averages or tells late"),
    "u_gain": ("J", "standard uncertainty: gain of the board; the same in all its windows"),
    "u_tokens": ("1", "standard uncertainty of the token count: none, lengths are forced"),
    "power_W": ("W", "mean power of the window"),
    "energy_per_token_J": ("J", "energy of the window for each of its tokens"),
    "time_per_iteration_s": ("s", "time of one iteration of the phase"),
    "step_spread": ("1", "relative standard deviation of the window's step times; NaN for one"),
    "host_J": ("J", "energy of the processors by RAPL; NaN where host_status says why"),
    "dram_J": ("J", "energy of the host's memory by RAPL; NaN where host_status says why"),
    "sampling_rate_hz": ("Hz", "samples a second that the sampler kept up"),
    "sampler_share": ("1", "share of one core that the sampler used"),
}


def windows(tree: xr.DataTree) -> xr.Dataset:
    """The windows of a trace with what follows from its readings (see `DERIVED`).

    Measured: `energy_J` is `counter_J` or `integrated_J`, as the run's `energy_source` says, over
    the gain; NaN with a reason in `energy_status` where there is none. It is that of the work:
    readings that a pause may touch are left out, and the mean power of the others counts for all
    time but the pauses. Where they cannot be left out, since nobody noted when the pauses were or
    the ticks of the counter are not known well, a pause has a power between rest and work, with
    that range in `u_sampling`. `energy_J_low` and `energy_J_high` bound it at 95 %: twice the root
    of the squares of `u_repeat`, `u_quantisation` and `u_sampling`, and all of the gain's bound.
    Modelled: the model's own energies and 90 % bounds, under the same names.
    """
    data = tree["windows"].to_dataset()
    if tree.attrs["kind"] == "modelled":
        data["energy_status"] = xr.full_like(data["status"], "modelled", dtype=object)
        per = xr.ones_like(data["duration_s"])
    else:
        columns = _measured(tree, data)
        data = data.assign({name: ("window", values) for name, values in columns.items()})
        per = data["iterations"].where(data["iterations"] > 0)
    tokens = data["tokens"].where(data["tokens"] > 0)
    for bound in ("", "_low", "_high"):
        data[f"energy_per_token_J{bound}"] = data[f"energy_J{bound}"] / tokens
    paused = data["paused_s"].fillna(0) if "paused_s" in data else 0.0
    data["time_per_iteration_s"] = (data["duration_s"] - paused) / per
    for name, (units, long_name) in DERIVED.items():
        if name in data:
            data[name].attrs |= {"units": units, "long_name": long_name}
    level = 0.9 if tree.attrs["kind"] == "modelled" else 0.95
    for name in ("energy_J", "energy_per_token_J"):
        for bound in ("low", "high"):
            data[f"{name}_{bound}"].attrs |= {"units": "J", "interval_level": level}
    return data


def _measured(tree: xr.DataTree, data: xr.Dataset) -> dict[str, np.ndarray]:
    """The derived columns of a measured run."""
    source, w = tree.attrs["energy_source"], {name: data[name].values for name in data}
    s = {name: tree["samples"][name].values for name in tree["samples"].data_vars}
    start, stop, length = w["start_s"], w["stop_s"], w["stop_s"] - w["start_s"]
    sensor = budget.assumed(w, source)
    pauses = {name: tree["pauses"][name].values for name in tree["pauses"].data_vars}
    tick_s, settle_s = sensor["counter_tick_s"], sum(sensor[name] for name in HISTORY)
    clean = spans(w, pauses, settle_s, LEAST_TICKS * tick_s)
    placed_s = np.bincount(pauses["window"], pauses["stop_s"] - pauses["start_s"], len(start))
    clean_s = clean.total(clean.stop_s - clean.start_s)
    share = np.where(clean_s > 0, (length - placed_s) / np.where(clean_s > 0, clean_s, 1), np.nan)
    integrated = share * clean.total(
        integral(s["time_s"], s["power_W"], clean.start_s, clean.stop_s)
    )
    counter, width, rest = _counted(w, s, clean, share, tick_s)
    counted = source.endswith("_counter")
    paused_s = np.nan_to_num(w["paused_s"])
    loose_s = np.where(counted & np.isnan(width), paused_s, np.maximum(paused_s - placed_s, 0))
    read_J = counter if counted else integrated
    unsure_J = loose_s * np.maximum(read_J / length - _idle_power(w["phase"], read_J / length), 0)
    energy = (read_J * (1 - loose_s / length) + unsure_J / 2) / sensor["gain"]
    why = status(w, s, source, integrated, rest, tick_s)
    energy = np.where(np.isin(why, USABLE), energy, np.nan)
    parts = _budget(w, s, sensor, energy, clean, width, source)
    parts["u_sampling"] = np.hypot(parts["u_sampling"], unsure_J / np.sqrt(12))
    low, high = budget.bounds(energy, budget.expanded(parts), sensor["gain_bound"])
    residual = counter / np.where(integrated > 0, integrated, np.nan) - 1
    limit = np.where(np.isin(w["phase"], IDLE), DISAGREE["idle"], DISAGREE["busy"])
    count = budget.within(s["time_s"], np.ones(len(s["time_s"])), start, stop)
    used = budget.within(s["time_s"], np.diff(s["cpu_s"], prepend=s["cpu_s"][:1]), start, stop)
    return {
        "duration_s": length,
        "counter_J": counter,
        "integrated_J": integrated,
        "residual": residual,
        "instruments_disagree": np.abs(residual) > limit,
        "energy_J": energy,
        "energy_J_low": low,
        "energy_J_high": high,
        "power_W": energy / (length - paused_s),
        "energy_status": why.astype(object),
        "sampling_rate_hz": np.where(count > 0, count / length, np.nan),
        "sampler_share": np.where(count > 0, used / length, np.nan),
        "step_spread": _step_spread(tree["steps"].to_dataset(), len(start)),
        "host_J": w["package_stop_J"] - w["package_start_J"],
        "dram_J": w["dram_stop_J"] - w["dram_start_J"],
        **parts,
    }


def _step_spread(steps: xr.Dataset, count: int) -> np.ndarray:
    """Relative standard deviation of the step times of each window; NaN for fewer than two."""
    window, step_s = steps["window"].values, steps["step_s"].values
    number = np.bincount(window, minlength=count)
    known = np.where(number > 1, number, np.nan)
    mean = np.bincount(window, step_s, count) / known
    squares = np.bincount(window, (step_s - mean[window]) ** 2, count)
    return np.sqrt(squares / (known - 1)) / mean


def _counted(
    w: dict, s: dict, clean: Spans, share, tick_s
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joules of the counter, how well its ticks are known, and the time after the last, in s.

    Joules are by the slope between ticks where they are known well enough, else by the two ends.
    """
    times = np.concatenate([s["time_s"], w["start_s"], w["stop_s"]])
    reads = np.concatenate([s["counter_J"], w["counter_start_J"], w["counter_stop_J"]])
    watts, width, rest = slope(times, reads, clean.start_s, clean.stop_s)
    known = width <= ALIGNED * np.sqrt(2) * tick_s[clean.window]
    aligned = clean.total(~known) == 0
    joules = share * clean.total(watts * (clean.stop_s - clean.start_s))
    counter = np.where(aligned, joules, w["counter_stop_J"] - w["counter_start_J"])
    width = np.where(aligned, np.sqrt(clean.total(width**2)), np.nan)
    slowest = np.full(len(share), -np.inf)
    np.maximum.at(slowest, clean.window, np.nan_to_num(rest, nan=np.inf))
    return counter, width, slowest


def _budget(
    w: dict, s: dict, sensor: dict, energy, clean: Spans, width, source: str
) -> dict[str, np.ndarray]:
    """The standard uncertainties of the energies, in J; NaN where there is no energy."""
    start, stop, length = w["start_s"], w["stop_s"], w["stop_s"] - w["start_s"]
    middle, busy = start + length / 2, w["iterations"] > 0
    worked_s = length - np.nan_to_num(w["paused_s"])
    clean_s, power = clean.total(clean.stop_s - clean.start_s), energy / worked_s
    first = integral(s["time_s"], s["power_W"], start, middle)
    second = integral(s["time_s"], s["power_W"], middle, stop)
    seen = budget.fluctuation(s["time_s"], s["power_W"], clean.start_s, clean.stop_s)
    count, jumps_W2 = clean.total(seen["count"]), clean.total(seen["jumps_W2"])
    seen_W = np.sqrt(clean.total(seen["count"] * seen["seen_W"] ** 2) / np.maximum(count, 1))
    active_W = np.where(busy, np.maximum(power - _idle_power(w["phase"], power), 0), 0)
    ends = np.sqrt(np.bincount(clean.window))  # each span has two of its own
    load = {
        "length_s": clean_s,
        "jumps_W2": jumps_W2,
        "power_W": power,
        "change_W": 4 * np.nan_to_num(second - first) / length,
        "seen_W": seen_W * ends,
        "active_W": active_W * ends,
        "iteration_s": np.where(busy, worked_s / np.maximum(w["iterations"], 1), np.inf),
        "spacing_s": clean_s / np.maximum(count, 1),
    }
    load["noise_W"] = budget.noise(w["phase"], jumps_W2, length / sensor["power_update_s"])
    counted = source.endswith("_counter")
    parts = budget.counted(sensor, load, width) if counted else budget.sampled(sensor, load)
    whole = np.where(np.isnan(energy), np.nan, worked_s / np.where(clean_s > 0, clean_s, 1))
    return {name: whole * part for name, part in parts.items()} | {
        "u_repeat": budget.spread(energy, w["iterations"], _points(w)),
        "u_tokens": np.zeros(len(energy)),
        "u_gain": np.abs(energy) * sensor["gain_bound"] / np.sqrt(3),
    }


def _idle_power(phase: np.ndarray, power_W: np.ndarray) -> float:
    """Mean power at rest with the model in memory (else without it); 0 without idle windows."""
    for name in IDLE:
        seen = power_W[(phase == name) & np.isfinite(power_W)]
        if seen.size:
            return float(seen.mean())
    return 0.0


def _points(w: dict) -> np.ndarray:
    """The number of the point that each window belongs to."""
    keys = np.array([w[name].astype(str) for name in POINT])
    return np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1)


def gather(folder: str | Path) -> xr.Dataset:
    """`windows` of all traces below `folder`, joined as `trace.gather` joins them."""
    return trace.gather(folder, windows)
