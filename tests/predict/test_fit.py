"""The fit finds what made the data, the committed numbers are its own, and marks are met."""

import numpy as np
import pandas as pd
import pytest

from footprint import predict, spec
from footprint.predict import fit, intervals, roofline

JUDGED = list(intervals.LEVELS)
MARKS = {
    "ttft_s": (0.12, 0.13, 0.25),
    "tpot_s": (0.10, 0.10, 0.25),
    "energy_J": (0.20, 0.17, 0.35),
    "power_W": (0.15, 0.10, 0.20),
}


@pytest.fixture(scope="module")
def rows():
    table = fit.measurements()
    return table[table["quantity"] != "memory_GiB"]


@pytest.fixture(scope="module")
def crossed():
    """The committed cross-validation, 16-bit rows that have an interval."""
    table = spec.frame("cross_validation")
    return table[table["quantity"].isin(JUDGED) & table["dtype"].isin(("fp16", "bf16"))]


def test_every_row_names_a_known_model_gpu_engine_and_source():
    rows = fit.measurements()
    assert set(rows["gpu"]) | set(rows["model"]) - {"-"} <= set(spec.known())
    assert set(rows["engine"]) <= {*roofline.Engine.__members__, "kernels"} and set(
        rows["dtype"]
    ) <= set(roofline.Dtype.__members__)
    taken = pd.concat([rows["source"], spec.frame("gemm")["source"]]).value_counts()
    assert taken.to_dict() == {
        row["id"]: int(row["rows"]) for row in spec.table("measurement_sources")
    }
    assert (rows["value"] > 0).all() and (rows["batch"] >= 1).all()
    units = rows.groupby("quantity")["unit"].unique().map(list).to_dict()
    assert units == {
        "ttft_s": ["s"],
        "tpot_s": ["s"],
        "e2e_s": ["s"],
        "power_W": ["W"],
        "energy_J": ["J"],
        "memory_GiB": ["GiB"],
        "layer_matrices_s": ["s"],
        "matmul_TFLOPs": ["TFLOP/s"],
        "copy_GBps": ["GB/s"],
    }
    drained = rows[rows["drain_pct"] != 0]
    assert set(drained["source"]) <= {"watt-counts"} and (drained["drain_pct"] > 0).all()


@pytest.fixture
def drained():
    """The rows of the source that served a queue until it was empty."""
    rows = fit.measurements()
    return rows[rows["source"] == "watt-counts"]


def test_the_drained_queues_are_all_there_as_published(drained):
    assert drained["quantity"].value_counts().to_dict() == {
        "tpot_s": 72,
        "energy_J": 42,
        "power_W": 42,
    }
    assert drained["gpu"].value_counts().to_dict() == {
        "t4": 34,
        "l40s": 23,
        "a30": 22,
        "v100-32gb": 21,
        "l4": 19,
        "a100-40gb-sxm": 16,
        "h100-nvl": 15,
        "h200-sxm": 6,
    }
    half = drained["gpu"].isin(("t4", "v100-32gb")).map({True: "fp16", False: "bf16"})
    assert drained["dtype"].eq(half).all() and drained["batch"].isin((1, 256)).all()
    assert set(drained["engine"] + " " + drained["software"]) == {"serving vLLM"}
    assert set(drained["status"] + " " + drained["licence"]) == {"published Apache-2.0"}
    source = next(row for row in spec.table("measurement_sources") if row["id"] == "watt-counts")
    assert (source["url"].split()[0], source["licence"]) == (source["source"], "Apache-2.0")


