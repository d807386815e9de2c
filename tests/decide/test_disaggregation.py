"""Disaggregation: all pairs by hand, the move of the cache in closed form, named limits."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from footprint import Refused, carbon, decide, spec
from footprint.decide.disaggregation import PHASES, Link, disaggregate, gpu_pairs

CARDS = ["t4", "l4", "rtx-6000-ada"]
WORLD = decide.draw_world(CARDS, ["CA-QC"], n=40)


def phases(model, gpus=CARDS, world=WORLD, **options) -> xr.Dataset:
    """The phases of a request on some GPUs; options of the request, the link or the function."""
    asked = {"prompt": 512, "output": 64, "engine": "serving"}
    link = Link(**{name[5:]: options.pop(name) for name in list(options) if name[:5] == "link_"})
    method = options.pop("method", carbon.MAIN)
    request = decide.Request(**asked | options)
    return disaggregate(model, request, world, gpus=gpus, link=link, method=method)


def parts(total, held=0.0, link=0.0) -> xr.Dataset:
    """Made-up costs: total (phase, gpu, batch, sample) in one zone; held alike for all."""
    total = np.asarray(total, dtype=float)
    labels = {
        "phase": list(PHASES),
        "gpu": list("abc")[: total.shape[1]],
        "batch": list(range(1, total.shape[2] + 1)),
    }
    grams = xr.DataArray(
        total[None], {"zone": ["here"]} | labels, ["zone", "phase", "gpu", "batch", "sample"]
    )
    move = xr.full_like(grams.isel(phase=0, batch=0, drop=True), held)
    return xr.Dataset({"total_g": grams, "held_g": move, "link_g": ("zone", [link])})


GRAMS = st.lists(st.one_of(st.integers(1, 9), st.none()), min_size=2 * 3 * 2, max_size=2 * 3 * 2)


@settings(deadline=None, max_examples=40)
@given(GRAMS, st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_every_pair_is_the_one_of_a_search_by_hand(grams, held, link, hidden):
    total = np.array([np.nan if value is None else value for value in grams]).reshape(2, 3, 2, 1)
    found = gpu_pairs(parts(total, held, link), hidden).set_index(["prefill", "decode"])
    expected = {}
    for (i, a), (j, b) in itertools.product(enumerate("abc"), repeat=2):
        move = 0 if a == b else link + 2 * held * (not hidden)
        tried = [
            total[0, i, x, 0] + total[1, j, y, 0] + move
            for x, y in itertools.product(range(2), repeat=2)
        ]
        if np.isfinite(tried).any():
            expected[a, b] = np.nanmin(tried)
    assert found["mean_g"].to_dict() == expected
    assert found["mean_g"].is_monotonic_increasing
    for (a, b), row in found.iterrows():
        alone = [expected[card, card] for card in (a, b) if (card, card) in expected]
        saved = 1 - row["mean_g"] / min(alone) if alone else np.nan
        assert row["saving"] == pytest.approx(saved, nan_ok=True)
        assert row["probability"] == pytest.approx(
            float(saved > 0) if alone else np.nan, nan_ok=True
        )


def test_the_move_is_charged_to_both_gpus_and_to_the_network():
    found = phases("llama-7b", method="ACT", link_GBps=10, link_W=40)
    seconds = 2 * 32 * 4096 * 2 * 512 / 10e9
    assert float(found["move_s"]) == pytest.approx(seconds)
    grid = WORLD["g_per_kwh"].sel(zone="CA-QC").values
    assert found["link_g"].sel(zone="CA-QC").values == pytest.approx(
        40 * seconds / 3.6e6 * grid / 64
    )
    making = carbon.embodied("t4")["total_kg"].item() * 1000 * seconds / (5 * 365.25 * 86400)
    held = (spec.gpu("t4").idle_W * seconds / 3.6e6 * grid + making) / 64
    assert found["held_g"].sel(zone="CA-QC", gpu="t4").values == pytest.approx(held)


def test_one_gpu_in_one_batch_is_what_the_optimum_of_a_single_pool_says():
    single = decide.optimum(
        "llama-1b", "CA-QC", CARDS, batch=[8], prompt=512, output=64, engine="serving", n=40
    )
    both = gpu_pairs(phases("llama-1b", batch=[8]))
    alone = both[both["prefill"] == both["decode"]].set_index("prefill")
    assert alone["mean_g"].to_dict() == pytest.approx(single.set_index("gpu")["mean_g"].to_dict())
    assert (alone["saving"] == 0).all() and (alone["probability"] == 0).all()


def test_more_gpus_and_more_batches_are_never_worse_and_limits_never_better():
    def least(cards, **options):
        return gpu_pairs(phases("llama-3b", cards, **options))["mean_g"].min()

    assert least(CARDS) <= least(CARDS[:2]) <= least(CARDS[:1])
    assert least(CARDS, batch=[1, 8]) <= least(CARDS, batch=[1])
    assert least(CARDS) <= least(CARDS, ttft_s=0.5, tpot_s=0.05)
    shown = phases("llama-3b")
    assert (
        gpu_pairs(shown, hidden=True)["mean_g"].values <= gpu_pairs(shown)["mean_g"].values
    ).all()


def test_a_gpu_for_prefill_alone_keeps_no_room_for_answers():
    long = phases("llama-3b", ["t4"], batch=[1, 8, 16], output=1500)["total_g"]
    fits = long.isel(zone=0, gpu=0, sample=0, drop=True).notnull()
    assert fits.sel(phase="prefill").sum() > fits.sel(phase="decode").sum() > 0


def test_a_phase_that_no_gpu_serves_is_refused_by_the_limit_that_binds():
    for options, words in (
        ({"ttft_s": 1e-6}, "serves the prefill of llama-7b: the limit on its time binds"),
        ({"tpot_s": 1e-6}, "serves the decode of llama-7b: the limit on its time binds"),
        (
            {"ttft_s": 60.0, "link_GBps": 1e-3},
            "serves the prefill of llama-7b: the limit on its time binds",
        ),
        ({"dtype": "fp32"}, "serves the prefill of llama-7b: memory binds"),
        ({"link_GBps": 0.0}, "link_GBps holds 0"),
    ):
        with pytest.raises(Refused, match=words):
            phases("llama-7b", ["t4"], **options)
