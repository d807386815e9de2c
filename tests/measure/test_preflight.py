"""What a machine has: this one, one without torch, and one with a GPU."""

import importlib.metadata
import subprocess
import sys

import pytest

import fake_nvml as fake
from browser import NAMES
from footprint import __main__
from footprint.measure import preflight


def rows():
    return {name: (state, seen, todo) for name, state, seen, todo in preflight.rows()}


def test_every_line_says_ok_or_missing_and_what_to_do(capsys):
    assert __main__.main(["preflight"]) == 0
    out = capsys.readouterr().out
    for name, (state, seen, todo) in rows().items():
        assert name in out and state in ("ok", "missing") and seen
        assert (state == "ok") == (todo == "") and (state == "ok" or todo in out)


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
    ("line", "state"),
    [("cuda: Optional[str] = '13.0'\n", "ok"), ("cuda: Optional[str] = None\n", "missing")],
)
def test_the_build_of_torch_is_read_and_not_imported(monkeypatch, tmp_path, line, state):
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}")
    place = type("Place", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: place)
    assert rows()["CUDA build"][0] == state
