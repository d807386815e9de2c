"""charts_decide: each figure is a valid specification, small, without a title, and says what cannot be served."""

import json

import numpy as np
import pandas as pd
import pytest

from footprint.carbon import totals
from footprint.charts import decide as charts_decide
from footprint.energy import findings

MODELS = list(dict.fromkeys(model for model, _ in findings.PAIRS))
GRIDS = np.geomspace(1, 1000, 5)


def product(**columns) -> pd.DataFrame:
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)


ODDS = product(
    model=MODELS, served=["alone", "full"], g_per_kwh=GRIDS, approach=list(totals.APPROACHES)
).assign(probability=0.4)
PLACES = pd.DataFrame({"zone": list(totals.ZONES), "g_per_kwh": [31, 263, 677]})
WINS = product(
    model=MODELS, batch=[1, 8], zone=list(totals.ZONES), approach=["ACT", "teardown"]
).assign(probability=0.7)
WINS.loc[0, "probability"] = np.nan
SETUPS = product(
    model=MODELS,
    setup=["card alone", "beside a host"],
    served=["alone", "full"],
    zone=list(totals.ZONES),
).assign(probability=0.4)
PAID = product(model=MODELS, g_per_kwh=GRIDS, accounting=["sunk", "amortised"]).assign(
    years=[1, 200] * 15, low=0.5, high=np.nan
)
FRONT = product(gpu=["t4", "rtx-6000-ada", "l4"], batch=[1, 2]).assign(
    tpot_ms=[10.0, 10.5, 20, 30, 40, 60], mg=1.0, low=0.5, high=2.0, on_front=True
)
RATIOS = product(model=MODELS, batch=[1, 8], zone=list(totals.ZONES)).assign(
    median=1.0, low=0.5, high=2.0, kind="modelled"
)
FIGURES = {
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
    assert {cell["card"] for cell in cells if cell["probability"]} == {"T4"}


def test_a_payback_of_more_than_a_century_is_not_drawn():
    years = [row["years"] for row in drawn(FIGURES["payback"]().to_dict())]
    assert set(years) == {1, None}


def test_names_on_the_front_stand_apart():
    names = [row["name"] for row in drawn(FIGURES["front"]().to_dict()) if row["name"]]
    assert names == ["T4, 1", "RTX 6000 Ada, 1", "RTX 6000 Ada, 2", "L4, 1", "L4, 2"]
