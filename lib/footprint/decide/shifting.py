"""Work that can wait: the hour and zone of least carbon within a deadline, and the wait it costs.

A job is released at an hour, runs for some hours without a break and may start up to its slack
later.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, spec
from footprint.decide.world import ZONES


def grid_hours(zones: Sequence[str] = ZONES) -> xr.DataArray:
    """g/kWh by hour of a year (zone, time in UTC); the annual mean where `hourly.csv` lacks a zone.

    The coordinate `by` (zone) says which. The annual means are of the year of the series; zones
    without any hourly series among them are `Refused`, since nothing then says which year.
    """
    known = [row["zone"] for row in spec.table("hourly")]
    series = {zone: spec.hourly(zone) for zone in zones if zone in known}
    if not series:
        raise Refused(
            f"None of {', '.join(zones)} has an hourly series; known zones are {', '.join(known)}."
        )
    when = next(iter(series.values()))["time"]
    year = int(when.dt.year[0])
    for zone in set(zones) - set(series):
        series[zone] = xr.full_like(when, spec.grid(zone, year).g_per_kwh, float)
    labels = xr.Variable("zone", list(zones))
    whole = xr.concat([series[zone].drop_attrs() for zone in zones], labels, coords="minimal")
    by = ["hourly" if zone in known else "annual mean" for zone in zones]
    attrs = {"units": "g/kWh", "year": year}
    return whole.rename("g_per_kwh").assign_coords(by=("zone", by)).assign_attrs(attrs)


def shift(
    intensity: xr.DataArray, slack_h, duration_h: int = 1, seen: xr.DataArray | None = None
) -> xr.Dataset:
    """Where and when jobs run, one released at each hour: zone, wait_h, g_per_kwh (time, slack_h).

    intensity: (zone, time), hour by hour. seen: what is known when the job is released, on the same
    axes (None: the whole future, which nobody has). Starts whose hours are not all known are never
    chosen; a job that knows of no start runs at once in the first zone. Jobs whose last start lies
    beyond the series are left out, for all slacks alike.
    """
    slacks = np.atleast_1d(slack_h)
    for name, values, least in (("slack_h", slacks, 0), ("duration_h", np.array([duration_h]), 1)):
        if values.dtype.kind not in "iu" or (values < least).any():
            raise Refused(
                f"{name} = {values} is refused; whole hours of {least} or more are allowed."
            )
    hours = intensity.sizes["time"]
    kept = hours - duration_h - int(slacks.max()) + 1
    if kept < 1:
        raise Refused(
            f"Jobs of {duration_h} h that may wait {slacks.max()} h need more than {hours} hours."
        )
    cost = _run_means(intensity, duration_h)
    seen_cost = cost if seen is None else _run_means(seen, duration_h)
    seen_cost = np.where(np.isnan(seen_cost), np.inf, seen_cost)
    released = np.arange(kept)
    grams = np.empty((kept, len(slacks)))
    waits, zones = np.empty_like(grams, int), np.empty_like(grams, int)
    for at, slack in enumerate(slacks):
        starts = np.lib.stride_tricks.sliding_window_view(seen_cost, slack + 1, axis=1)[:, :kept]
        by_wait = starts.transpose(1, 2, 0)  # (time, wait, zone): ties go to the shorter wait
        best = by_wait.reshape(kept, -1).argmin(axis=1)
        waits[:, at], zones[:, at] = np.divmod(best, len(seen_cost))
        grams[:, at] = cost[zones[:, at], released + waits[:, at]]
    dims = ("time", "slack_h")
    data = {
        "g_per_kwh": (dims, grams, {"units": "g/kWh"}),
        "wait_h": (dims, waits, {"units": "h"}),
        "zone": (dims, intensity["zone"].values[zones]),
    }
    coords = {"time": intensity["time"].values[:kept], "slack_h": slacks}
    return xr.Dataset(data, coords, {"duration_h": duration_h})


def _run_means(intensity: xr.DataArray, duration_h: int) -> np.ndarray:
    """Mean g/kWh of a run that starts at each hour (zone, start); NaN where one of its hours is."""
    values = intensity.transpose("zone", "time").values
    return np.lib.stride_tricks.sliding_window_view(values, duration_h, axis=1).mean(axis=2)


def savings(intensity: xr.DataArray, found: xr.Dataset) -> pd.DataFrame:
    """What shifting saves against running all jobs at once in the zone of least mean.

    Rows by slack_h: that zone and its fixed_g (g/kWh), shifted_g, saving (a share, of the
    electricity alone), wait_h and wait_p95_h, and `crowd`: the most jobs that run at one time, over
    those without waiting. All means are over the releases for which every choice is known.
    """
    duration, kept = found.attrs["duration_h"], found.sizes["time"]
    fixed = _run_means(intensity, duration)[:, :kept]
    known = np.isfinite(fixed).all(axis=0) & found["g_per_kwh"].notnull().all("slack_h").values
    if not known.any():
        raise Refused(
            "No release has known intensities for all its choices; hours without gaps are needed."
        )
    means = fixed[:, known].mean(axis=1)
    zone, rows = int(means.argmin()), []
    for slack in found["slack_h"].values:
        every = found.sel(slack_h=slack)
        job = every.isel(time=known)
        shifted = float(job["g_per_kwh"].mean())
        starts = np.bincount(np.arange(kept) + every["wait_h"].values.astype(int))
        crowd = np.convolve(starts, np.ones(duration)).max() / min(duration, kept)
        wait_h = job["wait_h"]
        row = {"slack_h": int(slack), "zone": str(intensity["zone"].values[zone])}
        row |= {"fixed_g": means[zone], "shifted_g": shifted}
        # Nothing is no share of nothing.
        row["saving"] = 1 - shifted / means[zone] if means[zone] > 0 else np.nan
        row |= {"wait_h": float(wait_h.mean()), "wait_p95_h": float(wait_h.quantile(0.95))}
        rows.append(row | {"crowd": float(crowd)})
    return pd.DataFrame(rows)
