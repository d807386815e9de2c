"""One run: what is said before it starts, a stop while its kernel starts, a GPU that is lost."""

import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import fake_nvml as fake
import light_project as light
from footprint import Refused, digest, sweep, trace, workload
from footprint.measure import provenance
from footprint.sweep import cluster, runner


@pytest.fixture
def stop():
    """A function that stops the runs of this process; nothing stays asked for."""
    yield runner.stop
    runner.STOP["asked"] = 0


def test_a_stop_before_the_start_is_said(tmp_path, stop):
    run = runner.Run("profile", workload.request("profile"))
    stop()
    assert runner.attempt(run, tmp_path, print)["status"] == "interrupted"


@pytest.mark.slow
def test_no_locale_ends_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(light.project(tmp_path / "project"))
    light.matrix(Path("m.toml"), '[[m]]\nnotebook = "profile"\nseed = 671\n')
    environ = {**os.environ, "FOOTPRINT_LOCKS": str(tmp_path / "locks")}
    environ |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "footprint", "sweep", "m.toml", "--matrix", "m", "--to", "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0 and "gr\\xfcn \\u7eff" in done.stdout, done.stdout + done.stderr
    ((_, page),) = light.pairs(Path("out")).values()
    assert "grün 绿" in page.decode()


@pytest.mark.parametrize("after_s", [0, 0.4])
def test_a_stop_while_the_kernel_starts_is_not_lost(tmp_path, monkeypatch, stop, after_s):
    monkeypatch.chdir(light.project(tmp_path / "project"))
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))
    request = workload.request("profile", seed=667, model="llama-24m")  # sleeps an hour
    (scratch := tmp_path / "scratch").mkdir()
    ended = []
    attempt = threading.Thread(
        target=lambda: ended.append(runner.attempt(runner.Run("profile", request), scratch, print))
    )
    attempt.start()
    while not any(map(runner._is_kernel, [p for c in runner.RUNNING for p in runner._family(c)])):
        time.sleep(0.01)
    time.sleep(after_s)
    stop()
    attempt.join(60)
    late = attempt.is_alive()
    stop()  # once more ends it at once
    attempt.join(60)
    assert not late and ended[0]["status"] == "interrupted"
    assert ended[0]["reason"] == "Stopped by the keyboard."


def test_a_gpu_lost_in_a_sweep_ends_its_own_runs_and_no_others(tmp_path, monkeypatch, gpu):
    monkeypatch.chdir(light.project(tmp_path / "project"))
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(cluster, "available", lambda tell: False)  # in this process, in order
    gpu(cards=2)  # `cuda:0` is NVML's card 1

    def execute(run, template, scratch, say, environ, uuid=""):
        asked = provenance.asked(run.request)
        trace.save(light.seed(request=asked, device_hash=digest(uuid)), scratch / "run.nc")
        (scratch / "run.ipynb").write_text("{}")
        if run.request["seed"] == 1:
            gpu(cards=2, faults=[("all@1", 15, *fake.ALWAYS)])  # while the first run is under way
        return runner.outcome("ok", "")

    monkeypatch.setattr(runner, "_execute", execute)
    runs = [
        runner.Run("profile", workload.request("profile", device=device, seed=seed))
        for seed, device in ((1, "cuda:0"), (2, "cuda:0"), (3, "cuda:1"), (4, "cuda"))
    ]
    outcomes = sweep.run(runs, tmp_path / "out")
    assert [ended["status"] for ended in outcomes] == ["ok", "gpu_lost", "ok", "ok"], outcomes
    assert "gpu_lost" in outcomes[1]["reason"] and len(light.pairs(tmp_path / "out")) == 3
    assert [ended["device"] for ended in outcomes[2:]] == [digest("GPU-FAKE-0")] * 2
    assert math.isnan(outcomes[0]["joules"]) and outcomes[2]["joules"] > 0


def test_a_sweep_starts_beside_a_gpu_that_is_already_lost(tmp_path, monkeypatch, gpu):
    monkeypatch.chdir(light.project(tmp_path / "project"))
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(cluster, "available", lambda tell: False)
    monkeypatch.setattr(runner, "_execute", lambda *_: runner.outcome("failed", "Tried."))
    gpu(cards=2, faults=[("handle@0", 15, *fake.ALWAYS)])
    requests = [workload.request("profile", device=f"cuda:{number}") for number in range(2)]
    outcomes = sweep.run([runner.Run("profile", one) for one in requests], tmp_path / "out")
    assert [ended["status"] for ended in outcomes] == ["failed", "gpu_lost"]
    with pytest.raises(Refused, match="no GPU 'cuda:2'"):
        sweep.run([runner.Run("profile", workload.request(device="cuda:2"))], tmp_path / "out")
