"""What a machine has: this one, one without torch, and one with a GPU."""

import importlib.metadata
import math
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

import fake_nvml as fake
import footprint
from browser import NAMES
from footprint import __main__
from footprint.measure import preflight


def rows():
    return {name: (state, seen, todo) for name, state, seen, todo in preflight.rows()}


def test_every_line_says_ok_or_missing_and_what_to_do(capsys):
    assert __main__.main(["preflight"]) == 0
    out = capsys.readouterr().out
    for name, (state, seen, todo) in rows().items():
        assert name in out and state in ("ok", "missing", "look", "unknown") and seen
        assert (state in ("ok", "unknown")) == (todo == "") and todo in out


def test_it_does_not_import_torch():
    code = "import sys; from footprint.measure import preflight; preflight.rows(); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_machine_without_anything(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", "nowhere")
    monkeypatch.setattr(preflight.sys, "version_info", (3, 9, 1))
    found = rows()
    for name in (
        "Python",
        "torch, transformers",
        "CUDA build",
        "trained weights",
        "compiler",
        "browser",
        "sweep extras",
    ):
        assert found[name][0] == "missing" and found[name][2], name


@pytest.fixture(autouse=True)
def no_trial(monkeypatch):
    """No model is loaded, but where a test asks for it."""
    monkeypatch.setattr(preflight, "trial", lambda: preflight.Check(True, "4 tokens"))


def test_a_machine_with_a_gpu(gpu):
    gpu()
    found = rows()
    assert found["NVIDIA driver"][0] == found["GPUs"][0] == found["energy counter"][0] == "ok"
    assert "FAKE GPU (16 GiB" in found["GPUs"][1] and "not in data/gpus.csv" in found["GPUs"][1]


def test_a_gpu_that_does_not_answer_stands_beside_the_others(gpu):
    gpu(cards=2, faults=[("handle@1", 15, *fake.ALWAYS)])
    state, seen, todo = rows()["GPUs"]
    assert (state, rows()["energy counter"][0]) == ("missing", "ok")
    assert seen.startswith("FAKE GPU (16") and "does not answer (gpu_lost)" in seen
    assert "other GPUs can be measured" in todo
    gpu(faults=[("memory", 4, *fake.ALWAYS)])
    assert "FAKE GPU (unknown memory" in rows()["GPUs"][1]
    gpu(faults=[("init", 9, *fake.ALWAYS)])
    assert all(rows()[name][0] == "missing" for name in ("NVIDIA driver", "GPUs"))


@pytest.mark.parametrize("name", ["cc", "gcc", "clang"])
def test_any_c_compiler_and_any_browser_will_do(monkeypatch, name, tmp_path):
    monkeypatch.setattr(preflight.shutil, "which", lambda asked: asked == name or None)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert rows()["compiler"] == ("ok", name, "") and rows()["browser"][0] == "missing"
    monkeypatch.setattr(preflight.shutil, "which", lambda asked: None)
    monkeypatch.setattr(preflight.provenance, "version", lambda package: "0.17.1")
    (tmp_path / "chromium-1200").mkdir()
    assert rows()["compiler"][1] == "ziglang 0.17.1"
    assert rows()["browser"][1] == "Playwright's chromium-1200"
    assert preflight.BROWSERS == NAMES  # what the tests look for