# gpu, model, batch, output, quantity, value as printed, factor to our unit, drain
PRINTED = [
    ("t4", "nemotron-mini-4b", 256, 55.1, "energy_J", 0.0512821, 256 * 55.1, 47),
    ("t4", "nemotron-mini-4b", 256, 55.1, "power_W", 68.107, 1, 0),
    ("t4", "nemotron-mini-4b", 256, 55.1, "tpot_s", 0.193686, 1, 47),
    ("t4", "falcon3-3b", 256, 89.8, "tpot_s", 0.129937, 1, 26),
    ("t4", "phi-2", 1, 220.2, "tpot_s", 0.0252032, 1, 0),
    ("t4", "qwen2.5-1.5b", 256, 250.9, "energy_J", 0.0146994, 256 * 250.9, 2),
    ("l4", "qwen2.5-0.5b", 1, 211.9, "tpot_s", 0.00481117, 1, 0),
    ("a30", "mistral-7b", 256, 177.0, "energy_J", 0.0428467, 256 * 177, 9),
    ("v100-32gb", "granite-3.0-8b", 256, 157.4, "energy_J", 0.131718, 256 * 157.4, 11),
    ("a100-40gb-sxm", "solar-10.7b", 256, 125.1, "power_W", 386.713, 1, 0),
    ("l40s", "qwen3-14b", 256, 246.4, "tpot_s", 0.0669115, 1, 2),
    ("h100-nvl", "phi-3-medium", 256, 209.6, "energy_J", 0.0344495, 256 * 209.6, 6),
    ("h200-sxm", "mistral-small-22b", 256, 142.1, "power_W", 664.255, 1, 0),
    ("h200-sxm", "deepseek-llm-7b", 1, 170.5, "tpot_s", 0.00445711, 1, 0),
]


@pytest.mark.parametrize("row", PRINTED, ids=lambda row: "-".join(map(str, row[:5])))
def test_a_drained_queue_has_the_values_of_its_source(drained, row):
    *place, printed, factor, drain = row
    names = ["gpu", "model", "batch", "output_tokens", "quantity"]
    mine = drained[(drained[names] == place).all(axis=1)]
    assert mine["value"].item() == pytest.approx(printed * factor, rel=5e-6)
    assert mine["drain_pct"].item() == drain


def test_joules_of_a_drained_queue_are_its_watts_times_its_seconds(drained):
    """Three rows of one run: the energy of the batch, the mean power, the time of a token."""
    full = drained[drained["batch"] == 256]
    run = full.pivot(index=["gpu", "model", "output_tokens"], columns="quantity", values="value")
    assert len(run) == 42 and run.notna().all(axis=None)
    seconds = run["tpot_s"] * run.index.get_level_values("output_tokens")
    assert run["energy_J"].to_numpy() == pytest.approx(run["power_W"] * seconds, rel=0.01)
    drains = full.pivot(
        index=["gpu", "model", "output_tokens"], columns="quantity", values="drain_pct"
    )
    assert (drains["power_W"] == 0).all() and drains["energy_J"].equals(drains["tpot_s"])
    assert drains["tpot_s"].between(2, 47).all()
    assert (drained.loc[drained["batch"] == 1, "drain_pct"] == 0).all()


def test_a_queue_is_whole_requests_and_its_thin_end(drained):
    """A tpot of a queue is a share of whole requests, prefill included, times its draining."""
    p, mine = predict.parameters(), drained[drained["load"] == "queue"]
    as_batch = mine.assign(load="batch")
    whole_s = fit.expected(p, as_batch.assign(quantity="e2e_s"))["value"]
    expected = fit.expected(p, mine)["value"]
    factor = 1 + mine["drain_pct"] / 100
    times, energies = (mine["quantity"] == name for name in ("tpot_s", "energy_J"))
    per_token = (factor * whole_s / mine["output_tokens"])[times]
    assert expected[times].to_numpy() == pytest.approx(per_token.to_numpy())
    plain = fit.expected(p, as_batch.assign(drain_pct=0.0))["value"]
    assert expected[energies].to_numpy() == pytest.approx((factor * plain)[energies].to_numpy())
    assert (mine["batch"] == 256).all() and (fit.measurements()["load"] == "queue").sum() == len(
        mine
    )


def test_a_fold_hides_the_die_and_the_sources_of_its_gpu(rows):
    folds = {rows.loc[inside, "gpu"].iloc[0]: unseen for inside, unseen in fit._folds(rows, "both")}
    assert set(folds) == set(rows["gpu"])
    hidden, seen = (rows[mask] for mask in (folds["l40s"](rows), ~folds["l40s"](rows)))
    same_die = {"l40s", "rtx-6000-ada", "rtx-4090"}
    assert same_die <= set(hidden["gpu"]) and not same_die & set(seen["gpu"])
    sources = set(rows.loc[rows["gpu"] == "l40s", "source"])
    assert sources and not sources & set(seen["source"]) and len(seen) > len(rows) / 2
    gemm = spec.frame("gemm").assign(model="-")
    assert set(gemm.loc[~folds["l40s"](gemm), "gpu"]) == {"a100-80gb-sxm", "h100-80gb-sxm"}


