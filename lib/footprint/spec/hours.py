"""A grid hour by hour: load a series, find the hours of a load, fold a year into months by hours of the day."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, spec


def hourly(source: str | Path = "US-CAL-CISO") -> xr.DataArray:
    """Carbon intensity in g/kWh by hour (UTC), of a zone in `hourly.csv` or of a CSV file of your own.

    The file has two columns, time_utc and g_per_kwh; a row stands for the hour that begins at its time. Hours without a
    value, or without a row, are NaN and listed in `attrs["missing"]`; nothing is filled in. A file with other columns,
    times off the hour or twice, or values that are no finite number of 0 or more is `Refused`.
    """
    rows = {row["zone"]: row for row in spec.table("hourly")}
    if source in rows:
        row = rows[source]
        path, about = files("footprint").joinpath("data", row["file"]), row
    else:
        path, about = (
            Path(source),
            {"kind": "unknown", "source": Path(source).name, "status": "unverified"},
        )
    series = _read(path, source, list(rows))
    full = series.reindex(pd.date_range(series.index[0], series.index[-1], freq="h"))
    missing = [stamp.strftime("%Y-%m-%dT%HZ") for stamp in full.index[full.isna()]]
    attrs = {"units": "g/kWh", "long_name": "carbon intensity of electricity", "missing": missing}
    attrs |= {name: about[name] for name in ("kind", "source", "status")}
    return xr.DataArray(
        full.to_numpy(), {"time": full.index.to_numpy()}, "time", "g_per_kwh", attrs
    )


def _read(path, name, zones: list[str]) -> pd.Series:
    """The two columns as a series over naive UTC times, checked."""
    try:
        with path.open(encoding="utf-8") as lines:
            table = pd.read_csv(lines, dtype=str, skipinitialspace=True)
    except FileNotFoundError:
        raise Refused(
            f"There is no hourly series {str(name)!r}; known zones are {', '.join(zones)}."
        ) from None
    except (OSError, ValueError) as error:
        raise Refused(
            f"The hourly file {name} cannot be read as CSV ({str(error).strip()})."
        ) from None
    if not {"time_utc", "g_per_kwh"} <= set(table.columns) or table.empty:
        raise Refused(
            f"The hourly file {name} needs rows under the columns time_utc and g_per_kwh."
        )
    times = pd.to_datetime(
        table["time_utc"], utc=True, errors="coerce", format="ISO8601"
    ).dt.tz_localize(None)
    values = pd.to_numeric(table["g_per_kwh"], errors="coerce")
    unread = values.isna() & table["g_per_kwh"].notna()
    wrong = (
        np.isinf(values)
        | (values < 0)
        | unread
        | times.isna()
        | (times != times.dt.floor("h"))
        | times.duplicated()
    )
    if wrong.any():
        row = table[wrong.to_numpy()].iloc[0]
        raise Refused(
            f"The hourly file {name} has the row {row['time_utc']}, {row['g_per_kwh']}; one row an hour, on the hour, "
            "with a finite value of 0 or more (or none) is allowed."
        )
    return pd.Series(values.to_numpy(), pd.DatetimeIndex(times)).sort_index()


def at(intensity: xr.DataArray, times) -> xr.DataArray:
    """The intensity of the hours that hold `times` (naive times are UTC; a DataArray keeps its dimensions).

    Multiply it with the energy of each time: `operational(energy_J, at(hourly(), times))`.
    """
    if not isinstance(times, xr.DataArray):
        stamps = pd.to_datetime(np.atleast_1d(times), utc=True).tz_localize(None)
        times = xr.DataArray(stamps, dims="time")
    try:
        found = intensity.sel(time=times.dt.floor("h"))
    except KeyError:
        first, last = (str(intensity.time.values[end])[:13] for end in (0, -1))
        raise Refused(
            f"Some of the times lie outside the series; {first}Z to {last}Z is allowed."
        ) from None
    return found.drop_vars("time") if times.dims != ("time",) else found


def typical(intensity: xr.DataArray, timezone: str = "UTC") -> xr.DataArray:
    """Mean g/kWh by month and hour of the day in `timezone`; missing hours are left out and counted in `missing`."""
    local = pd.DatetimeIndex(intensity.time.values).tz_localize("UTC").tz_convert(timezone)
    frame = pd.DataFrame({"month": local.month, "hour": local.hour, "g": intensity.values})
    groups = frame.groupby(["month", "hour"])["g"]
    mean = groups.mean().to_xarray().rename("g_per_kwh")
    missing = (groups.size() - groups.count()).to_xarray()
    mean.attrs = intensity.attrs | {
        "long_name": f"mean carbon intensity by month and hour ({timezone})"
    }
    return mean.assign_coords(missing=(mean.dims, missing.values))
