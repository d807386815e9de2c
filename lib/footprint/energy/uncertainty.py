"""The error budget of a window's energy: repeats, ticks, what the sensor misses, its gain.

All functions take and return arrays with one value a window; uncertainties are standard ones, in J.
"""

from collections.abc import Mapping

import numpy as np

COVERAGE = 2.0  # expanded over standard uncertainty: 95 %, metrology's habit
SWING, FREE = 1 / (2 * np.sqrt(3)), 2 * np.sqrt(2)  # see `edge_error`
# Assumed of a board without a sensor card: tick and update of the readings, average of the old
# call, share of the time that is seen, and bound of the gain.
TICK_S, UPDATE_S, AVERAGE_S, DUTY, GAIN_BOUND = 0.1, 0.1, 1.0, 0.25, 0.05


def assumed(w: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """What the windows say of their sensor, and where they say nothing, the worst that is common.

    That is 100 ms ticks and updates, a quarter of the time seen (an average over 1 s where only the
    old call answers), and a gain within 5 %.
    """
    averaging = source == "nvml_average"
    usual = {
        "counter_tick_s": TICK_S,
        "power_update_s": UPDATE_S,
        "power_duty": 1.0 if averaging else DUTY,
        "gain": 1.0,
        "gain_bound": GAIN_BOUND,
    }
    sensor = {name: np.where(np.isnan(w[name]), value, w[name]) for name, value in usual.items()}
    average = AVERAGE_S if averaging else sensor["power_duty"] * sensor["power_update_s"]
    known = np.isfinite(w["power_average_s"])
    return sensor | {"power_average_s": np.where(known, w["power_average_s"], average)}


def within(time_s, values, start_s, stop_s) -> np.ndarray:
    """Sum of the `values` at sorted times that fall into each window (NaN counts as 0)."""
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    return total[np.searchsorted(time_s, stop_s)] - total[np.searchsorted(time_s, start_s)]


def fluctuation(time_s, power_W, start_s, stop_s) -> dict[str, np.ndarray]:
    """Number, standard deviation (W) and sum of squared steps (W2) of each window's samples.

    A reading that is held for several samples adds its step once; the first has none.
    """
    order = np.argsort(time_s, kind="stable")
    middle = np.nanmean(power_W) if np.isfinite(power_W).any() else 0.0
    time_s, off = time_s[order], power_W[order] - middle
    count = within(time_s, np.ones(len(off)), start_s, stop_s)
    many = np.maximum(count, 1)
    mean = within(time_s, off, start_s, stop_s) / many
    square = within(time_s, off**2, start_s, stop_s) / many
    steps = np.concatenate([[0.0], np.diff(off) ** 2])[: len(off)]
    first_s = np.append(time_s, np.inf)[np.searchsorted(time_s, start_s)]
    first_s = np.minimum(first_s, stop_s)
    return {
        "count": count,
        "seen_W": np.sqrt(np.maximum(square - mean**2, 0)),
        "jumps_W2": within(time_s, steps, np.nextafter(first_s, np.inf), stop_s),
    }


def noise(phase, jumps_W2, updates) -> float:
    """Noise of the sensor in W, from its readings at rest; 0 without such readings."""
    resting = np.char.startswith(phase.astype(str), "idle") & (updates > 1)
    if not resting.any():
        return 0.0
    return float(np.sqrt(np.min(jumps_W2[resting] / (2 * updates[resting]))))


def edge_error(sensor: Mapping, load: Mapping, blur_s) -> np.ndarray:
    """Error in J at both ends of a window, where the instrument blurs `blur_s` of the load.

    The energy of a load that toggles by +-swing with some period differs from its mean line by a
    triangle of height swing * period / 4, of standard deviation swing * period / (4 sqrt 3), at
    both ends of the blur at both ends of the window. Over a blur it cannot differ by more than the
    swing, which makes sqrt 2 swing * blur / sqrt 3. Two swings count: the one that the samples
    show, with the period of an iteration, and one between rest and twice the mean power above it,
    which they cannot show because it is faster than they are (or than an iteration).
    """
    hidden = np.minimum(load["iteration_s"], sensor["power_average_s"] + sensor["power_update_s"])
    seen = load["seen_W"] * np.minimum(load["iteration_s"], FREE * blur_s)
    return SWING * np.hypot(seen, load["active_W"] * np.minimum(hidden, FREE * blur_s))


def sampled(sensor: Mapping, load: Mapping) -> dict[str, np.ndarray]:
    """Uncertainties of the integral: `u_quantisation` (spacing of samples) and `u_sampling`.

    Sampling: what a part-time sensor did not see, its noise, the blur of its averaging at both
    ends, and its delay while the power changes over the window.
    """
    blur = sensor["power_average_s"] + sensor["power_update_s"]
    late = np.abs(load["change_W"]) * (blur + load["spacing_s"]) / 2 / np.sqrt(3)
    period = np.maximum(sensor["power_update_s"], load["spacing_s"])
    grain = load["noise_W"] * np.sqrt(period * load["length_s"])
    blind = blind_error(sensor, load, period)
    ends = edge_error(sensor, load, blur)
    return {
        "u_quantisation": load["spacing_s"] * np.sqrt(load["jumps_W2"] / 12),
        "u_sampling": np.sqrt(blind**2 + ends**2 + late**2 + grain**2),
    }


def counted(sensor: Mapping, load: Mapping, width_s) -> dict[str, np.ndarray]:
    """Uncertainties of the counter: `u_quantisation` (where its ticks lie) and `u_sampling`.

    Aligned to ticks that are known to `width_s`: P width / sqrt 12. Not aligned (NaN), each end
    hides up to a tick T: P T / sqrt 6. What the load does within a tick stays open. A counter may
    be made from the power reading, so it is taken to see the same share of the time, at each
    update, however seldom it is read.
    """
    tick = sensor["counter_tick_s"]
    open_s = np.where(np.isnan(width_s), tick / np.sqrt(6), width_s / np.sqrt(12))
    open_J = open_s * np.abs(load["power_W"])
    late = np.abs(load["change_W"]) * tick / (2 * np.sqrt(6))
    return {
        "u_quantisation": np.sqrt(open_J**2 + edge_error(sensor, load, tick) ** 2),
        "u_sampling": np.hypot(blind_error(sensor, load, sensor["power_update_s"]), late),
    }


def blind_error(sensor: Mapping, load: Mapping, period_s) -> np.ndarray:
    """Error in J of looking once in a period u: u sqrt((1 - seen share) jumps / 2).

    The power may differ between two looks as much as it does from one reading to the next. Readings
    further apart than u are fewer than the looks, and count for all of them.
    """
    seen = np.clip(np.minimum(sensor["power_average_s"] / period_s, sensor["power_duty"]), 0, 1)
    apart_s = np.maximum(period_s, load["spacing_s"])
    return np.sqrt((1 - seen) * period_s * apart_s * load["jumps_W2"] / 2)


def spread(energy_J, iterations, point) -> np.ndarray:
    """Standard deviation in J between the repeats of a point; NaN for a single one.

    point: number of the point that each window belongs to.
    """
    times = np.where(iterations > 0, iterations, 1)
    known, each = np.isfinite(energy_J), np.nan_to_num(energy_J / times)
    count = np.bincount(point, known)
    mean = np.bincount(point, each) / np.maximum(count, 1)
    squares = np.bincount(point, known * (each - mean[point]) ** 2)
    variance = np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)
    return np.where(known, np.sqrt(variance[point]), np.nan) * times


def expanded(data: Mapping) -> np.ndarray:
    """Half-width in J of the 95 % interval without the gain, as for ratios on one board.

    A window without repeats has none of their spread: the interval is then of its own energy alone.
    """
    squares = sum(np.asarray(data[name]) ** 2 for name in ("u_quantisation", "u_sampling"))
    return COVERAGE * np.sqrt(squares + np.nan_to_num(np.asarray(data["u_repeat"])) ** 2)


def bounds(energy_J, half_J, gain_bound) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval: the half-width, then the whole bound of the gain."""
    return (energy_J - half_J) / (1 + gain_bound), (energy_J + half_J) / (1 - gain_bound)
