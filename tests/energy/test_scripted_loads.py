"""Intervals hold the truth: the published table is what this code computes."""

import numpy as np
import pytest

import scripted_loads as loads
from footprint import spec

NUMBERS = (
    "coverage_pct",
    "coverage_without_gain_pct",
    "half_width_pct",
    "half_width_without_gain_pct",
    "bias_pct",
    "scatter_pct",
    *(f"u_{term}_pct" for term in loads.TERMS),
)


@pytest.fixture(scope="module")
def published() -> dict[str, dict]:
    return {row["load"]: row for row in spec.table("sensor_coverage")}


def test_the_interval_holds_the_truth_in_every_load(published):
    assert set(published) == set(loads.LOADS) and len(published) >= 12
    for name, row in published.items():
        assert float(row["coverage_pct"]) >= 93, name
        assert int(row["windows"]) >= 200 and row["status"] == "derived"


def test_it_is_narrow_without_the_gain_and_holds_then_too(published):
    for name, row in published.items():
        assert float(row["half_width_without_gain_pct"]) <= 3, name
        if "gain" not in name:
            assert float(row["coverage_without_gain_pct"]) >= 93, name


@pytest.mark.slow
def test_every_row_comes_out_again(published):
    for row in loads.table(loads.LOADS):
        known = [float(published[row["load"]][name]) for name in NUMBERS]
        found = [row[name] for name in NUMBERS]
        assert np.allclose(found, known, rtol=1e-3, atol=2e-3), row["load"]
        assert published[row["load"]]["says"] == row["says"]
