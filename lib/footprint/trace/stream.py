"""Energy of power records that are larger than memory: the integral in chunks that fit a processor's cache."""

import numpy as np

from footprint.energy.integrate import LONGEST_GAP_S, integral

CHUNK = 2**15  # samples: a chunk stays in the cache while it is used several times


def joules(time_s, power_W, start_s, stop_s, chunk: int = CHUNK) -> np.ndarray:
    """Joules of each window, as `readings.integral` gives them, from arrays that are read a chunk at a time.

    time_s, power_W: in the order of time, anything whose `[a:b]` are numbers (h5py, zarr, memmap, numpy).
    start_s, stop_s: the windows. NaN for a window that the samples do not span, or that holds a sample that is NaN, or a
    gap longer than a second. Memory does not grow with the number of samples, time grows in proportion to it.
    """
    start_s, stop_s = (
        np.atleast_1d(np.asarray(start_s, float)),
        np.atleast_1d(np.asarray(stop_s, float)),
    )
    size, energy = len(time_s), np.zeros(np.shape(start_s))
    if size < 2:
        return np.full(energy.shape, np.nan)
    spanned = (
        (start_s >= time_s[0:1][0]) & (stop_s <= time_s[size - 1 : size][0]) & (stop_s > start_s)
    )
    for begin in range(0, size - 1, chunk):  # a chunk starts with the last sample of the one before
        t, p = (
            np.asarray(time_s[begin : begin + chunk + 1]),
            np.asarray(power_W[begin : begin + chunk + 1]),
        )
        inside = spanned & (start_s < t[-1]) & (stop_s > t[0])
        whole = inside & (start_s <= t[0]) & (stop_s >= t[-1])
        part = inside & ~whole
        if whole.any():
            energy[whole] += _all(t, p)
        if part.any():
            energy[part] += integral(
                t, p, np.maximum(start_s[part], t[0]), np.minimum(stop_s[part], t[-1])
            )
    return np.where(spanned, energy, np.nan)


def _all(t: np.ndarray, p: np.ndarray) -> float:
    """The trapezoids of all samples of a chunk; a missing sample is NaN by itself, a gap is made so."""
    step = np.diff(t)
    if step.max() > LONGEST_GAP_S:
        return np.nan
    return float(np.dot(step, p[1:] + p[:-1])) / 2
