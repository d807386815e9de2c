"""The carbon figures are valid, show intervals, tell series apart twice, and hide no gap."""

import json

import pandas as pd
import pytest

from footprint import carbon, spec
from footprint.carbon.methods import ALL_METHODS
from footprint.charts import carbon as charts_carbon
from footprint.charts.theme import COLOURS

ZONES, CARDS = ("CA-QC", "US-CAL-CISO", "US-NW-PACE"), ("t4", "rtx-6000-ada")


def per_token(**columns) -> pd.DataFrame:
    rows = [{"zone": zone, "gpu": card} for zone in ZONES for card in CARDS]
    frame = pd.DataFrame(rows).assign(g=range(1, 7), low=0.5, high=9.0, evidence="modelled")
    frame = frame.assign(median=frame["g"], model="llama-7b", batch=1)
    return pd.concat(
        [frame.assign(**{name: value}) for name, values in columns.items() for value in values]
    )


TABLE = carbon.compare(["t4", "v100-16gb", "h100-80gb-sxm"])
INTERVALS = pd.DataFrame({"approach": ["teardown"], "gpu": ["t4"], "low": [50.0], "high": [80.0]})
FIGURES = {
    "embodied_bars": lambda: charts_carbon.embodied_bars(TABLE, INTERVALS),
    "tornado": lambda: charts_carbon.tornado(carbon.sensitivity("t4", n=64)),
    "hour_map": lambda: charts_carbon.hour_map(spec.typical(spec.hourly())),
    "operational_regions": lambda: charts_carbon.operational_regions(
        per_token(basis=["lifecycle", "direct"])
    ),
    "total_per_token": lambda: charts_carbon.total_per_token(
        per_token(carbon=["operational", "embodied"])
    ),
    "embodied_share": lambda: charts_carbon.embodied_share(
        per_token(batch=[1, 2, 4]).assign(share=0.4).drop(columns="g")
    ),
}


def marks(specification) -> set[str]:
    """Types of all marks in a specification."""
    if isinstance(specification, list):
        return set().union(*map(marks, specification))
    if not isinstance(specification, dict):
        return set()
    here = specification.get("mark", {})
    return (
        {here["type"]}
        if isinstance(here, dict) and "type" in here
        else set().union(*map(marks, specification.values()))
    )


def rows(specification: dict) -> list[dict]:
    return [row for data in specification["datasets"].values() for row in data]


@pytest.fixture(params=FIGURES)
def figure(request):
    return request.param, FIGURES[request.param]().to_dict()


def test_the_specification_is_valid_small_and_without_a_title(figure):
    _, specification = figure
    assert specification["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    assert "title" not in specification and len(json.dumps(specification)) < 200_000
    assert 0 < len(rows(specification)) < 2000


def test_intervals_are_drawn(figure):
    name, specification = figure
    assert name == "hour_map" or {"rule", "area"} & marks(specification)


def test_series_differ_by_more_than_colour(figure):
    name, specification = figure
    text = json.dumps(specification)
    second = {
        "operational_regions": '"shape"',
        "embodied_share": '"strokeDash"',
        "total_per_token": '"order"',
    }
    assert second.get(name, "tooltip") in text


def test_a_gap_is_drawn_with_its_reason():
    found = rows(charts_carbon.embodied_bars(TABLE, INTERVALS).to_dict())
    gaps = [row for row in found if row["layer"] == "gap"]
    assert {("vendor", "T4"), ("teardown", "V100-16GB (SXM2)")} <= {
        (row["approach"], row["gpu"]) for row in gaps
    }
    assert all(row["reason"] for row in gaps)
    bars = {(row["approach"], row["gpu"]) for row in found if row["layer"] == "bar"}
    assert not bars & {(row["approach"], row["gpu"]) for row in gaps}
    assert len(bars) + len(gaps) == len(ALL_METHODS) * TABLE.sizes["gpu"]


def test_the_bars_of_a_card_sum_to_its_total():
    found = pd.DataFrame(rows(charts_carbon.embodied_bars(TABLE, INTERVALS).to_dict()))
    sums = found[found["layer"] == "bar"].groupby(["approach", "gpu"])["kg"].sum()
    for (approach, card), kg in sums.items():
        gpu = next(name for name in spec.gpus() if spec.gpu(name).name == card)
        assert kg == pytest.approx(float(TABLE.total_kg.sel(embodied_method=approach, gpu=gpu)))


def test_each_component_belongs_to_one_part():
    members = [component for _, part in charts_carbon.PARTS.values() for component in part]
    assert sorted(members) == sorted(map(str, TABLE.component.values))


def test_a_missing_hour_is_marked():
    found = rows(charts_carbon.hour_map(spec.typical(spec.hourly())).to_dict())
    assert len(found) == 288 and sum(row["missing"] for row in found) == 3


def test_grams_are_shown_as_milligrams_and_cards_keep_their_hue():
    specification = FIGURES["total_per_token"]().to_dict()
    assert {row["mg"] for row in rows(specification)} == {1000.0 * gram for gram in range(1, 7)}
    assert {row["zone"] for row in rows(specification)} == {
        "Quebec",
        "California",
        "PacifiCorp East",
    }
    assert COLOURS["t4"] in json.dumps(FIGURES["operational_regions"]().to_dict())


def test_a_measured_gpu_stands_beside_the_others_under_its_own_name():
    known = per_token(carbon=["operational", "embodied"])
    mine = known[known["gpu"] == "t4"].assign(gpu="my-gpu", evidence="measured", model="llama-1b")
    figure = charts_carbon.total_per_token(pd.concat([known, mine]))
    found = pd.DataFrame(rows(figure.to_dict()))
    names = ["T4, modelled", "RTX 6000 Ada, modelled", "my-gpu, measured, TinyLlama 1.1B"]
    assert list(dict.fromkeys(found["name"])) == names
    assert found.groupby(["zone", "name"])["share"].sum().to_numpy() == pytest.approx(1)
