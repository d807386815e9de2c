"""The explorer has a control for every setting, and its formula is that of the library."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from footprint import carbon
from footprint.chapters.book import load, numbers
from footprint.charts import explorer, theme


@pytest.fixture(scope="module")
def page():
    return numbers("explorer", load())


def test_the_figure_is_valid_and_every_setting_has_a_control(page):
    theme.enable()
    figure = explorer.figure(page["points"], page["world"], page["grids"]).to_dict()
    controls = {param["name"]: param["bind"] for param in figure["params"] if "bind" in param}
    assert set(controls) == set(explorer.ITS)
    for name, bind in controls.items():
        first = explorer.ITS[name]
        assert (
            first in bind["options"] if "options" in bind else bind["min"] <= first <= bind["max"]
        )
        assert len(bind.get("labels") or bind.get("options", [])) == len(bind.get("options", []))
    assert len(json.dumps(figure)) < 500_000


def test_the_states_of_the_world_that_the_page_carries_are_the_library_s(page):
    figure = explorer.figure(page["points"], page["world"], page["grids"]).to_dict()
    carried = {param["name"]: param.get("value") for param in figure["params"]}["world"]
    for gpu, states in carried.items():
        one = page["world"].sel(gpu=gpu)
        assert states["z_time"] == pytest.approx(one["time_error"].values, rel=5e-3)
        for method, known in one["embodied_kg"].groupby("embodied_method"):
            kg = np.array(states[method], dtype=float)
            assert kg == pytest.approx(known.values.ravel(), rel=5e-3, nan_ok=True)
    assert all(value is None for value in carried["l4"]["paper"])


@pytest.mark.parametrize("errors", [(0.0, 0.0), (1.3, -0.4), (-0.7, 2.0)])
def test_the_formula_of_the_page_is_the_equation_of_a_token(errors):
    """Vega's text, read as Python, gives what `carbon.token` gives at the same errors."""
    names = [f"{name}_{end}" for name in explorer.SLOPES for end in ("low", "high")]
    slope = dict(zip(names, (0.11, 0.12, 0.05, 0.06, 0.2, 0.3), strict=True))
    drawn = {"z_time": errors[0], "z_power": errors[1], "kg": 40.0, "g_per_kwh": 263.0}
    given = {"token_s": 2e-3, "token_J": 0.3, "idle_W": 17.0} | slope | drawn
    settings = {"lifetime": 3.0, "utilisation": 0.3, "pue": 1.4, "host": 80, "host_kg": 120}
    datum = SimpleNamespace(**given)
    for name, text in explorer.POINT.items():
        python = re.sub(r"\((\S+ < 0) \? (\S+) : (\S+)\)", r"(\2 if \1 else \3)", text)
        setattr(datum, name, eval(python, {"exp": np.exp, "datum": datum} | settings))
    sides = {
        name: slope[f"{name}_{'low' if z < 0 else 'high'}"]
        for name, z in (("time", errors[0]), ("shared", errors[0]), ("power", errors[1]))
    }
    seconds = 2e-3 * np.exp(sides["time"] * errors[0])
    joules = 0.3 * np.exp(sides["shared"] * errors[0] + sides["power"] * errors[1])
    use = carbon.Use(3.0, 0.3, 1.4, host_W=80, host_kg=120)
    token = carbon.token(seconds, joules, 1, 17.0, 40.0, 263.0, use)
    assert datum.operational == pytest.approx(1e3 * float(token["operational_g"]))
    assert datum.making == pytest.approx(1e3 * float(token["embodied_g"]))
