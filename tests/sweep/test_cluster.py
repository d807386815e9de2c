"""Dask: a real scheduler and workers, a worker that dies, and a machine without Dask."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

import light_project as light
from footprint import Refused, digest, sweep, trace
from footprint.sweep import cluster, runner

pytest.importorskip("distributed")
NVML = '''
"""Two cards for tests: just enough of NVIDIA's bindings."""
class NVMLError(Exception): pass
class NVMLError_LibraryNotFound(NVMLError): pass
nvmlInit = lambda: None
nvmlDeviceGetCount = lambda: 2
nvmlDeviceGetHandleByIndex = lambda index: index
class Place:
    def __init__(self, card): self.busId = f"0000:0{card}:00.0"
nvmlDeviceGetPciInfo = Place
nvmlDeviceGetUUID = lambda card: f"GPU-0000000{card}-0000-0000-0000-000000000000"
nvmlDeviceGetName = lambda card: "FAKE card"
nvmlSystemGetDriverVersion = lambda: "1.0"
nvmlSystemGetCudaDriverVersion_v2 = lambda: 13000
def _none(*_): raise NVMLError("Not Supported")
nvmlDeviceGetMigMode = nvmlDeviceGetVirtualizationMode = nvmlDeviceGetTotalEnergyConsumption = _none
nvmlDeviceGetCurrentClocksEventReasons = _none
'''


REAL = """
[[m]]
notebook = "profile"
model = "llama-24m"
each = { seed = [1, 2, 3, 4] }
quick = true
window_s = 0.05
warmup_s = 0
batches = [1]
prompt_tokens = [8]
output_tokens = [4]
repeats = 1
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A light project, locks of its own, and a machine with two fake cards."""
    monkeypatch.chdir(light.project(tmp_path / "project"))
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pynvml.py").write_text(NVML)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("LIGHT_S", "0.3")
    monkeypatch.setenv(
        "DASK_DISTRIBUTED__DIAGNOSTICS__NVML", "False"
    )  # Dask would ask the fake for more than it has
    return tmp_path / "project"


@pytest.fixture
def scheduler(place):
    """Address of a scheduler in a process of its own, and a function that starts workers for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []

    def start(*command, **environ):
        command = [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen(
            command, cwd=place, env={**os.environ, **environ}, start_new_session=True, **silent
        )
        started.append(child)
        return child

    address = f"tcp://127.0.0.1:{port}"
    start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    options = ("--nthreads", "1", "--resources", "GPU=1", "--no-dashboard")
    yield address, lambda **environ: start("dask_worker", address, *options, **environ)
    for child in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def runs(place, each: str, device: str = "cuda"):
    light.matrix(
        place / "sweep.toml",
        f'[[m]]\nnotebook = "profile"\ndevice = "{device}"\neach = {{ {each} }}',
    )
    return sweep.runs(place / "sweep.toml", "m")


def spans(folder):
    """Start and end of the runs on each GPU, by the hash of the GPU, from the pages."""
    found = {}
    for name in trace.names(folder):
        page = json.loads((folder / name).with_suffix(".ipynb").read_text())["metadata"][
            "papermill"
        ]
        ends = tuple(datetime.fromisoformat(page[key]) for key in ("start_time", "end_time"))
        found.setdefault(trace.head(folder / name)["device_hash"], []).append(ends)
    return found


def alone_on_each(folder):
    """The cards that did the runs; no two runs were on one at a time."""
    found = spans(folder)
    for ends in found.values():
        ordered = sorted(ends)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(ordered))
    return found


@pytest.mark.slow
def test_two_workers_do_each_run_on_one_card_of_two(place, scheduler):
    address, worker = scheduler
    worker(), worker()
    outcomes = sweep.run(runs(place, "seed = [1, 2, 3, 4, 5, 6]"), place / "out", scheduler=address)
    assert [outcome["status"] for outcome in outcomes] == ["ok"] * 6
    found = alone_on_each(place / "out")
    assert len(found) == 2 and sum(len(ends) for ends in found.values()) == 6
    assert {outcome["device"] for outcome in outcomes} == set(found)
    again = sweep.run(runs(place, "seed = [1, 2, 3]"), place / "out", scheduler=address)
    assert {outcome["reason"] for outcome in again} == {"Already there."}


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(place, scheduler):
    address, worker = scheduler
    children = [worker(), worker()]
    heard = []

    def tell(event, run=None, **facts):
        heard.append(event)
        if heard.count("end") == 1 and children[0].poll() is None:
            os.killpg(children[0].pid, signal.SIGKILL)

    asked = runs(place, "seed = [1, 2, 3, 669, 5, 6]")
    outcomes = sweep.run(asked, place / "out", tell, tries=1, scheduler=address)
    assert [outcome["status"] for outcome in outcomes] == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert outcomes[3]["reason"] == "ValueError: nonsense."
    assert len(light.pairs(place / "out")) == 5 and not list((place / "out").glob(".run-*"))
    alone_on_each(place / "out")


@pytest.mark.slow
def test_the_real_notebook_on_two_workers_beside_a_card_each(place, scheduler, gpu, monkeypatch):
    gpu(cards=2)
    monkeypatch.delenv("PYTHONPATH")
    address, worker = scheduler
    for card in ("cuda:0", "cuda:1"):
        worker(FOOTPRINT_FAKE_GPU=card)
    shutil.copy(Path(__file__).parents[2] / "notebooks" / "profile.ipynb", place / "notebooks")
    light.matrix(place / "sweep.toml", REAL)
    outcomes = sweep.run(sweep.runs(place / "sweep.toml", "m"), place / "out", scheduler=address)
    assert [outcome["status"] for outcome in outcomes] == ["ok"] * 4
    found = alone_on_each(place / "out")
    assert found.keys() == {digest(f"GPU-FAKE-{card}") for card in (0, 1)}
    assert {outcome["device"] for outcome in outcomes} == set(found)
    assert all(outcome["joules"] > 0 for outcome in outcomes)
    threads = {trace.head(place / "out" / name)["threads"] for name in trace.names(place / "out")}
    assert threads == {os.cpu_count()} or os.environ.get("OMP_NUM_THREADS")


@pytest.mark.slow
def test_several_cards_of_one_machine_share_the_runs(place, monkeypatch):
    command = [
        sys.executable,
        "-m",
        "footprint",
        "sweep",
        "sweep.toml",
        "--matrix",
        "m",
        "--to",
        "out",
    ]
    runs(place, "seed = [1, 2, 3, 4]")
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(alone_on_each(place / "out")) == 2
    runs(place, 'seed = [7, 8], device = ["cuda:0", "cuda:1"]')
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and len(light.pairs(place / "out")) == 8, done.stdout + done.stderr


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_the_runs_and_not_the_workers(place):
    runs(place, "seed = [667, 677, 1, 2]")
    light_s = {**os.environ, "LIGHT_S": "2"}
    command = [
        sys.executable,
        "-m",
        "footprint",
        "sweep",
        "sweep.toml",
        "--matrix",
        "m",
        "--to",
        "out",
    ]
    child = subprocess.Popen(
        command,
        cwd=place,
        env=light_s,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while "doing" not in (line := child.stdout.readline()):
        assert line
    time.sleep(4)
    os.killpg(child.pid, signal.SIGINT)
    said = child.communicate(timeout=60)[0]
    assert child.returncode == 1 and "interrupted" in said and "Traceback" not in said, said


def test_threads_are_as_they_were_before_dask(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "16")
    monkeypatch.setenv("PYTHONHASHSEED", "6640")
    found = cluster.environment()
    assert "OMP_NUM_THREADS" not in found and "PYTHONHASHSEED" not in found
    assert found["MKL_NUM_THREADS"] == "16"


def test_no_scheduler_is_said_in_one_sentence(place, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with (
        pytest.raises(Refused, match="no Dask scheduler at tcp"),
        cluster.connected("tcp://127.0.0.1:1", {}),
    ):
        pass


def test_without_dask_one_sentence_says_how_to_get_it(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = []
    assert not cluster.available(lambda event, **facts: said.append(facts["line"]))
    assert "pip install 'footprint[sweep]'" in said[0]
    with (
        pytest.raises(Refused, match=r"pip install 'footprint\[sweep\]'"),
        cluster.connected("tcp://127.0.0.1:1", {}),
    ):
        pass


def test_a_worker_forgets_an_earlier_stop():
    runner.STOP["asked"] = 2
    cluster._forget_stop()
    assert runner.STOP["asked"] == 0
