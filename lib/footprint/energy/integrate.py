"""The integral of sampled power, the slope of a counter, and what spoils a window."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from footprint.trace.schema import WINDOW_STATUS

LONGEST_GAP_S = 1.0  # between two samples; power in a longer one is unknown
SHORTEST_S = 2.0  # a shorter window has no energy: counters are known to read low there
JUMP_S, JUMP_SHARE = 0.05, 1e-3  # two clocks may differ by this, and by this share of a window
STUCK_S, STUCK_TICKS = 0.5, 10  # a counter that rests longer than both is stuck
USABLE = ("ok", "disturbed", "throttled")


class Spans(NamedTuple):
    """The parts of windows in which no pause shows: their ends, and the window of each."""

    start_s: np.ndarray
    stop_s: np.ndarray
    window: np.ndarray

    def total(self, values) -> np.ndarray:
        """Sum of the values of the spans of each window; NaN where one is."""
        return np.bincount(self.window, values, self.window.max(initial=-1) + 1)


def spans(w: Mapping, pauses: Mapping, settle_s, least_s) -> Spans:
    """The spans of each window: from `settle_s` after a pause until the next one.

    pauses: columns window, start_s, stop_s. After `settle_s` no reading tells of a pause. A span
    lasts at least `least_s`, unless its window has no longer one. A window without pauses is one.
    """
    own, owner = np.arange(len(w["start_s"])), pauses["window"].astype(int)
    windows = np.concatenate([own, owner])
    starts = np.concatenate([w["start_s"], pauses["stop_s"] + settle_s[owner]])
    stops = np.concatenate([pauses["start_s"], w["stop_s"]])
    starts = starts[np.lexsort((starts, windows))]
    stops = stops[np.lexsort((stops, np.concatenate([owner, own])))]
    windows = np.sort(windows)
    length = np.maximum(stops - starts, 0)
    longest = np.zeros(len(own))
    np.fmax.at(longest, windows, length)
    keep = ~(length < np.minimum(least_s, longest)[windows])
    return Spans(starts[keep], (starts + length)[keep], windows[keep])


def integral(time_s, power_W, start_s, stop_s) -> np.ndarray:
    """Joules of each window under the piecewise linear power through the samples.

    start_s, stop_s: the windows. NaN for a window that the samples do not span, that holds a sample
    that is NaN, or a gap longer than a second: power there is unknown, not zero.
    """
    from scipy.integrate import cumulative_trapezoid  # slow to load, and most pages need none

    time_s, power_W = np.asarray(time_s, float), np.asarray(power_W, float)
    start_s, stop_s = np.atleast_1d(start_s).astype(float), np.atleast_1d(stop_s).astype(float)
    if time_s.size < 2:
        return np.full(start_s.shape, np.nan)
    order = np.argsort(time_s, kind="stable")
    time_s, power_W = time_s[order], power_W[order]
    edges = np.union1d(time_s, np.concatenate([start_s, stop_s]))
    watts = np.nan_to_num(power_W)
    total = cumulative_trapezoid(np.interp(edges, time_s, watts), edges, initial=0.0)
    joules = total[np.searchsorted(edges, stop_s)] - total[np.searchsorted(edges, start_s)]
    spanned = (start_s >= time_s[0]) & (stop_s <= time_s[-1]) & (stop_s > start_s)
    return np.where(spanned & ~_blind(time_s, power_W, start_s, stop_s), joules, np.nan)


def _blind(time_s, power_W, start_s, stop_s) -> np.ndarray:
    """Whether a window touches two samples too far apart, or a missing one."""
    bad = (np.diff(time_s) > LONGEST_GAP_S) | np.isnan(power_W[:-1]) | np.isnan(power_W[1:])
    count = np.concatenate([[0], np.cumsum(bad)])
    first = np.clip(np.searchsorted(time_s, start_s, side="right") - 1, 0, len(bad))
    last = np.clip(np.searchsorted(time_s, stop_s, side="left"), 0, len(bad))
    return count[last] > count[first]


def slope(time_s, counter_J, start_s, stop_s) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean power between the first and the last tick of the counter inside each window.

    A tick lies between two readings that differ. Returns watts; how well the two ticks are known,
    in s (the root of the squared distances between the readings around each); and seconds from the
    last tick to the end. NaN for fewer than three ticks. Ticks outside the window belong to another
    load.
    """
    time_s, counter_J = np.asarray(time_s, float), np.asarray(counter_J, float)
    order = np.argsort(time_s, kind="stable")
    order = order[np.isfinite(counter_J[order]) & np.isfinite(time_s[order])]
    time_s, counter_J = time_s[order], counter_J[order]
    before = np.flatnonzero(np.diff(counter_J) != 0)
    if before.size < 3:
        return (np.full(np.shape(start_s), np.nan),) * 3
    tick = (time_s[before] + time_s[before + 1]) / 2
    width, joules = np.diff(time_s)[before], counter_J[before + 1]
    first = np.searchsorted(tick, start_s)
    last = np.searchsorted(tick, stop_s, side="right") - 1
    enough = last - first >= 2
    first, last = np.where(enough, first, 0), np.where(enough, last, 1)
    watts = (joules[last] - joules[first]) / (tick[last] - tick[first])
    known_s, rest_s = np.hypot(width[first], width[last]), stop_s - tick[last]
    return tuple(np.where(enough, values, np.nan) for values in (watts, known_s, rest_s))


