"""An engine is one file and one line in the registry, even on a GPU that no table knows."""

import subprocess
import sys

import numpy as np
import pytest

import scripted_engine
import scripted_instrument
from footprint import Refused, measure, spec, trace, workload
from footprint.energy import window as energy
from footprint.measure import engine, profile, sensor


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A request of a scripted engine on a scripted GPU, both registered for this test."""
    folder = str(scripted_engine.__file__).rpartition("/")[0]
    monkeypatch.setitem(workload.ENGINES, "scripted", scripted_engine.PLACE)
    monkeypatch.setitem(workload.INSTRUMENTS, r"scripted(:\d)?", scripted_instrument.PLACE)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=":")
    monkeypatch.setattr(sensor, "QUICK_S", 0.3)
    monkeypatch.chdir(tmp_path)
    return workload.request(
        engine="scripted",
        device="scripted",
        model="llama-7b",
        batches=[1, 100],
        prompt_tokens=[128],
        output_tokens=[8],
        repeats=1,
        window_s=0.15,
        warmup_s=0.0,
        quick=True,
    )


def test_a_registered_engine_runs_and_is_named_in_the_trace(asked, tmp_path):
    loaded, tree = measure.run(asked, lambda line: None)
    assert isinstance(loaded, scripted_engine.Scripted) and measure.answers(loaded, asked) == []
    run = trace.load(trace.save(tree, tmp_path / "run.nc")).attrs
    assert run["status"] == "ok" and run["engine"] == run["attention"] == "scripted"
    assert run["notebook"] == "profile"
    assert run["device"] == "scripted-accelerator-9000" not in spec.gpus() and run["device_hash"]
    assert run["energy_source"] == "scripted_counter" and run["matmul_GFLOPs"] == 90e3
    rows = trace.frame(tree["windows"].to_dataset())
    assert set(rows[rows["batch"] == 1]["status"]) <= {"ok", "disturbed"}
    assert set(rows[rows["batch"] == 100]["status"]) == {"skipped"}
    assert "are free" in rows[rows["batch"] == 100]["reason"].iloc[0]


@pytest.mark.slow
def test_its_windows_have_energies(asked, monkeypatch):
    monkeypatch.setattr(profile, "ORDERS", (("decode",),))  # one phase: this takes real seconds
    _, tree = measure.run(asked | {"batches": [1], "window_s": 2.05}, lambda line: None)
    data = energy.windows(tree)
    busy = data.isel(window=slice(2, None))
    assert set(busy["phase"].values) == set(profile.ORDERS[0])
    watts = busy["energy_J"] / busy["duration_s"]
    assert np.allclose(watts, scripted_instrument.WATTS, rtol=0.05)


def test_an_engine_that_nobody_registered_is_refused():
    allowed = "allowed is eager or compiled"
    with pytest.raises(Refused, match=f"engine = 'scripted' is refused; {allowed}"):
        workload.request(engine="scripted")


def test_profile_imports_no_engine_before_it_is_asked():
    code = (
        "import sys; from footprint.measure import profile, engine; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("dtype", "device", "model", "chosen"),
    [
        ("auto", "cpu", "llama-24m", "fp32"),
        ("auto", "cpu", "llama-1b", "fp32"),
        ("auto", "cpu", "llama-7b", "bf16"),
        ("auto", "cuda", "llama-1b", "fp16"),
        ("bf16", "cpu", "llama-24m", "bf16"),
    ],
)
def test_auto_dtype(dtype, device, model, chosen):
    assert engine.choose_dtype(dtype, device, spec.model(model), memory_GiB=24) == chosen
