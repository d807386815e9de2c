"""From runs to points and ratios, on traces whose numbers are known."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from footprint import energy, trace
from footprint.energy import findings
from footprint.predict import model as predict
from footprint.trace.schema import ATTRS

EMPTY = {str: "", int: 0, float: float("nan")}


def attrs(**given):
    run = {
        name: EMPTY[cast]
        for name, (cast, _) in ATTRS.items()
        if name not in ("schema_version", "kind")
    }
    return (
        run
        | {
            "status": "ok",
            "engine": "eager",
            "dtype": "fp16",
            "weights": "random",
            "energy_source": "none",
        }
        | given
    )


def modelled(device, seconds, model="llama-1b", **given):
    row = {
        "phase": "decode",
        "batch": 1,
        "prompt_tokens": 128,
        "output_tokens": 11,
        "iterations": 1,
        "tokens": 10,
        "status": "ok",
        "lengths": "grid",
    }
    for end, factor in (("", 1), ("_low", 0.8), ("_high", 1.25)):
        row |= {
            f"duration_s{end}": seconds * factor,
            f"energy_J{end}": 50 * seconds * factor,
            f"power_W{end}": 50.0,
        }
        row |= {f"memory_B{end}": 1e9}
    return trace.new(
        "modelled", attrs(model=model, device=device, energy_source="model"), [row | given]
    )


def measured(device, seconds, model="llama-1b", bandwidth=10.0):
    def window(phase, repeat, each, tokens):
        return {
            "phase": phase,
            "batch": 1,
            "prompt_tokens": 128,
            "output_tokens": 11,
            "repeat": repeat,
            "iterations": 2,
            "tokens": 2 * tokens,
            "status": "ok",
            "lengths": "grid",
            "start_s": 1.0,
            "stop_s": 1.0 + 2 * each,
        }

    rows = [window("decode", i, s, 10) for i, s in enumerate(seconds)]
    rows += [window("prefill", i, s / 2, 128) for i, s in enumerate(seconds)]
    rows += [window("generate", i, s * 1.5, 11) for i, s in enumerate(seconds)]
    return trace.new(
        "measured", attrs(model=model, device=device, read_bandwidth_GBps=bandwidth), rows
    )


@pytest.fixture
def points(tmp_path):
    def build(committed, local=()):
        for folder, trees in (("runs", committed), ("local", local)):
            for tree in trees:
                trace.save(tree, trace.place(tree, tmp_path / folder))
        return findings.points(energy.gather_runs(tmp_path))

    return build


def test_a_modelled_point_keeps_its_interval(points):
    row = points([modelled("t4", 2.0)]).iloc[0]
    assert (row["time_s"], row["time_s_low"], row["time_s_high"]) == pytest.approx((2.0, 1.6, 2.5))
    assert row["energy_per_token_J"] == pytest.approx(50 * 2.0 / 10)
    assert row["place"] == "committed" and row["kind"] == "modelled"


def test_a_measured_point_is_the_median_with_its_range(points):
    row = findings.at(points([measured("xeon", [1.0, 3.0, 2.0])]), phase="decode").iloc[0]
    assert (row["time_s"], row["time_s_low"], row["time_s_high"]) == pytest.approx((2.0, 1.0, 3.0))
    assert row["tokens"] == 10 and np.isnan(row["energy_J"])


def test_local_runs_are_told_from_committed_ones(points):
    table = points([modelled("t4", 1.0)], [measured("xeon", [1.0])])
    assert dict(table.groupby("device")["place"].first()) == {
        "t4": "committed",
        "xeon": "this machine",
    }


def test_a_measured_run_replaces_the_modelled_one_of_its_pair(points):
    table = points([modelled("t4", 1.0), modelled("rtx-6000-ada", 1.0)], [measured("t4", [4.0])])
    chosen = findings.six_pairs(table)
    assert set(chosen.loc[chosen["device"] == "t4", "kind"]) == {"measured"}
    assert set(chosen.loc[chosen["device"] == "rtx-6000-ada", "kind"]) == {"modelled"}
    assert len(table[table["kind"] == "modelled"]) == 2, "the modelled run stays, to be judged"


def test_pairs_come_in_the_order_of_the_paper(points):
    table = points(
        [modelled("rtx-6000-ada", 1.0, model="llama-7b"), modelled("t4", 1.0), modelled("l4", 1.0)]
    )
    assert findings.six_pairs(table)[["model", "device"]].to_numpy().tolist() == [
        ["llama-1b", "t4"],
        ["llama-7b", "rtx-6000-ada"],
    ]


def test_another_engine_is_the_model_s_expectation_at_the_same_points(points):
    pairs = findings.six_pairs(points([modelled("t4", 1.0), modelled("rtx-6000-ada", 1.0)]))
    other = findings.instead(pairs, "serving")
    assert set(other["engine"]) == {"serving"} and set(other["kind"]) == {"modelled"}
    assert set(map(tuple, other[["model", "device"]].to_numpy())) == set(findings.PAIRS)
    point = findings.at(other, model="llama-7b", device="t4", phase="decode").iloc[0]
    size = {
        name: point[column]
        for name, column in (
            ("batch", "batch"),
            ("prompt", "prompt_tokens"),
            ("output", "output_tokens"),
        )
    }
    asked = predict.windows("llama-7b", "t4", engine="serving", **size)
    assert point["energy_J"] == pytest.approx(asked["decode_energy_J"].item())
    assert point["time_s_high"] == pytest.approx(
        asked["tpot_s_high"].item() * (point["output_tokens"] - 1)
    )


def test_the_pairs_are_of_one_engine(points):
    fast = modelled("t4", 1.0)
    fast.attrs["engine"] = "serving"
    table = points([modelled("t4", 2.0), fast])
    assert set(table["engine"]) == {"eager", "serving"}
    assert findings.six_pairs(table)["time_s"].tolist() == [2.0]
    assert findings.six_pairs(table, "serving")["time_s"].tolist() == [1.0]


def test_a_ratio_has_the_closed_form_of_two_log_normals(points):
    table = points([modelled("t4", 3.0), modelled("rtx-6000-ada", 2.0)])
    row = findings.versus(table, "time_s").iloc[0]
    sigma = np.log(1.25 / 0.8) / (2 * norm.ppf(0.95))
    both = np.sqrt(2) * sigma
    assert row["ratio"] == pytest.approx(1.5)
    assert row["probability"] == pytest.approx(norm.cdf(np.log(1.5) / both))
    draws = np.random.default_rng(0).normal(size=(2, 400_000)) * sigma
    simulated = 1.5 * np.exp(draws[0] - draws[1])
    assert np.quantile(simulated, [0.05, 0.95]) == pytest.approx(
        [row["low"], row["high"]], rel=0.01
    )
    assert (simulated > 1).mean() == pytest.approx(row["probability"], abs=0.005)


def test_what_does_not_fit_has_no_ratio(points):
    empty = {
        f"{name}{end}": np.nan
        for name in ("duration_s", "energy_J", "power_W")
        for end in ("", "_low", "_high")
    }
    table = points([modelled("t4", 1.0, status="oom", **empty), modelled("rtx-6000-ada", 1.0)])
    assert len(findings.versus(table, "time_s")) == 0
    assert (table["status"] == "oom").sum() == 1, "the row stays"


def test_no_runs_at_all_give_an_empty_table(tmp_path):
    assert len(findings.points(energy.gather_runs(tmp_path))) == 0
    assert len(findings.six_pairs(findings.points(energy.gather_runs(tmp_path)))) == 0


def test_labels_fall_back_to_the_id():
    assert (findings.label("t4"), findings.label("llama-7b"), findings.label("xeon")) == (
        "T4",
        "Llama 2 7B",
        "xeon",
    )
    assert pd.Series(["t4"]).map(findings.label).item() == "T4"