def status(w: Mapping, s: Mapping, source: str, integrated_J, rest_s, tick_s) -> np.ndarray:
    """Why each window has an energy or has none: the first reason that applies.

    w, s: columns of windows, and of samples in the order in which they were taken. rest_s: seconds
    from the counter's last tick to the end of the window.
    """
    counted = source.endswith("_counter")
    stuck = counted & ~(rest_s <= np.maximum(STUCK_S, STUCK_TICKS * tick_s))
    broken = _broken(s, w["start_s"], w["stop_s"])
    reasons = (
        (~np.isin(w["status"], USABLE), w["status"]),
        (source == "none", "not_supported"),
        (~(w["stop_s"] - w["start_s"] >= SHORTEST_S), "window_too_short"),
        (_jumped(w, s), "clock_jump"),
        (broken != "", broken),
        (np.isnan(integrated_J), "sampler_died"),
        (counted & _backwards(w, s), "counter_backwards"),
        (stuck, "counter_stuck"),
    )
    return np.select([when for when, _ in reasons], [why for _, why in reasons], w["status"])


def _jumped(w: Mapping, s: Mapping) -> np.ndarray:
    """Whether a window's clock differs from the one that counts suspension, or stepped back."""
    length = w["stop_s"] - w["start_s"]
    apart = np.abs(w["boot_s"] - length) > JUMP_S + JUMP_SHARE * length
    back = np.flatnonzero(np.diff(s["time_s"]) < 0)
    late, early = s["time_s"][back], s["time_s"][back + 1]
    return apart | ((w["start_s"][:, None] <= late) & (w["stop_s"][:, None] >= early)).any(axis=1)


def _broken(s: Mapping, start_s, stop_s) -> np.ndarray:
    """Status of the first failed reading in, or next to, each window; empty where all succeeded."""
    order = np.argsort(s["time_s"], kind="stable")
    time_s, code = s["time_s"][order], s["code"][order]
    bad = np.flatnonzero(code)
    if not bad.size:
        return np.full(len(start_s), "")
    before = np.searchsorted(time_s, start_s, side="right") - 1
    first = bad[np.minimum(np.searchsorted(bad, before), bad.size - 1)]
    inside = (first >= before) & (first <= np.searchsorted(time_s, stop_s))
    return np.where(inside, np.array(WINDOW_STATUS)[code[first]], "")


def _backwards(w: Mapping, s: Mapping) -> np.ndarray:
    """Whether the counter fell inside a window, at its ends or between two samples."""
    order = np.argsort(s["time_s"], kind="stable")
    order = order[np.isfinite(s["counter_J"][order])]
    time_s, fell = s["time_s"][order], np.diff(s["counter_J"][order], prepend=-np.inf) < 0
    count = np.concatenate([[0], np.cumsum(fell)])
    last = np.searchsorted(time_s, w["stop_s"])
    first = np.searchsorted(time_s, w["start_s"], side="right")
    return (count[last] > count[first]) | (w["counter_stop_J"] < w["counter_start_J"])
