"""The error budget of a window's energy: what repeats, ticks, a sensor's blindness and its gain leave uncertain.

All functions take and give arrays, one value a window; uncertainties are standard uncertainties in J.
"""

from collections.abc import Mapping

import numpy as np

COVERAGE = 2.0  # expanded over standard uncertainty: 95 %, metrology's habit
SWING, FREE = 1 / (2 * np.sqrt(3)), 2 * np.sqrt(2)  # see `edges`
TICK_S, UPDATE_S, AVERAGE_S, BLIND_DUTY, GAIN_BOUND = (
    0.1,
    0.1,
    1.0,
    0.25,
    0.05,
)  # assumed of a board without a sensor card


def assumed(w: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Tick, update period, averaging window, duty cycle, gain and its bound; where unknown, the worst that is common.

    That is 100 ms ticks and updates, a quarter of the time seen (an average over 1 s where only the old call answers), and
    a gain within 5 %.
    """
    update = np.where(np.isnan(w["power_update_s"]), UPDATE_S, w["power_update_s"])
    averaging = source == "nvml_average"
    duty = np.where(np.isnan(w["power_duty"]), 1.0 if averaging else BLIND_DUTY, w["power_duty"])
    average = np.where(
        np.isnan(w["power_average_s"]),
        AVERAGE_S if averaging else duty * update,
        w["power_average_s"],
    )
    return {
        "counter_tick_s": np.where(np.isnan(w["counter_tick_s"]), TICK_S, w["counter_tick_s"]),
        "power_update_s": update,
        "power_average_s": average,
        "power_duty": duty,
        "gain": np.where(np.isnan(w["gain"]), 1.0, w["gain"]),
        "gain_bound": np.where(np.isnan(w["gain_bound"]), GAIN_BOUND, w["gain_bound"]),
    }


def within(time_s, values, start_s, stop_s) -> np.ndarray:
    """Sum of the `values` at sorted times that fall into each window (NaN counts as 0)."""
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    return total[np.searchsorted(time_s, stop_s)] - total[np.searchsorted(time_s, start_s)]


def restlessness(time_s, power_W, start_s, stop_s) -> dict[str, np.ndarray]:
    """Of the samples in each window: their number, standard deviation in W, and sum of squared differences in W2.

    A reading that is held for several samples adds its difference once, so no update has to be told from its repetitions.
    """
    order = np.argsort(time_s, kind="stable")
    time_s, off = (
        time_s[order],
        power_W[order] - (np.nanmean(power_W) if np.isfinite(power_W).any() else 0.0),
    )
    jumps = np.concatenate([[0.0], np.diff(off) ** 2])[: len(off)]
    count, first, second, jump = (
        within(time_s, x, start_s, stop_s) for x in (np.ones(len(off)), off, off**2, jumps)
    )
    many = np.maximum(count, 1)
    return {
        "count": count,
        "seen_W": np.sqrt(np.maximum(second / many - (first / many) ** 2, 0)),
        "jumps_W2": jump,
    }


def noise(phase, jumps_W2, updates) -> float:
    """W by which a reading strays from the next while nothing runs: noise of the sensor; 0 when nobody looked."""
    resting = np.char.startswith(phase.astype(str), "idle") & (updates > 1)
    return (
        float(np.sqrt(np.min(jumps_W2[resting] / (2 * updates[resting])))) if resting.any() else 0.0
    )


def edges(sensor: Mapping, load: Mapping, blur_s) -> np.ndarray:
    """J that stay open at both ends of a window because the instrument blurs `blur_s` there while the load swings.

    A load that toggles by +-swing with some period strays from its mean line by a triangle of height swing * period / 4,
    of standard deviation swing * period / (4 sqrt 3), at both ends of the blur at both ends of the window; over a blur it
    cannot stray by more than its swing, which makes sqrt 2 swing * blur / sqrt 3. Two swings count: the one that the samples
    show, with the period of an iteration, and one from rest to its mirror image that they cannot show, because it is
    faster than they are (or than an iteration).
    """
    hidden = np.minimum(load["iteration_s"], sensor["power_average_s"] + sensor["power_update_s"])
    seen = load["seen_W"] * np.minimum(load["iteration_s"], FREE * blur_s)
    return SWING * np.hypot(seen, load["active_W"] * np.minimum(hidden, FREE * blur_s))


def sampled(sensor: Mapping, load: Mapping) -> dict[str, np.ndarray]:
    """Uncertainties of the integral of sampled power: `u_quantisation` (spacing of samples) and `u_sampling`.

    Sampling: what a part-time sensor did not see, its noise, the blur of its averaging at both ends, and its delay under a
    power that changes over the window.
    """
    blur = sensor["power_average_s"] + sensor["power_update_s"]
    late = np.abs(load["change_W"]) * (blur + load["spacing_s"]) / 2 / np.sqrt(3)
    period = np.maximum(sensor["power_update_s"], load["spacing_s"])
    grain = load["noise_W"] * np.sqrt(period * load["length_s"])
    return {
        "u_quantisation": load["spacing_s"] * np.sqrt(load["jumps_W2"] / 12),
        "u_sampling": np.sqrt(
            unseen(sensor, load, period) ** 2 + edges(sensor, load, blur) ** 2 + late**2 + grain**2
        ),
    }


def counted(sensor: Mapping, load: Mapping, width_s) -> dict[str, np.ndarray]:
    """Uncertainties of the counter's energy: `u_quantisation` (where its ticks lie) and `u_sampling`.

    Aligned to ticks that are known to `width_s`: P width / sqrt 12. Not aligned (NaN), each end hides up to a tick T:
    P T / sqrt 6. What the load does within a tick stays open. A counter is taken to share the blindness of the power
    reading, from which it may be made, but it looks at each update, however seldom it is read.
    """
    tick = sensor["counter_tick_s"]
    open_J = np.where(np.isnan(width_s), tick / np.sqrt(6), width_s / np.sqrt(12)) * np.abs(
        load["power_W"]
    )
    late = np.abs(load["change_W"]) * tick / (2 * np.sqrt(6))
    return {
        "u_quantisation": np.sqrt(open_J**2 + edges(sensor, load, tick) ** 2),
        "u_sampling": np.sqrt(unseen(sensor, load, sensor["power_update_s"]) ** 2 + late**2),
    }


def unseen(sensor: Mapping, load: Mapping, period_s) -> np.ndarray:
    """J that an instrument which looks once in a period u may have missed: u sqrt((1 - seen) jumps / 2).

    The readings tell how much the power differs from one to the next; so it may do in between. Readings that lie further
    apart than u are fewer than its looks, and count for all of them.
    """
    blind = 1 - np.clip(
        np.minimum(sensor["power_average_s"] / period_s, sensor["power_duty"]), 0, 1
    )
    return np.sqrt(
        blind * period_s * np.maximum(period_s, load["spacing_s"]) * load["jumps_W2"] / 2
    )


def spread(energy_J, iterations, point) -> np.ndarray:
    """Standard deviation between repeats of the energy of an iteration, times the iterations; NaN for a single one.

    point: number of the point that each window belongs to.
    """
    each = energy_J / np.where(iterations > 0, iterations, 1)
    known = np.isfinite(each)
    count, total = (
        np.bincount(point, x * known, point.max(initial=0) + 1)
        for x in (np.ones(len(each)), np.nan_to_num(each))
    )
    mean = total / np.maximum(count, 1)
    squares = np.bincount(point, known * (np.nan_to_num(each) - mean[point]) ** 2, len(count))
    variance = np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)
    return np.where(known, np.sqrt(variance[point]), np.nan) * np.where(
        iterations > 0, iterations, 1
    )


def expanded(data: Mapping) -> np.ndarray:
    """Half-width in J of the 95 % interval of each window without its gain, as for ratios on one board.

    A repeat that nobody made adds nothing: the interval is then that of this one window's energy.
    """
    squares = sum(np.asarray(data[name]) ** 2 for name in ("u_quantisation", "u_sampling"))
    return COVERAGE * np.sqrt(squares + np.nan_to_num(np.asarray(data["u_repeat"])) ** 2)


def bounds(energy_J, half_J, gain_bound) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval: all of the gain's bound around what the rest leaves open, since no repeat shrinks it."""
    return (energy_J - half_J) / (1 + gain_bound), (energy_J + half_J) / (1 - gain_bound)
