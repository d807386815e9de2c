"""The figures of performance and energy are true to their points, which are made up."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtri

from footprint import predict, spec
from footprint.charts import performance as charts

MODELS, GPUS = ["llama-1b", "llama-7b"], ["t4", "rtx-6000-ada"]


@pytest.fixture(scope="module")
def points():
    sizes = {"batch": [1, 64], "prompt": 128, "output": 128}
    return predict.points(MODELS, GPUS, **sizes).squeeze(["engine", "prompt", "output"])


def rows(chart) -> pd.DataFrame:
    """The data of a chart that validates, its largest set."""
    return max((pd.DataFrame(data) for data in chart.to_dict()["datasets"].values()), key=len)


def test_latency_draws_every_point_that_fits_with_its_interval(points):
    drawn = rows(charts.latency(points)).set_index(["model", "gpu", "batch", "phase"])
    assert len(drawn) == int(points["time_s"].notnull().sum())
    one = drawn.loc[("Llama 2 7B", "T4", 1, "decode")]
    at = points.sel(model="llama-7b", gpu="t4", batch=1, phase="decode")
    assert one["time_s"] == pytest.approx(float(at["time_s"])) and one["evidence"] == "modelled"
    reach = np.log(one["time_s_high"] / one["time_s"]) / float(at["time_s_high_sd"])
    assert reach == pytest.approx(ndtri(0.95))


def test_energy_is_drawn_by_phase(points):
    drawn = rows(charts.energy_per_token(points))
    assert set(drawn["what"]) == {"decode: a new token", "prefill: a prompt token"}


def test_a_measured_gpu_stands_beside_the_others(points):
    other = points.sel(gpu=["t4"]).assign_coords(gpu=["my-gpu"])
    other["evidence"] = (
        other["evidence"].astype(object).where(other["energy_J"].isnull(), "measured")
    )
    alike = dict.fromkeys(("data_vars", "coords"), "minimal")
    chart = charts.latency(xr.concat([points, other], "gpu", compat="override", **alike))
    drawn = rows(chart).set_index("gpu")
    assert set(drawn.loc["my-gpu", "evidence"]) == {"measured"}
    colour = chart.to_dict()["spec"]["layer"][0]["encoding"]["color"]["scale"]
    assert colour["domain"] == ["T4", "RTX 6000 Ada", "my-gpu"] and len(set(colour["range"])) == 3


def test_ratios_have_a_row_of_panels_a_pair():
    one = {"model": "llama-1b", "under": "rtx-6000-ada", "phase": "decode", "batch": 1}
    numbers = {"ratio": 2.0, "low": 1.0, "high": 4.0, "probability": 0.95, "evidence": "mixed"}
    pairs = pd.DataFrame([{**one, **numbers, "over": over} for over in ("t4", "my-gpu")])
    assert "row" not in charts.ratios(pairs.head(1)).to_dict()["facet"]
    chart = charts.ratios(pairs).to_dict()
    assert chart["facet"]["row"]["sort"] == ["T4 over RTX 6000 Ada", "my-gpu over RTX 6000 Ada"]


def test_memory_draws_a_curve_a_model_a_line_a_gpu_and_what_was_measured():
    curves = pd.DataFrame({"model": MODELS, "batch": 1, "prompt": "128 tokens", "GiB": [3.0, 14.0]})
    peaks = curves.head(1).assign(gpu="t4", evidence="measured", GiB=3.1)
    drawn = rows(charts.memory(curves, peaks, {"t4": 16.0, "rtx-6000-ada": 48.0}))
    limits = drawn.dropna(subset=["limit"]).groupby("gpu")["limit"].first()
    assert dict(limits) == {"RTX 6000 Ada": 48, "T4": 16}
    assert drawn["GiB"].dropna().tolist() == [3.0, 14.0] and drawn["peak"].dropna().tolist() == [
        3.1
    ]


def test_labels_keep_apart():
    x, y = np.array([0.0, 5.0, 10.0]), np.array([0.0, 1.0, 2.0])
    heights = y - charts._apart(x, y, np.array(["aaaa", "bbbb", "cccc"]))
    assert min(abs(a - b) for i, a in enumerate(heights) for b in heights[i + 1 :]) > 10


def test_cards_are_all_there():
    drawn = rows(charts.cards(pd.DataFrame(spec.table("gpus")), ["t4", "a10"]))
    assert set(drawn["name"]) == {spec.gpu(name).name for name in spec.gpus()}
    assert set(drawn["pair"]) == {"t4", "a10", "other"}


def test_the_headline_stacks_both_carbons_of_each_bar():
    one = {"model": "llama-7b", "zone": "CA-QC", "batch": 4, "evidence": "modelled"}
    one["counted"] = "both carbons"
    grams = {"operational": 3.0, "embodied": 1.0, "low": 2.0, "high": 6.0}
    drawn = rows(charts.headline(pd.DataFrame([{**one, **grams, "gpu": gpu} for gpu in GPUS])))
    bar = drawn[drawn["gpu"] == "T4"]
    assert bar["grams"].sum() == 4.0 and set(bar["part"]) == {"operational", "embodied"}
    assert set(drawn["region"]) == {"Quebec"}
