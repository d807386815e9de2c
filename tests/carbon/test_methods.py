"""Embodied carbon: components that add up, several GPUs, hosts, comparisons with gaps."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from footprint import Refused, decide, spec
from footprint.carbon import embodied_draws
from footprint.carbon.methods import (
    ALL_METHODS,
    COMPONENTS,
    METHODS,
    Method,
    compare,
    embodied,
    host,
)

CARDS = st.sampled_from(spec.gpus())
SETTINGS = st.fixed_dictionaries(
    {
        "node": st.sampled_from(["nearest", "interpolated", "7nm"]),
        "fab": st.sampled_from(["taiwan", "coal", 100.0]),
        "abatement": st.sampled_from([95, 97, 99]),
        "yield_model": st.sampled_from(["fixed", "murphy", "poisson"]),
        "packages": st.sampled_from([True, False, 3]),
    }
)


@given(CARDS, SETTINGS)
def test_components_are_of_the_vocabulary_and_sum_to_the_total(card, settings):
    found = embodied(card, "act", **settings)
    assert set(found.component.values) <= set(COMPONENTS)
    assert float(found.embodied_kg.sum()) == pytest.approx(float(found.total_kg), rel=1e-12)
    assert (found.embodied_kg > 0).all() and json.loads(found.attrs["settings"]) == settings
    assert ("packaging" in found.component) == bool(settings["packages"])


@given(st.floats(10, 1000), st.floats(1, 500))
def test_a_gpu_of_ones_own_scales_with_its_area_and_memory(area, memory):
    def kg(area, memory):
        card = spec.GPU("own", "Own", 1, 1, memory, "GDDR6", 1, area, "5nm")
        return embodied(card).embodied_kg

    doubled = kg(2 * area, 2 * memory) / kg(area, memory)
    assert np.allclose(doubled, 2)


def test_several_gpus_have_a_dimension_and_equal_the_single_ones():
    both = embodied(["t4", spec.gpu("l4")], "act")
    assert both.embodied_kg.dims == ("gpu", "component") and list(both.gpu.values) == ["t4", "l4"]
    assert float(both.total_kg.sel(gpu="l4")) == float(embodied("l4").total_kg)
    assert both.total_kg.attrs["units"] == "kg" and both.attrs["method"] == "act"
    assert {"method", "settings", "boundary", "status", "source"} <= set(both.attrs)


def test_a_host_scenario_adds_one_component_of_its_share():
    alone, hosted = embodied("t4"), embodied("t4", host_scenario="two-socket", gpus_per_host=2)
    share = float(host("two-socket", 2).sum())
    assert float(hosted.total_kg - alone.total_kg) == pytest.approx(share)
    assert float(host("two-socket", 4).sum()) == pytest.approx(share / 2)
    assert {"cpu", "memory", "board", "power supply"} <= set(host("two-socket").component.values)
    assert "two-socket" in hosted.attrs["boundary"]
    assert float(host("ecologits").sum()) == 5700 / 8


@pytest.mark.parametrize(
    ("scenario", "gpus"), [("three-socket", None), ("two-socket", 0), ("two-socket", -4)]
)
def test_hosts_that_do_not_exist_are_refused(scenario, gpus):
    with pytest.raises(Refused):
        host(scenario, gpus)


def test_unknown_gpus_methods_and_settings_name_what_is_allowed():
    with pytest.raises(KeyError, match="t4"):
        embodied("t44")
    with pytest.raises(Refused, match="ACT, ACT with priors, teardown, vendor, paper"):
        embodied("t4", "guess")
    with pytest.raises(Refused, match="no setting 'yield'"):
        embodied("t4", "act", **{"yield": 1})


def test_a_method_has_the_same_value_under_its_printed_name():
    assert embodied("t4", "ACT").total_kg == embodied("t4").total_kg
    settings = {"packages": True, "yield_model": "murphy"}
    assert embodied("t4", "ACT with priors").total_kg == embodied("t4", "act", **settings).total_kg


def test_a_method_that_is_registered_is_in_every_world_and_needs_no_other_change(monkeypatch):
    def by_mass(gpu, *, kg_per_mm2=0.1):
        return {"unsplit": gpu.die_mm2 * kg_per_mm2}, {"boundary": "die", "status": "modelled"}

    monkeypatch.setitem(METHODS, "by mass", Method(by_mass))
    assert float(embodied("t4", "by mass", kg_per_mm2=1).total_kg) == spec.gpu("t4").die_mm2
    fixed = embodied_draws("t4", 3, method="by mass")
    assert np.allclose(fixed, spec.gpu("t4").die_mm2 / 10)
    world = decide.draw_world(["t4"], n=3)["embodied_kg"]
    assert np.allclose(world.sel(embodied_method="by mass"), fixed)


def test_the_comparison_shows_gaps_as_gaps():
    table = compare(["t4", "v100-16gb", "h100-80gb-sxm"])
    assert list(table.embodied_method.values) == list(ALL_METHODS)
    total = table.total_kg
    assert (
        np.isnan(total.sel(embodied_method="vendor", gpu="t4"))
        and float(total.sel(embodied_method="vendor", gpu="h100-80gb-sxm")) > 100
    )
    gaps = total.isnull()
    assert ((table.embodied_reason != "") == gaps).all()
    inside = table.embodied_kg.where(~gaps).sum("component", skipna=True).where(~gaps)
    assert np.allclose(inside, total, equal_nan=True)


def test_a_large_die_pays_for_its_own_yield():
    table = compare(
        ["t4", "rtx-6000-ada"], {"fixed": {}, "murphy": {"yield_model": "murphy"}}
    ).total_kg
    rise = table.sel(embodied_method="murphy") / table.sel(embodied_method="fixed")
    assert 1.3 < float(rise.sel(gpu="t4")) < float(rise.sel(gpu="rtx-6000-ada")) < 1.6
