"""The protocol of a window, on a virtual clock beside a scripted card."""

import math

import numpy as np
import pytest

import fake_nvml as fake
from footprint.measure import nvml as meter
from footprint.measure import window
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
def bench(gpu, tmp_path):
    """A function that scripts the card and gives the bench of it."""

    def make(points=((0, 100), (1, 100)), sensor=SENSOR, quick=False, **keys):
        virtual = fake.VirtualTime(tmp_path / "clock")
        gpu(points, clock=str(virtual.path), **keys)
        return window.Bench(
            meter.handle("cuda:0"), sensor, quick, rapl=tmp_path / "none", clock=virtual.clock()
        )

    return make


def works(bench, seconds=0.1, spread=0.0):
    """An iteration that takes `seconds` of the bench's time."""

    def once() -> list:
        took = seconds * (1 + spread * bench.rng.uniform(-1, 1))
        bench.clock.sleep(took)
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
def test_a_window_on_a_card_lasts_five_seconds_and_fifty_ticks(bench, asked, tick, quick, length):
    made = bench(sensor=SENSOR | {"counter_tick_s": tick}, quick=quick)
    assert window.length(asked, made) == length
    assert window.length(asked, window.Bench()) == asked, "a CPU has no counter to wait for"


def test_a_window_is_filled_with_whole_iterations_after_a_lead_in(bench):
    made = bench(sensor=SENSOR | {"power_duty": 1.0})
    began = made.clock.now()
    row, times = window.fill(works(made, 0.7), 5.0, made)
    assert row["iterations"] == 8 == len(times) and row["paused_s"] == 0
    assert row["stop_s"] - row["start_s"] == pytest.approx(5.6) and row[
        "start_s"
    ] - began == pytest.approx(1.4)
    assert (
        row["status"] == "ok" and row["protocol"] == "full" and row["boot_s"] == pytest.approx(5.6)
    )


def test_a_part_time_sensor_gets_random_pauses_that_are_counted(bench):
    made = bench()
    row, times = window.fill(works(made, 0.125), 5.0, made)
    assert row["iterations"] == 40 and 0 < row["paused_s"] < 40 * 0.1
    assert row["stop_s"] - row["start_s"] == pytest.approx(sum(times) + row["paused_s"])


def test_every_variable_of_the_window_is_in_the_schema(bench):
    row, _ = window.fill(works(bench()), 2.0, bench())
    assert set(row) <= set(variables("windows", "measured"))
    assert row["counter_stop_J"] - row["counter_start_J"] == pytest.approx(
        100 * (row["stop_s"] - row["start_s"]), abs=20
    )
    assert (
        row["temperature_start_C"],
        row["sm_clock_start_MHz"],
        row["memory_clock_start_MHz"],
    ) == (40, 1500, 7000)
    assert (
        row["power_limit_start_W"] == row["power_limit_W"] == 400 and row["counter_tick_s"] == 0.1
    )


def test_a_warm_up_lasts_until_times_settle(bench):
    made = bench()
    slowing = iter([0.5, 0.4, 0.3, 0.2, *[0.1] * 99])

    def once():
        took = next(slowing)
        made.clock.sleep(took)
        return [took]

    assert window.warm_up(once, 1.0, made) == pytest.approx(1.4 + 5 * 0.1)


def test_an_unsettled_machine_is_given_four_times_as_long(bench):
    made = bench()
    assert window.warm_up(works(made, 0.1, spread=0.9), 1.0, made) == pytest.approx(4.0, abs=0.2)
    assert window.warm_up(works(made, 0.3), 0.0, made) == pytest.approx(0.3), "at least once"


def test_cooling_waits_for_the_temperature_or_five_seconds(bench):
    hot = bench(temperature=60)._replace(rest_C=40.0)
    assert window.cool(hot) == pytest.approx(5.0, abs=0.1)
    assert window.cool(hot._replace(rest_C=55.0)) == 0.0
    assert window.cool(hot._replace(quick=True)) == window.cool(window.Bench()) == 0.0


@pytest.mark.parametrize(
    ("keys", "status", "said"),
    [
        ({"throttle": ("0x40", 0)}, "throttled", "0x40"),
        ({"throttle": ("0x80", 1.0)}, "throttled", "0x80"),
        ({"throttle": ("0x4", 0)}, "ok", ""),
        ({"others": (2, 1.0)}, "shared_gpu", "2 other processes"),
        ({"faults": [("temperature", 15, 1, 0.0, NEVER)]}, "gpu_lost", "gpu_lost"),
        ({"faults": [("clock", 18, 2, 0.0, NEVER)]}, "driver_mismatch", "driver_mismatch"),
        ({"faults": [("counter", 4, 1, 0.0, NEVER)]}, "no_permission", "no_permission"),
        ({"faults": [("counter", 999, 1, 0.0, NEVER)]}, "unknown", "unknown"),
    ],
)
def test_what_is_read_at_its_ends_becomes_its_status(bench, keys, status, said):
    row = window.idle(3.0, bench(**keys))
    assert (row["status"], said in row["reason"]) == (status, True) and status in WINDOW_STATUS


def test_our_own_processes_are_not_others(bench):
    made = bench(others=(1, 0.0))
    assert window.idle(1.0, made._replace(own=frozenset([4000000])))["status"] == "ok"
    assert window.idle(1.0, made)["other_processes"] == 1


def test_unknown_processes_are_not_zero(bench):
    made = bench(faults=[("processes", 4, *fake.ALWAYS)])
    row = window.idle(1.0, made)
    assert row["other_processes"] == -1 and row["status"] == "ok"


def test_a_neighbour_on_the_cores_disturbs(bench, monkeypatch):
    made = bench()
    readings = iter([(0.0, 0.0), (9.0, 0.5)])
    monkeypatch.setattr(window.host, "cores", lambda: next(readings))
    monkeypatch.setattr(window.host.psutil, "cpu_count", lambda: 2)
    row = window.idle(10.0, made)
    assert (
        row["status"] == "disturbed"
        and row["foreign_cpu_share"] == pytest.approx(8.5 / 20)
        and "42%" in row["reason"]
    )


def test_a_machine_without_a_card_has_nans_and_no_waiting():
    bench = window.Bench()
    calls = []
    row, times = window.fill(lambda: calls.append(1) or [0.001], 0.02, bench)
    assert len(calls) == row["iterations"] == len(times), "no lead-in without a card"
    assert all(
        np.isnan(row[name])
        for name in ("counter_start_J", "temperature_C", "power_limit_W", "counter_tick_s")
    )
    assert row["throttle"] == row["other_processes"] == -1 and row["protocol"] == "quick"
