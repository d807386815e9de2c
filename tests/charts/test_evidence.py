"""The figures of the evidence, drawn from committed runs and tables, are true to their rows."""

import numpy as np
import pandas as pd
import xarray as xr

from footprint import spec
from footprint.charts import evidence as charts_evidence
from footprint.predict import validation


def rows(chart) -> pd.DataFrame:
    """The data of a chart that validates, its largest set."""
    return max((pd.DataFrame(data) for data in chart.to_dict()["datasets"].values()), key=len)


def test_the_scoreboard_draws_each_claim():
    claims = pd.DataFrame(spec.table("published"))
    board = claims[["id"]].assign(probability=0.9, verdict="holds", because="", status="modelled")
    assert list(rows(charts_evidence.scoreboard(board, board))["id"]) == list(claims["id"])


def test_coverage_counts_points():
    points = pd.DataFrame({"device": ["t4", "t4", "box"], "model": "llama-1b", "kind": "measured"})
    drawn = rows(charts_evidence.coverage(points)).set_index("device")
    assert drawn["points"].to_dict() == {"T4": 2, "box": 1}


def test_an_edge_is_laid_over_the_others():
    switches = {"switch_on_s": ("on", [1.0, 3.0]), "switch_off_s": ("off", [2.0])}
    time_s = np.arange(0.0, 5.0, 0.1)
    samples = {"time_s": ("sample", time_s), "power_W": ("sample", 60 + 0 * time_s)}
    found = charts_evidence.switches(xr.Dataset({**samples, **switches}))
    assert (
        set(found["edge"]) == {"load on", "load off"} and found["since_s"].between(-0.2, 1.4).all()
    )
    drawn = rows(charts_evidence.edges({"a board": xr.Dataset({**samples, **switches})}))
    assert len(drawn) == len(found) and set(drawn["card"]) == {"a board"}


def test_the_causes_of_a_step_are_stacked_by_their_names():
    step = {"model": "llama-7b", "gpu": "t4", "batch": 1}
    given = pd.DataFrame(
        [
            {**step, "cause": cause, "ms": 1.0 + place}
            for place, cause in enumerate(charts_evidence.CAUSES)
        ]
    )
    drawn = rows(charts_evidence.causes(given))
    assert drawn["ms"].tolist() == [1, 2, 3, 4, 5, 6]
    assert drawn["rank"].tolist() == [0, 1, 2, 3, 4, 5]
    assert drawn["cause"].tolist() == [name for name, _ in charts_evidence.CAUSES.values()] and set(
        drawn["at"]
    ) == {"T4, batch 1"}


def test_closure_and_bound_draw_what_they_are_given():
    one = {
        "model": "llama-24m",
        "place": "committed",
        "batch": 1,
        "prompt_tokens": 8,
        "repeat": 0,
        "closure": 1.01,
    }
    assert rows(charts_evidence.closure(pd.DataFrame([one])))["closure"].item() == 1.01
    cpu = {
        "model": "llama-24m",
        "dtype": "fp32",
        "parameters": 1,
        "bound_tokens_per_s": 10.0,
        "tokens_per_s": 8.0,
        "least": 7.0,
        "most": 9.0,
        "share": 0.8,
        "weights": "random",
        "engine": "eager",
    }
    assert (
        rows(charts_evidence.bound(pd.DataFrame([cpu])))["name"].item()
        == "LLaMA 24M (test size), fp32"
    )


def test_left_out_measurements_are_drawn_a_panel_a_quantity():
    left_out = validation.residuals()
    drawn = rows(charts_evidence.predicted(left_out, validation.QUANTITIES))
    assert set(drawn["what"]) == set(validation.QUANTITIES.values()) and len(drawn) < 2500
    table = validation.summary(left_out, "gpu")
    assert rows(charts_evidence.errors(table, "gpu"))["rows"].sum() == len(left_out)
