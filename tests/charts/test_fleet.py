"""charts_fleet: each figure is a valid specification, small, without a title, and says which series is which."""

import json

import pandas as pd
import pytest

from footprint.charts import fleet as charts_fleet

SPLIT = pd.DataFrame(
    {
        "gpu": ["t4", "rtx-6000-ada", "l4"],
        "prefill_mg": [3.0, 1, 2],
        "decode_mg": [1.0, 2, 3],
        "on_front": [True, True, False],
    }
).assign(prefill_batch=1, decode_batch=8)
WAITS = pd.DataFrame(
    {"slack_h": [0, 6] * 4, "saving": [0, 0.2] * 4, "wait_h": [0, 3] * 4, "series": [*"aabbccdd"]}
)
PLANS = pd.DataFrame(
    {"plan": [*"zzaa"], "part": ["operational", "embodied"] * 2, "tonnes": [2, 0.1, 1, 0.1]}
).assign(low=1.0, high=3.0)
FIGURES = {
    "split": lambda: charts_fleet.split(SPLIT),
    "waiting": lambda: charts_fleet.waiting(WAITS),
    "plans": lambda: charts_fleet.plans(PLANS),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_specification_is_valid_small_and_without_a_title(name):
    specification = FIGURES[name]().to_dict()
    assert specification["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    assert "title" not in specification and len(json.dumps(specification)) < 30_000


def test_cards_have_their_names_and_the_two_of_the_paper_their_colours():
    (rows,) = FIGURES["split"]().to_dict()["datasets"].values()
    assert [(row["gpu"], row["card"]) for row in rows] == [
        ("T4", "T4"),
        ("RTX 6000 Ada", "RTX 6000 Ada"),
        ("L4", "other cards"),
    ]


def test_every_series_has_a_colour_and_a_dash_of_its_own():
    encoding = FIGURES["waiting"]().to_dict()["hconcat"][0]["encoding"]
    for channel in ("color", "strokeDash"):
        scale = encoding[channel]["scale"]
        assert scale["domain"] == [*"abcd"] and len({str(item) for item in scale["range"]}) == 4


def test_plans_stand_in_the_order_given():
    layer = FIGURES["plans"]().to_dict()["layer"][0]
    assert layer["encoding"]["y"]["sort"] == ["z", "a"]
