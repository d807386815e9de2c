"""What a sweep will cost: by hand, and in order of size."""

import math
import time
from pathlib import Path

import numpy as np
import pytest

from footprint import carbon, predict, spec, sweep, workload
from footprint.measure import locks, profile, rapl, window
from footprint.measure.engine import Engine
from footprint.measure.instrument import Clock, NoInstrument, Reading, State
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
    iterations = 3 * 2 + 1  # a lead and a window each, and a warm-up before the first
    windows = iterations * 2 * (ttft + step)  # prefill, decode, and both
    loading = cost.START_S + spec.model("llama-1b").weight_bytes("fp16") / cost.LOAD_BPS
    assert found.seconds == pytest.approx(windows + loading + 2 * 0.01)
    busy = iterations * 2 * (float(at["prefill_energy_J"]) + float(at["decode_energy_J"]))
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


@pytest.mark.parametrize("gpu", spec.gpus())
def test_the_first_matrix_takes_a_quarter_of_an_hour_at_most_on_any_gpu(gpu):
    (found,) = cost.costs(sweep.runs("notebooks/sweep.toml", "first"), GRID, gpu)
    assert 120 < found.seconds < 15 * 60 and not found.misfits


def test_a_forecast_takes_no_longer_for_more_of_the_same():
    """A part of the repeats, of a wide grid and of the drawn lengths stands for all."""
    few = priced(batches=[1, 2], repeats=2, azure=20)
    began = time.process_time()
    many = priced(batches=[1, 2], repeats=100, azure=300)
    wide = priced(batches=list(range(1, 65)), prompt_tokens=list(range(16, 512, 16)))
    assert time.process_time() - began < 5
    assert 100 * few.seconds < many.seconds < 750 * few.seconds
    assert wide.seconds > 64 * 31 * 3 * 3 * 5 * 0.5 and wide.points == 64 * 31


# -- the whole protocol on a virtual clock, beside its forecast ------------------------------------


class Box(NoInstrument):
    """A GPU that warms and cools with a time constant of a minute and a half, and its time."""

    present = True

    def __init__(self):
        self.now_s, self.degrees = 0.0, 35.0

    def spend(self, seconds: float, to_C: float = 35.0) -> None:
        """Let time pass on the way to a temperature."""
        self.now_s += seconds
        self.degrees = to_C + (self.degrees - to_C) * math.exp(-seconds / 90)

    def reader(self):
        return lambda: Reading(70.0)

    def state(self):
        return State(round(self.degrees), 1500.0)


class Predicted(Engine):
    """An engine whose phases take their predicted times, each times a factor, with some noise."""

    def __init__(self, request, box, times, factors, rng):
        super().__init__(request)
        self.box, self.times, self.factors, self.rng = box, times, factors, rng

    def load(self):
        return {}

    probe = load

    def answer(self, prompt, tokens):
        return ""

    def iteration(self, phase, point, seed):
        at = self.times.sel(batch=point["batch"], prompt=point["prompt_tokens"])
        if not at["fits"]:
            raise MemoryError
        steps = [float(at["ttft_s"])] if phase != "decode" else []
        steps += [float(at["tpot_s"])] * (point["output_tokens"] - 1) if phase != "prefill" else []
        steps = [self.factors[phase] * step for step in steps]
        if phase == "decode" and self._prepared is None:
            self.box.spend(float(at["ttft_s"]) * self.factors["prefill"], 75.0)
        self._prepared = None if phase == "generate" else True

        def once():
            self.box.spend(sum(steps) * self.rng.normal(1, 3e-3), 75.0)
            return steps

        return once


def simulated(run, gpu, factors, rng, box):
    """Seconds of a run and the lengths of its windows."""
    request, began = run.request, box.now_s
    clock = Clock(lambda: box.now_s, box.spend, lambda: box.now_s)
    quiet = {"powercap": Path("none"), "cores": lambda: rapl.Cores(0.0, {})}
    setup = window.Setup(box, clock=clock, rng=rng, **quiet)
    axes = {"batch": request["batches"], "prompt": request["prompt_tokens"]}
    times = predict.windows(request["model"], gpu, **axes, output=request["output_tokens"])
    times = times.squeeze(("model", "gpu", "engine", "output"))[["ttft_s", "tpot_s", "fits"]].load()
    engine = Predicted(request, box, times, factors, rng)
    box.spend(cost.START_S)
    rows = [profile.idle("idle_bare", request["window_s"], setup)]
    box.spend(spec.model(request["model"]).weight_bytes("fp16") / cost.LOAD_BPS)
    rows += [profile.idle("idle_loaded", request["window_s"], setup)]
    assert profile.heat(engine, request, setup, lambda line: None)["soak_s"] < window.SOAK_S
    rows += [row for row, _ in profile.measured(engine, request, setup, lambda line: None)]
    ends = [(row["start_s"], row["stop_s"]) for row in rows if "start_s" in row]
    return box.now_s - began, np.diff(ends).ravel()


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("gpu", ["t4", "rtx-6000-ada"])
def test_most_of_the_papers_sweep_is_measured_and_it_takes_what_was_forecast(gpu, seed):
    """The forecast does not know the factors of up to 30 % a phase, nor does it need them."""
    rng, box, runs = (
        np.random.default_rng(seed or 0),
        Box(),
        sweep.runs("notebooks/sweep.toml", "paper"),
    )
    drawn = rng.uniform(0.7, 1.3, 3) if seed is not None else np.ones(3)
    factors = dict(zip(("prefill", "decode", "generate"), drawn, strict=True))
    found = [simulated(run, gpu, factors, rng, box) for run in runs]
    total_s, lengths = sum(seconds for seconds, _ in found), np.concatenate([w for _, w in found])
    assert lengths.min() >= 5 and lengths.sum() >= 0.75 * total_s and total_s <= 1.5 * 3600
    forecast_s = sum(found.seconds for found in cost.costs(runs, GRID, gpu))
    assert forecast_s == pytest.approx(total_s, rel=0.15 if factors["prefill"] != 1 else 0.03)
    assert min(run.request["repeats"] for run in runs) >= 3
