"""Joules and their budget: closed forms, an exact integral, every fault through the C library."""

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import fake_nvml as fake
import scripted_loads as loads
from footprint import trace
from footprint.energy import integrate as readings
from footprint.energy import uncertainty as budget
from footprint.energy import window as energy
from footprint.trace.schema import ATTRS, WINDOW_STATUS

RUN = {
    name: cast() for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")
} | {"status": "ok"}
CARD = loads.SENSOR | {"boot_s": np.nan}
NEVER = 10**9


def tree(rows: list[dict], source="nvml_instant", **samples) -> xr.DataTree:
    """A measured trace of windows, by default 5 s long and 10 iterations full, and its samples."""
    known = {
        "phase": "decode",
        "batch": 1,
        "start_s": 10.0,
        "stop_s": 15.0,
        "iterations": 10,
        "tokens": 100,
        "status": "ok",
    }
    rows = [{**known, **CARD, **row} for row in rows]
    for row in rows:
        row["boot_s"] = row["stop_s"] - row["start_s"] if np.isnan(row["boot_s"]) else row["boot_s"]
    return trace.new("measured", RUN | {"energy_source": source}, rows, samples)


def steady(watts=200.0, until=40.0, step=0.05) -> dict:
    """Samples of a constant power, and of a counter that moves each 100 ms."""
    time_s = np.arange(0, until, step)
    return {
        "time_s": time_s,
        "power_W": np.full(len(time_s), watts),
        "counter_J": np.floor(time_s * 10 + 1e-6) / 10 * watts,
    }


# -- the integral