def test_shapes_have_the_published_number_of_weights():
    published = {
        "mistral-7b": 7.242,
        "qwen2-7b": 7.616,
        "qwen2.5-32b": 32.764,
        "gemma-2-9b": 9.242,
        "phi-3-medium": 13.96,
        "llama-13b": 13.016,
        "mistral-small-22b": 22.247,
        "qwen1.5-1.8b": 1.837,
        "qwen2.5-0.5b": 0.49403,
        "qwen3-14b": 14.7683,
        "falcon3-3b": 3.2277,
        "yi-1.5-6b": 6.0610,
        "yi-1.5-9b": 8.8294,
        "solar-10.7b": 10.7315,
        "deepseek-llm-7b": 6.9104,
    }
    for name, billions in published.items():
        assert spec.known()[name].parameters / 1e9 == pytest.approx(billions, rel=2e-4)
    rounded = {
        "nemotron-mini-4b": 4.19,
        "llama-3.1-minitron-4b-width": 4.51,
        "mistral-nemo-minitron-8b": 8.41,
        "granite-3.0-2b": 2.53,
        "granite-3.0-8b": 8.17,
        "phi-2": 2.78,
    }
    for name, billions in rounded.items():
        assert round(spec.known()[name].parameters / 1e9, 2) == billions


def test_no_row_is_below_what_the_gpu_can_do(rows):
    steps = rows[(rows["quantity"] == "tpot_s") & rows["dtype"].eq("fp16")]
    for row in steps.drop_duplicates(["gpu", "model"]).to_dict("records"):
        model, gpu = spec.known()[row["model"]], spec.known()[row["gpu"]]
        assert row["value"] > 2 * model.layers * model.layer_parameters / (gpu.bandwidth_GBps * 1e9)


def test_the_fit_finds_the_parameters_that_made_the_data(rows):
    p, prior = predict.parameters(), fit.priors(*fit.FITTED)
    rng = np.random.default_rng(1)
    truth = np.log([p[name] for name in prior.index]) + 0.1 * rng.standard_normal(len(prior))
    known = p | dict(zip(prior.index, np.exp(truth), strict=True))
    made = rows.assign(
        value=fit.expected(known, rows)["value"] * np.exp(0.02 * rng.standard_normal(len(rows)))
    )
    products = spec.frame("gemm")
    noise = np.exp(0.02 * rng.standard_normal(len(products)))
    products = products.assign(us=fit.products_us(known, products) * noise)
    found, error = fit.fit(made, p, products=products)
    pinned = error < 0.1
    assert pinned.sum() > len(prior) / 3
    assert (
        np.abs(found - truth)[pinned].max() < 0.2
        and np.median(np.abs(found - truth)[pinned]) < 0.04
    )


def test_the_committed_parameters_are_the_fit_of_the_committed_table(rows):
    p, prior = predict.parameters(), fit.priors(*fit.FITTED)
    assert {**p, **fit.idle()} == pytest.approx(p, rel=1e-4)
    memory = fit.memory(p, fit.measurements())
    assert memory == pytest.approx({name: p[name] for name in memory}, rel=0.01)
    committed = np.log([p[name] for name in prior.index])
    found, _ = fit.fit(rows, p, committed)
    assert np.abs(found - committed).max() < 0.01


def test_a_left_out_gpu_comes_out_as_committed(rows, crossed):
    p, prior = predict.parameters(), fit.priors(*fit.FITTED)
    start = np.log([p[name] for name in prior.index])
    found = fit.fit(rows[rows["gpu"] != "rtx-6000-ada"], p, start)[0]
    own = p | dict(zip(prior.index, np.exp(found), strict=True))
    mine = rows[(rows["gpu"] == "rtx-6000-ada") & rows["dtype"].eq("fp16")]
    kept = crossed[crossed["gpu"] == "rtx-6000-ada"]
    assert kept["value"].to_numpy() == pytest.approx(mine["value"].to_numpy(), rel=1e-3)
    assert kept["gpu_expected"].to_numpy() == pytest.approx(
        fit.expected(own, mine)["value"].to_numpy(), rel=0.01
    )


