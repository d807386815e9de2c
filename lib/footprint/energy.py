"""From readings to joules: the exact integral of the sampled power and the counter's difference, window by window."""

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.integrate import cumulative_trapezoid

from footprint import trace

LONGEST_GAP_S = 1.0
DERIVED = {
    "duration_s": ("s", "length of the window (of one iteration in a modelled run)"),
    "counter_J": ("J", "energy by the difference of the counter's two readings"),
    "integrated_J": ("J", "energy by the integral of the sampled power"),
    "residual": ("1", "counter over integral, minus one"),
    "energy_J": ("J", "energy of the window by the run's energy source"),
    "power_W": ("W", "mean power of the window"),
    "energy_per_token_J": ("J", "energy of the window for each of its tokens"),
    "time_per_iteration_s": ("s", "time of one iteration of the phase"),
}


def integral(time_s, power_W, start_s, stop_s) -> np.ndarray:
    """Joules between `start_s` and `stop_s` (arrays of windows) under the piecewise linear power through the samples.

    NaN for a window that the samples do not span, that holds a sample that is NaN, or a gap longer than a second:
    power there is unknown, not zero.
    """
    time_s, power_W = np.asarray(time_s, float), np.asarray(power_W, float)
    start_s, stop_s = np.atleast_1d(np.asarray(start_s, float)), np.atleast_1d(np.asarray(stop_s, float))
    if time_s.size < 2:
        return np.full(start_s.shape, np.nan)
    order = np.argsort(time_s, kind="stable")
    time_s, power_W = time_s[order], power_W[order]
    edges = np.union1d(time_s, np.concatenate([start_s, stop_s]))
    known = np.nan_to_num(power_W)
    total = cumulative_trapezoid(np.interp(edges, time_s, known), edges, initial=0.0)
    joules = total[np.searchsorted(edges, stop_s)] - total[np.searchsorted(edges, start_s)]
    spanned = (start_s >= time_s[0]) & (stop_s <= time_s[-1]) & (stop_s > start_s)
    return np.where(spanned & ~_blind(time_s, power_W, start_s, stop_s), joules, np.nan)


def _blind(time_s, power_W, start_s, stop_s) -> np.ndarray:
    """Whether a window touches a segment between samples that is too long or ends in a missing sample."""
    bad = (np.diff(time_s) > LONGEST_GAP_S) | np.isnan(power_W[:-1]) | np.isnan(power_W[1:])
    count = np.concatenate([[0], np.cumsum(bad)])
    first = np.clip(np.searchsorted(time_s, start_s, side="right") - 1, 0, len(bad))
    last = np.clip(np.searchsorted(time_s, stop_s, side="left"), 0, len(bad))
    return count[last] > count[first]


def windows(tree: xr.DataTree) -> xr.Dataset:
    """The windows of a trace with the derived energies beside them; nothing of it is stored.

    Measured: `counter_J`, `integrated_J` and their `residual`; `energy_J` is the one that the run's `energy_source`
    names, NaN with a reason in `energy_status` where there is none. Modelled: the model's own energies, same names.
    """
    data = tree["windows"].to_dataset()
    if tree.attrs["kind"] == "modelled":
        data["energy_status"] = xr.full_like(data["status"], "modelled", dtype=object)
        iterations = data["iterations"]
    else:
        data = data.assign(_measured(tree, data))
        iterations = data["iterations"].where(data["iterations"] > 0)
        data["power_W"] = data["energy_J"] / data["duration_s"]
    tokens = data["tokens"].where(data["tokens"] > 0)
    data["energy_per_token_J"] = data["energy_J"] / tokens
    per = 1 if tree.attrs["kind"] == "modelled" else iterations
    data["time_per_iteration_s"] = data["duration_s"] / per
    for name, (units, long_name) in DERIVED.items():
        if name in data:
            data[name].attrs |= {"units": units, "long_name": long_name}
    return data


def _measured(tree: xr.DataTree, data: xr.Dataset) -> dict:
    samples = tree["samples"]
    integrated = integral(samples["time_s"], samples["power_W"], data["start_s"], data["stop_s"])
    counter = data["counter_stop_J"] - data["counter_start_J"]
    counter = counter.where(counter >= 0)
    source = tree.attrs["energy_source"]
    energy = counter if source == "nvml_counter" else xr.zeros_like(counter) + integrated
    energy = energy.where(data["status"].isin(["ok", "disturbed", "throttled"]))
    absent = "not_supported" if source == "none" else "sampler_died"
    status = xr.where(energy.notnull(), "ok", xr.where(data["status"] == "ok", absent, data["status"]))
    return {
        "duration_s": data["stop_s"] - data["start_s"],
        "counter_J": counter,
        "integrated_J": ("window", integrated),
        "residual": counter / integrated - 1,
        "energy_J": energy,
        "energy_status": status,
    }


def gather(folder: str | Path) -> xr.Dataset:
    """`windows` over all traces below `folder`, run attributes as coordinates (see `trace.gather`)."""
    return trace.gather(folder, windows)
