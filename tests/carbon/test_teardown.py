"""Teardowns: the study's own means, back-tests on GPUs, the vendor's and the paper's numbers."""

import numpy as np
import pytest

from footprint import Refused, spec
from footprint.carbon import act, teardown
from footprint.carbon.methods import embodied

CARDS = spec.table("teardown")
# GWP means of the study (hubblo-org/gpu-calculator 2308a62, methodology page, table 2).
MEANS = {
    "die": 0.0426,
    "board": 0.0325,
    "cooling": 5.74,
    "casing": 8.25,
    "transport": 0.26,
    "end of life": 1.51,
}
# Bare die areas, mm2 (TechPowerUp), of the GPUs whose areas with losses the study lists.
AREAS = {
    "GTX 1080 Ti": 471,
    "RTX A4500": 628,
    "TITAN RTX": 754,
    "P100 PCIe 16GB": 610,
    "L4": 294,
    "A100 SXM4 40GB": 826,
}


@pytest.mark.parametrize("name", MEANS)
def test_factors_are_the_means_that_the_study_published(name):
    digits = 4 if MEANS[name] < 1 else 2
    assert teardown.teardown_factors()[name] == pytest.approx(
        MEANS[name], rel=0.004, abs=0.5 * 10**-digits
    )


def test_parts_of_each_torn_down_gpu_sum_to_its_total():
    parts = [name for name in CARDS[0] if name.endswith("_kgco2e") and not name.startswith("total")]
    for row in CARDS:
        assert sum(float(row[name]) for name in parts) == pytest.approx(
            float(row["total_kgco2e"]), abs=0.02
        )


@pytest.mark.parametrize("card", AREAS)
def test_areas_with_losses_are_the_bare_area_over_murphys_yield(card):
    row = next(row for row in CARDS if row["card"] == card)
    mine = AREAS[card] / act.die_yield(AREAS[card], "murphy", defects_per_cm2=0.1)
    assert mine == pytest.approx(float(row["die_with_losses_mm2"]), rel=0.01)


@pytest.mark.parametrize(
    ("card", "published", "within"), [("l4", 57.74, 0.04), ("a100-40gb-sxm", 113.51, 0.05)]
)
def test_back_test(card, published, within):
    assert float(embodied(card, "teardown").total_kg) == pytest.approx(published, rel=within)


def test_back_test_with_the_gpu_itself_left_out_of_the_means():
    l4 = float(embodied("l4", "teardown", without=("L4",)).total_kg)
    a100 = float(
        embodied("a100-40gb-sxm", "teardown", without=("A100 SXM4 40GB", "A100 PCIe 40GB")).total_kg
    )
    assert l4 == pytest.approx(57.74, rel=0.05) and a100 == pytest.approx(113.51, rel=0.07)


def test_a_mass_that_nobody_published_is_a_gap_with_its_reason():
    found = embodied("v100-32gb", "teardown")
    assert np.isnan(found.total_kg) and np.isnan(found.embodied_kg.sel(component="cooling"))
    assert "mass of the SXM2 module" in str(found.embodied_reason.values)
    filled = embodied(
        "v100-32gb", "teardown", sizes={"mass_kg": 1.5, "heatsink_kg": 1.2, "casing_kg": 0.1}
    )
    assert np.isfinite(filled.total_kg) and str(filled.embodied_reason.values) == ""


def test_the_makers_footprint_sums_to_the_published_164_kg():
    found = embodied("h100-80gb-sxm", "vendor")
    assert float(found.total_kg) == pytest.approx(1312 / 8, abs=1e-3)
    assert float(found.embodied_kg.sel(component="memory")) == pytest.approx(546 / 8)
    assert found.attrs["status"] == "unverified" and "baseboard" in found.attrs["boundary"]


def test_a_footprint_that_does_not_exist_is_refused_and_says_where_one_does():
    with pytest.raises(Refused, match=r"vendor.* of t4 .*h100-80gb-sxm"):
        embodied("t4", "vendor")
    with pytest.raises(Refused, match="rtx-6000-ada"):
        embodied("l4", "paper")


def test_the_papers_values_are_marked_unverified():
    for card, kg in (("t4", 10.3), ("rtx-6000-ada", 26.6)):
        found = embodied(card, "paper")
        assert float(found.total_kg) == kg and found.attrs["status"] == "unverified"


@pytest.mark.parametrize(
    "settings", [{"sizes": {"weight": 1}}, {"sizes": {"mass_kg": -1}}, {"defects_per_cm2": -0.1}]
)
def test_bad_sizes_are_refused(settings):
    with pytest.raises(Refused):
        embodied("t4", "teardown", **settings)
