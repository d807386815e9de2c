"""The whole chain in real time beside a scripted GPU, through papermill too."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fake_nvml as fake
from footprint import digest, spec, trace, workload
from footprint.energy import window as energy
from footprint.measure import locks, profile, sensor
from footprint.sweep import report

NOTEBOOK = Path(__file__).parents[1] / "notebooks/profile.ipynb"
SMALL = {
    "model": "llama-24m",
    "batches": [1],
    "prompt_tokens": [8],
    "output_tokens": [5],
    "quick": True,
    "warmup_s": 0.0,
}
NEVER = 10**9


@pytest.fixture
def beside(gpu, monkeypatch, tmp_path):
    """Script a GPU as the instrument of a CPU run; returns the moment at which it begins."""
    monkeypatch.setenv("FOOTPRINT_FAKE_GPU", "cuda:0")
    monkeypatch.setattr(sensor, "QUICK_S", 0.5)
    monkeypatch.chdir(tmp_path)

    def script(points, **keys) -> float:
        epoch = time.monotonic()
        gpu(points, epoch=epoch, **keys)
        return epoch

    return script


@pytest.mark.slow
def test_a_run_has_energies_that_hold_the_truth(beside, monkeypatch):
    monkeypatch.setattr(profile, "ORDERS", (("decode",),))  # one phase: this takes real seconds
    points = fake.square(100, 300, 0.37)
    epoch = beside(points, latency=1e-4)
    request = workload.request("profile", **SMALL, window_s=2.05, repeats=1, threads=1)
    _, tree = profile.run(request, lambda line: None)
    data = energy.windows(tree)
    assert tree.attrs["energy_source"] == "nvml_counter" and tree.attrs["device_name"] == "FAKE GPU"
    assert tree.attrs["device"] == "fake-gpu" and set(data["protocol"].values) == {"quick"}
    assert set(data["energy_status"].values) <= {"ok", "disturbed"} and data.sizes["window"] == 3
    ends = zip(data["start_s"].values - epoch, data["stop_s"].values - epoch, strict=True)
    true = np.array([fake.energy(points, start, stop) for start, stop in ends])
    assert ((data["energy_J_low"] <= true) & (true <= data["energy_J_high"])).all()
    assert np.allclose(data["energy_J"] + 200 * data["paused_s"], true, rtol=0.06)
    assert (data["sampler_share"] < 0.1).all() and (data["sampling_rate_hz"] > 5).all()
    (record,) = report.records(trace.frame(trace.labelled(data, tree.attrs, "run.nc")))
    assert record["measurement_method"] == "nvml" and record["prefill_energy_joules"] is None
    assert record["generation_energy_joules"] == pytest.approx(
        (data["energy_J"] / data["iterations"]).values[-1]
    )


@pytest.mark.slow
def test_a_gpu_lost_in_the_middle_ends_the_run_with_everything_kept(beside):
    beside(fake.constant(100), faults=[("temperature", 15, 8, 0.0, NEVER)])
    request = workload.request("profile", **SMALL, window_s=0.1, repeats=4, threads=1)
    _, tree = profile.run(request, lambda line: None)
    states = list(tree["windows"]["status"].values)
    assert tree.attrs["status"] == "gpu_lost" and tree.attrs["reason"]
    assert (
        states[-1] == "gpu_lost"
        and set(states[:-1]) <= {"ok", "disturbed"}
        and 2 < len(states) < 14
    )
    assert np.isnan(energy.windows(tree)["energy_J"]).all(), "0.1 s is too short for any energy"


@pytest.mark.slow
def test_an_error_of_torch_keeps_the_windows_until_then(beside, monkeypatch):
    beside(fake.constant(100))
    real, calls = profile.attempt, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("unspecified launch failure")
        return real(*arguments)

    monkeypatch.setattr(profile, "attempt", failing)
    _, tree = profile.run(
        workload.request("profile", **SMALL, window_s=0.05, repeats=1, threads=1), lambda line: None
    )
    assert tree.attrs["status"] == "failed" and "launch failure" in tree.attrs["reason"]
    assert tree["windows"].sizes["window"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "keys"),
    [
        (fake.square(100, 300, 0.5), {"latency": 0.0024}),
        (fake.square(280, 320, 0.13), {"span": 0.025, "blind": 1}),
        (
            fake.constant(250),
            {
                "gain": 0.95,
                "faults": [("counter", 3, *fake.ALWAYS), ("counter_field", 3, *fake.ALWAYS)],
            },
        ),
    ],
)
def test_papermill_reaches_the_scripted_gpu(beside, tmp_path, points, keys):
    epoch = beside(points, **keys)
    given = {**SMALL, "window_s": 3.0, "repeats": 2, "threads": 1, "out": str(tmp_path / "run.nc")}
    options = [str(part) for name, value in given.items() for part in ("-p", name, value)]
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(NOTEBOOK),
        str(tmp_path / "out.ipynb"),
        *options,
        "--no-progress-bar",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    data = energy.windows(trace.load(tmp_path / "run.nc"))
    ends = zip(data["start_s"].values - epoch, data["stop_s"].values - epoch, strict=True)
    true = np.array([fake.energy(points, start, stop) for start, stop in ends])
    assert set(data["energy_status"].values) <= {"ok", "disturbed"}
    assert ((data["energy_J_low"] <= true) & (true <= data["energy_J_high"])).mean() >= 0.9


REGISTER = """
from footprint import digest, spec, workload
workload.ENGINES["scripted"] = "scripted_engine:Scripted"
"""
ON_GPU = {**SMALL, "device": "cuda:0", "engine": "scripted", "window_s": 0.3, "repeats": 1}


@pytest.fixture
def scripted(gpu, monkeypatch, tmp_path):
    """A GPU that no table knows, and an engine registered in every process from here."""
    gpu(fake.constant(150), epoch=time.monotonic(), tick=0.02)
    (tmp_path / "sitecustomize.py").write_text(REGISTER)
    places = [str(tmp_path), str(Path(__file__).parent), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))


def holds(tree) -> None:
    """The run is one of a GPU, which its hash tells, with peaks of its own."""
    run = tree.attrs
    assert run["status"] == "ok" and run["device"] == "fake-gpu" not in spec.gpus()
    assert run["device_hash"] == digest("GPU-FAKE-0") and run["engine"] == "scripted"
    assert run["energy_source"] == "nvml_counter" and run["read_bandwidth_GBps"] == 700
    data = energy.windows(tree)
    busy = data.isel(window=data["batch"].values > 0)
    assert set(busy["energy_status"].values) <= {"ok", "disturbed", "window_too_short"}


@pytest.mark.slow
def test_papermill_measures_a_gpu_that_no_table_knows(scripted, tmp_path):
    given = {**ON_GPU, "window_s": 2.05, "out": str(tmp_path / "run.nc")}
    options = [str(part) for name, value in given.items() for part in ("-p", name, value)]
    command = ["papermill", str(NOTEBOOK), str(tmp_path / "out.ipynb"), *options]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--no-progress-bar"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    holds(trace.load(tmp_path / "run.nc"))
    assert "FAKE GPU" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.slow
def test_the_command_line_does_too(scripted, tmp_path):
    options = [str(part) for name, value in ON_GPU.items() for part in ("-p", name, value)]
    command = ["footprint", "profile", "--to", str(tmp_path / "runs"), *options]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = (tmp_path / "runs").rglob("*.nc")
    assert path.parent.name == "fake-gpu"
    holds(trace.load(path))


CUDA = """
import sys
if "ipykernel_launcher" in sys.orig_argv:
    import fake_cuda
    from footprint.measure import compiled, probe
    probe.PROBE_BYTES["cuda"], probe.PROBE_SIDE["cuda"] = 2**20, 64
    kept = fake_cuda.entered()
    kept.__enter__()