def test_the_fitted_column_is_what_the_model_expects(crossed, rows):
    mine = rows[rows["quantity"].isin(JUDGED) & rows["dtype"].isin(("fp16", "bf16"))]
    expected = fit.expected(predict.parameters(), mine)["value"].to_numpy()
    assert crossed["fitted"].to_numpy() == pytest.approx(expected, rel=2e-3)


def test_predict_expects_what_the_calibration_expects(rows):
    """The same configuration through the public function and through the table of measurements."""
    p = predict.parameters()
    for quantity, name in (("ttft_s", "ttft_s"), ("tpot_s", "tpot_s")):
        mine = rows[
            (rows["quantity"] == quantity) & rows["dtype"].eq("fp16") & rows["load"].eq("batch")
        ]
        today = (mine["engine"] != "serving") | mine["source"].isin(fit.RECENT)
        mine = mine[today & (mine["software"] != "llama.cpp main")].drop_duplicates(
            ["gpu", "model", "engine"]
        )
        values = fit.expected(p, mine)["value"].to_numpy()
        for row, value in zip(mine.to_dict("records"), values, strict=True):
            model, gpu = spec.known()[row["model"]], spec.known()[row["gpu"]]
            one = predict.windows(
                model,
                gpu,
                batch=row["batch"],
                prompt=row["prompt_tokens"],
                output=row["output_tokens"],
                engine=row["engine"],
            )[name].item()
            assert one == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("quantity", MARKS)
def test_the_marks_are_met_on_left_out_gpus_and_models(crossed, quantity):
    best, mean, worst = MARKS[quantity]
    mine = crossed[crossed["quantity"] == quantity]
    for split in ("gpu", "model"):
        off = (mine[f"{split}_expected"] / mine["value"] - 1).abs()
        assert off.median() <= best and off.quantile(0.9) <= worst
        assert off.groupby(mine["gpu"]).median().mean() <= mean


def test_the_intervals_cover_what_they_promise(crossed):
    inside = crossed["value"].between(crossed["gpu_low"], crossed["gpu_high"])
    assert 0.85 <= inside.mean() <= 0.97
    cells = inside.groupby([crossed[name] for name in ("gpu", "measured_by", "quantity")]).mean()
    assert 0.85 <= cells.mean() <= 0.95
    assert cells.groupby("quantity").mean().min() >= 0.75, "that of energy"
    by_gpu = inside.groupby(crossed["gpu"]).mean()
    assert (by_gpu < 0.75).mean() <= 0.25


def test_the_quantile_is_the_weighted_one():
    values = np.random.default_rng(0).standard_normal(999)
    assert intervals.covering(values, np.ones(999)) == intervals.covering(values)
    assert intervals.covering(values) == pytest.approx(np.quantile(values, 0.9), abs=0.01)
    assert intervals.covering(np.array([3.0, 1.0, 2.0]), np.array([0.05, 0.9, 0.05])) == 1.0


def test_a_level_covers_residuals_drawn_with_the_fitted_deviations(rows):
    """The spreads that made residuals are found again, and 90 % of new residuals lie inside."""
    p, prior = predict.parameters(), fit.priors("spread")
    mine = rows[rows["quantity"].isin(JUDGED) & rows["dtype"].eq("fp16")]
    mine = mine.join(fit.expected(p, mine).drop(columns="value"))
    rng = np.random.default_rng(5)
    draws = [intervals.deviations(p, mine) * rng.standard_normal(len(mine)) for _ in range(2)]
    own = p | intervals.fit(p, mine.assign(off=draws[0]), prior)
    level = intervals.levels(own, mine.assign(off=draws[0]))
    half = (
        intervals.deviations(own, mine)
        * mine["quantity"].map(intervals.LEVELS).map(level).to_numpy()
    )
    assert (np.abs(draws[1]) <= half).mean() == pytest.approx(0.9, abs=0.04)
    assert np.median(
        intervals.deviations(own, mine) / intervals.deviations(p, mine)
    ) == pytest.approx(1, abs=0.2)
