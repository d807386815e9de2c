"""Numbers of the landing page, the scoreboard and the reviewer's table."""

import numpy as np
import pandas as pd
import pytest

from footprint.chapters import opening
from footprint.chapters.book import load


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    return load(folder=tmp_path_factory.mktemp("nothing"))


def test_the_best_batch_emits_no_more_than_one_request_at_a_time(book):
    rows = opening.headline(book)
    wide = rows.pivot(index=["model", "gpu", "zone"], columns="choice", values="total")
    assert len(wide) == 12 and (wide[opening.BEST] <= wide[opening.ONE]).all()
    assert (rows["low"] < rows["total"]).all() and (rows["total"] < rows["high"]).all()
    assert set(rows["counted"]) == {"both carbons"} and set(rows["evidence"]) == {"modelled"}


def test_the_landing_page_says_what_each_lever_saves(book):
    found = opening.index(book)
    assert found["batching"] > 1 and found["by_grid"] == pytest.approx(21.8, rel=0.01)
    assert found["lamp_s"]["old"] > found["lamp_s"]["new"] and "neither a T4" in found["basis"]
    assert found["by_engine"] == pytest.approx(found["eager_J"] / found["serving_J"])
    assert 0 <= found["newer"] <= found["cases"] == 18
    assert found["ways"]["requests at once"].tolist()[::2] == ["1", "1"]


def test_a_verdict_is_close_to_a_line_within_twice_the_error_of_its_samples():
    board = pd.DataFrame({"id": ["a", "b", "c"], "probability": [0.95, 0.94, 0.5]})
    assert opening._close(board, 10_000).tolist() == ["a"]
    assert opening._close(board, 1_000).tolist() == ["a", "b"]


def test_a_probability_is_rounded_down_and_an_unknown_one_is_left_out():
    one = {"id": "A1", "claim": "more & more", "because": "so", "status": "modelled"}
    board = pd.DataFrame([{**one, "verdict": "open", "probability": p} for p in (0.7499, np.nan)])
    table = opening._verdicts(board, board)
    assert table["eager loop"].tolist() == ["open (0.74)", "open"]


def test_the_middle_of_values_holds_nine_tenths():
    found = opening._middle(np.arange(101.0), "derived")
    assert found == {"expected": 50, "from": 5, "to": 95, "status": "derived"}
    assert np.isnan(opening._middle(pd.Series(dtype=float), "measured")["expected"])


def test_the_reviewer_s_table_is_of_the_committed_runs(book):
    expected = opening.artifact(book)["expected"].set_index("claim")
    assert list(expected) == ["what", "expected", "from", "to", "step", "status"]
    whole = expected.dropna()
    assert (whole["from"] <= whole["expected"]).all() and (whole["expected"] <= whole["to"]).all()
    assert expected.loc["A3", "expected"] == pytest.approx(21.8, rel=0.01)
