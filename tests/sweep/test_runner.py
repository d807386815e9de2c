"""One run: what is said before it starts, a stop while its kernel starts, a GPU that is lost."""

import getpass
import json
import math
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

import fake_nvml as fake
import light_project as light
from footprint import Refused, digest, root, sweep, trace, workload
from footprint.measure import provenance
from footprint.sweep import cluster, results, runner

PAGE = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


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


def test_a_page_names_no_one(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "node", lambda: "gpu-box-17")
    monkeypatch.setattr(getpass, "getuser", lambda: "adalovelace")
    model = tmp_path / "private" / "model"
    model.mkdir(parents=True)
    told = [
        f"{root()}/lib/x.py",
        f"{sys.prefix}/lib/python",
        f"{Path.home()}/data",
        "gpu-box-17",
        "adalovelace",
        "GPU-01234567-89ab-cdef-0123-456789abcdef",
        str(model),
        f"{tmp_path}/.run-9/run.nc",
    ]
    page = {**PAGE, "cells": [{"cell_type": "code", "outputs": [], "metadata": {}, "source": told}]}
    text = runner.scrub(json.dumps(page), "profile", b"the notebook", str(model))
    for secret in (
        "gpu-box-17",
        "adalovelace",
        "01234567-89ab",
        str(tmp_path),
        str(root()),
        str(Path.home()) + "/",
    ):
        assert secret not in text
    record = json.loads(text)["metadata"]
    assert record["papermill"] == {
        "input_path": "notebooks/profile.ipynb",
        "output_path": f"{results.STEM}.ipynb",
    }
    assert len(record["footprint"]["notebook_sha256"]) == 64
    assert any(item.startswith("xarray==") for item in record["footprint"]["environment"])


def test_a_place_with_spaces_and_letters_names_no_one(monkeypatch, tmp_path):
    place, folder = tmp_path / "a b ü" / "main", tmp_path / "c d é"
    (place / "_toc.yml").parent.mkdir(parents=True)
    (place / "_toc.yml").touch()
    monkeypatch.chdir(place)
    out = str(folder / "results" / ".run-9" / "run.nc")
    told = [out, f"saved {out} now", json.dumps({"out": out}), f"file://{quote(out)}", f"{place}/x"]
    cell = {"cell_type": "code", "outputs": [], "metadata": {}, "source": told}
    page = {**PAGE, "cells": [cell], "metadata": {"papermill": {"parameters": {"out": out}}}}
    for ascii_only in (True, False):
        text = runner.scrub(json.dumps(page, ensure_ascii=ascii_only), "profile", b"")
        for secret in (str(tmp_path), "a b", "c d", "c%20d", ".run-9"):
            assert secret not in text
        assert json.loads(text)["metadata"]["papermill"]["parameters"]["out"] == "THIS-RUN.nc"


def test_a_user_without_a_name_or_a_home_keeps_the_run(monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert json.loads(runner.scrub(json.dumps(PAGE), "predict", b""))["cells"] == []


def test_a_common_name_is_no_secret(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    page = {
        **PAGE,
        "cells": [
            {"cell_type": "code", "outputs": [], "metadata": {}, "source": ["provenance.root()"]}
        ],
    }
    assert "provenance.root()" in runner.scrub(json.dumps(page), "predict", b"")
