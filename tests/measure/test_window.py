"""The protocol of a window, on a virtual clock beside a scripted GPU."""

import math

import numpy as np
import pytest

import fake_nvml as fake
from footprint.measure import instrument, window
from footprint.trace.schema import WINDOW_STATUS, variables

SENSOR = {
    "counter_tick_s": 0.1,
    "power_update_s": 0.1,
    "power_average_s": 0.025,
    "power_duty": 0.25,
    "gain": 1.0,
    "gain_bound": 0.05,
}
NEVER = 10**9


@pytest.fixture
def setup(gpu, tmp_path):
    """A function that scripts the GPU and gives the setup of it."""

    def make(points=((0, 100), (1, 100)), sensor=SENSOR, quick=False, **keys):
        virtual = fake.VirtualTime(tmp_path / "clock")
        gpu(points, clock=str(virtual.path), **keys)
        return window.Setup(
            instrument.opened("cuda:0"),
            sensor,
            quick,
            powercap=tmp_path / "none",
            clock=virtual.clock(),
        )

    return make


def works(setup, seconds=0.1, spread=0.0):
    """An iteration that takes `seconds` of the setup's time."""

    def once() -> list:
        took = seconds * (1 + spread * setup.rng.uniform(-1, 1))
        setup.clock.sleep(took)
        return [took]

    return once


@pytest.mark.parametrize(
    ("asked", "tick", "quick", "length"),
    [
        (1.0, 0.1, False, 5.0),
        (8.0, 0.1, False, 8.0),
        (1.0, 0.25, False, 12.5),
        (1.0, math.nan, False, 5.0),
        (1.0, 0.1, True, 1.0),
    ],
)
def test_a_window_on_a_gpu_lasts_five_seconds_and_fifty_ticks(setup, asked, tick, quick, length):
    scripted = setup(sensor=SENSOR | {"counter_tick_s": tick}, quick=quick)
    assert window.length(asked, scripted) == length
    assert window.length(asked, window.Setup()) == asked, "a CPU has no counter to wait for"


def test_a_window_is_filled_with_whole_iterations_and_no_lead_of_its_own(setup):
    scripted = setup(sensor=SENSOR | {"power_duty": 1.0})
    began = scripted.clock.now()
    row, times = window.fill(works(scripted, 0.7), 5.0, scripted)
    assert row["iterations"] == 8 == len(times) and row["paused_s"] == 0
    assert row["stop_s"] - row["start_s"] == pytest.approx(5.6)
    assert row["start_s"] == pytest.approx(began)
    assert row["status"] == "ok" and row["protocol"] == "full"
    assert row["boot_s"] == pytest.approx(5.6)


def test_one_long_iteration_is_a_window(setup):
    row, times = window.fill(works(setup(), 9.0), 5.0, setup())
    assert row["iterations"] == len(times) == 1 and row["pauses"] == []


@pytest.mark.parametrize(
    ("known", "no_instant", "lead_s"),
    [
        ({"power_duty": 1.0}, False, 0.325),
        ({"power_average_s": 1.0, "power_duty": 1.0}, False, 1.3),
        (dict.fromkeys(SENSOR, math.nan), False, 0.4),
        (dict.fromkeys(SENSOR, math.nan), True, 1.3),
    ],
)
def test_a_lead_lasts_as_long_as_a_reading_remembers(setup, known, no_instant, lead_s):
    faults = [("instant", 3, *fake.ALWAYS)] if no_instant else []
    scripted = setup(sensor=SENSOR | known, faults=faults)
    began = scripted.clock.now()
    window.lead_in(works(scripted, 0.001), 5.0, scripted)
    assert scripted.clock.now() - began == pytest.approx(lead_s, abs=2e-3)


def test_a_part_time_sensor_gets_random_pauses_that_are_noted(setup):
    scripted = setup()
    row, times = window.fill(works(scripted, 0.125), 12.0, scripted)
    assert row["iterations"] == 96 and 0 < row["paused_s"] < 4 * 0.1
    assert row["stop_s"] - row["start_s"] == pytest.approx(sum(times) + row["paused_s"])
    ends = [row["start_s"], *np.ravel(row["pauses"]), row["stop_s"]]
    assert len(row["pauses"]) == 4 and min(np.diff(ends)[2:-1:2]) >= window.PAUSE_S
    assert row["paused_s"] == pytest.approx(sum(stop - start for start, stop in row["pauses"]))


def test_short_iterations_leave_the_gpu_loaded(setup):
    """A pause before each would make four fifths of the window one."""
    scripted = setup()
    row, _ = window.fill(works(scripted, 0.012), 5.0, scripted)
    assert row["paused_s"] < 0.03 * (row["stop_s"] - row["start_s"])


def test_every_variable_of_the_window_is_in_the_schema(setup):
    row, _ = window.fill(works(setup()), 2.0, setup())
    assert set(row) <= {*variables("windows", "measured"), "pauses"}
    assert row["counter_stop_J"] - row["counter_start_J"] == pytest.approx(
        100 * (row["stop_s"] - row["start_s"]), abs=20
    )
    assert (
        row["temperature_start_C"],
        row["sm_clock_start_MHz"],
        row["memory_clock_start_MHz"],
    ) == (40, 1500, 7000)
    assert row["power_limit_start_W"] == row["power_limit_W"] == 400
    assert row["counter_tick_s"] == 0.1


def test_a_warm_up_lasts_until_times_settle(setup):
    scripted = setup()
    slowing = iter([0.5, 0.4, 0.3, 0.2, *[0.1] * 99])

    def once():
        took = next(slowing)
        scripted.clock.sleep(took)
        return [took]

    assert window.warm_up(once, 1.0, scripted) == pytest.approx(1.4 + 5 * 0.1)


