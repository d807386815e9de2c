"""Numbers of the pages that compare two GPUs follow by hand from points that are made up."""

from types import SimpleNamespace

import numpy as np
import pytest

from footprint import spec
from footprint.chapters import comparison
from footprint.trace import build_points

MODELS, GPUS, BATCHES = ("llama-1b", "llama-7b"), ("t4", "rtx-6000-ada"), (1, 64)
AXES = {"model": MODELS, "gpu": GPUS, "engine": ("eager", "serving"), "batch": BATCHES}
AXES |= {"prompt": (128,), "output": (101,)}
SHAPE = tuple(len(labels) for labels in AXES.values())


@pytest.fixture
def book():
    """Prefill takes 1 s, decode 10 s on the T4, half on the other, a quarter when serving."""
    seconds = np.ones((*SHAPE, 2)) * [1.0, 10.0]
    seconds[:, 1] /= 2
    seconds[:, :, 1] /= 4
    watts = np.array([50.0, 100.0])[:, None, None, None, None, None]
    sd = {f"{name}_{end}_sd": 0.1 for name in ("time_s", "energy_J") for end in ("low", "high")}
    values = {"time_s": seconds, "energy_J": seconds * watts, "idle_W": 10.0, **sd}
    labels = {"evidence": "modelled", "status": "ok", "dtype": "fp16", "weights": "trained"}
    points = build_points(AXES, {**values, **labels, "place": "predicted"})
    length = {"prompt": 128, "output": 101}
    return SimpleNamespace(
        points=points,
        length=length,
        old="t4",
        new="rtx-6000-ada",
        gpus=list(GPUS),
        at=lambda engine="eager": points.sel(engine=engine, **length),
    )


def test_a_ratio_is_of_the_first_to_the_second_with_both_errors(book):
    rows = comparison.ratios(book.at(), "time_s", "t4", "rtx-6000-ada")
    assert len(rows) == 8 and (rows["ratio"] == 2).all() and set(rows["evidence"]) == {"modelled"}
    reach = 1.6448536 * np.hypot(0.1, 0.1)
    assert np.log(rows["high"] / rows["ratio"]).to_numpy() == pytest.approx(reach)


def test_each_other_gpu_is_compared_with_the_newer_one(book):
    assert set(comparison._against_the_newer(book, "time_s")["over"]) == {"t4"}


def test_a_step_is_a_part_of_the_decode_and_a_token_a_part_of_the_batch(book):
    steps = comparison._per_step(book.at()).sel(gpu="t4", batch=64)["time_s"]
    assert steps.sel(phase="decode").values == pytest.approx(0.1)
    assert steps.sel(phase="prefill").values == pytest.approx(1.0)
    joules = comparison._per_token(book.points).sel(gpu="t4", engine="eager", batch=64)["energy_J"]
    assert joules.sel(phase="decode").values == pytest.approx(500 / 6400)
    assert joules.sel(phase="prefill").values == pytest.approx(50 / (64 * 128))


def test_the_bound_is_the_weights_over_the_bandwidth(book):
    row = comparison._bounds(comparison._per_step(book.at()).sel(batch=1)).iloc[0]
    weights = spec.model("llama-1b").streamed_parameters * 2
    assert row["TPOT bound (ms)"] == pytest.approx(weights / spec.gpu("t4").bandwidth_GBps / 1e6)
    assert row["TPOT over bound"] == pytest.approx(100 / row["TPOT bound (ms)"])


def test_a_gpu_that_no_table_knows_has_no_bound_and_no_cap(book):
    unknown = book.points.assign_coords(gpu=["my-gpu", "rtx-6000-ada"])
    at = unknown.sel(engine="eager", **book.length)
    assert set(comparison._bounds(comparison._per_step(at).sel(batch=1))["card"]) == {
        "RTX 6000 Ada"
    }
    joules = comparison._per_token(unknown).sel(engine="eager", **book.length)
    cap = comparison._beside_the_cap(at, joules).set_index("card")["cap (W)"]
    assert np.isnan(cap["my-gpu"]).all() and (cap["RTX 6000 Ada"] == 300).all()


def test_power_stands_beside_the_cap(book):
    joules = comparison._per_token(book.points).sel(engine="eager", **book.length)
    row = comparison._beside_the_cap(book.at(), joules).iloc[0]
    assert row["power (W)"] == 50 and row["share of the cap"] == pytest.approx(50 / 70)
    assert row["at the cap (J)"] == pytest.approx(7.0) and row["J a token"] == pytest.approx(5.0)
    assert row["low"] < row["J a token"] < row["high"]


def test_engines_stand_side_by_side_and_mixed_evidence_is_said(book):
    points = book.points.sel(phase="decode", **book.length)
    table = comparison._by_engine(points, points["time_s"], "s")
    assert list(table)[2:6] == [
        f"{engine}, batch {batch} (s)" for batch in BATCHES for engine in ("eager", "serving")
    ]
    assert table.loc[0, "eager, batch 1 (s)"] == 10 and table.loc[0, "serving, batch 1 (s)"] == 2.5
    assert set(table["status"]) == {"modelled"}
    one = {"model": "llama-1b", "gpu": "t4", "engine": "eager", "batch": 1}
    points["evidence"].loc[one] = "measured"
    assert comparison._by_engine(points, points["time_s"], "s").loc[0, "status"] == "mixed"


def test_what_is_left_beside_the_weights_is_shared_by_tokens():
    room = comparison._room("llama-7b", "t4")
    assert room["free_GiB"] == pytest.approx(room["usable_GiB"] - room["weights_GiB"])
    assert room["tokens"] == pytest.approx(room["free_GiB"] * 1024 / room["token_MiB"])
    assert room["sequences"] == int(room["tokens"] / room["length"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("t4", "rtx-6000-ada", "watts of the T4 alone"),
        ("t4", "l4", "watts of both cards"),
        ("rtx-6000-ada", "a40", "watts of neither card"),
    ],
)
def test_whose_watts_the_model_was_fitted_to_is_said(old, new, said):
    assert said in comparison._energies_modelled(SimpleNamespace(old=old, new=new))
