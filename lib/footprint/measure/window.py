"""The protocol of one window: warm up until it settles, fill it with whole iterations, read everything at both ends."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from footprint.measure import nvml as meter
from footprint.measure import rapl as host

SHORTEST_S, TICKS = (
    5.0,
    50,
)  # a full window lasts at least this long, and this many ticks of the counter
LEAD_S = 1.0  # run before a window opens, at the same shape: a power reading may average over the last second
SETTLED = 0.05  # largest coefficient of variation of the last iterations that counts as settled
LAST = 5  # iterations that are looked at for that
PATIENCE = 4.0  # a warm-up that does not settle ends after this many times its asked length
COOL_S, WARMER_C = (
    5.0,
    10.0,
)  # cool down until this much above the idle temperature, at most this long
PART_TIME = 0.9  # a sensor that sees less of the time than this gets random pauses
DISTURBED = 0.10  # share of all cores that others may use before a window is flagged
THERMAL = (
    0x08 | 0x20 | 0x40 | 0x80
)  # NVML throttle bits: hardware, software thermal, hardware thermal, power brake
UNKNOWN = dict.fromkeys(
    ("counter_tick_s", "power_update_s", "power_average_s", "power_duty", "gain", "gain_bound"),
    math.nan,
)


class Bench(NamedTuple):
    """What windows are measured with: card and its sensor, host counters, clocks, seeded random pauses.

    `own` are the processes on the card that are ours; `rest_C` is its idle temperature; `quick` shortens everything.
    """

    card: object = None
    sensor: Mapping = UNKNOWN
    quick: bool = False
    own: frozenset = frozenset()
    rest_C: float = math.nan
    rapl: Path = host.POWERCAP
    clock: meter.Clock = meter.REAL
    rng: np.random.Generator = np.random.default_rng(0)


def length(asked_s: float, bench: Bench) -> float:
    """Seconds that a window shall last: as asked, and on a card at least 5 s and 50 counter ticks, unless quick."""
    if bench.card is None or bench.quick:
        return asked_s
    return float(np.nanmax([asked_s, SHORTEST_S, TICKS * bench.sensor["counter_tick_s"]]))


# -- before a window --------------------------------------------------------------------------------------------------


def cool(bench: Bench) -> float:
    """Wait until the card is near its idle temperature, at most 5 s (not at all without a card, or when quick)."""
    began = bench.clock.now()
    if bench.card is None or bench.quick:
        return 0.0
    while bench.clock.now() - began < COOL_S:
        if meter.state(bench.card)["temperature_C"] <= bench.rest_C + WARMER_C:
            break
        bench.clock.sleep(0.1)
    return bench.clock.now() - began


def warm_up(once: Callable[[], list], seconds: float, bench: Bench) -> float:
    """Run at the same shape for `seconds`, then on until step times and clock have settled; returns the seconds spent.

    Settled: the last five iterations vary by less than 5 % and the SM clock by less than that too. At least one
    iteration runs; an unsettled machine is given four times the seconds.
    """
    began, times, clocks = bench.clock.now(), [], []
    while True:
        times.append(sum(once()))
        clocks.append(meter.state(bench.card)["sm_clock_MHz"] if bench.card is not None else 1.0)
        spent = bench.clock.now() - began
        if spent >= PATIENCE * seconds or (
            spent >= seconds and _settled(times) and _settled(clocks)
        ):
            return spent


def _settled(values: list[float]) -> bool:
    last = np.array(values[-LAST:])
    return len(last) >= min(LAST, 3) and not last.std() > SETTLED * last.mean()


def lead_in(once: Callable[[], list], seconds: float, bench: Bench) -> None:
    """Bring the card to the load of the window before it opens, starting at a random moment of a part-time sensor."""
    if bench.card is None:
        return
    bench.clock.sleep(_pause(bench))
    history = np.nansum([bench.sensor["power_average_s"], 2 * bench.sensor["counter_tick_s"]])
    stop = bench.clock.now() + min(max(LEAD_S, history), seconds)
    while bench.clock.now() < stop:
        once()


def _pause(bench: Bench) -> float:
    """A random part of the update period of a part-time sensor, so that no load keeps step with it; else 0."""
    if not bench.sensor["power_duty"] < PART_TIME:
        return 0.0
    return float(bench.rng.uniform(0, bench.sensor["power_update_s"]))


# -- the window -------------------------------------------------------------------------------------------------------


def idle(seconds: float, bench: Bench) -> dict:
    """A window in which nothing runs."""
    return record(bench, lambda: bench.clock.sleep(seconds))[0]


def fill(once: Callable[[], list], seconds: float, bench: Bench) -> tuple[dict, list]:
    """Repeat `once` until the window is at least `seconds` long; returns the window and all step times."""
    lead_in(once, seconds, bench)
    times, count, paused = [], 0, 0.0

    def work() -> None:
        nonlocal count, paused
        start = bench.clock.now()
        while not count or bench.clock.now() - start - paused < seconds:
            if count and (pause := _pause(bench)):
                before = bench.clock.now()
                bench.clock.sleep(pause)
                paused += bench.clock.now() - before
            times.extend(once())
            count += 1

    window = record(bench, work)[0]
    return window | {"iterations": count, "paused_s": paused}, times


def record(bench: Bench, work: Callable) -> tuple[dict, object]:
    """Run `work` with every instrument read before and after it, the energy counter last and first; (window, result)."""
    before, cores, (zones, readable) = meter.state(bench.card), host.cores(), host.rapl(bench.rapl)
    first, opened = meter.counter(bench.card)
    start, booted = bench.clock.now(), bench.clock.boot()
    result = work()
    stop, booted = bench.clock.now(), bench.clock.boot() - booted
    last, closed = meter.counter(bench.card)
    after, seconds = meter.state(bench.card), stop - start
    shares, full = (
        host.shares(cores, host.cores(), seconds),
        seconds >= SHORTEST_S and not bench.quick,
    )
    window = {
        "start_s": start,
        "stop_s": stop,
        "boot_s": booted,
        "paused_s": 0.0,
        "counter_start_J": first,
        "counter_stop_J": last,
        "protocol": "full" if full else "quick",
    }
    window |= (
        _both(before, after)
        | {"other_processes": _others(bench, before, after)}
        | dict(bench.sensor)
        | shares
    )
    window |= host.joules(zones, host.rapl(bench.rapl)[0], readable, seconds)
    status, reason = _status(before, after, window)
    if status == "ok" and opened == "ok" != closed:
        status, reason = closed, f"The energy counter answered {closed} at the end of the window."
    return window | {"status": status, "reason": reason}, result


def _both(before: dict, after: dict) -> dict:
    """The readings of a card's state at both ends, as variables of the window."""
    names = [name for name in after if name not in ("processes", "status")]
    stems = [name.rpartition("_") if name != "throttle" else (name, "", "") for name in names]
    starts = {
        f"{stem}_start{mark}{unit}": before[name]
        for name, (stem, mark, unit) in zip(names, stems, strict=True)
    }
    return starts | {name: after[name] for name in names}


def _others(bench: Bench, before: dict, after: dict) -> int:
    """Processes of others on the card, at either end; -1 when unknown."""
    ends = [
        state["processes"] - bench.own
        for state in (before, after)
        if state["processes"] is not None
    ]
    return max(map(len, ends), default=-1)


def _status(before: dict, after: dict, window: dict) -> tuple[str, str]:
    """Status of a window and its reason, by what was read at its ends."""
    lost = next(
        (state["status"] for state in (after, before) if state["status"] in meter.FATAL), None
    )
    throttle = max(before["throttle"], 0) | max(after["throttle"], 0)
    if lost:
        return lost, f"The driver reported {lost} at an end of the window."
    if window["other_processes"] > 0:
        return "shared_gpu", f"{window['other_processes']} other processes computed on the card."
    if throttle & THERMAL:
        return "throttled", f"Throttle reasons {throttle:#x} at an end of the window."
    if window["foreign_cpu_share"] > DISTURBED:
        return "disturbed", f"Other processes used {window['foreign_cpu_share']:.0%} of all cores."
    return "ok", ""
