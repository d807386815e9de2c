"""The protocol of one window: warm up, fill it with whole iterations, read all at both ends."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from footprint.measure import rapl
from footprint.measure.instrument import FATAL, REAL, Clock, Instrument, NoInstrument, State

SHORTEST_S, TICKS = 5.0, 50  # a full window lasts this long and this many ticks of the counter
LEAD_S = 1.0  # load before a window opens: power may be averaged over the last second
SETTLED, LAST = 0.05, 5  # largest coefficient of variation of this many steady iterations
PATIENCE = 4.0  # a warm-up that does not settle ends after this many times its length
COOL_S, WARMER_C = 5.0, 10.0  # wait this long for a GPU this much above its idle temperature
PART_TIME = 0.9  # a sensor that sees less of the time than this gets random pauses
PAUSE_S, PAUSE_UPDATES = 2.5, 25  # work between two pauses: at least so many s and power updates
DISTURBED = 0.10  # share of all cores that others may use before a window is flagged
UNKNOWN = dict.fromkeys(
    ("counter_tick_s", "power_update_s", "power_average_s", "power_duty", "gain", "gain_bound"),
    math.nan,
)
AT_START = {  # readings at both ends of a window: name at its end -> name at its start
    "temperature_C": "temperature_start_C",
    "sm_clock_MHz": "sm_clock_start_MHz",
    "memory_clock_MHz": "memory_clock_start_MHz",
    "power_limit_W": "power_limit_start_W",
    "throttle": "throttle_start",
}
Iteration = Callable[[], list[float]]  # runs once and gives the seconds of its steps


class Setup(NamedTuple):
    """What windows are measured with.

    sensor: characteristics of the sensor (names as in `UNKNOWN`); quick: shorten everything; own:
    ids of our processes on the GPU, None where they are hidden; rest_C: idle temperature; powercap:
    folder of the counters of the host; rng: source of random pauses.
    """

    instrument: Instrument = NoInstrument("cpu")
    sensor: Mapping = UNKNOWN
    quick: bool = False
    own: frozenset | None = frozenset()
    rest_C: float = math.nan
    powercap: Path = rapl.POWERCAP
    clock: Clock = REAL
    rng: np.random.Generator = np.random.default_rng(0)


def length(asked_s: float, setup: Setup) -> float:
    """Length of a window in s: as asked; on a GPU, unless quick, at least 5 s and 50 ticks."""
    if setup.quick or not setup.instrument.present:
        return asked_s
    return float(np.nanmax([asked_s, SHORTEST_S, TICKS * setup.sensor["counter_tick_s"]]))


# -- before a window -------------------------------------------------------------------------------


def cool(setup: Setup) -> float:
    """Wait at most 5 s until the GPU is near its idle temperature; returns the seconds."""
    began = setup.clock.now()
    if setup.quick or not setup.instrument.present:
        return 0.0
    while setup.clock.now() - began < COOL_S:
        if setup.instrument.state().temperature_C <= setup.rest_C + WARMER_C:
            break
        setup.clock.sleep(0.1)
    return setup.clock.now() - began


def warm_up(once: Iteration, seconds: float, setup: Setup) -> float:
    """Run for `seconds`, then until step times and SM clock are steady; returns the seconds.

    Steady: the last five vary by less than 5 %. It takes at most four times `seconds`, but at least
    one iteration.
    """
    began, times, clocks = setup.clock.now(), [], []
    while True:
        times.append(sum(once()))
        if setup.instrument.present:
            clocks.append(setup.instrument.state().sm_clock_MHz)
        spent = setup.clock.now() - began
        settled = _settled(times) and (not clocks or _settled(clocks))
        if spent >= PATIENCE * seconds or (spent >= seconds and settled):
            return spent


def _settled(values: list[float]) -> bool:
    last = np.array(values[-LAST:])
    return len(last) >= min(LAST, 3) and not last.std() > SETTLED * last.mean()


def lead_in(once: Iteration, seconds: float, setup: Setup) -> None:
    """Bring the GPU to the load of the window, from a random moment of a part-time sensor on."""
    if not setup.instrument.present:
        return
    setup.clock.sleep(_pause(setup))
    history = np.nansum([setup.sensor["power_average_s"], 2 * setup.sensor["counter_tick_s"]])
    stop = setup.clock.now() + min(max(LEAD_S, history), seconds)
    while setup.clock.now() < stop:
        once()


def _pause(setup: Setup) -> float:
    """A random part of the update period of a part-time sensor, else 0: no load keeps step."""
    if not setup.sensor["power_duty"] < PART_TIME:
        return 0.0
    return float(setup.rng.uniform(0, setup.sensor["power_update_s"]))


# -- the window ------------------------------------------------------------------------------------


def idle(seconds: float, setup: Setup) -> dict:
    """A window in which nothing runs."""
    return record(lambda: setup.clock.sleep(seconds), setup)


def fill(once: Iteration, seconds: float, setup: Setup) -> tuple[dict, list[float]]:
    """Repeat `once` for at least `seconds`; returns the window and all step times."""
    lead_in(once, seconds, setup)
    now, times, pauses = setup.clock.now, [], []
    apart_s = max(PAUSE_S, PAUSE_UPDATES * np.nan_to_num(setup.sensor["power_update_s"]))
    iterations = paused_s = 0

    def work() -> None:
        nonlocal iterations, paused_s
        start = last = now()
        while not iterations or now() - start - paused_s < seconds:
            if iterations and now() - last >= apart_s and (pause := _pause(setup)):
                before = now()
                setup.clock.sleep(pause)
                last = now()
                pauses.append((before, last))
                paused_s += last - before
            times.extend(once())
            iterations += 1

    window = record(work, setup)
    return window | {"iterations": iterations, "paused_s": paused_s, "pauses": pauses}, times


def record(work: Callable[[], None], setup: Setup) -> dict:
    """The window of `work`: all is read before and after it, the energy counter closest to it."""
    instrument, clock = setup.instrument, setup.clock
    counts = "counter" in instrument.calls
    before, cores, (zones, readable) = instrument.state(), rapl.cores(), rapl.zones(setup.powercap)
    first_J, opened = instrument.counter()
    start, boot = clock.now(), clock.boot()
    work()
    stop, boot = clock.now(), clock.boot() - boot
    last_J, closed = instrument.counter()
    after, seconds = instrument.state(), stop - start
    full = seconds >= SHORTEST_S and not setup.quick
    window = {
        "start_s": start,
        "stop_s": stop,
        "boot_s": boot,
        "paused_s": 0.0,
        "counter_start_J": first_J,
        "counter_stop_J": last_J,
        "protocol": "full" if full else "quick",
        "other_processes": _others(before, after, setup.own),
        **{start_name: getattr(before, name) for name, start_name in AT_START.items()},
        **{name: getattr(after, name) for name in AT_START},
        **setup.sensor,
        **rapl.shares(cores, rapl.cores(), seconds),
        **rapl.joules(zones, rapl.zones(setup.powercap)[0], readable, seconds),
    }
    status, reason = _status(before, after, window)
    silent = [answer for answer in (opened, closed) if counts and answer != "ok"]
    if status == "ok" and silent:
        status, reason = silent[0], f"The energy counter answered {silent[0]} at an end."
    return window | {"status": status, "reason": reason}


def _others(before: State, after: State, own: frozenset | None) -> int:
    """Processes of others on the GPU, at either end; -1 when unknown."""
    seen = [state.processes for state in (before, after) if state.processes is not None]
    most = max((len(processes - (own or frozenset())) for processes in seen), default=-1)
    return -1 if own is None and most == 0 else most


def _status(before: State, after: State, window: dict) -> tuple[str, str]:
    """Status of a window and its reason, from the readings at its ends."""
    lost = next((state.status for state in (after, before) if state.status in FATAL), None)
    if lost:
        return lost, f"The driver reported {lost} at an end of the window."
    if window["other_processes"] > 0:
        return "shared_gpu", f"{window['other_processes']} other processes computed on the card."
    if before.throttled or after.throttled:
        throttle = max(before.throttle, 0) | max(after.throttle, 0)
        return "throttled", f"Throttle reasons {throttle:#x} at an end of the window."
    if window["foreign_cpu_share"] > DISTURBED:
        return "disturbed", f"Other processes used {window['foreign_cpu_share']:.0%} of all cores."
    return "ok", ""