"""
T4S = {"name": "Tesla T4", "driver": "535.183.01", "cuda": 12020, "uuids": 1, "cards": 2}


@pytest.mark.slow
def test_a_sweep_runs_torch_on_a_t4_from_launcher_to_sampler(scripted, gpu, tmp_path):
    """On a CUDA device that is none: two GPUs, of which one is held and one does the work."""
    gpu(fake.constant(60), epoch=time.monotonic(), tick=0.02, **T4S)
    (tmp_path / "sitecustomize.py").write_text(CUDA)
    given = {**SMALL, "device": "cuda", "engine": "eager", "window_s": 2.05, "repeats": 1}
    options = [str(part) for name, value in given.items() for part in ("-p", name, value)]
    command = ["footprint", "profile", "--to", str(tmp_path / "runs"), *options]
    with locks.alone("cuda:0") as held:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = (tmp_path / "runs").rglob("*.nc")
    tree, page = trace.load(path), next((tmp_path / "runs").rglob("*.ipynb")).read_text()
    run, other = tree.attrs, f"GPU-{0x5CA1AB1E:08x}-9d1c-4b6a-8f20-3c5e7a9b1d42"
    assert path.parent.name == run["device"] == "t4" and run["status"] == "ok"
    assert run["device_hash"] == digest(other) and held != other and other not in page
    assert (run["dtype"], run["compute_capability"], run["driver_cuda"]) == ("fp16", "7.5", "12.2")
    assert run["energy_source"] == "nvml_counter" and run["probe_power_W"] == 60
    data = energy.windows(tree)
    assert set(data["energy_status"].values) <= {"ok", "disturbed"}
    watts = data["energy_J"] / data["duration_s"]
    assert np.allclose(watts[np.isfinite(watts)], 60, rtol=0.05)
