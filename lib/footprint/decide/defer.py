"""Work that can wait: the hour and the place of least carbon within a deadline, and the waiting that it costs.

A job is released at an hour, runs for some hours without a break and may start up to its slack later.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, spec
from footprint.carbon import totals


def year(zones: Sequence[str] = totals.ZONES) -> xr.DataArray:
    """g/kWh of zones by hour of a year (zone, time in UTC): hourly where `hourly.csv` has the zone, else its annual mean.

    The coordinate `by` (zone) says which. The annual means are of the year of the series; zones without any hourly series
    among them are `Refused`, since nothing then says which year.
    """
    rows = {row["zone"]: row for row in spec.table("hourly")}
    series = {zone: spec.hourly(zone) for zone in zones if zone in rows}
    if not series:
        raise Refused(
            f"None of {', '.join(zones)} has an hourly series; known zones are {', '.join(rows)}."
        )
    when = next(iter(series.values())).time
    of = int(when.dt.year[0])
    found = [
        series[zone] if zone in series else xr.full_like(when, spec.grid(zone, of).g_per_kwh, float)
        for zone in zones
    ]
    by = ["hourly" if zone in series else "annual mean" for zone in zones]
    whole = xr.concat(
        [one.drop_attrs() for one in found], xr.Variable("zone", list(zones)), coords="minimal"
    )
    return (
        whole.rename("g_per_kwh")
        .assign_coords(by=("zone", by))
        .assign_attrs(units="g/kWh", year=of)
    )


def shift(
    intensity: xr.DataArray, slack_h, duration_h: int = 1, seen: xr.DataArray | None = None
) -> xr.Dataset:
    """Where and when jobs run, one released at each hour: (time, slack_h) of zone, wait_h and the g/kWh they are charged.

    intensity: (zone, time), hour by hour. seen: what is known when the job is released, on the same axes (None: all of the
    future, which nobody has). Starts whose hours are not all known are never chosen; a job that knows of no start runs at
    once in the first zone. Jobs whose last start lies beyond the series are left out, for all slacks alike.
    """
    slacks = np.atleast_1d(slack_h)
    for name, values in (("slack_h", slacks), ("duration_h", np.atleast_1d(duration_h))):
        if values.dtype.kind not in "iu" or (values < (name == "duration_h")).any():
            raise Refused(
                f"{name} = {values} is refused; whole hours of {int(name == 'duration_h')} or more are allowed."
            )
    kept = intensity.sizes["time"] - duration_h - int(slacks.max()) + 1
    if kept < 1:
        raise Refused(
            f"Jobs of {duration_h} h that may wait {slacks.max()} h need more than {intensity.sizes['time']} hours."
        )
    cost, known = (
        _runs(values, duration_h) for values in (intensity, intensity if seen is None else seen)
    )
    known = np.where(np.isnan(known), np.inf, known)
    found = {name: np.empty((kept, len(slacks))) for name in ("g_per_kwh", "wait_h", "zone")}
    released = np.arange(kept)
    for column, slack in enumerate(slacks):
        starts = np.lib.stride_tricks.sliding_window_view(known, slack + 1, axis=1)[
            :, :kept
        ]  # (zone, time, wait)
        best = (
            starts.transpose(1, 2, 0).reshape(kept, -1).argmin(axis=1)
        )  # ties go to the shorter wait
        wait, zone = np.divmod(best, len(known))
        for name, values in (
            ("g_per_kwh", cost[zone, released + wait]),
            ("wait_h", wait),
            ("zone", zone),
        ):
            found[name][:, column] = values
    coords = {"time": intensity.time.values[:kept], "slack_h": slacks}
    data = xr.Dataset(
        {name: (("time", "slack_h"), values) for name, values in found.items()}, coords
    )
    data["zone"] = (("time", "slack_h"), intensity.zone.values[found["zone"].astype(int)])
    data["g_per_kwh"].attrs, data["wait_h"].attrs = {"units": "g/kWh"}, {"units": "h"}
    return data.assign_attrs(duration_h=duration_h)


def _runs(intensity: xr.DataArray, duration_h: int) -> np.ndarray:
    """Mean g/kWh of a run that starts at each hour (zone, start); NaN where one of its hours is."""
    values = intensity.transpose("zone", "time").values
    return np.lib.stride_tricks.sliding_window_view(values, duration_h, axis=1).mean(axis=2)


def savings(intensity: xr.DataArray, found: xr.Dataset) -> pd.DataFrame:
    """What shifting saves against the best fixed choice, that of the zone of least mean in which all run at once.

    Rows by slack_h: zone and fixed_g (g/kWh) of the fixed choice, shifted_g, saving (a share, of the electricity alone),
    wait_h and wait_p95_h, and `crowd`: the most jobs that run at one time, over those that would without waiting. All
    means are over the same releases, those for which every choice is known.
    """
    duration, kept = found.attrs["duration_h"], found.sizes["time"]
    fixed = _runs(intensity, duration)[:, :kept]
    known = np.isfinite(fixed).all(axis=0) & found["g_per_kwh"].notnull().all("slack_h").values
    if not known.any():
        raise Refused(
            "No release has known intensities for all its choices; hours without gaps are needed."
        )
    means = fixed[:, known].mean(axis=1)
    zone, rows = int(means.argmin()), []
    for slack in found.slack_h.values:
        at = found.sel(slack_h=slack).isel(time=known)
        shifted, wait = float(at["g_per_kwh"].mean()), at["wait_h"]
        starts = np.bincount(
            np.arange(kept) + found["wait_h"].sel(slack_h=slack).values.astype(int)
        )
        crowd = np.convolve(starts, np.ones(duration)).max() / min(duration, kept)
        saving = (
            1 - shifted / means[zone] if means[zone] > 0 else np.nan
        )  # nothing is no share of nothing
        rows.append(
            {
                "slack_h": int(slack),
                "zone": str(intensity.zone.values[zone]),
                "fixed_g": means[zone],
                "shifted_g": shifted,
                "saving": saving,
                "wait_h": float(wait.mean()),
                "wait_p95_h": float(wait.quantile(0.95)),
                "crowd": float(crowd),
            }
        )
    return pd.DataFrame(rows)
