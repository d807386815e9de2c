"""The figures of decisions are valid and small, and say what cannot be served."""

import json

import numpy as np
import pandas as pd
import pytest

from footprint import carbon
from footprint.charts import decide as charts_decide
from footprint.decide.world import ZONES

MODELS, METHODS = ["llama-1b", "llama-3b", "llama-7b"], ["ACT", "teardown"]
GPUS = {"gpu": "t4", "newer": "rtx-6000-ada"}
GPUS |= {"evidence": "modelled", "newer_evidence": "measured"}
GRIDS = np.geomspace(1, 1000, 5)


def product(**columns) -> pd.DataFrame:
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)


ODDS = product(
    model=MODELS,
    served=["alone", "full"],
    g_per_kwh=GRIDS,
    embodied_method=[*carbon.SOURCED, "paper"],
).assign(probability=0.4, **GPUS)
PLACES = pd.DataFrame({"zone": list(ZONES), "g_per_kwh": [31, 263, 677]})
WINS = product(model=MODELS, batch=[1, 8], zone=list(ZONES), embodied_method=METHODS).assign(
    probability=0.7, **GPUS
)
WINS.loc[0, "probability"] = np.nan
SETUPS = product(
    model=MODELS, setup=["card alone", "beside a host"], served=["alone", "full"], zone=list(ZONES)
).assign(probability=0.4, **GPUS)
PAID = product(model=MODELS, g_per_kwh=GRIDS, accounting=["sunk", "amortised"]).assign(
    years=[1, 200] * 15, low=0.5, high=np.nan
)
FRONT = product(gpu=["t4", "rtx-6000-ada", "l4"], batch=[1, 2]).assign(
    tpot_ms=[10.0, 10.5, 20, 30, 40, 60], mg=1.0, low=0.5, high=2.0, on_front=True
)
RATIOS = product(model=MODELS, batch=[1, 8], zone=list(ZONES)).assign(
    median=1.0, low=0.5, high=2.0, **GPUS
)
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
    "split": lambda: charts_decide.split(SPLIT),
    "waiting": lambda: charts_decide.waiting(WAITS),
    "plans": lambda: charts_decide.plans(PLANS),
    "winners": lambda: charts_decide.winners(WINS),
    "winners by life": lambda: charts_decide.winners(WINS.assign(life="5 years"), by="life"),
    "odds": lambda: charts_decide.odds(ODDS, PLACES),
    "setups": lambda: charts_decide.setups(SETUPS),
    "payback": lambda: charts_decide.payback(PAID),
    "front": lambda: charts_decide.front(FRONT),
    "ratios": lambda: charts_decide.carbon_ratios(RATIOS),
}


def drawn(specification: dict) -> list[dict]:
    return [row for data in specification["datasets"].values() for row in data]


@pytest.mark.parametrize("name", FIGURES)
def test_the_specification_is_valid_small_and_without_a_title(name):
    specification = FIGURES[name]().to_dict()
    assert specification["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    assert "title" not in specification and len(json.dumps(specification)) < 200_000
    assert 0 < len(drawn(specification)) < 2000


def test_what_cannot_be_served_is_a_dash_and_the_likelier_card_has_its_colour():
    cells = drawn(FIGURES["winners"]().to_dict())
    assert [cell["percent"] for cell in cells].count("–") == 1
    assert {cell["less"] for cell in cells if cell["probability"]} == {"T4"}


def test_a_payback_of_more_than_a_century_is_not_drawn():
    years = [row["years"] for row in drawn(FIGURES["payback"]().to_dict())]
    assert set(years) == {1, None}


def test_names_on_the_front_stand_apart():
    names = [row["name"] for row in drawn(FIGURES["front"]().to_dict()) if row["name"]]
    assert names == ["T4, 1", "RTX 6000 Ada, 1", "RTX 6000 Ada, 2", "L4, 1", "L4, 2"]


def test_cards_have_their_names_and_the_two_of_the_paper_their_colours():
    (rows,) = FIGURES["split"]().to_dict()["datasets"].values()
    assert [(row["gpu"], row["named"]) for row in rows] == [
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
