"""What samples of a square-wave load tell about a sensor: update period, averaging, duty cycle."""

import math
from collections.abc import Mapping

import numpy as np


def period(time_s, values) -> float:
    """Period in s in which `values`, sampled at `time_s`, change: the mean of gaps near the median.

    NaN for fewer than three changes; a period shorter than two samples is not seen.
    """
    time_s, values = np.asarray(time_s, float), np.asarray(values, float)
    changed = np.flatnonzero(np.diff(values) != 0)
    gaps = np.diff((time_s[changed] + time_s[changed + 1]) / 2)
    if gaps.size < 2:
        return math.nan
    near = gaps[np.abs(gaps / np.median(gaps) - 1) < 0.5]
    return float(near.mean())


def delay(time_s, power_W, on_s, off_s) -> float:
    """Mean delay in s of the power reading behind a load that is on from `on_s` to `off_s`.

    The area between the step of the load and the reading, over the height of the step: half the
    averaging window plus half the update period. NaN where on and off look alike.
    """
    time_s, power_W = np.asarray(time_s, float), np.asarray(power_W, float)
    half_s = np.min(np.concatenate([np.subtract(off_s, on_s), np.subtract(on_s[1:], off_s[:-1])]))

    def level(ends) -> float:
        """Mean power just before these times."""
        near = [(time_s > end - half_s / 4) & (time_s < end) for end in ends]
        return np.mean([np.mean(power_W[mask]) for mask in near])

    high, low = level(off_s[:-1]), level(on_s[1:])
    if not high - low > 0.1 * high:
        return math.nan
    areas = []
    for edges, rising in ((on_s, True), (off_s[:-1], False)):
        for edge in edges:
            grid = np.linspace(edge, edge + half_s, 400)
            step = (np.interp(grid, time_s, power_W) - low) / (high - low)
            areas.append(np.trapezoid(1 - step if rising else step, grid))
    return float(np.mean(areas))


def characteristics(samples: Mapping, on_s, off_s) -> dict[str, float]:
    """Counter tick, update period, averaging window and duty cycle, from samples of a square wave.

    An update period near the length of a pulse is that of the load, so it is NaN.
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
