"""Electricity: a year of California, own files, missing hours that are named, refusals."""

import os

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from footprint import Refused, carbon
from footprint.spec import at, hourly, typical


def own(tmp_path, text: str):
    path = tmp_path / "own.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_california_2022_is_complete_but_for_three_named_hours():
    year = hourly()
    assert (
        year.sizes == {"time": 8760}
        and year.attrs["units"] == "g/kWh"
        and year.attrs["kind"] == "lifecycle"
    )
    assert len(year.attrs["missing"]) == int(year.isnull().sum()) == 3
    assert "2022-01-05T10Z" in year.attrs["missing"]
    assert float(year.mean()) == pytest.approx(
        256.2, abs=0.05
    )  # HPE dc-rl a92b475, mean of the column avg_CI


def test_an_hour_is_the_fuel_mix_times_lifecycle_factors():
    # EIA-930 for the hour 2022-01-01T07Z: MWh by fuel; g/kWh of IPCC 2014 (annex III, medians).
    fuel = {"wind": 2844, "hydro": 1432, "oil": 44, "gas": 7429, "coal": 20, "nuclear": 2264}
    factor = {"wind": 11, "hydro": 24, "oil": 650, "gas": 490, "coal": 820, "nuclear": 12}
    mix = sum(fuel[name] * factor[name] for name in fuel) / sum(fuel.values())
    assert float(hourly().sel(time="2022-01-01T07:00")) == pytest.approx(mix, abs=0.05)


def test_a_file_of_ones_own_loads_the_same_way_and_its_gaps_are_named(tmp_path):
    text = "time_utc,g_per_kwh\n2024-02-29T01:00:00+01:00,10\n"
    text += "2024-02-29T03:00:00Z,30\n2024-02-29T01:00:00Z,\n"
    series = hourly(own(tmp_path, text))
    assert np.allclose(series, [10, np.nan, np.nan, 30], equal_nan=True)
    assert series.attrs["missing"] == ["2024-02-29T01Z", "2024-02-29T02Z"]
    assert series.attrs["source"] == "own.csv"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "time,g\n2024-01-01T00:00Z,1\n",
        "time_utc,g_per_kwh\n",
        "time_utc,g_per_kwh\nyesterday,1\n",
        "time_utc,g_per_kwh\n2024-01-01T00:00Z,-1\n",
        "time_utc,g_per_kwh\n2024-01-01T00:00Z,inf\n",
        "time_utc,g_per_kwh\n2024-01-01T00:00Z,much\n",
        "time_utc,g_per_kwh\n2024-01-01T00:30Z,1\n",
        "time_utc,g_per_kwh\n2024-01-01T00:00Z,1\n2024-01-01T00:00Z,2\n",
        "a,b\n1,2,3\n4,5,6,7\n",
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, text):
    with pytest.raises(Refused) as refusal:
        hourly(own(tmp_path, text))
    assert "own.csv" in str(refusal.value) and "\n" not in str(refusal.value).strip()


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(Refused, match="US-CAL-CISO"):
        hourly(tmp_path / "nothing.csv")
    (tmp_path / "raw.csv").write_bytes(b"\xff\xfe\x00time")
    with pytest.raises(Refused, match="cannot be read"):
        hourly(tmp_path / "raw.csv")


def test_a_load_is_charged_at_its_own_hours():
    year = hourly()
    times = pd.to_datetime(["2022-06-01T20:59:59Z", "2022-06-02T05:00:00Z"])
    grams = carbon.operational(np.array([3.6e6, 7.2e6]), at(year, times))
    noon, night = (float(year.sel(time=hour)) for hour in ("2022-06-01T20:00", "2022-06-02T05:00"))
    assert np.allclose(grams, [noon, 2 * night]) and grams.attrs["units"] == "g" and noon < night
    window = xr.DataArray(pd.to_datetime(["2022-01-05T10:30"]), dims="window")
    assert at(year, window).dims == ("window",) and np.isnan(at(year, window)).all()
    with pytest.raises(Refused, match="outside"):
        at(year, "2021-12-31T23:00Z")


def test_months_by_hours_are_means_of_what_is_there():
    year = hourly()
    table = typical(year)
    assert table.sizes == {"month": 12, "hour": 24} and int(table.missing.sum()) == 3
    july = year.where((year.time.dt.month == 7) & (year.time.dt.hour == 20), drop=True)
    assert float(table.sel(month=7, hour=20)) == pytest.approx(float(july.mean()))
    local = typical(year, "America/Los_Angeles")
    assert float(local.sel(month=7, hour=13)) == pytest.approx(
        float(july.mean())
    )  # UTC-7 in summer


def test_a_series_of_centuries_is_refused_before_its_hours_are_listed(tmp_path):
    text = "time_utc,g_per_kwh\n1700-01-01T00:00Z,1\n2261-01-01T00:00Z,2\n"
    with pytest.raises(Refused, match=r"spans 561 years; at most 30 are allowed"):
        hourly(own(tmp_path, text))


def test_a_pipe_is_no_series(tmp_path):
    os.mkfifo(tmp_path / "own.csv")
    with pytest.raises(Refused, match="no regular file"):
        hourly(tmp_path / "own.csv")
