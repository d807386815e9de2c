"""The figures of performance and energy, drawn from the committed runs: valid, complete, and true to their points."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from footprint import spec
from footprint.carbon import totals
from footprint.charts import performance as charts
from footprint.charts import theme
from footprint.energy import findings


@pytest.fixture(scope="module")
def pairs():
    return findings.six_pairs(findings.points(findings.runs()))


def rows(chart) -> pd.DataFrame:
    """The data of a chart that validates, its largest set."""
    return max((pd.DataFrame(data) for data in chart.to_dict()["datasets"].values()), key=len)


def test_latency_draws_every_point_that_fits_once_a_step(pairs):
    drawn = rows(charts.latency(pairs, 128))
    fits = findings.at(pairs, prompt_tokens=128)
    fits = fits[fits["phase"].isin(["prefill", "decode"])].dropna(subset=["time_s"])
    assert len(drawn) == len(fits)
    one = findings.at(fits, phase="decode", model="llama-7b", device="t4", batch=1).iloc[0]
    seen = drawn[
        (drawn["model_name"] == "Llama 2 7B") & (drawn["card"] == "T4") & (drawn["batch"] == 1)
    ]
    assert one["time_s"] / (one["output_tokens"] - 1) == pytest.approx(
        findings.at(seen, phase="decode")["time_s"].item()
    )
    assert (drawn["time_s_low"] <= drawn["time_s"]).all() and (
        drawn["time_s"] <= drawn["time_s_high"]
    ).all()


def test_energy_is_a_token(pairs):
    drawn = rows(charts.energy_per_token(pairs, 128))
    assert set(drawn["what"]) == {"decode: a new token", "prefill: a prompt token"}


def test_ratios_show_their_intervals(pairs):
    drawn = rows(charts.ratios(findings.versus(pairs, "time_s"), 128, "x"))
    assert ((drawn["low"] < drawn["ratio"]) & (drawn["ratio"] < drawn["high"])).all()


def test_memory_draws_a_curve_a_model_and_a_line_a_card(pairs):
    drawn = rows(charts.memory(pairs, pd.DataFrame(spec.table("gpus"))))
    assert dict(drawn.dropna(subset=["limit"]).groupby("card")["limit"].first()) == {
        "RTX 6000 Ada": 48,
        "T4": 16,
    }
    assert drawn["GiB"].count() == len(pairs[["model", "batch", "prompt_tokens"]].drop_duplicates())


def test_labels_keep_apart():
    x, y, names = (
        np.array([0.0, 5.0, 10.0]),
        np.array([0.0, 1.0, 2.0]),
        np.array(["aaaa", "bbbb", "cccc"]),
    )
    heights = y - charts._apart(x, y, names)
    assert min(abs(a - b) for i, a in enumerate(heights) for b in heights[i + 1 :]) > 10


def test_cards_are_all_there():
    drawn = rows(charts.cards(pd.DataFrame(spec.table("gpus"))))
    assert set(drawn["name"]) == {spec.gpu(name).name for name in spec.gpus()}


def test_the_headline_stacks_both_carbons_of_each_bar(pairs):
    numbers = totals.headline(pairs)
    drawn = rows(charts.headline(numbers))
    one = findings.at(
        numbers, model="llama-7b", gpu="t4", zone="CA-QC", choice="least carbon"
    ).iloc[0]
    bar = drawn[
        (drawn["name"] == "Llama 2 7B") & (drawn["card"] == "T4") & (drawn["region"] == "Quebec")
    ]
    assert bar["grams"].sum() == pytest.approx((one["operational_mg"] + one["embodied_mg"]) * 1e3)
    assert (bar["low"] < bar["grams"].sum()).all() and (bar["grams"].sum() < bar["high"]).all()


def test_the_readme_shows_the_figure_of_the_committed_runs():
    theme.enable()
    file = io.StringIO()
    charts.readme().save(file, format="svg")
    committed = Path(__file__).parents[2] / "book" / "assets" / "headline.svg"
    assert file.getvalue() == committed.read_text(), (
        "python -m footprint.charts.performance book/assets/headline.svg"
    )
