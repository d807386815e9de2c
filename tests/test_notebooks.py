"""Both templates, run by papermill; bad parameters stop them at once, with one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from footprint import predict, trace, workload

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "window_s": 0.05,
    "warmup_s": 0.0,
    "repeats": 1,
    "batches": "[1]",
    "prompt_tokens": "[8]",
    "output_tokens": "[4]",
}


def papermill(template: str, folder: Path, **parameters) -> subprocess.CompletedProcess:
    options = [str(part) for name, value in parameters.items() for part in ("-p", name, value)]
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(NOTEBOOKS / f"{template}.ipynb"),
        str(folder / "out.ipynb"),
        *options,
    ]
    return subprocess.run(
        [*command, "--no-progress-bar"], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("template", ["profile", "predict"])
def test_the_first_cell_is_the_contract(template):
    book = nbformat.read(NOTEBOOKS / f"{template}.ipynb", as_version=4)
    nbformat.validate(book)
    (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert "else results.save(" in book.cells[5].source, "what is finished is not overwritten"
    lines = cell.source.splitlines()
    assert all(": " in line and " = " in line and "  # " in line for line in lines), (
        "one a line, with type and comment"
    )
    space: dict = {}
    exec(cell.source, {}, space)
    space.pop("__annotations__")
    assert space == workload.request(template), "the notebook's defaults are the library's"
    assert all(not cell.get("outputs") for cell in book.cells), (
        "a template is committed without outputs"
    )


@pytest.mark.slow
def test_profile_leaves_a_notebook_and_a_trace(tmp_path):
    done = papermill("profile", tmp_path, model="llama-24m", device="cpu", out="run.nc", **SMALL)
    assert done.returncode == 0, done.stderr[-2000:]
    tree = trace.load(tmp_path / "run.nc")
    assert tree.attrs["status"] == "ok" and tree.attrs["model"] == "llama-24m"
    assert json.loads(tree.attrs["request"])["batches"] == [1]
    text = (tmp_path / "out.ipynb").read_text()
    assert "vl-chart" in text and "No power was sampled" in text and "say nothing" in text


def test_predict_leaves_a_notebook_and_a_trace_beside_that_of_another_request(tmp_path):
    other = predict.trace(workload.request("predict", model="llama-1b", gpu="rtx-6000-ada", seed=1))
    earlier = trace.save(other, trace.place(other, tmp_path / "notebooks" / "local"))
    before = earlier.read_bytes()
    done = papermill("predict", tmp_path, model="llama-1b", gpu="rtx-6000-ada", batches="[1, 4]")
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = {*tmp_path.rglob("*.nc")} - {earlier}
    assert path.name.startswith("llama-1b-eager-fp16-modelled-")
    assert path.parent == earlier.parent and earlier.read_bytes() == before
    tree = trace.load(path)
    assert tree.attrs["kind"] == "modelled" and tree["windows"].sizes["window"] == 2 * 2 * 3


@pytest.mark.parametrize(
    ("template", "name", "value", "said"),
    [
        ("profile", "modle", "x", "modle"),
        ("profile", "device", "tpu", "tpu"),
        ("profile", "batches", "[0]", "batches"),
        ("predict", "gpu", "t5", "t5"),
    ],
)
def test_bad_parameters_stop_it_at_once(tmp_path, template, name, value, said):
    done = papermill(template, tmp_path, **{name: value})
    assert done.returncode != 0
    refused = [line for line in done.stderr.splitlines() if line.startswith("Refused: ")]
    assert len(set(refused)) == 1 and said in refused[0]
    assert not list(tmp_path.rglob("*.nc"))
    assert (
        "Traceback"
        not in (tmp_path / "out.ipynb").read_text().split("Refused: ")[0].split("outputs")[-1]
    )
