"""Grams: linear in what is charged, zero for zero, NaN for NaN, refusals; the score by hand."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from footprint import Refused, carbon, spec

AMOUNTS = st.floats(0, 1e9, allow_subnormal=False)
FACTORS = st.floats(0, 1e3, allow_subnormal=False)
GRID = {
    "CA-QC": (28, 28, 31, 35, 41),
    "US-CAL-CISO": (278, 262, 263, 229, 208),
    "US-NW-PACE": (646, 670, 677, 637, 618),
}  # Electricity Maps yearly data 2021-2025, as republished by co2.js 27cbe83


def test_a_kilowatt_hour_on_a_grid():
    assert carbon.operational(3.6e6, 262) == 262
    assert carbon.operational(3.6e6, 262, pue=1.5) == 393


def test_a_gpu_used_all_its_life_is_charged_in_full():
    seconds = 5 * 365.25 * 24 * 3600
    assert carbon.amortised(10.3, seconds) == pytest.approx(10_300)
    assert carbon.amortised(10.3, seconds / 2, utilisation=0.5) == pytest.approx(10_300)
    assert carbon.amortised(10.3, 3600, lifetime_years=4) == pytest.approx(
        10_300 / (4 * 365.25 * 24)
    )


@given(AMOUNTS, AMOUNTS, FACTORS)
def test_grams_are_linear_in_energy_intensity_and_time(first, second, factor):
    def same(together, apart):
        return together == pytest.approx(apart, rel=1e-9, abs=1e-12)

    both = carbon.operational(first, factor) + carbon.operational(second, factor)
    assert same(carbon.operational(first + second, factor), both)
    assert same(
        carbon.operational(factor, first + second),
        carbon.operational(factor, first) + carbon.operational(factor, second),
    )
    assert same(
        carbon.amortised(factor, first + second),
        carbon.amortised(factor, first) + carbon.amortised(factor, second),
    )
    assert same(carbon.amortised(factor * first, second), factor * carbon.amortised(first, second))


@given(AMOUNTS)
def test_zero_in_is_zero_out(amount):
    assert carbon.operational(0, amount) == carbon.operational(amount, 0) == 0
    assert carbon.amortised(0, amount) == carbon.amortised(amount, 0) == 0


@given(st.lists(AMOUNTS, min_size=1, max_size=5), FACTORS)
def test_numbers_arrays_and_labelled_arrays_agree(energy, grid):
    labelled = xr.DataArray(energy, dims="window", attrs={"units": "J"})
    one_by_one = [carbon.operational(item, grid) for item in energy]
    assert np.array_equal(carbon.operational(energy, grid), one_by_one)
    assert np.array_equal(carbon.operational(np.array(energy), grid), one_by_one)
    assert np.array_equal(carbon.operational(labelled, grid), one_by_one)
    assert carbon.operational(labelled, grid).attrs["units"] == "g"


def test_labelled_arrays_broadcast():
    energy = xr.DataArray([1.0, 2.0], {"gpu": ["t4", "l4"]}, attrs={"units": "J"})
    grid = xr.DataArray([31.0, 262.0, 647.0], {"zone": list(GRID)}, attrs={"units": "g/kWh"})
    assert carbon.operational(energy, grid).sizes == {"gpu": 2, "zone": 3}


@given(AMOUNTS, st.sampled_from(range(4)))
def test_nan_travels(amount, where):
    arguments = [amount, amount, 1.0, 1.0]
    arguments[where] = np.nan
    energy, grid, pue, _ = arguments
    if where < 3:
        assert np.isnan(carbon.operational(energy, grid, pue))
    assert np.isnan(carbon.amortised(*arguments))


def test_the_reason_of_a_gap_travels():
    missing = xr.DataArray(
        [np.nan], dims="window", attrs={"units": "J", "reason": "no energy counter"}
    )
    assert carbon.operational(missing, 31).attrs["reason"] == "no energy counter"
    kg = carbon.embodied(["t4", "v100-32gb"], "teardown").total_kg
    grams = carbon.amortised(kg, 3600)
    assert np.isnan(grams.sel(gpu="v100-32gb")) and "no source" in str(
        grams.embodied_reason.sel(gpu="v100-32gb").values
    )


@pytest.mark.parametrize(
    "bad", [-1, np.inf, -np.inf, [1, -1], np.array([np.inf]), xr.DataArray([-2.0]), "much", None]
)
def test_negative_infinite_and_unreadable_input_is_refused_in_one_sentence(bad):
    calls = [
        lambda: carbon.operational(bad, 1),
        lambda: carbon.operational(1, bad),
        lambda: carbon.operational(1, 1, bad),
        lambda: carbon.amortised(bad, 1),
        lambda: carbon.amortised(1, bad),
        lambda: carbon.amortised(1, 1, bad),
        lambda: carbon.amortised(1, 1, 5, bad),
        lambda: carbon.score(1, 1, 1, 1, bad),
        lambda: carbon.score(1, 1, 1, 1, 1, resource_share=bad),
    ]
    for call in calls:
        with pytest.raises(Refused) as refusal:
            call()
        assert str(refusal.value).endswith("allowed.") and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: carbon.operational(1, 1, pue=0.9),
        lambda: carbon.amortised(1, 1, lifetime_years=0),
        lambda: carbon.amortised(1, 1, utilisation=0),
        lambda: carbon.amortised(1, 1, utilisation=1.1),
        lambda: carbon.score(1, 1, 1, 1, tokens=0),
        lambda: carbon.score(1, 1, 1, 1, 1, resource_share=2),
        lambda: carbon.operational(xr.DataArray([1.0], attrs={"units": "kWh"}), 1),
        lambda: carbon.amortised(carbon.embodied("t4"), 1),
    ],
)
def test_values_without_a_meaning_are_refused(call):
    with pytest.raises(Refused):
        call()


def test_the_score_by_hand():
    # 0.01 kWh at PUE 1.2 and 262 g/kWh; 10.3 kg over 5 years at 80 % use, 60 s busy; 1000 tokens.
    found = carbon.score(3.6e4, 262, 10.3, 60, 1000, pue=1.2, lifetime_years=5, utilisation=0.8)
    operational, reserved = 0.01 * 1.2 * 262, 60 / 0.8
    embodied = 10_300 * reserved / (5 * 365.25 * 86400)
    assert float(found.SCI) == pytest.approx((operational + embodied) / 1000)
    assert float(found.E) == pytest.approx(0.012) and found.E.attrs["units"] == "kWh"
    assert float(found.TS) == pytest.approx(reserved / (5 * carbon.YEAR_S))
    assert set(found) == {"E", "I", "O", "TE", "TS", "RS", "M", "R", "SCI"}
    assert found.attrs["boundary"] == "GPU only, SCI-style"
    assert "scope" not in str(found.attrs) + str([found[name].attrs for name in found])


@given(AMOUNTS, FACTORS, FACTORS, AMOUNTS, st.integers(1, 10**6), st.floats(0.01, 1))
def test_the_score_is_operational_plus_amortised_per_unit(energy, grid, kg, busy, tokens, used):
    found = carbon.score(energy, grid, kg, busy, tokens, utilisation=used)
    apart = carbon.operational(energy, grid) + carbon.amortised(kg, busy, utilisation=used)
    assert float(found.SCI) * tokens == pytest.approx(apart, rel=1e-9, abs=1e-9)
    assert float(found.M) == pytest.approx(
        float(found.TE * found.TS * found.RS), rel=1e-9, abs=1e-9
    )


def test_the_score_of_many_gpus_and_regions_and_samples():
    energy = xr.DataArray([1.0, 2.0], {"gpu": ["t4", "l4"]})
    grid = xr.DataArray([31.0, 262.0, 647.0], {"zone": list(GRID)})
    found = carbon.score(energy, grid, carbon.embodied_draws(["t4", "l4"], 10, 0), 1.0, 5)
    assert (
        found.SCI.sizes == {"gpu": 2, "zone": 3, "sample": 10} and found.SCI.attrs["units"] == "g"
    )


@pytest.mark.parametrize("zone", GRID)
def test_the_papers_regions_of_2021_to_2025(zone):
    assert tuple(spec.grid(zone, year).g_per_kwh for year in range(2021, 2026)) == GRID[zone]


def test_quebec_falls_eighteenfold_on_a_direct_basis():
    lifecycle, direct = (
        spec.grid("Quebec", 2023, kind).g_per_kwh for kind in ("lifecycle-hourly-mean", "direct")
    )
    assert carbon.operational(1, lifecycle) / carbon.operational(1, direct) == pytest.approx(
        18.3, abs=0.1
    )
    with pytest.raises(KeyError, match="nearest names are"):
        spec.grid("Qebec")


def test_a_token_by_hand():
    use = carbon.Use(lifetime_years=4, utilisation=0.5, pue=1.2, host_W=30.0, host_kg=50.0)
    found = carbon.token(2.0, 100.0, 10, 20.0, 150.0, 300.0, use)
    assert float(found["token_s"]) == pytest.approx(0.2)
    joules = (100 + 2 * (30 + 20)) / 10
    assert float(found["token_J"]) == pytest.approx(joules)
    assert float(found["operational_g"]) == pytest.approx(joules / 3.6e6 * 1.2 * 300)
    life_s = 4 * 365.25 * 86400
    assert float(found["embodied_g"]) == pytest.approx(200e3 * 0.2 / 0.5 / life_s)
    units = {name: found[name].attrs["units"] for name in found}
    assert units == {"token_s": "s", "token_J": "J", "operational_g": "g", "embodied_g": "g"}


def test_a_busy_gpu_needs_no_idle_power_and_an_idle_one_does():
    busy, half = (
        carbon.token(1.0, 1.0, 1, np.nan, 1.0, 1.0, carbon.Use(utilisation=used))
        for used in (1, 0.5)
    )
    assert np.isfinite(busy["token_J"]) and np.isnan(half["token_J"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"lifetime_years": 0},
        {"utilisation": 1.5},
        {"utilisation": 0.0},
        {"pue": 0.9},
        {"host_W": -1.0},
        {"host_kg": np.inf},
        {"lifetime_years": "long"},
    ],
)
def test_a_use_that_cannot_be_is_refused(wrong):
    with pytest.raises(Refused, match=next(iter(wrong))):
        carbon.Use(**wrong)


def test_a_whole_number_beyond_any_float_is_refused():
    for call in (lambda: carbon.operational(10**400, 1), lambda: carbon.Use(pue=10**400)):
        with pytest.raises(Refused, match="larger than any finite number"):
            call()
