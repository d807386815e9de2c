"""The integral in chunks is the integral at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footprint.energy import integrate as readings
from footprint.trace import stream


def test_constant_power_is_power_times_time():
    time_s = np.arange(0, 1000, 0.05)
    assert stream.joules(
        time_s, np.full(time_s.shape, 70.0), 10.0, 110.0, chunk=97
    ) == pytest.approx(7000)


def test_a_ramp_is_half_its_rectangle():
    time_s = np.linspace(0, 100, 5001)
    assert stream.joules(time_s, 2 * time_s, 0.0, 100.0, chunk=64) == pytest.approx(10_000)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 400), st.integers(1, 50), st.integers(0, 2**32 - 1), st.booleans(), st.booleans()
)
def test_chunks_do_not_show(size, chunk, seed, hole, gap):
    random = np.random.default_rng(seed)
    step = random.uniform(0.01, 0.2, size)
    if gap:
        step[random.integers(size)] = 1.5
    time_s, power_W = np.cumsum(step), random.normal(100, 20, size)
    if hole:
        power_W[random.integers(size)] = np.nan
    ends = np.sort(random.uniform(time_s[0] - 0.1, time_s[-1] + 0.1, (30, 2)), axis=1)
    ends[:5] = np.sort(
        random.choice(time_s, (5, 2)), axis=1
    )  # windows that end on samples, and empty ones
    expected = readings.integral(time_s, power_W, ends[:, 0], ends[:, 1])
    found = stream.joules(time_s, power_W, ends[:, 0], ends[:, 1], chunk)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_what_can_be_sliced_can_be_read(tmp_path):
    import h5py

    with h5py.File(tmp_path / "long.h5", "w") as file:
        file["time_s"], file["power_W"] = np.arange(10_000) * 0.05, np.full(10_000, 50, np.float32)
        assert stream.joules(
            file["time_s"], file["power_W"], [0.0, 100.0], [499.95, 101.0], 999
        ) == pytest.approx([24997.5, 50])


def test_nothing_is_nan():
    assert (
        np.isnan(stream.joules([], [], 0.0, 1.0)).all()
        and np.isnan(stream.joules([1.0], [5.0], 0.0, 1.0)).all()
    )
