"""The windows of a trace with their energies: the error budget of each, or why it has none."""

from pathlib import Path

import numpy as np
import xarray as xr

from footprint import trace
from footprint.energy import uncertainty as budget
from footprint.energy.integrate import USABLE, integral, slope, status

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

    Measured: `energy_J` is `counter_J` or `integrated_J`, as the run's `energy_source` says, less
    the idle energy of pauses, over the gain; NaN with a reason in `energy_status` where there is
    none. `energy_J_low` and `energy_J_high` bound it at 95 %: twice the root of the squares of
    `u_repeat`, `u_quantisation` and `u_sampling`, and all of the gain's bound. Modelled: the
    model's own energies and 90 % bounds, under the same names.
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
    integrated = integral(s["time_s"], s["power_W"], start, stop)
    counter, width, rest = _counted(w, s, length, sensor["counter_tick_s"])
    read_J = counter if source.endswith("_counter") else integrated
    paused_J = _idle_power(w["phase"], read_J / length) * np.nan_to_num(w["paused_s"])
    energy = (read_J - paused_J) / sensor["gain"]
    why = status(w, s, source, integrated, rest, sensor["counter_tick_s"])
    energy = np.where(np.isin(why, USABLE), energy, np.nan)
    parts = _budget(w, s, sensor, energy, width, source)
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
        "power_W": energy / length,
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


def _counted(w: dict, s: dict, length, tick_s) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joules of the counter, how well its ticks are known, and the time after the last, in s.

    Joules are by the slope between ticks where they are known well enough, else by the two ends.
    """
    times = np.concatenate([s["time_s"], w["start_s"], w["stop_s"]])
    reads = np.concatenate([s["counter_J"], w["counter_start_J"], w["counter_stop_J"]])
    watts, width, rest = slope(times, reads, w["start_s"], w["stop_s"])
    aligned = width <= ALIGNED * np.sqrt(2) * tick_s
    counter = np.where(aligned, watts * length, w["counter_stop_J"] - w["counter_start_J"])
    return counter, np.where(aligned, width, np.nan), rest


def _budget(w: dict, s: dict, sensor: dict, energy, width, source: str) -> dict[str, np.ndarray]:
    """The standard uncertainties of the energies, in J; NaN where there is no energy."""
    start, stop, length = w["start_s"], w["stop_s"], w["stop_s"] - w["start_s"]
    middle, busy, power = start + length / 2, w["iterations"] > 0, energy / length
    first = integral(s["time_s"], s["power_W"], start, middle)
    second = integral(s["time_s"], s["power_W"], middle, stop)
    load = budget.fluctuation(s["time_s"], s["power_W"], start, stop) | {
        "length_s": length,
        "power_W": power,
        "change_W": 4 * np.nan_to_num(second - first) / length,
        "active_W": np.where(busy, np.maximum(power - _idle_power(w["phase"], power), 0), 0),
        "iteration_s": np.where(busy, length / np.maximum(w["iterations"], 1), np.inf),
    }
    load["spacing_s"] = length / np.maximum(load["count"], 1)
    load["noise_W"] = budget.noise(w["phase"], load["jumps_W2"], length / sensor["power_update_s"])
    counted = source.endswith("_counter")
    parts = budget.counted(sensor, load, width) if counted else budget.sampled(sensor, load)
    return {name: np.where(np.isnan(energy), np.nan, part) for name, part in parts.items()} | {
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
