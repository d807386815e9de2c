"""search: the optimum equals a search by hand on 200 small instances, and limits are named."""

import itertools
import math

import numpy as np
import pytest
import xarray as xr

from footprint import Refused, carbon, decide, spec
from footprint.predict import model

CARDS, ENGINES, BATCHES = ("t4", "rtx-6000-ada"), ("eager", "serving"), (1, 4, 16)
LEVELS = {"": 1.0, "_low": 1.0, "_high": 1.0}


def invented(generator, fits=0.8) -> xr.Dataset:
    """Predictions in the form of `predict.windows` that no physics made, without any spread."""
    labels = {"model": ["llama-1b"], "gpu": list(CARDS), "engine": list(ENGINES)}
    labels |= {"batch": list(BATCHES), "prompt": [128], "output": [101]}
    dims = tuple(labels)
    shape = [len(values) for values in labels.values()]

    def between(low, high):
        return np.exp(generator.uniform(np.log(low), np.log(high), shape))

    values = {"ttft_s": between(0.05, 2), "tpot_s": between(0.01, 0.2)}
    values |= {"prefill_energy_J": between(5, 100), "decode_energy_J": between(50, 5000)}
    data = {name + end: (dims, value) for name, value in values.items() for end in LEVELS}
    data |= {
        "fits": (dims, generator.random(shape) < fits),
        "memory_B": (dims, np.full(shape, 2.0**34)),
    }
    return xr.Dataset(data, labels, {"dtype": "fp16"})


def by_hand(
    windows: xr.Dataset, zone: str, rate: float | None, ttft_s: float, tpot_s: float
) -> dict:
    """All feasible configurations and their grams a token, one after the other."""
    found = {}
    for gpu, engine, batch in itertools.product(CARDS, ENGINES, BATCHES):
        at = windows.sel(model="llama-1b", gpu=gpu, engine=engine, batch=batch).squeeze()
        ttft, tpot = float(at["ttft_s"]), float(at["tpot_s"])
        busy = (ttft + 100 * tpot) / (batch * 101)
        energy = float(at["prefill_energy_J"] + at["decode_energy_J"]) / (batch * 101)
        count, used = 1, 1.0
        if rate is not None:
            count = math.ceil(rate * busy)
            used = rate * busy / count
            ttft += (batch - 1) / 2 * 101 * count / rate
        if not at["fits"] or ttft > ttft_s or tpot > tpot_s:
            continue
        idle = spec.gpu(gpu).idle_W * busy * (1 / used - 1)
        making = carbon.amortised(carbon.embodied(gpu)["total_kg"].item(), busy, utilisation=used)
        found[gpu, engine, batch] = (
            carbon.operational(energy + idle, spec.grid(zone).g_per_kwh) + making,
            count,
        )
    return found


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_the_optimum_is_the_one_of_a_search_by_hand(monkeypatch, count):
    generator = np.random.default_rng(count)
    refused = 0
    for _ in range(count):
        windows = invented(generator)
        monkeypatch.setattr(model, "windows", lambda *_, w=windows, **__: w)
        zone = str(generator.choice(decide.ZONES))
        rate = None if generator.random() < 0.5 else float(np.exp(generator.uniform(0, 8)))
        limits = {
            "ttft_s": float(np.exp(generator.uniform(-4, 2))),
            "tpot_s": float(np.exp(generator.uniform(-4.5, -1.5))),
        }
        expected = by_hand(windows, zone, rate, **limits)
        asked = {"tokens_per_s": rate, "output": 101, "approach": "ACT", "n": 1} | limits
        if not expected:
            refused += 1
            with pytest.raises(Refused, match="No configuration keeps"):
                decide.optimum("llama-1b", zone, CARDS, **asked)
            continue
        rows = decide.optimum("llama-1b", zone, CARDS, **asked)
        best = rows.iloc[0]
        name = min(expected, key=lambda key: expected[key][0])
        assert (best["gpu"], best["engine"], best["batch"]) == name
        assert (best["mean_g"], best["count"]) == pytest.approx(expected[name])
        assert best["least"] == best["card"] == best["meets"] == 1 and len(rows) == len(expected)
    assert 0 < refused < count


def test_real_predictions_are_ranked_with_their_probabilities():
    rows = decide.optimum("llama-7b", ["CA-QC", "PACE"], list(CARDS), batch=[1, 8, 32], n=100)
    for _, here in rows.groupby("zone", sort=False):
        assert here["mean_g"].is_monotonic_increasing and here["least"].sum() == pytest.approx(1)
        assert (here["low_g"] <= here["mean_g"]).all() and (here["mean_g"] <= here["high_g"]).all()
        assert here.groupby("gpu")["card"].first().sum() == pytest.approx(1)
    assert list(dict.fromkeys(rows["zone"])) == ["CA-QC", "PACE"]
    clean, dirty = (rows[rows["zone"] == zone]["mean_g"].min() for zone in ("CA-QC", "PACE"))
    assert clean < dirty


def test_what_nothing_meets_is_refused_by_the_limit_that_binds():
    for limits, words in (
        ({"ttft_s": 1e-6}, "time to first token: the limit is 1e-06 s and the least is"),
        ({"tpot_s": 1e-6}, "time per output token: the limit is 1e-06 s and the least is"),
        ({"tokens_per_s": -1.0}, "tokens_per_s holds -1"),
    ):
        with pytest.raises(Refused, match=words):
            decide.optimum("llama-7b", "CA-QC", "t4", batch=[1, 4], n=2, **limits)
    with pytest.raises(
        Refused, match=r"Nothing fits: memory binds, the smallest configuration takes \d"
    ):
        decide.optimum("llama-7b", "CA-QC", "t4", dtype="fp32", n=2)


def test_both_limits_together_are_named(monkeypatch):
    windows = invented(np.random.default_rng(0), fits=2).sel(
        gpu=["t4"], engine=["eager"], batch=[1, 4]
    )
    windows["ttft_s"][...] = np.array([0.1, 1.0]).reshape(1, 1, 1, 2, 1, 1)
    windows["tpot_s"][...] = np.array([0.2, 0.01]).reshape(1, 1, 1, 2, 1, 1)
    monkeypatch.setattr(model, "windows", lambda *_, **__: windows)
    with pytest.raises(
        Refused, match=r"the time per output token binds, 0.1 s is asked and 0.2 s is the least"
    ):
        decide.optimum("llama-1b", "CA-QC", "t4", ttft_s=0.5, tpot_s=0.1, output=101, n=2)


def test_a_request_a_use_and_a_world_say_the_same_as_their_fields():
    world = decide.draw_world(CARDS, ["CA-QC"], n=50)
    request = decide.Request(prompt=512, batch=[1, 8], engine="serving", tokens_per_s=100.0)
    given = decide.optimum(
        "llama-1b", "CA-QC", CARDS, request=request, use=carbon.Use(pue=1.2), world=world
    )
    fields = {"prompt": 512, "batch": [1, 8], "engine": "serving", "tokens_per_s": 100.0}
    loose = decide.optimum("llama-1b", "CA-QC", CARDS, pue=1.2, n=50, **fields)
    assert given.equals(loose)
    with pytest.raises(Refused, match="no setting 'batches'"):
        decide.optimum("llama-1b", "CA-QC", CARDS, batches=[1])
    with pytest.raises(Refused, match="no samples of FR"):
        decide.optimum("llama-1b", "FR", CARDS, world=world)


def test_an_output_without_a_decode_is_refused():
    with pytest.raises(Refused, match="2 tokens or more are allowed"):
        decide.optimum("llama-1b", "US", output=1)
