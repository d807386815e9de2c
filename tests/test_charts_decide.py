"""charts_decide: each figure is a valid specification, small, without a title, and says what cannot be served."""

import json

import numpy as np
import pandas as pd
import pytest

from footprint import breakeven, charts_decide, decide, findings, served, totals
from made import pairs

MODELS = list(dict.fromkeys(model for model, _ in findings.PAIRS))
GRIDS = np.geomspace(1, 1000, 5)


def product(**columns) -> pd.DataFrame:
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)


ODDS = product(model=MODELS, served=["alone", "full"], g_per_kwh=GRIDS, approach=list(totals.APPROACHES)).assign(
    probability=0.4
)
PLACES = pd.DataFrame({"zone": list(totals.ZONES), "g_per_kwh": [31, 263, 677]})
WINS = product(model=MODELS, batch=[1, 8], zone=list(totals.ZONES), approach=["ACT", "teardown"]).assign(probability=0.7)
WINS.loc[0, "probability"] = np.nan
PAID = product(model=MODELS, g_per_kwh=GRIDS, accounting=["sunk", "amortised"]).assign(
    years=[1, 200] * 15, low=0.5, high=np.nan
)
FRONT = product(gpu=["t4", "rtx-6000-ada", "l4"], batch=[1, 2]).assign(
    tpot_ms=[10.0, 10.5, 20, 30, 40, 60], mg=1.0, low=0.5, high=2.0, on_front=True
)
TRY = product(model=MODELS, gpu=["t4", "rtx-6000-ada"], batch=[1, 8], approach=list(totals.APPROACHES)).assign(
    energy_J=1.0, idle_J=0.1, making_g=1e-5
)
RATIOS = product(model=MODELS, batch=[1, 8], zone=list(totals.ZONES)).assign(median=1.0, low=0.5, high=2.0, kind="modelled")
FIGURES = {
    "winners": lambda: charts_decide.winners(WINS),
    "winners by life": lambda: charts_decide.winners(WINS.assign(life="5 years"), by="life"),
    "odds": lambda: charts_decide.odds(ODDS, PLACES),
    "payback": lambda: charts_decide.payback(PAID),
    "front": lambda: charts_decide.front(FRONT),
    "explorer": lambda: charts_decide.explorer(TRY),
    "ratios": lambda: charts_decide.ratios(RATIOS),
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


def test_the_explorer_computes_what_the_library_computes():
    """The expressions that the browser runs, run here, against `decide` at a use that nobody would guess."""
    points = served.requests(pairs()).isel(prompt=0, output=0)
    use = {"lifetime": 7.0, "utilisation": 0.3, "pue": 1.4, "intensity": 123.0}
    card = decide.side(points, "t4", n=3).isel(draw=0).sel(model="llama-7b", batch=4, approach="paper")
    made_g = float(card["embodied_kg"] * 1e3 * card["busy_s"]) / (365.25 * 86400)
    row = {"energy_J": float(card["energy_J"]), "idle_J": float(card["idle_W"] * card["busy_s"]), "making_g": made_g}
    transforms = FIGURES["explorer"]().to_dict()["layer"][0]["transform"]
    steps = {step["as"]: step["calculate"] for step in transforms if "calculate" in step}
    datum = type("Datum", (), row)
    found = {name: eval(text, {}, use | {"datum": datum}) for name, text in steps.items()}
    asked = {"g_per_kwh": use["intensity"], "lifetime_years": use["lifetime"], "utilisation": 0.3, "pue": 1.4}
    assert sum(found.values()) == pytest.approx(1e3 * float(breakeven.grams(card, **asked)))
