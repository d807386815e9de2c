"""Shifting: starts and zones by hand, gaps never chosen, waits that never cost carbon."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from footprint import Refused, spec
from footprint.decide import shifting


def grid(*zones) -> xr.DataArray:
    """A made-up series by hour for each zone; None is an hour that nobody knows."""
    values = np.array(
        [[np.nan if value is None else value for value in zone] for zone in zones], dtype=float
    )
    times = pd.date_range("2022-01-01", periods=values.shape[1], freq="h")
    return xr.DataArray(values, {"zone": list("ab")[: len(zones)], "time": times}, ["zone", "time"])


SERIES = st.integers(12, 30).flatmap(
    lambda size: st.tuples(
        *[st.lists(st.one_of(st.integers(0, 9), st.none()), min_size=size, max_size=size)] * 2
    )
)


@settings(deadline=None, max_examples=60)
@given(SERIES, st.integers(0, 6), st.integers(1, 4))
def test_each_job_starts_where_and_when_a_search_by_hand_says(series, slack, duration):
    found = shifting.shift(grid(*series), slack, duration).isel(slack_h=0)
    assert found.sizes["time"] == len(series[0]) - duration - slack + 1
    for released in range(found.sizes["time"]):
        ways = [
            (np.mean(run), wait, place)
            for wait in range(slack + 1)
            for place in (0, 1)
            if None not in (run := series[place][released + wait : released + wait + duration])
        ]
        job = found.isel(time=released)
        if not ways:
            assert job["wait_h"] == 0 and np.isnan(job["g_per_kwh"])
            continue
        least = min(ways)
        assert float(job["g_per_kwh"]) == pytest.approx(least[0])
        assert any(
            way[0] == pytest.approx(least[0])
            and (way[1], "ab"[way[2]]) == (int(job["wait_h"]), job["zone"].item())
            for way in ways
        )


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 900), min_size=48, max_size=96), st.integers(1, 5))
def test_more_slack_never_emits_more_and_a_guess_never_less_than_foresight(values, duration):
    series = grid(values)
    found = shifting.savings(series, shifting.shift(series, [0, 1, 6, 12], duration))
    assert found["saving"].is_monotonic_increasing and found["saving"][0] == pytest.approx(
        0, abs=1e-12
    )
    guess = shifting.savings(
        series,
        shifting.shift(
            series, [0, 1, 6, 12], duration, seen=series[:, ::-1].assign_coords(time=series.time)
        ),
    )
    assert (guess["shifted_g"] >= found["shifted_g"] - 1e-9).all()
    assert (found["wait_h"] <= found["slack_h"]).all() and (found["wait_p95_h"] >= 0).all()


def test_a_day_that_swings_like_a_saw_is_closed_form():
    """Hours 0 to 11 cost 300, others 100: a slack of 6 h saves in half of the first hours."""
    series = grid(np.tile(np.repeat([300.0, 100.0], 12), 10))
    row = shifting.savings(
        series, shifting.shift(series.isel(time=slice(0, 24 * 9 + 6)), [0, 6])
    ).iloc[1]
    assert row["fixed_g"] == pytest.approx(200) and row["shifted_g"] == pytest.approx(
        (6 * 300 + 18 * 100) / 24
    )
    assert row["saving"] == pytest.approx(0.25) and row["wait_h"] == pytest.approx(
        sum(range(1, 7)) / 24
    )
    assert row["crowd"] == 7
    long = shifting.savings(series, shifting.shift(series, [0, 6], 3)).set_index("slack_h")["crowd"]
    assert long[0] == 1 and long[6] > 1


def test_savings_are_against_the_better_zone():
    series = grid([10.0, 50.0] * 20, [20.0] * 40)
    row = shifting.savings(series, shifting.shift(series, [0, 1])).set_index("slack_h")
    assert set(row["zone"]) == {"b"} and row["fixed_g"].tolist() == [20, 20]
    assert row["shifted_g"].tolist() == pytest.approx([15, 10], rel=0.03)


def test_jobs_that_know_nothing_run_at_once():
    series = grid([5.0, 4, 3, 2, 1, 9])
    found = shifting.shift(series, 3, seen=xr.full_like(series, np.nan))
    assert (found["wait_h"] == 0).all() and found["g_per_kwh"].values[:, 0].tolist() == [5, 4, 3]


def test_the_year_is_hourly_where_it_is_known_and_flat_elsewhere():
    year = shifting.grid_hours()
    assert dict(zip(year.zone.values, year.by.values, strict=True)) == {
        "CA-QC": "annual mean",
        "US-CAL-CISO": "hourly",
        "US-NW-PACE": "annual mean",
    }
    np.testing.assert_array_equal(year.sel(zone="US-CAL-CISO"), spec.hourly())
    assert set(year.sel(zone="CA-QC").values) == {spec.grid("CA-QC", 2022).g_per_kwh}
    assert year.attrs == {"units": "g/kWh", "year": 2022}


def test_bad_input_is_refused_in_a_sentence():
    series = grid(range(10))
    for arguments, words in (
        ((series, -1), r"slack_h = \[-1\] is refused; whole hours of 0 or more"),
        ((series, 1.5), "slack_h = .* is refused"),
        ((series, 1, 0), r"duration_h = \[0\] is refused; whole hours of 1 or more"),
        ((series, 9, 3), "Jobs of 3 h that may wait 9 h need more than 10 hours"),
    ):
        with pytest.raises(Refused, match=words):
            shifting.shift(*arguments)
    with pytest.raises(
        Refused, match="None of CA-QC has an hourly series; known zones are US-CAL-CISO"
    ):
        shifting.grid_hours(["CA-QC"])
    free = xr.zeros_like(series)
    assert np.isnan(shifting.savings(free, shifting.shift(free, 1))["saving"].item())
    empty = series.where(series < 0)
    with pytest.raises(Refused, match="No release has known intensities"):
        shifting.savings(empty, shifting.shift(empty, 1))