def test_an_unsettled_machine_is_given_four_times_as_long(setup):
    scripted = setup()
    assert window.warm_up(works(scripted, 0.1, spread=0.9), 1.0, scripted) == pytest.approx(
        4.0, abs=0.2
    )
    assert window.warm_up(works(scripted, 0.3), 0.0, scripted) == pytest.approx(0.3), (
        "at least once"
    )


def falling(*levels):
    """Watts and how long they last, then a second of the last ones for ever."""
    ends = np.cumsum([0, *(seconds for _, seconds in levels)])
    steps = zip(levels, ends[:-1], ends[1:], strict=True)
    return [(t, watts) for (watts, _), *pair in steps for t in pair]


def test_idle_is_taken_once_the_power_is_flat_and_waits_a_minute_at_most(setup):
    """After work a GPU keeps its clocks up for some seconds, and then draws less."""
    kept = falling((60, 6), (25, 500))
    assert window.rest(setup(kept)) == pytest.approx(16, abs=1.5)
    assert window.rest(setup(fake.constant(30))) == pytest.approx(window.FLAT_S, abs=0.1)
    never = setup(fake.ramp(20, 220, 100))
    assert window.rest(never) == pytest.approx(window.REST_S, abs=0.6)
    assert window.rest(never._replace(quick=True)) == window.rest(window.Setup()) == 0.0


class Warming(instrument.NoInstrument):
    """A GPU that warms with a time constant of `tau_s` while it works, and slows with it."""

    present, tau_s = True, 60.0

    def __init__(self, clock):
        self.clock = clock

    @property
    def warmth(self) -> float:
        """From 0 to 1."""
        return -math.expm1(-self.clock.now() / self.tau_s)

    def reader(self):
        """Power grows with leakage."""
        return lambda: instrument.Reading(200 + 10 * self.warmth)

    def state(self):
        """Whole degrees, as a driver tells them."""
        return instrument.State(round(35 + 50 * self.warmth), 1500)


@pytest.mark.parametrize(
    ("tau_s", "least_s", "most_s"), [(60, 150, 250), (1e9, 60, 63), (300, 300, 303)]
)
def test_a_soak_lasts_until_the_gpu_is_steady_and_tells_its_drift(setup, tau_s, least_s, most_s):
    scripted = setup()
    board = Warming(scripted.clock)
    board.tau_s = tau_s

    def once():
        took = 2.0 * (1 + 0.1 * board.warmth)
        scripted.clock.sleep(took)
        return [took / 4] * 4

    found = window.soak(once, scripted._replace(instrument=board))
    assert least_s <= found["soak_s"] <= most_s
    warm, begun = (-math.expm1(-at / tau_s) for at in (found["soak_s"] - 15, 15))
    assert found["soak_drift"] == pytest.approx((1 + 0.1 * warm) / (1 + 0.1 * begun) - 1, abs=3e-3)


@pytest.mark.parametrize(
    ("keys", "status", "said"),
    [
        ({"throttle": ("0x40", 0)}, "throttled", "0x40"),
        ({"throttle": ("0x80", 1.0)}, "throttled", "0x80"),
        ({"throttle": ("0x4", 0)}, "ok", ""),
        ({"others": (2, 1.0)}, "shared_gpu", "2 other processes"),
        ({"faults": [("temperature", 15, 1, 0.0, NEVER)]}, "gpu_lost", "gpu_lost"),
        ({"faults": [("clock", 18, 2, 0.0, NEVER)]}, "driver_mismatch", "driver_mismatch"),
        ({"faults": [("counter", 4, 3, 0.0, NEVER)]}, "no_permission", "no_permission"),
        ({"faults": [("counter", 999, 3, 0.0, NEVER)]}, "unknown", "unknown"),
        ({"faults": [("counter", 4, 2, 0.0, 1)]}, "no_permission", "no_permission"),
        ({"faults": [("counter", 3, *fake.ALWAYS)]}, "ok", ""),
    ],
)
def test_what_is_read_at_its_ends_becomes_its_status(setup, keys, status, said):
    row = window.idle(3.0, setup(**keys))
    assert (row["status"], said in row["reason"]) == (status, True) and status in WINDOW_STATUS


def test_our_own_processes_are_not_others(setup):
    scripted = setup(others=(1, 0.0))
    assert window.idle(1.0, scripted._replace(own=frozenset([4000000])))["status"] == "ok"
    assert window.idle(1.0, scripted)["other_processes"] == 1


def test_unknown_processes_are_not_zero(setup):
    scripted = setup(faults=[("processes", 4, *fake.ALWAYS)])
    row = window.idle(1.0, scripted)
    assert row["other_processes"] == -1 and row["status"] == "ok"


def test_a_neighbour_on_the_cores_disturbs(setup, monkeypatch):
    scripted = setup()
    readings = iter([window.rapl.Cores(0.0, {1: 0.0}), window.rapl.Cores(9.0, {1: 0.5})])
    scripted = scripted._replace(cores=lambda: next(readings))
    monkeypatch.setattr(window.rapl, "usable", lambda: {0, 1})
    row = window.idle(10.0, scripted)
    assert row["status"] == "disturbed" and row["foreign_cpu_share"] == pytest.approx(8.5 / 20)
    assert "42%" in row["reason"]


def test_a_machine_without_a_gpu_has_nans_and_no_waiting():
    setup = window.Setup()
    calls = []
    row, times = window.fill(lambda: calls.append(1) or [0.001], 0.02, setup)
    assert len(calls) == row["iterations"] == len(times), "no lead-in without a card"
    assert all(
        np.isnan(row[name])
        for name in ("counter_start_J", "temperature_C", "power_limit_W", "counter_tick_s")
    )
    assert row["throttle"] == row["other_processes"] == -1 and row["protocol"] == "quick"
