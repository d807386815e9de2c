"""Every line of the room that runs on a GPU alone, on a CUDA device that is none."""

import contextlib
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fake_cuda
import fake_nvml as fake
from footprint import Refused, __main__, trace, workload
from footprint.measure import (
    compiled,
    eager,
    instrument,
    locks,
    probe,
    profile,
    sampler,
    sensor,
    window,
)
from footprint.measure import engine as engines

T4 = {"name": "Tesla T4", "driver": "535.183.01", "cuda": 12020, "uuids": 1}
FIRST, SECOND = (f"GPU-5ca1ab1{end}-9d1c-4b6a-8f20-3c5e7a9b1d42" for end in "ef")
SMALL = {"batches": [1], "prompt_tokens": [8], "output_tokens": [4], "repeats": 1}
SMALL |= {"window_s": 0.15, "warmup_s": 0.0, "quick": True, "seed": 1}


@pytest.fixture
def t4(gpu, monkeypatch):
    """A function that scripts a Tesla T4; the probe is a small one, and one thread works."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setitem(probe.PROBE_BYTES, "cuda", 2**20)
    monkeypatch.setitem(probe.PROBE_SIDE, "cuda", 64)
    monkeypatch.setattr(sensor, "values", lambda *_: dict(window.UNKNOWN))  # it takes seconds

    def script(**keys):
        return gpu(fake.constant(60), **T4 | keys)

    script()
    yield script
    torch.set_num_threads(threads)


@pytest.fixture
def cuda():
    """The calls of torch.cuda within a test on a CUDA device."""
    with fake_cuda.entered() as calls:
        yield calls


def asked(**given) -> dict:
    return workload.request("profile", model="llama-24m", **{"device": "cuda:0", **SMALL, **given})


# -- which device ----------------------------------------------------------------------------------


def test_a_gpu_is_found_by_number_and_by_uuid(t4, cuda):
    t4(cards=2)
    found = [probe.find(name) for name in ("cuda", "cuda:0", "cuda:1", SECOND, FIRST)]
    assert found == [torch.device("cuda", number) for number in (0, 0, 1, 0, 1)]


def test_a_gpu_that_torch_does_not_count_is_refused(t4):
    t4(cards=2)
    with fake_cuda.entered(available=False), pytest.raises(Refused, match=r"init\(\)' says why"):
        probe.find("cuda:0")
    with fake_cuda.entered(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(Refused, match=f"torch does not see the GPU {FIRST}; it sees {SECOND}"):
            probe.find(FIRST)


def test_a_sensor_card_is_that_of_the_gpu_that_was_locked(t4, cuda, monkeypatch, tmp_path):
    t4(cards=2)
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path))
    measured = []

    def measure(gpu, load, **_):
        measured.append(gpu.identity().uuid)
        raise Refused("Enough.")

    monkeypatch.setattr(sensor, "measure", measure)
    real = probe.exercise
    monkeypatch.setattr(probe, "exercise", lambda name: (measured.append(name), real(name))[1])
    with locks.alone("cuda:0") as held:
        assert __main__.main(["sensor", "--quick"]) == 2
    assert held == SECOND and measured == [FIRST, FIRST]


@pytest.mark.parametrize("code", [4, 15])
def test_a_forbidden_or_lost_gpu_stops_neither_a_plan_nor_a_healthy_one(t4, cuda, capsys, code):
    t4(cards=3, faults=[("handle@2", code, *fake.ALWAYS)])  # the first one in PCI order
    plan = ["profile", "-p", "model", "llama-24m", "--device", "cuda", "--dry-run"]
    assert __main__.main(plan) == 0 and "llama-24m" in capsys.readouterr().out
    assert [probe.find(name).index for name in ("cuda:0", "cuda:1", FIRST)] == [0, 1, 1]
    assert locks.boards("cuda") == [SECOND, FIRST]
    with pytest.raises(instrument.Lost, match="does not answer"):
        probe.find("cuda:2")


def test_a_build_that_does_not_go_with_driver_or_gpu_is_refused_before_anything_is_loaded(t4):
    new = {"built": "13.0", "archs": ("sm_75", "sm_80")}
    for script, words in (
        ({}, "driver serves CUDA 12.2, this torch is built for CUDA 13.0"),
        ({"cuda": 13000, "capability": 70}, "no kernels for compute capability 7.0"),
    ):
        t4(**script)
        with fake_cuda.entered(**new), pytest.raises(Refused, match=words):
            engines.opened(asked())


def test_a_trial_tells_whether_our_own_process_is_listed(t4, cuda, monkeypatch, tmp_path):
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path))
    said = probe.trial()
    assert said.startswith("4 tokens of 4 sequences in ") and "own id is hidden" in said
    with locks.alone("cuda:0"), pytest.raises(InterruptedError, match="waited for cuda"):
        probe.trial()
    real, listed = eager.Eager.load, {os.getpid(): 0}
    monkeypatch.setattr(eager.Eager, "load", lambda self: (real(self), t4(pids=listed))[0])
    assert "hidden" not in probe.trial()


# -- the engine ------------------------------------------------------------------------------------


@pytest.fixture
def engine(t4, cuda):
    """A small model, loaded onto the device."""
    loaded = eager.Eager(asked())
    loaded.load()
    return loaded


def test_a_model_is_loaded_onto_the_device_in_fp16(engine):
    weights = list(engine.net.parameters())
    assert {weight.device for weight in weights} == {torch.device("cuda", 0)}
    assert {weight.dtype for weight in weights} == {torch.float16} and engine.dtype == "fp16"
    rotary = engine.net.model.rotary_emb
    assert rotary.inv_freq.device.type == "cuda" and torch.isfinite(rotary.inv_freq).all()


def test_each_step_waits_for_the_device(engine, cuda):
    point = {"batch": 2, "prompt_tokens": 8, "output_tokens": 5}
    for phase, steps in (("prefill", 1), ("decode", 4), ("generate", 5)):
        once, before = engine.iteration(phase, point, 0), cuda["synchronize"]
        assert len(once()) == cuda["synchronize"] - before == steps, phase


def test_the_kernel_of_attention_is_named_as_that_of_a_gpu(engine):
    kernels = set(engine.backends.values())
    assert kernels <= {f"{name}, repeated" for name in ("flash", "efficient", "cudnn", "math")}


def test_the_compiled_engine_captures_its_step_and_needs_no_compiler_of_c(t4, cuda, monkeypatch):
    steps, modes = [], []

    def compile_(net, **how):
        modes.append(how)
        return lambda **given: (steps.append(given["input_ids"].shape), net(**given))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setenv("CXX", "no-such-compiler")
    captured = compiled.Compiled(asked(engine="compiled"))
    assert captured.load()["engine"] == "compiled"
    assert modes == [{"mode": "reduce-overhead", "dynamic": False}]
    once = captured.iteration("decode", {"batch": 2, "prompt_tokens": 8, "output_tokens": 5}, 0)
    assert steps == [(2, 1)] * compiled.CALLS and captured.compile_s > 0
    before = cuda["synchronize"]
    assert len(once()) == cuda["synchronize"] - before == 4 and len(steps) == compiled.CALLS + 4
    cached = captured.cache(2, 13).layers[0]
    assert cached.keys.device.type == "cuda"
    ids = captured.prompt_ids(2, 8, 0)
    eagerly, _ = eager.generate(captured.net, ids, 5)
    assert torch.equal(captured._whole(ids, 5)[0], eagerly)


def test_memory_is_that_of_the_device(engine, cuda):
    assert engine.memory_GiB() == 16 and engine.free_bytes() == 15 * 2**30
    engine.reset_peak()
    assert engine.peak_bytes() == fake_cuda.PEAK_B
    assert cuda["empty_cache"] == cuda["reset_peak_memory_stats"] == 1


def test_a_probe_multiplies_for_a_while_and_keeps_clock_and_power(engine, cuda, monkeypatch):
    monkeypatch.setitem(probe.SUSTAINED_S, "cuda", 0.3)
    monkeypatch.setitem(engine.request, "quick", False)
    monkeypatch.setattr(probe, "LAUNCH_S", 0.05)
    before, began = cuda["synchronize"], time.monotonic()
    found = engine.probe()
    assert cuda["synchronize"] - before > 8 + 5 and time.monotonic() - began > 0.35
    assert found["memory_GiB"] == 16 and found["launch_ms"] > 0
    assert found["read_bandwidth_GBps"] > 0 and found["matmul_GFLOPs"] > 0
    assert (found["probe_power_W"], found["probe_sm_clock_MHz"]) == (60, 1500)


def test_of_a_gpu_the_later_half_of_the_products_counts(t4, cuda, monkeypatch):
    gpu, slower_s = instrument.opened("cuda:0"), iter([*[9.0] * 8, 1, 1, 2, 4, 4, *[9.0] * 9])
    monkeypatch.setattr(probe, "_timed", lambda call, device: next(slower_s))
    found = probe.rates(torch.device("cuda", 0), "fp16", gpu)
    assert found["matmul_GFLOPs"] == pytest.approx(2 * 64**3 / 4 / 1e9)


def test_the_load_of_a_sensor_card_fills_half_of_the_free_memory(t4):
    with fake_cuda.entered(free_GiB=2**-10) as cuda:
        load = probe.exercise("cuda:0")
        context, weights = load.context(), load.weights()
        assert (context.shape, context.dtype) == ((64, 64), torch.float16)
        assert weights.nbytes == 2**19 and weights.device == context.device == probe.find("cuda")
        before = cuda["synchronize"]
        load.busy(0.05)
        assert before == 2 and cuda["synchronize"] > before


# -- a run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pids", "said", "others", "status"),
    [
        ({}, "", -1, "ok"),  # a container hides all, us too
        ({"us": 0}, "", 0, "ok"),
        ({"us": 0, 4000000: 0}, "1 other processes compute", 1, "shared_gpu"),
    ],
)
def test_a_run_says_at_once_who_else_is_there(t4, cuda, monkeypatch, pids, said, others, status):
    monkeypatch.setattr(sampler, "sampling", nothing_sampled)
    monkeypatch.setattr(profile, "ORDERS", (("prefill",),))
    real, listed = eager.Eager.load, {us(pid): second for pid, second in pids.items()}
    strangers = {pid: second for pid, second in listed.items() if pid != os.getpid()}
    t4(used=0.1, pids=strangers)
    monkeypatch.setattr(
        eager.Eager, "load", lambda self: (real(self), t4(used=0.1, pids=listed))[0]
    )
    lines = []
    _, tree = profile.run(asked(), lines.append)
    assert lines[0].startswith(said or "loading") and lines[1 if said else 0].startswith("loading")
    rows = trace.frame(tree["windows"].to_dataset())
    assert set(rows["other_processes"][1:]) == {others}
    assert set(rows["status"][1:]) <= {status, "disturbed"}


def us(pid) -> int:
    return os.getpid() if pid == "us" else pid


@contextlib.contextmanager
def nothing_sampled(_, into=None):
    """In place of a process that takes seconds to start."""
    yield SimpleNamespace(columns=sampler.NOTHING, revive=lambda: None)


def test_a_run_on_a_gpu_counts_its_energy(t4, cuda, tmp_path):
    t4(tick=0.01)
    _, tree = profile.run(asked(), lambda line: None)
    run = trace.load(trace.save(tree, tmp_path / "run.nc")).attrs
    assert (run["device"], run["device_name"]) == ("t4", "Tesla T4")
    assert (run["driver"], run["energy_source"]) == ("535.183.01", "nvml_counter")
    assert (run["dtype"], run["weights"], run["memory_GiB"]) == ("fp16", "random", 16)
    told = ("driver_cuda", "compute_capability", "persistence_mode", "ecc", "pcie", "cuda")
    assert [run[name] for name in told] == ["12.2", "7.5", "on", "off", "gen 3 x16", ""]
    assert run["default_power_limit_W"] == 400 and run["memory_used_before_GiB"] == 0.5
    assert abs(run["sync_ms"]) < 100, "on a CPU nothing is waited for"
    assert run["host_cpu"] and run["launch_ms"] > 0 and run["probe_sm_clock_MHz"] == 1500
    assert run["probe_power_W"] == pytest.approx(60, abs=1)
    assert FIRST not in str(run) and len(run["device_hash"]) == 12
    rows = trace.frame(tree["windows"].to_dataset())
    assert list(rows["phase"]) == ["idle_bare", "idle_loaded", *profile.ORDERS[0]]
    assert (rows["peak_memory_B"][2:] == fake_cuda.PEAK_B).all()
    assert run["attention"] == "repeated" and set(rows["attention_backend"][2:]) == {
        "flash, repeated"
    }
    watts = (rows["counter_stop_J"] - rows["counter_start_J"]) / (rows["stop_s"] - rows["start_s"])
    assert np.allclose(watts, 60, rtol=0.1)
    assert set(rows["status"]) <= {"ok", "disturbed"}
