"""Electricity: carbon intensity of a zone by year and by hour, names and clocks of zones."""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused
from footprint.spec.tables import DATA, content, nearest, record, records, table

MOST_YEARS = 30  # from the first hour of a series to its last


@dataclass(frozen=True)
class Zone:
    """A zone of the grid that the book names, and how far its standard time is ahead of UTC."""

    zone: str
    name: str
    also: str
    utc_offset_h: int


@dataclass(frozen=True)
class Grid:
    """The carbon intensity of a zone's electricity in one year."""

    zone: str
    name: str
    country: str
    year: int
    kind: str
    g_per_kwh: float
    source: str
    status: str


@cache
def _grids() -> tuple[Grid, ...]:
    return tuple(record(Grid, row) for row in table("grids"))


@cache
def grid(zone: str, year: int = 2023, kind: str = "lifecycle") -> Grid:
    """The grid of a zone by its code (`CA-QC`), name (`Pacificorp East`) or country (`France`).

    kind: `lifecycle` (fuel chains included), `direct` (stacks only) or `lifecycle-hourly-mean`
    (another vintage); the last two exist for the paper's three regions in 2023. Raises KeyError
    with the nearest names.
    """
    wanted = zone.lower()
    for item in records(Zone, "zones").values():
        wanted = item.zone.lower() if wanted in item.also.split("|") else wanted
    found = []
    for field in ("zone", "name", "country"):
        found = found or [item for item in _grids() if wanted == getattr(item, field).lower()]
    zones = sorted({item.zone for item in found})
    if len(zones) > 1:
        raise KeyError(f"{zone!r} names {len(zones)} zones; choose one of {', '.join(zones)}.")
    if not found:
        known = {text.lower() for item in _grids() for text in (item.zone, item.name, item.country)}
        raise nearest("grid zone", zone, sorted(known))
    for item in found:
        if (item.year, item.kind) == (year, kind):
            return item
    offered = ", ".join(f"{kind} {year}" for year, kind in sorted((g.year, g.kind) for g in found))
    raise KeyError(f"{zones[0]} has no {kind} value for {year}; there is {offered}.")


def zone_name(zone: str) -> str:
    """The printed name of a grid zone by its code; the code itself if no table has it."""
    named = [*records(Zone, "zones").values(), *_grids()]
    return next((item.name for item in named if item.zone == zone), zone)


def utc_offset_h(zone: str) -> int:
    """Hours that the standard time of a zone is ahead of UTC (California: -8)."""
    zones = records(Zone, "zones")
    if zone not in zones:
        known = ", ".join(zones)
        raise Refused(f"The local time of {zone!r} is unknown; known zones are {known}.")
    return zones[zone].utc_offset_h


def hourly(source: str | Path = "US-CAL-CISO") -> xr.DataArray:
    """Carbon intensity in g/kWh by hour (UTC) of a zone in `hourly.csv` or of your own CSV file.

    The file has two columns, time_utc and g_per_kwh; a row stands for the hour that begins at its
    time. Hours without a value, or without a row, are NaN and listed in `attrs["missing"]`; nothing
    is filled in. A file with other columns, times off the hour or twice, or values that are no
    finite number of 0 or more is `Refused`.
    """
    rows = {row["zone"]: row for row in table("hourly")}
    own = {"kind": "unknown", "source": Path(source).name, "status": "unverified"}
    about = rows.get(str(source), own)
    path = DATA.joinpath(about["file"]) if "file" in about else Path(source)
    series = _hours(path, source, list(rows)).asfreq("h")
    gaps = series.index[series.isna()]
    attrs = {"units": "g/kWh", "long_name": "carbon intensity of electricity"}
    attrs |= {"missing": [stamp.strftime("%Y-%m-%dT%HZ") for stamp in gaps]}
    return series.to_xarray().assign_attrs(
        attrs | {name: about[name] for name in ("kind", "source", "status")}
    )


def _hours(path, name, zones: list[str]) -> pd.Series:
    """The two columns of a file as a series over naive UTC times, checked."""
    try:
        lines = io.StringIO(content(path).decode())
        rows = pd.read_csv(lines, dtype=str, skipinitialspace=True)
    except FileNotFoundError:
        known = ", ".join(zones)
        raise Refused(
            f"There is no hourly series {str(name)!r}; known zones are {known}."
        ) from None
    except (OSError, ValueError) as error:
        said = str(error).strip()
        raise Refused(f"The hourly file {name} cannot be read as CSV ({said}).") from None
    if not {"time_utc", "g_per_kwh"} <= set(rows.columns) or rows.empty:
        raise Refused(
            f"The hourly file {name} needs rows under the columns time_utc and g_per_kwh."
        )
    times = pd.to_datetime(rows["time_utc"], utc=True, errors="coerce", format="ISO8601")
    times = times.dt.tz_localize(None)
    values = pd.to_numeric(rows["g_per_kwh"], errors="coerce")
    wrong = np.isinf(values) | (values < 0) | (values.isna() & rows["g_per_kwh"].notna())
    wrong |= times.isna() | (times != times.dt.floor("h")) | times.duplicated()
    if wrong.any():
        row = rows[wrong.to_numpy()].iloc[0]
        raise Refused(
            f"The hourly file {name} has the row {row['time_utc']}, {row['g_per_kwh']}; "
            "one row an hour, on the hour, with a finite value of 0 or more (or none) is allowed."
        )
    years = (times.max() - times.min()).days / 365.25
    if years > MOST_YEARS:
        asked = f"The hourly file {name} spans {years:.0f} years"
        raise Refused(f"{asked}; at most {MOST_YEARS} are allowed.")
    index = pd.DatetimeIndex(times, name="time")
    return pd.Series(values.to_numpy(), index, name="g_per_kwh").sort_index()


def at(intensity: xr.DataArray, times) -> xr.DataArray:
    """The intensity at `times`; naive times are UTC, and a DataArray keeps its dimensions.

    Multiply it with the energy of each time: `operational(energy_J, at(hourly(), times))`.
    """
    if not isinstance(times, xr.DataArray):
        stamps = pd.to_datetime(np.atleast_1d(times), utc=True).tz_localize(None)
        times = xr.DataArray(stamps, dims="time")
    try:
        found = intensity.sel(time=times.dt.floor("h"))
    except KeyError:
        hours = intensity["time"].values.astype("datetime64[h]")
        raise Refused(
            f"Some of the times lie outside the series; {hours[0]}Z to {hours[-1]}Z is allowed."
        ) from None
    return found.drop_vars("time") if times.dims != ("time",) else found


def typical(intensity: xr.DataArray, timezone: str = "UTC") -> xr.DataArray:
    """Mean g/kWh by month and hour of the day; `missing` counts the hours that are left out."""
    local = pd.DatetimeIndex(intensity.time.values).tz_localize("UTC").tz_convert(timezone)
    series = pd.Series(intensity.values, local, name="g_per_kwh")
    months = series.groupby([local.month.rename("month"), local.hour.rename("hour")])
    missing = (months.size() - months.count()).to_xarray()
    about = {"long_name": f"mean carbon intensity by month and hour ({timezone})"}
    mean = months.mean().to_xarray().assign_attrs(intensity.attrs | about)
    return mean.assign_coords(missing=(mean.dims, missing.values))
