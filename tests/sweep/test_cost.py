"""What a sweep will cost: by hand, and in order of size."""

import math

import pytest

from footprint import carbon, predict, spec, sweep, workload
from footprint.measure import locks
from footprint.sweep import cost
from footprint.sweep.runner import Run

GRID = spec.grid("CA-QC")


def run(kind="profile", **parameters):
    return Run(kind, workload.request(kind, **parameters))


def priced(card="t4", **parameters):
    (found,) = cost.costs([run(device="cuda:0", dtype="fp16", **parameters)], GRID, card)
    return found


def test_one_point_by_hand():
    found = priced(
        model="llama-1b",
        batches=[1],
        prompt_tokens=[128],
        output_tokens=[2],
        repeats=3,
        quick=True,
        window_s=0.01,
        warmup_s=0,
    )
    at = predict.windows("llama-1b", "t4", batch=1, prompt=128, output=2).squeeze()
    ttft, step = float(at["ttft_s"]), float(at["tpot_s"])
    windows = (3 + cost.WARM) * 2 * (
        ttft + step
    ) + 3 * ttft  # prefill, decode, both; decode needs its cache first
    loading = cost.START_S + spec.model("llama-1b").weight_bytes("fp16") / cost.LOAD_BPS
    assert found.seconds == pytest.approx(windows + loading + 2 * 0.01)
    busy = (3 + cost.WARM) * 2 * (
        float(at["prefill_energy_J"]) + float(at["decode_energy_J"])
    ) + 3 * float(at["prefill_energy_J"])
    assert found.energy_J == pytest.approx(
        busy + (loading + 0.02) * spec.gpu("t4").idle_W, rel=1e-6
    )
    assert found.operational_g == pytest.approx(carbon.operational(found.energy_J, GRID.g_per_kwh))
    assert 0 < found.embodied_g < 1 and found.points == 1 and found.misfits == ()


def test_what_cannot_fit_is_what_the_model_says():
    found = priced(model="llama-7b", batches=[1, 64], prompt_tokens=[512], output_tokens=[128])
    assert found.points == 2 and len(found.misfits) == 1
    assert found.misfits[0].startswith("batch 64, prompt 512, output 128 (")
    assert found.memory_GiB < 16


def test_more_work_costs_more():
    small, repeats, windows = priced(repeats=1), priced(repeats=5), priced(repeats=1, window_s=20)
    assert small.seconds < repeats.seconds and small.seconds < windows.seconds
    assert small.energy_J < windows.energy_J


def test_the_energy_of_a_processor_is_unknown_and_not_zero():
    (found,) = cost.costs([run(model="llama-24m", device="cpu")], GRID)
    assert math.isnan(found.energy_J) and math.isnan(found.operational_g)
    assert "no instrument" in found.note
    assert 5 < found.seconds < 1000 and 0 < found.memory_GiB < 4


def test_a_modelled_run_takes_a_moment():
    (found,) = cost.costs([run("predict", model="llama-7b", gpu="t4")], GRID)
    assert found.seconds == cost.MODELLED_S and math.isnan(found.energy_J) and found.points == 14
    assert len(found.misfits) > 3


def test_an_unknown_card_or_model_is_a_note(monkeypatch):
    (nobody,) = cost.costs([run(device="cuda:0")], GRID)
    assert math.isnan(nobody.seconds) and "--card" in nobody.note
    monkeypatch.setattr(locks, "name", lambda device: "voodoo-2")
    (strange,) = cost.costs([run(device="cuda:0")], GRID)
    assert "voodoo-2" in strange.note and "--card" in strange.note
    (hub,) = cost.costs([run(device="cpu", model="someone/something")], GRID)
    assert math.isnan(hub.seconds) and "someone/something" in hub.note


def test_every_shipped_matrix_has_a_forecast():
    for name in ("paper", "full", "modelled"):
        costs = cost.costs(sweep.runs("notebooks/sweep.toml", name), GRID, "a100-80gb-sxm")
        assert all(found.seconds > 0 for found in costs)