@pytest.mark.parametrize(
    ("line", "state", "build"),
    [
        ("cuda: Optional[str] = '13.0'\n", "ok", "13.0"),
        ("cuda: Optional[str] = None\n", "missing", ""),
        ("cuda = '12.6'\n", "ok", "12.6"),
    ],
)
def test_the_build_of_torch_is_read_and_not_imported(monkeypatch, tmp_path, line, state, build):
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}")
    place = type("Place", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(preflight.provenance.importlib.util, "find_spec", lambda name: place)
    assert rows()["CUDA build"][0] == state and preflight.provenance.cuda_build() == build


# -- torch, driver and GPU -------------------------------------------------------------------------

OLD, NEW = (
    "TORCH_INDEX=https://download.pytorch.org/whl/cu126",
    "TORCH_INDEX=https://pypi.org/simple",
)
CU13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.mark.parametrize(
    ("build", "served", "capability", "kernels", "said"),
    [
        ("13.0", "12.2", "7.5", CU13, f"serves CUDA 12.2, this torch is .* CUDA 13.0: .*{OLD}"),
        ("13.0", "11.4", "7.5", CU13, r"update the driver \(580 serves CUDA 13\)\.$"),
        ("12.6", "12.2", "7.5", CU126, ""),  # one major version of CUDA is one family
        ("13.0", "13.0", "7.0", CU13, f"no kernels for compute capability 7.0: run make {OLD}"),
        ("13.0", "13.0", "7.0", [], f"no kernels for compute capability 7.0: run make {OLD}"),
        ("12.6", "13.0", "12.0", CU126, f"no kernels for compute capability 12.0: run make {NEW}"),
        ("12.6", "12.6", "7.0", CU126, ""),
        ("13.0", "13.0", "8.9", CU13, ""),  # kernels for 8.6 run on 8.9
        ("13.0", "13.0", "9.0", ["sm_90a"], ""),
        ("13.0", "13.0", "13.0", CU13, ""),  # it compiles what it has for 12.0
        ("13.0", "unknown", "unknown", [], ""),
        ("", "12.2", "7.5", [], ""),  # no CUDA build: said elsewhere
    ],
)
def test_torch_goes_with_driver_and_gpu_or_one_sentence(build, served, capability, kernels, said):
    settings = {"driver_cuda": served, "compute_capability": capability}
    found = preflight.misfit(build, settings, kernels)
    assert re.search(said, found) if said else found == ""
    assert "\n" not in found and found.count(". ") == 0


def test_an_old_driver_is_said_with_the_command_that_mends_it(gpu, monkeypatch):
    gpu(driver="535.183.01", cuda=12020, capability=75)
    monkeypatch.setattr(preflight.provenance, "cuda_build", lambda: "13.0")
    found = rows()
    assert found["NVIDIA driver"] == ("ok", "driver 535.183.01, serves CUDA 12.2", "")
    assert found["CUDA build"][0] == "missing" and OLD in found["CUDA build"][2]
    assert "a few tokens" not in found
    gpu(cuda=13000, capability=70)
    assert "capability 7.0" in rows()["CUDA build"][2]
    gpu(cuda=13000, capability=75)
    assert rows()["CUDA build"][0] == rows()["a few tokens"][0] == "ok"


def test_constraints_pin_no_package_of_cuda():
    """Another build of torch names its own, which they would forbid."""
    lines = (footprint.root() / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if not line.startswith("#")}
    cuda = {name for name in pinned if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert cuda == {"nvidia-ml-py"}  # the bindings, which no build of torch names


def made(tmp_path, *arguments) -> str:
    """What make would do in a finished environment."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("bin/python", ".book", ".profile"):
        (tmp_path / ".venv" / name).touch()
    project = footprint.root()
    options = ["-n", "-f", str(project / "Makefile"), "-C", str(project)]
    command = ["make", *options, f"VENV={tmp_path / '.venv'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_another_index_replaces_torch_once_and_is_kept(tmp_path):
    target = f"{tmp_path}/.venv/.profile"
    assert "install" not in made(tmp_path, target)
    said = made(tmp_path, target, "TORCH_INDEX=https://x/cu126")
    assert "uninstall --quiet" in said and "--extra-index-url https://x/cu126 -c constr" in said
    (tmp_path / ".venv" / ".torch-index").write_text("https://x/cu126\n")
    assert "install" not in made(tmp_path, target)
    assert "install" not in made(tmp_path, target, "TORCH_INDEX=https://x/cu126")
    again = made(tmp_path, target, "TORCH_INDEX=")
    assert "uninstall --quiet" in again and "extra-index" not in again


# -- how a GPU is set up ---------------------------------------------------------------------------


def always(*calls: str) -> dict:
    return {"faults": [(call, 3, *fake.ALWAYS) for call in calls]}


@pytest.mark.parametrize(
    ("script", "name", "row"),
    [
        ({}, "MIG", ("ok", "off", "")),
        ({"mig": 1}, "MIG", ("look", "on", "sudo nvidia-smi -i 00000000:01:00.0 -mig 0")),
        (always("mig"), "MIG", ("unknown", "unknown", "")),
        ({}, "virtualisation", ("ok", "none", "")),
        ({"virtualisation": 1}, "virtualisation", ("ok", "passthrough", "")),
        ({"virtualisation": 2}, "virtualisation", ("look", "vGPU", "use a whole GPU")),
        (always("virtualisation"), "virtualisation", ("unknown", "unknown", "")),
        ({}, "other processes", ("ok", "none", "")),
        ({"pids": {4000000: 0}}, "other processes", ("look", "process 4000000", "shared_gpu")),
        (always("processes"), "other processes", ("unknown", "unknown", "")),
        ({}, "persistence mode", ("ok", "on", "")),
        ({"persistence": 0}, "persistence mode", ("look", "off", "-i 00000000:01:00.0 -pm 1")),
        (always("persistence"), "persistence mode", ("unknown", "unknown", "")),
        ({"ecc": 1}, "ECC", ("ok", "on", "")),
        ({"ecc": 0}, "ECC", ("ok", "off", "")),
        (always("ecc"), "ECC", ("unknown", "unknown", "")),
        ({}, "power limit", ("ok", "400 of 400 W", "")),
        ({"limit": 250}, "power limit", ("look", "250 of 400 W", "-pl 400")),
        (always("usual_limit"), "power limit", ("unknown", "unknown", "")),
        ({"throttle": ("0x1", 0)}, "throttling", ("ok", "idle", "")),
        ({"throttle": ("0x44", 0)}, "throttling", ("look", "power cap, heat (hardware)", "fan")),
        (always("throttle"), "throttling", ("unknown", "unknown", "")),
        ({"used": 0.01}, "free GPU memory", ("ok", "15.5 GiB", "")),
        ({"used": 3}, "free GPU memory", ("look", "12.5 GiB", "Somebody holds memory")),
        (always("memory_v2"), "free GPU memory", ("unknown", "unknown", "")),
        ({}, "MPS", ("ok", "off", "")),
    ],
)
def test_how_a_gpu_is_set_up_is_said_with_what_mends_it(gpu, script, name, row):
    gpu(**{"used": 0.01} | script)
    state, seen, todo = rows()[name]
    assert (state, seen) == row[:2] and row[2] in todo
    assert todo.count("\n") == 0


def test_gpus_that_differ_stand_side_by_side(gpu):
    gpu(cards=2, used=0.01, faults=[("ecc@1", 3, *fake.ALWAYS)])
    found = rows()
    assert found["ECC"] == ("unknown", "unknown; off", "") and found["MIG"] == ("ok", "off", "")


def test_a_process_has_its_name_where_it_is_not_hidden(gpu):
    gpu(pids={os.getpid(): 0})
    assert rows()["other processes"][1] == f"{psutil.Process().name()} ({os.getpid()})"


def test_mps_is_seen_by_its_processes(gpu, monkeypatch):
    gpu()
    server = SimpleNamespace(info={"name": "nvidia-cuda-mps-server"}, name=lambda: "x")
    monkeypatch.setattr(preflight.psutil, "process_iter", lambda names: [server])
    state, seen, todo = rows()["MPS"]
    assert (state, seen) == ("look", "on") and "echo quit | nvidia-cuda-mps-control" in todo


@pytest.mark.parametrize(
    ("files", "memory_B", "cpus"),
    [
        ({}, math.inf, math.inf),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, math.inf, math.inf),
        ({"memory.max": f"{2**33}\n", "cpu.max": "250000 100000\n"}, 2**33, 2.5),
        (
            {
                "memory/memory.limit_in_bytes": str(2**32),
                "cpu/cpu.cfs_quota_us": "50000",
                "cpu/cpu.cfs_period_us": "100000",
            },
            2**32,
            0.5,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf, math.inf),
    ],
)
def test_control_groups_of_both_versions_are_read(tmp_path, files, memory_B, cpus):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert preflight._cgroup(tmp_path) == (memory_B, cpus)


def test_a_container_with_less_than_its_host_is_told(tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000")
    check = preflight.limits(tmp_path)
    assert not check.there and ", 0.5 of " in check.seen
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "memory.max").write_text(str(2**30))
    check = preflight.limits(tmp_path)
    assert not check.there and check.seen.startswith("1 of ")


def test_locks_that_end_at_the_walls_of_a_container_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight.locks, "WALLS", [str(tmp_path)])
    monkeypatch.delenv("FOOTPRINT_LOCKS", raising=False)
    state, seen, todo = rows()["locks"]
    assert (state, seen) == ("look", "seen in this container only") and "FOOTPRINT_LOCKS" in todo
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path))
    assert rows()["locks"] == ("ok", str(tmp_path), "")


# -- a few tokens ----------------------------------------------------------------------------------

REAL_TRIAL = preflight.trial


@pytest.mark.parametrize(
    ("done", "row"),
    [
        ((0, "loading\n4 tokens in 9 ms\n", ""), (True, "4 tokens in 9 ms")),
        (
            (1, "", "Traceback\nRuntimeError: no kernel image\n"),
            (False, "RuntimeError: no kernel image"),
        ),
        ((-9, "", ""), (False, "no answer")),
    ],
)
def test_the_last_words_of_a_trial_are_shown(monkeypatch, done, row):
    ended = SimpleNamespace(returncode=done[0], stdout=done[1], stderr=done[2])
    monkeypatch.setattr(preflight.subprocess, "run", lambda *_, **__: ended)
    assert REAL_TRIAL()[:2] == row


def test_a_trial_that_hangs_ends(monkeypatch):
    def hang(*_, timeout, **__):
        raise subprocess.TimeoutExpired("x", timeout)

    monkeypatch.setattr(preflight.subprocess, "run", hang)
    assert REAL_TRIAL()[:2] == (False, "no answer in 180 s")


def test_a_trial_without_a_gpu_says_so_in_one_sentence(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    check = REAL_TRIAL()
    assert not check.there and check.seen.startswith("There is no NVIDIA driver here")
