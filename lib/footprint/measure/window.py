"""The protocol of one window: warm up, fill it with whole iterations, read all at both ends."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from footprint.measure import rapl
from footprint.measure.instrument import FATAL, REAL, Clock, Instrument, NoInstrument, State

SHORTEST_S, TICKS = 5.0, 50  # a full window lasts this long and this many ticks of the counter
LEAD_S, INSTANT_S = 1.0, 0.1  # what an averaging and another power reading remember, if unknown
SETTLED, LAST = 0.05, 5  # largest coefficient of variation of this many steady iterations
PATIENCE = 4.0  # a warm-up that does not settle ends after this many times its length
LOOK_S = 0.5  # between two looks at the power of a GPU that comes to rest
FLAT_S, FLAT_W, REST_S = 10.0, 1.0, 60.0  # at rest: its power is flat for so long; wait at most
SOAK_S, SPAN_S = 300.0, 30.0  # a soak takes at most this long; it compares spans of this length
DRIFT, WARMER_C = 0.01, 1.5  # steady: step time and power, and temperature, moved no more in one
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
    ids of our processes on the GPU, None where they are hidden; powercap: folder of the counters
    of the host; cores: reads the use of its cores; rng: source of random pauses.
    """

    instrument: Instrument = NoInstrument("cpu")
    sensor: Mapping = UNKNOWN
    quick: bool = False
    own: frozenset | None = frozenset()
    powercap: Path = rapl.POWERCAP
    cores: Callable[[], rapl.Cores] = rapl.cores
    clock: Clock = REAL
    rng: np.random.Generator = np.random.default_rng(0)


def length(asked_s: float, setup: Setup) -> float:
    """Length of a window in s: as asked; on a GPU, unless quick, at least 5 s and 50 ticks."""
    if setup.quick or not setup.instrument.present:
        return asked_s
    return float(np.nanmax([asked_s, SHORTEST_S, TICKS * setup.sensor["counter_tick_s"]]))


# -- before a window -------------------------------------------------------------------------------


def rest(setup: Setup) -> float:
    """Wait until the power of a GPU is flat, at most a minute; returns the seconds.

    Flat: the two halves of the last ten seconds differ by at most 1 W.
    """
    began, watts, half = setup.clock.now(), [], round(FLAT_S / LOOK_S / 2)
    if setup.quick or not setup.instrument.present:
        return 0.0
    read = setup.instrument.reader()
    while setup.clock.now() - began < REST_S:
        setup.clock.sleep(LOOK_S)
        watts.append(read().power_W)
        if math.isnan(watts[-1]):
            break
        if len(watts) >= 2 * half:
            change_W = np.mean(watts[-half:]) - np.mean(watts[-2 * half : -half])
            if abs(change_W) <= FLAT_W:
                break
    return setup.clock.now() - began


def soak(once: Iteration, setup: Setup) -> dict[str, float]:
    """Heat the GPU by `once` until it is steady, at most five minutes; root attributes of the run.

    Steady: from one span of 30 s to the next, step time and power move by at most 1 % and the
    temperature by 1.5 K. `soak_drift`: how much longer a step took at the end than at the start.
    """
    began, looks, read = setup.clock.now(), [], setup.instrument.reader()
    while True:
        step_s = float(np.mean(once()))
        look = read().power_W, setup.instrument.state().temperature_C
        looks.append((setup.clock.now() - began, step_s, *look))
        at, steps, *_ = np.array(looks).T
        if at[-1] >= SOAK_S or (at[-1] >= 2 * SPAN_S and _steady(np.array(looks))):
            first, last = at <= max(SPAN_S, at[0]), at > at[-1] - SPAN_S
            drift = np.median(steps[last]) / np.median(steps[first]) - 1
            return {"soak_s": float(at[-1]), "soak_drift": float(drift)}


def _steady(looks: np.ndarray) -> bool:
    """Whether step time, power and temperature stayed; what nobody can read does not count."""
    last, before = (looks[:, 0] > looks[-1, 0] - spans * SPAN_S for spans in (1, 2))
    if not (before & ~last).any():
        return False
    old, new = (np.median(looks[part, 1:], axis=0) for part in (before & ~last, last))
    return not (np.abs(new - old) > [DRIFT * old[0], DRIFT * old[1], WARMER_C]).any()


def warm_up(once: Iteration, seconds: float, setup: Setup) -> float:
    """Run for `seconds`, then until times and SM clock are steady; returns the seconds.

    Steady: the last five vary by less than 5 %. It takes at most four times `seconds`, but at least
    one iteration. A window follows at once: it needs no other lead.
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
    """Bring the GPU to the load of the window, from a random moment of a part-time sensor on.

    It lasts as long as a reading remembers (its average, its period and two ticks of the counter),
    at most `seconds`, but at least one iteration.
    """
    setup.clock.sleep(_pause(setup))
    usual_s = LEAD_S if setup.instrument.power.endswith("average") else INSTANT_S
    average_s, update_s, tick_s = (
        usual_s if math.isnan(known := setup.sensor[name]) else known
        for name, usual_s in (
            ("power_average_s", usual_s),
            ("power_update_s", INSTANT_S),
            ("counter_tick_s", INSTANT_S),
        )
    )
    stop = setup.clock.now() + min(average_s + update_s + 2 * tick_s, seconds)
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
    before, cores, (zones, readable) = instrument.state(), setup.cores(), rapl.zones(setup.powercap)
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
        **rapl.shares(cores, setup.cores(), seconds),
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
        return "disturbed", f"Other processes used {window['foreign_cpu_share']:.0%} of the cores."
    return "ok", ""
