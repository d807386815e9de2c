"""Numbers of the appendices: what a measured GPU changes, and what the paper's matrix costs."""

import shutil
from types import SimpleNamespace

import pytest

import made_runs
from footprint import root, spec, trace
from footprint.chapters import appendices
from footprint.chapters.book import Book

WORKLOAD = {"batches": (1, 4), "prompts": (64,), "output": 32}


def test_a_measured_gpu_stands_beside_the_model_with_what_it_took(tmp_path):
    made_runs.run(tmp_path / "local", "llama-1b", "a10", workload=WORKLOAD)
    book = Book(folder=tmp_path)
    found = appendices.your_gpu(book)
    row = found["changes"].iloc[0]
    assert (row["model"], row["card"], row["points"], row["weights"]) == (
        "TinyLlama 1.1B",
        spec.label("a10"),
        2,
        "random",
    )
    between = made_runs.TIMES * 1.002  # the median of two repeats, 0.4 % apart
    assert row["decode time over modelled"] == pytest.approx(between)
    assert row["decode energy over modelled"] == pytest.approx(between * made_runs.WATTS)
    assert "2 points" in found["changed"] and "beside the two cards" in found["changed"]
    assert book.gpus == ["t4", "rtx-6000-ada", "a10"] and book.length == {
        "prompt": 64,
        "output": 32,
    }


def test_a_measured_point_takes_the_place_of_its_modelled_one_alone(tmp_path):
    made_runs.run(tmp_path / "local", "llama-1b", "t4", workload=WORKLOAD)
    evidence = Book(folder=tmp_path).at()["evidence"].sel(phase="decode")
    assert evidence.sel(model="llama-1b", gpu="t4", batch=[1, 2, 4]).values.tolist() == [
        "measured",
        "modelled",
        "measured",
    ]
    assert set(evidence.sel(model="llama-3b").values.flat) == {"modelled"}


def test_a_gpu_that_was_measured_in_another_dtype_alone_is_modelled_in_it(tmp_path):
    made_runs.run(tmp_path / "local", "llama-1b", "a10", workload=WORKLOAD, dtype="bf16")
    at = Book(folder=tmp_path).at().sel(model="llama-1b", batch=1)
    assert at["dtype"].to_series().to_dict() == {
        "t4": "fp16",
        "rtx-6000-ada": "fp16",
        "a10": "bf16",
    }
    assert at["evidence"].sel(gpu="a10", phase="decode").item() == "measured"


def test_nothing_measured_is_said(tmp_path):
    found = appendices.your_gpu(Book(folder=tmp_path))
    assert found["changes"].empty and "No GPU was measured" in found["changed"]


def test_costs_of_a_matrix_are_added_up():
    run = {"seconds": 1800.0, "memory_GiB": 3.0, "energy_J": 7200.0}
    run |= {"operational_g": 1.0, "embodied_g": 0.5, "misfits": ["batch 64"]}
    costs = {"t4": [SimpleNamespace(**run), SimpleNamespace(**run)]}
    row = appendices.reproduce(None, costs)["costs"].iloc[0]
    assert (row["hours"], row["Wh"], row["g CO2e in California"]) == (1.0, 4.0, 3.0)
    assert row["most memory (GiB)"] == 3.0 and row["points that do not fit"] == "2"


def test_the_page_of_runs_links_pages_of_committed_notebooks_and_names_all_else(tmp_path):
    """Without a warning: it would name a place of the builder on each page."""
    made_runs.run(tmp_path / "local", "llama-1b", "a10", workload=WORKLOAD)
    real = root() / "notebooks" / "runs" / "t4" / "llama-1b-eager-fp16-modelled.ipynb"
    (tmp_path / "runs" / "t4" / ".run-1").mkdir(parents=True)
    for path in (real, real.with_suffix(".nc")):
        shutil.copy(path, tmp_path / "runs" / "t4")
    (tmp_path / "runs" / "t4" / ".run-1" / "x.md").touch()
    (tmp_path / "runs" / "t4" / "note.md").touch()
    (tmp_path / "runs" / "t4" / "bad.nc").write_bytes(b"junk")
    tree = trace.load(next((tmp_path / "local").rglob("*.nc")))
    tree.attrs |= {"engine": "magic", "run_id": "1"}
    trace.save(tree, tmp_path / "local" / "odd.nc")
    n = appendices.runs(Book(folder=tmp_path))
    link = f'<a href="../notebooks/runs/t4/{real.stem}.html">{real.stem}</a>'
    assert n["runs"]["run"].tolist() == [link, "llama-1b-eager-fp16"]
    assert n["left_out"]["not shown"].tolist() == [
        "runs/t4/bad.nc: bad.nc is not a trace in NetCDF (Not a file id (not a file ID)).",
        "runs/t4/note.md is no part of a run; traces (.nc) and their pages (.ipynb) are.",
        "odd.nc cannot be used (engine magic, dtype fp16).",
    ]


def test_each_reading_narrows_the_interval_and_all_of_them_most():
    table = appendices._readings("t4", "rtx-6000-ada").set_index("readings").drop(columns="status")
    assert (table.loc["none"] >= table).all(axis=None) and (table.iloc[-1] <= table).all(axis=None)
    host = table.loc["milliseconds a layer of the host"]
    assert (host < table.loc["none"]).all(), "a time enters the energy too"
