"""One run: what is said of it before it starts, and a stop that comes while its kernel starts."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import light_project as light
from footprint import workload
from footprint.sweep import runner


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
