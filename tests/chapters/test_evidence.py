"""Numbers of the pages on the evidence: what was measured on processors."""

import pandas as pd
import pytest

from footprint.chapters import evidence
from footprint.chapters.book import Book

RUN = {"model": "llama-1b", "dtype": "fp32", "place": "committed", "device": "xeon"}
RUN |= {"weights": "random", "share": 0.8, "output_tokens": 11, "compile_s": 0.0}


def runs(*given: dict) -> pd.DataFrame:
    return pd.DataFrame([RUN | each for each in given])


def test_a_processor_that_beats_its_probe_is_explained():
    assert "No measured run" in evidence._processors_said(Book(), pd.Series(dtype=float))
    plain = evidence._processors_said(Book(), pd.Series([0.8, 0.9]))
    assert "80% to 90%" in plain and "no ceiling" not in plain
    assert "(1 of 2)" in evidence._processors_said(Book(), pd.Series([0.8, 1.1]))


def test_both_engines_stand_side_by_side_where_both_were_measured():
    eager, compiled = {"engine": "eager", "time_s": 1.0}, {"engine": "compiled", "time_s": 0.9}
    other = {"engine": "eager", "time_s": 9.0, "model": "llama-7b"}
    (row,) = evidence._both_engines(runs(eager, compiled | {"compile_s": 20.0}, other)).to_dict(
        "records"
    )
    assert (row["eager (ms)"], row["compiled (ms)"]) == pytest.approx((100, 90))
    assert row["compiled over eager"] == pytest.approx(0.9) and row["compilation (s)"] == 20.0
    assert row["model"] == "TinyLlama 1.1B" and row["status"] == "measured"
    assert evidence._both_engines(runs(eager, other)).empty
    assert evidence._both_engines(runs(eager, compiled | {"dtype": "bf16"})).empty


def test_random_weights_are_compared_with_trained_ones_of_the_same_shape():
    trained, random = {"weights": "trained", "time_s": 1.0}, {"time_s": 1.1}
    rows = runs(*[{"engine": "eager"} | each for each in (trained, random)])
    assert "TinyLlama 1.1B took 1.10 times (eager) as long" in evidence._weights_said(rows)
    assert "No shape was measured" in evidence._weights_said(rows[:1])
