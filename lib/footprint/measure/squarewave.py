"""What samples of a switched load tell about a sensor: how often it changes, how long it averages, how much it sees."""

import math
from collections.abc import Mapping

import numpy as np


def period(time_s, values) -> float:
    """Period in s in which `values` (sampled at `time_s`) change: the median, then the mean of what is near it.

    NaN for fewer than three changes. Changes closer than two samples cannot be told apart from the sampling.
    """
    time_s, values = np.asarray(time_s, float), np.asarray(values, float)
    changed = np.flatnonzero(np.diff(values) != 0)
    gaps = np.diff((time_s[changed] + time_s[changed + 1]) / 2)
    if gaps.size < 2:
        return math.nan
    near = gaps[np.abs(gaps / np.median(gaps) - 1) < 0.5]
    return float(near.mean())


def delay(time_s, power_W, on_s, off_s) -> float:
    """Mean delay in s of the power reading behind a load that was switched on at `on_s` and off at `off_s`.

    The area between the step of the load and the reading, over the height of the step, averaged over all edges. It is
    half the averaging window plus half the update period. NaN where on and off cannot be told apart.
    """
    time_s, power_W = np.asarray(time_s, float), np.asarray(power_W, float)
    edges = np.concatenate([on_s, off_s[:-1]])
    half = np.min(np.concatenate([np.subtract(off_s, on_s), np.subtract(on_s[1:], off_s[:-1])]))
    level = [
        [np.mean(power_W[(time_s > stop - half / 4) & (time_s < stop)]) for stop in ends]
        for ends in (off_s[:-1], on_s[1:])
    ]
    high, low = np.mean(level[0]), np.mean(level[1])
    if not high - low > 0.1 * high:
        return math.nan
    areas = []
    for edge, rising in zip(edges, [True] * len(on_s) + [False] * (len(off_s) - 1), strict=True):
        grid = np.linspace(edge, edge + half, 400)
        rest = (np.interp(grid, time_s, power_W) - low) / (high - low)
        areas.append(np.trapezoid(1 - rest if rising else rest, grid))
    return float(np.mean(areas))


def characteristics(samples: Mapping, on_s, off_s) -> dict[str, float]:
    """Counter tick, power update period, averaging window and duty cycle, from samples of a square wave.

    An update period that comes out near the length of a pulse is that of the load: the readings did not vary in between,
    and nothing is known.
    """
    time_s, power_W = np.asarray(samples["time_s"]), np.asarray(samples["power_W"])
    wave = (time_s >= on_s[0]) & (time_s <= off_s[-1])
    update = period(time_s[wave], power_W[wave])
    if update > np.min(np.subtract(off_s, on_s)) / 2:
        update = math.nan
    average = float(np.maximum(2 * delay(time_s, power_W, on_s, off_s) - update, 0.0))
    return {
        "counter_tick_s": period(time_s, samples["counter_J"]),
        "power_update_s": update,
        "power_average_s": average,
        "power_duty": float(np.minimum(average / update, 1.0)),
    }
