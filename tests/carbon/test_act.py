"""act: every cell and every published total of ACT v2, and yields against their own definitions."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from footprint import Refused, spec
from footprint.carbon import act
from footprint.carbon.methods import embodied

# facebookresearch/ACT abc9fbb, act/models: node -> EPA kWh/cm2, GPA at 95 and at 99 %, MPA (g/cm2).
LOGIC = {
    28: (0.90, 175, 100, 500),
    20: (1.200, 190, 110, 500),
    14: (1.200, 200, 125, 500),
    10: (1.475, 240, 150, 500),
    8: (1.520, 240, 150, 500),
    7: (2.150, 350, 200, 500),
    5: (2.750, 430, 225, 500),
    3: (3.250, 470, 275, 500),
}
STORAGE = {
    "ddr3_50nm": 600,
    "ddr3_40nm": 315,
    "ddr3_30nm": 230,
    "lpddr3_30nm": 201,
    "lpddr3_20nm": 184,
    "lpddr2_20nm": 159,
    "lpddr4": 48,
    "ddr4_10nm": 65,
    "nand_30nm": 31,
    "nand_20nm": 15,
    "nand_10nm": 10,
    "nand_tlc_1z": 5.6,
    "nand_tlc_v3": 6.3,
    "seagate_nytro_3530": 6.21,
    "seagate_nytro_1551": 3.948,
    "seagate_nytro_3331": 16.916,
    "wd_2016": 24.4,
    "wd_2017": 17.9,
    "wd_2018": 12.5,
    "wd_2019": 10.7,
    "barracuda": 4.57,
    "barracuda2": 10.32,
    "barracuda_pro": 2.35,
    "firecuda": 5.1,
    "firecuda2": 9.1,
    "ironwolf": 4.78,
    "ironwolfpro": 3.63,
    "skyhawk_3tb": 3.04,
    "skyhawk_surveillance": 4.09,
    "skyhawk_6tb": 3.74,
    "videohdd": 7.62,
    "videopipelinehdd": 8.86,
    "exos2x14": 1.653,
    "exosx12": 1.14,
    "exosx16": 1.334,
    "exos15e900": 20.46,
    "exos10e2400": 10.323,
    "exos5e8": 3.8556,
    "exos7e8": 4.747,
}
FAB = {
    "world": 301,
    "india": 725,
    "australia": 597,
    "taiwan": 583,
    "singapore": 495,
    "usa": 380,
    "europe": 295,
    "brazil": 82,
    "iceland": 28,
    "japan": 485,
    "korea": 430,
    "coal": 820,
    "gas": 490,
    "biomass": 230,
    "solar": 41,
    "geothermal": 38,
    "hydropower": 24,
    "nuclear": 12,
    "wind": 11,
    "taiwan-2023": 642,
    "usa-2023": 369,
    "korea-2023": 402,
    "iceland-2023": 7.3,
}
# g/cm2 with GPA 97 %, Taiwan 583 g/kWh and yield 0.875, computed with ACT's own code.
CPA = {28: 1328.2, 20: 1542.4, 14: 1556.7, 10: 1777.1, 8: 1807.0, 7: 2318.2, 5: 2778.0, 3: 3162.6}
ROWS = [row for row in spec.table("embodied_published") if row["set"] == "act-v2"]


@pytest.mark.parametrize("node", LOGIC)
def test_each_cell_of_the_logic_tables_is_acts(node):
    row = act.fab_row(f"{node}nm")
    columns = ("epa_kwh_per_cm2", "gpa95_g_per_cm2", "gpa99_g_per_cm2", "mpa_g_per_cm2")
    assert tuple(row[column] for column in columns) == LOGIC[node]
    gas = (row["gpa95_g_per_cm2"] + row["gpa99_g_per_cm2"]) / 2
    grams = act.per_area(row["epa_kwh_per_cm2"], gas, row["mpa_g_per_cm2"], 583)
    kg = act.act_kg(100, 0.875, grams, 0)
    assert sum(kg.values()) * 1000 == pytest.approx(CPA[node], abs=0.05)


def test_each_cell_of_the_storage_and_fab_tables_is_acts():
    mine = {
        row["id"]: float(row["g_per_gb"])
        for row in spec.table("memory")
        if row["divide_by_yield"] == "1"
    }
    assert mine == STORAGE
    assert {name: act.fab_grid(name) for name in FAB} == FAB
    assert (act.ACT_YIELD, act.PACKAGE_G) == (0.875, 150)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['gpu']}: {row['part']}")
def test_components_and_totals_agree_with_acts_own_code(row):
    found = embodied(row["gpu"], "act", **json.loads(row["settings"]))
    if row["component"] == "total":
        value = found.total_kg
    elif row["component"] == "die":
        value = found.embodied_kg.sel(component=["die energy", "die gas", "die materials"]).sum()
    else:
        value = found.embodied_kg.sel(component=row["component"])
    assert abs(float(value) - float(row["kgco2e"])) <= 0.005 + 1e-9


def test_reference_rows_cover_the_gpus_and_settings():
    cards = {
        "t4",
        "v100-32gb",
        "a100-40gb-sxm",
        "a100-80gb-sxm",
        "l4",
        "rtx-6000-ada",
        "h100-80gb-sxm",
    }
    assert {row["gpu"] for row in ROWS} == cards and len(ROWS) == 74


def test_nodes_between_rows_go_to_the_older_neighbour_or_are_interpolated():
    assert [act.nearest_node(node) for node in ("12nm", "4N", "8nm", "16nm", "3nm")] == [
        14,
        5,
        8,
        14,
        3,
    ]
    middle = act.fab_row("12nm", "interpolated")
    assert middle["epa_kwh_per_cm2"] == pytest.approx((1.2 + 1.475) / 2)
    with pytest.raises(Refused, match="outside"):
        act.fab_row("2nm")
    with pytest.raises(Refused, match="no size"):
        act.node_nm("Intel 4")


def test_murphys_yield_is_the_mean_over_triangular_defect_densities():
    density, area = 0.1, 6.085
    triangle = integrate.quad(
        lambda d: np.exp(-area * d) * (d if d < density else 2 * density - d) / density**2,
        0,
        2 * density,
        points=[density],
    )[0]
    assert act.die_yield(area * 100, "murphy", defects_per_cm2=density) == pytest.approx(
        triangle, rel=1e-9
    )


def test_poisson_yield_is_the_chance_of_no_defect_and_small_dies_are_all_good():
    assert act.die_yield(300, "poisson", defects_per_cm2=0.1) == pytest.approx(
        stats.poisson.pmf(0, 0.3)
    )
    assert act.die_yield(300, "murphy", defects_per_cm2=0) == 1


@given(st.floats(1, 2000), st.floats(0.001, 0.5))
def test_murphy_lies_above_poisson_and_falls_with_area(area, defects):
    murphy = act.die_yield(area, "murphy", defects_per_cm2=defects)
    assert act.die_yield(area, "poisson", defects_per_cm2=defects) <= murphy <= 1
    assert act.die_yield(2 * area, "murphy", defects_per_cm2=defects) <= murphy


@pytest.mark.parametrize(
    "settings",
    [
        {"abatement": 98},
        {"fab": "atlantis"},
        {"fab": -1.0},
        {"memory": "gddr9"},
        {"node": "2nm"},
        {"packages": -3},
        {"yield_model": "guess"},
        {"fixed_yield": 0},
        {"fixed_yield": 1.2},
        {"volume": 1},
        {"defects_per_cm2": float("inf")},
    ],
)
def test_settings_that_do_not_exist_are_refused_in_one_sentence(settings):
    with pytest.raises(Refused) as refusal:
        embodied("t4", "act", **settings)
    assert str(refusal.value).count(". ") == 0 and str(refusal.value).endswith(".")
