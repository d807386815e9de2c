"""Errors of left-out measurements: closed forms on made rows, and the committed table."""

import numpy as np
import pandas as pd
import pytest

from footprint import Refused, predict, spec
from footprint.predict import validation


def test_errors_and_coverage_have_their_closed_forms():
    rows = validation.residuals("gpu")
    raw = pd.DataFrame(spec.table("cross_validation"))
    raw = raw[raw["dtype"].isin(["fp16", "bf16"])]
    value, expected = raw["value"].astype(float), raw["gpu_expected"].astype(float)
    assert rows["distance"].to_numpy() == pytest.approx((expected / value - 1).abs().to_numpy())
    assert set(rows["covered"].dropna()) == {0.0, 1.0}
    unbounded = pd.to_numeric(raw["gpu_low"], errors="coerce").isna()
    assert (rows["covered"].isna().to_numpy() == unbounded.to_numpy()).all(), (
        "no bounds, no coverage"
    )


def test_each_way_of_leaving_out_has_its_own_columns():
    expected = [validation.residuals(left)["expected"].sum() for left in validation.LEFT_OUT]
    assert len(set(expected)) == len(validation.LEFT_OUT)
    with pytest.raises(Refused, match="gpu, model, source"):
        validation.residuals("year")


def test_a_summary_of_known_rows():
    rows = pd.DataFrame(
        {
            "quantity": ["a"] * 4,
            "distance": [0.1, 0.2, 0.3, 0.4],
            "error": [-0.1, 0.2, 0.3, -0.4],
            "covered": [1.0, 1.0, 0.0, np.nan],
            "low": [1.0] * 4,
            "high": [4.0] * 4,
        }
    )
    (row,) = validation.summary(rows, "quantity").to_dict("records")
    assert (
        row["rows"] == 4
        and row["median error"] == pytest.approx(0.25)
        and row["bias"] == pytest.approx(0.05)
    )
    assert row["coverage"] == pytest.approx(2 / 3) and row["half-width"] == pytest.approx(1.0)


def test_each_gpu_counts_once_however_many_rows_it_has():
    distances = {"a100": [0.1] * 98 + [0.3], "t4": [0.4], "l4": [0.3, 0.5]}
    rows = pd.DataFrame(
        [
            {"quantity": "tpot_s", "gpu": gpu, "distance": each, "covered": float(each < 0.35)}
            for gpu, values in distances.items()
            for each in values
        ]
    )
    rows["measured_by"] = ["bench"] * 99 + ["lab"] * 3
    (row,) = validation.over_gpus(rows).to_dict("records")
    assert (row["GPUs"], row["sources"]) == (3, 2)
    assert row["error"] == pytest.approx(0.3), "medians 0.1, 0.4, 0.4"
    assert row["standard error"] == pytest.approx(0.1)
    assert row["coverage"] == pytest.approx((1 + 0 + 0.5) / 3)


def test_a_summary_counts_rows_errors_and_coverage():
    value, expected = 1.0, np.array([1.1, 0.9, 1.2, 1.0])
    rows = pd.DataFrame(
        {"quantity": "tpot_s", "low": 0.95, "high": [1.3, 0.99, 1.3, 1.3]}, range(4)
    )
    error, inside = expected / value - 1, (rows["low"] <= value) & (value <= rows["high"])
    rows = rows.assign(error=error, distance=np.abs(error), covered=inside.astype(float))
    found = validation.summary(rows, "quantity").iloc[0]
    assert found["rows"] == 4 and found["coverage"] == 0.75
    assert found["median error"] == pytest.approx(0.1) and found["bias"] == pytest.approx(0.05)
    assert found["90th percentile"] == pytest.approx(0.17)


def test_the_plain_roofline_is_the_larger_of_two_quotients():
    row = {
        "gpu": "t4",
        "model": "llama-7b",
        "dtype": "fp16",
        "quantity": "tpot_s",
        "batch": 1,
        "prompt_tokens": 0,
        "output_tokens": 0,
    }
    expected = validation.plain_roofline(pd.DataFrame([row, row | {"quantity": "power_W"}]))
    assert expected[0] == pytest.approx(6738415616 * 2 / 320e9)
    assert np.isnan(expected[1])


def test_every_name_of_the_table_is_known():
    rows = pd.DataFrame(spec.table("cross_validation"))
    times = rows[rows["quantity"].isin(["ttft_s", "tpot_s"])]
    assert set(times["gpu"]) | set(times["model"]) <= set(spec.known())


def test_a_processor_is_judged_by_its_own_probe():
    run = {
        "kind": "measured",
        "device": "xeon-2t",
        "model": "llama-1b",
        "dtype": "fp32",
        "engine": "eager",
        "weights": "random",
        "place": "committed",
        "phase": "decode",
        "batch": 1,
        "prompt_tokens": 64,
        "output_tokens": 11,
        "lengths": "grid",
        "bandwidth": 20.0,
        "matmul": 200.0,
        "memory_GiB": 24.0,
        "parameters": 1,
        "time_s": 2.2,
        "time_s_low": 2.1,
        "time_s_high": 2.3,
    }
    (row,) = validation.processors(pd.DataFrame([run])).to_dict("records")
    bound = spec.model("llama-1b").streamed_parameters * 4 / 20e9 * 1e3
    assert bound <= row["expected (ms)"] < 1.3 * bound
    assert row["measured (ms)"] == pytest.approx(220)
    assert row["distance"] == pytest.approx(abs(row["expected (ms)"] / 220 - 1))


def test_peers_errors_are_those_of_the_points_they_report():
    table = validation.peers().set_index(["tool", "quantity"])
    slow = [
        1 - measured / expected
        for measured, expected in ((5353, 8934.54), (1518, 2796.58), (547, 788.73), (613, 1169.17))
    ]
    assert table.loc[("LLM-Viewer", "whole request"), "theirs"] == pytest.approx(np.median(slow))
    assert table.loc[("LLM-Viewer", "TTFT"), "theirs"] == pytest.approx(
        1 - np.mean([6.976999894 / 16.1, 100.88071 / 120.5])
    )
    stated = {
        ("AIConfigurator", "TTFT"): 0.45,
        ("WattGPU, offline", "power"): 0.034,
        ("WattGPU, offline", "TPOT"): 0.249,
        ("WattGPU, serving", "power"): 0.135,
        ("WattGPU, serving", "TPOT"): 0.085,
        ("power limit (TDP), offline", "power"): 0.044,
    }
    rest = table[table["rows"].isna()]
    assert rest["theirs"].to_dict() == pytest.approx(stated) and rest["ours"].isna().all()


def test_ours_is_asked_for_the_points_of_the_peers():
    row = next(
        row for row in pd.DataFrame(spec.table("peers")).itertuples() if row.quantity == "e2e_s"
    )
    row = row._replace(batch=256.0, prompt_tokens=128.0, output_tokens=128.0)
    found = predict.windows(
        "llama-7b", "a100-80gb-sxm", batch=256, prompt=128, output=128, engine="serving"
    ).squeeze()
    assert validation._serving_s(row) == pytest.approx(
        found["ttft_s"].item() + 127 * found["tpot_s"].item()
    )
    assert np.isnan(validation._serving_s(row._replace(gpu="-")))