@given(
    st.lists(st.tuples(st.floats(0.01, 0.5), st.floats(0, 500)), min_size=3, max_size=30),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_integral_is_exact_under_straight_lines(pieces, ends):
    time_s = np.cumsum([gap for gap, _ in pieces])
    power_W = np.array([watts for _, watts in pieces])
    start, stop = np.minimum(time_s[0] + np.sort(ends) * (time_s[-1] - time_s[0]), time_s[-1])
    grid = np.unique(
        np.concatenate([np.linspace(start, stop, 7), time_s[(time_s > start) & (time_s < stop)]])
    )
    middle = np.interp((grid[1:] + grid[:-1]) / 2, time_s, power_W)
    expected = (middle * np.diff(grid)).sum() if stop > start else np.nan
    assert readings.integral(time_s, power_W, start, stop)[0] == pytest.approx(
        expected, rel=1e-9, abs=1e-9, nan_ok=True
    )


def test_unknown_power_is_nan_and_stays_in_its_window():
    time_s, power_W = np.arange(0, 10, 0.1), np.full(100, 7.0)
    power_W[50] = np.nan
    got = readings.integral(time_s, power_W, [1, 4, 6, -1, 9], [3, 6, 8, 1, 11])
    assert np.allclose(got, [14, np.nan, 14, np.nan, np.nan], equal_nan=True)
    kept = np.abs(time_s - 5) > 0.6
    assert np.isnan(readings.integral(time_s[kept], np.full(kept.sum(), 7.0), [4.0], [6.0])[0]), (
        "a gap of more than a second"
    )
    assert np.isnan(readings.integral([], [], [0.0], [1.0])[0])


# -- the counter


def test_the_slope_between_ticks_finds_a_constant_power():
    time_s = np.arange(0.0, 10, 0.03)
    joules = np.floor((time_s + 0.017) / 0.1) * 0.1 * 250
    watts, width, rest = readings.slope(time_s, joules, np.array([2.0]), np.array([7.0]))
    assert watts[0] == pytest.approx(250, rel=0.007) and 0 <= rest[0] <= 0.13
    assert width[0] == pytest.approx(0.03 * np.sqrt(2))


def test_ticks_outside_a_window_do_not_count():
    time_s = np.arange(0.0, 10, 0.01)
    power = np.where((time_s > 2) & (time_s < 7), 300.0, 50.0)
    joules = np.floor(np.cumsum(power) * 0.01 / 5) * 5  # moves each 5 J
    watts, _, _ = readings.slope(time_s, joules, np.array([2.0]), np.array([7.0]))
    assert watts[0] == pytest.approx(300, rel=0.005)


def test_too_few_ticks_have_no_slope():
    assert all(
        np.isnan(x[0])
        for x in readings.slope([0.0, 1.0], [0.0, 5.0], np.array([0.0]), np.array([1.0]))
    )


def test_two_instruments_agree_and_one_names_the_energy():
    data = energy.windows(
        tree([{"counter_start_J": 2000.0, "counter_stop_J": 3000.0}], "nvml_counter", **steady())
    )
    assert data["counter_J"].item() == pytest.approx(1000, rel=0.01) and data[
        "integrated_J"
    ].item() == pytest.approx(1000)
    assert (
        data["energy_J"].item() == data["counter_J"].item() and abs(data["residual"].item()) < 0.01
    )
    assert not data["instruments_disagree"].item() and data["energy_status"].item() == "ok"
    assert data["energy_per_token_J"].item() == pytest.approx(10, rel=0.01)
    assert (
        data["power_W"].item() == pytest.approx(200, rel=0.01)
        and data["time_per_iteration_s"].item() == 0.5
    )


def test_a_counter_that_disagrees_is_flagged_and_not_replaced():
    samples = steady() | {"power_W": np.full(800, 170.0)}
    data = energy.windows(
        tree([{"counter_start_J": 2000.0, "counter_stop_J": 3000.0}], "nvml_counter", **samples)
    )
    assert data["instruments_disagree"].item() and data["energy_J"].item() == pytest.approx(
        1000, rel=0.01
    )
    assert data["residual"].item() == pytest.approx(200 / 170 - 1, rel=0.1)


# -- the budget


def test_an_unaligned_counter_hides_a_tick_at_each_end():
    """P T / sqrt 6: two independent errors, each uniform over one tick."""
    drawn = np.random.default_rng(0).uniform(0, 0.1, (200_000, 2)) * 200
    expected = np.std(drawn[:, 0] - drawn[:, 1])
    quiet = dict.fromkeys(("change_W", "jumps_W2", "seen_W", "active_W"), 0.0)
    load = quiet | {"power_W": 200.0, "iteration_s": 0.1, "spacing_s": 0.05}
    alone, aligned = (
        budget.counted(loads.SENSOR, load, np.array(width))["u_quantisation"]
        for width in (np.nan, 0.02)
    )
    assert alone == pytest.approx(expected, rel=0.01) and alone == pytest.approx(
        200 * 0.1 / np.sqrt(6)
    )
    assert aligned == pytest.approx(200 * 0.02 / np.sqrt(12))


@pytest.mark.parametrize(("spacing", "every"), [(0.05, 1), (0.2, 2), (0.5, 5)])
def test_what_a_part_time_sensor_misses_is_what_random_windows_miss(spacing, every):
    """With a quarter of each 100 ms slot seen, the counter errs by the stated spread.

    So it has where the counter is read at every other update only, or more seldom.
    """
    rng = np.random.default_rng(1)
    parts = rng.normal(
        300, 20, (4000, 50, 4)
    )  # four independent 25 ms parts in each of 50 updates; one is seen
    error = (parts[:, :, 0].mean(axis=1) - parts.mean(axis=(1, 2))) * 5
    read = parts[:, ::every, 0]
    jumps = (np.diff(read, axis=1) ** 2).mean() * 50 / every
    sensor = {"power_update_s": 0.1, "power_average_s": 0.025, "power_duty": 0.25}
    stated = budget.blind_error(sensor, {"spacing_s": spacing, "jumps_W2": jumps}, 0.1)
    assert stated == pytest.approx(error.std(), rel=0.03)


@pytest.mark.parametrize(("period", "blur"), [(0.05, 0.2), (0.1, 0.1), (2.0, 0.1)])
def test_what_a_toggling_load_hides_at_the_ends_is_stated_or_more(period, blur):
    points = fake.square(100, 300, period)
    rng = np.random.default_rng(2)
    moments = rng.uniform(0, 100, (2000, 2))
    late = rng.uniform(0, blur, (2000, 2))
    error = [
        sum(
            s * (fake.energy(points, t, t + d) - 200 * d)
            for s, t, d in zip((1, -1), m, d, strict=True)
        )
        for m, d in zip(moments, late, strict=True)
    ]
    sensor = {"power_average_s": 0.1, "power_update_s": 0.1}
    stated = budget.edge_error(
        sensor, {"iteration_s": period, "seen_W": 100.0, "active_W": 0.0}, blur
    )
    assert np.std(error) <= 1.05 * stated <= 6 * np.std(error)


def test_spread_is_the_standard_deviation_between_repeats_of_a_point():
    joules, iterations = np.array([10.0, 22.0, 33.0, 7.0, np.nan]), np.array([1, 2, 3, 1, 1])
    got = budget.spread(joules, iterations, np.array([0, 0, 0, 1, 0]))
    each = np.std([10, 11, 11], ddof=1)
    assert np.allclose(got, [each, 2 * each, 3 * each, np.nan, np.nan], equal_nan=True)


def test_the_gain_is_a_band_that_does_not_shrink():
    low, high = budget.bounds(np.array([100.0]), np.array([0.0]), 0.05)
    for gain in (0.95, 1.0, 1.05):
        assert low[0] <= 100 / gain <= high[0]


def test_the_interval_is_the_budget_and_tokens_are_exact():
    data = energy.windows(tree([{}, {"repeat": 1, "start_s": 20.0, "stop_s": 25.1}], **steady()))
    half = 2 * np.sqrt(
        data["u_repeat"] ** 2 + data["u_quantisation"] ** 2 + data["u_sampling"] ** 2
    )
    assert np.allclose(data["energy_J_high"], (data["energy_J"] + half) / 0.95)
    assert data["energy_J_low"].attrs["interval_level"] == 0.95
    assert (
        np.allclose(data["u_gain"], 0.05 / np.sqrt(3) * data["energy_J"])
        and (data["u_tokens"] == 0).all()
    )
    assert np.allclose(data["energy_per_token_J_high"], data["energy_J_high"] / 100)
    assert (data["u_repeat"] > 0).all()


def test_a_calibrated_board_is_corrected_and_known_better():
    data = energy.windows(tree([{"gain": 0.95, "gain_bound": 0.01}], **steady()))
    assert data["energy_J"].item() == pytest.approx(1000 / 0.95)
    assert data["u_gain"].item() == pytest.approx(0.01 / np.sqrt(3) * 1000 / 0.95)


RESTING = {"phase": "idle_loaded", "start_s": 1.0, "stop_s": 4.0, "iterations": 0, "batch": 0}


def test_what_is_read_in_pauses_and_shortly_after_is_left_out():
    """Two pauses at 90 W in a window at 200 W, of which 0.3 s more are dark."""
    at = np.arange(0, 40, 0.05)
    inside = ((at > 11.05) & (at < 12.2)) | ((at > 13.1) & (at < 13.65))
    power = np.where(at < 5, 60.0, np.where(inside, 90.0, 200.0))
    counter = np.concatenate([[0], np.cumsum((power[1:] + power[:-1]) / 2 * 0.05)])
    row = {"paused_s": 1.3, "pauses": [(11.0, 11.95), (13.05, 13.4)]}
    for source in ("nvml_instant", "nvml_counter"):
        ends = dict(zip(("counter_start_J", "counter_stop_J"), counter[[200, 300]], strict=True))
        samples = steady() | {"power_W": power, "counter_J": counter}
        data = energy.windows(tree([RESTING, row | ends], source, **samples))
        assert data["energy_J"].values[1] == pytest.approx(200 * 3.7, rel=0.005)
        assert data["power_W"].values[1] == pytest.approx(200, rel=0.005)
        assert data["time_per_iteration_s"].values[1] == pytest.approx(0.37)


def test_pauses_of_earlier_traces_may_have_any_power_between_rest_and_work():
    samples = steady() | {"power_W": np.where(np.arange(0, 40, 0.05) < 5, 60.0, 200.0)}
    data = energy.windows(tree([RESTING, {"paused_s": 1.0}], **samples))
    assert data["energy_J"].values[1] == pytest.approx(1000 - (60 + 200) / 2)
    assert data["u_sampling"].values[1] >= (200 - 60) / np.sqrt(12)
    assert data["time_per_iteration_s"].values[1] == pytest.approx(0.4)


def test_an_unknown_sensor_is_taken_to_be_a_poor_one():
    rng = np.random.default_rng(0)
    samples = steady() | {"power_W": rng.normal(200, 10, 800)}
    cards = ({}, dict.fromkeys(loads.SENSOR, np.nan))
    known, unknown = (
        energy.windows(tree([{"iterations": 1000} | card], **samples)) for card in cards
    )
    assert (
        unknown["u_sampling"].item() > 2 * known["u_sampling"].item()
        and unknown["u_gain"].item() > 0
    )


# -- why there is none


@pytest.mark.parametrize(
    ("row", "samples", "source", "status"),
    [
        ({}, {}, "none", "not_supported"),
        ({"status": "oom", "start_s": np.nan, "stop_s": np.nan}, {}, "none", "oom"),
        ({"status": "skipped", "start_s": np.nan, "stop_s": np.nan}, {}, "none", "skipped"),
        ({"status": "shared_gpu"}, steady(), "nvml_instant", "shared_gpu"),
        ({"stop_s": 11.9}, steady(), "nvml_instant", "window_too_short"),
        ({"boot_s": 5.3}, steady(), "nvml_instant", "clock_jump"),
        ({"start_s": 38.0, "stop_s": 42.0}, steady(), "nvml_instant", "sampler_died"),
        ({}, {}, "nvml_counter", "sampler_died"),
        (
            {"counter_start_J": 9.0, "counter_stop_J": 3.0},
            steady(),
            "nvml_counter",
            "counter_backwards",
        ),
        (
            {"counter_start_J": 0.0, "counter_stop_J": 0.0},
            steady(0.0),
            "nvml_counter",
            "counter_stuck",
        ),
    ],
)
def test_a_window_without_energy_says_why(row, samples, source, status):
    data = energy.windows(tree([row], source, **samples))
    assert data["energy_status"].item() == status and status in WINDOW_STATUS
    for name in (
        "energy_J",
        "energy_J_low",
        "energy_J_high",
        "energy_per_token_J",
        "u_gain",
        "u_sampling",
        "power_W",
    ):
        assert np.isnan(data[name].item()), name


def test_a_clock_that_steps_back_spoils_the_windows_it_touches():
    samples = steady()
    samples["time_s"] = np.where(samples["time_s"] > 12, samples["time_s"] - 0.5, samples["time_s"])
    data = energy.windows(tree([{}, {"start_s": 20.0, "stop_s": 25.0}], **samples))
    assert list(data["energy_status"].values) == ["clock_jump", "ok"]


@pytest.mark.parametrize("status", ["disturbed", "throttled"])
def test_a_flagged_window_keeps_its_energy_and_its_flag(status):
    data = energy.windows(tree([{"status": status}], **steady()))
    assert data["energy_status"].item() == status and data["energy_J"].item() == pytest.approx(1000)


PART_OF_2 = 2 * loads.SLOT_S + loads.REST_S + 4  # a moment inside the third window
FAULTS = {
    "no permission for a while": (
        {"faults": [("fields", 4, 0, PART_OF_2, 20)]},
        {2: "no_permission"},
    ),
    "unknown error for a while": ({"faults": [("fields", 999, 0, PART_OF_2, 20)]}, {2: "unknown"}),
    "not supported for a while": (
        {"faults": [("instant", 3, 0, PART_OF_2, 20)]},
        {2: "not_supported"},
    ),
    "lost": ({"faults": [("all", 15, 0, PART_OF_2, NEVER)]}, {2: "gpu_lost", 3: "gpu_lost"}),
    "driver replaced": (
        {"faults": [("all", 18, 0, PART_OF_2, NEVER)]},
        {2: "driver_mismatch", 3: "driver_mismatch"},
    ),
    "counter freezes": ({"freeze": PART_OF_2}, {2: "counter_stuck", 3: "counter_stuck"}),
    "counter never moves": ({"freeze": 0}, dict.fromkeys(range(4), "counter_stuck")),
    "counter starts again": ({"reset": PART_OF_2}, {2: "counter_backwards"}),
    "throttled": ({"throttle": ("0x40", PART_OF_2)}, {2: "throttled", 3: "throttled"}),
    "a neighbour comes": ({"others": (1, PART_OF_2)}, {2: "shared_gpu", 3: "shared_gpu"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_status_and_nan_in_its_windows_and_the_rest_is_kept(gpu, tmp_path, name):
    keys, expected = FAULTS[name]
    script = gpu()
    load = loads.Load("steady", fake.constant(300), 0.05, keys)
    data, true = loads.simulate(load, fake.VirtualTime(tmp_path / "clock"), script, 4, seed=3)
    seen = enumerate(data["energy_status"].values)
    statuses = {index: status for index, status in seen if status not in ("ok", "disturbed")}
    assert statuses == expected
    bad = np.isin(np.arange(4), list(expected)) & (np.array(name) != "throttled")
    assert (
        np.isnan(data["energy_J"].values[bad]).all()
        and np.isnan(data["energy_per_token_J"].values[bad]).all()
    )
    assert np.allclose(data["energy_J"].values[~bad], true[~bad], rtol=0.02)
    assert (data["duration_s"] >= 5).all(), "time is kept in any case"


# -- comparisons and kinds


def test_modelled_windows_carry_their_own_energies():
    row = {"phase": "decode", "batch": 1, "tokens": 4, "status": "ok", "duration_s": 2.0}
    row |= {"energy_J": 8.0, "energy_J_low": 6.0, "energy_J_high": 9.0}
    data = energy.windows(trace.new("modelled", RUN, [row]))
    assert (
        data["energy_status"].item() == "modelled"
        and data["energy_per_token_J_high"].item() == 9 / 4
    )
    assert (
        data["energy_J_low"].attrs["interval_level"] == 0.9
        and data["time_per_iteration_s"].item() == 2.0
    )


def test_gathered_runs_have_their_energies(tmp_path):
    trace.save(tree([{}], **steady()), tmp_path / "a.nc")
    trace.save(tree([{}], "none"), tmp_path / "b.nc")
    data = energy.gather(tmp_path)
    assert list(data["energy_status"].values) == ["ok", "not_supported"] and data[
        "energy_J"
    ].values[0] == pytest.approx(1000)


def test_runs_read_without_their_steps_are_the_same_as_read_whole(tmp_path):
    trace.save(tree([{}], **steady()), tmp_path / "a.nc")
    row = {
        "phase": "decode",
        "batch": 1,
        "tokens": 4,
        "status": "ok",
        "duration_s": 2.0,
        "energy_J": 8.0,
    }
    trace.save(trace.new("modelled", RUN, [row, row]), tmp_path / "b.nc")
    xr.testing.assert_identical(energy.gather(tmp_path), trace.gather(tmp_path, energy.windows))


@pytest.mark.parametrize("harm", ["infinite", "missing"])
def test_a_run_with_broken_samples_is_left_out_and_named(tmp_path, harm):
    trace.save(tree([{}], **steady()), tmp_path / "good.nc")
    trace.save(tree([{}], **steady()), tmp_path / "odd.nc")
    with h5py.File(tmp_path / "odd.nc", "r+") as file:
        if harm == "infinite":
            file["samples/power_W"][0] = np.inf
        else:
            del file["samples/power_W"]
    with pytest.warns(UserWarning, match="1 files are not valid traces: .*odd"):
        data = energy.gather(tmp_path)
    assert data.sizes["window"] == 1 and len(data.attrs["rejected"]) == 1


def test_every_derived_variable_has_units():
    data = energy.windows(tree([{}], **steady()))
    assert all("units" in data[name].attrs for name in data if data[name].dtype.kind == "f")
