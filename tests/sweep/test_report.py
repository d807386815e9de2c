"""A folder for others: a crate that a reader of crates accepts, flat tables, and nothing that names this machine."""

import hashlib
import importlib.util
import json

import pandas as pd
import pytest

import light_project as light
from footprint import Refused, workload
from footprint.energy import window as energy
from footprint.predict import model as predict
from footprint.sweep import events as ledger
from footprint.sweep import report, results
from footprint.trace import file as trace

pytest.importorskip("rocrate")


@pytest.fixture
def folder(tmp_path):
    """A measured run as a sweep leaves it, a modelled one without a page, and a log."""
    page = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    scratch = tmp_path / ".run-1"
    scratch.mkdir()
    (scratch / "run.ipynb").write_text(results.scrub(json.dumps(page), "profile", b"notebook"))
    trace.save(
        light.seed(model="llama-24m", start_utc="2026-11-22T20:00:00+00:00"), scratch / "run.nc"
    )
    results.settle(scratch, tmp_path)
    trace.save(
        predict.run(workload.request("predict", batches=[1], prompt_tokens=[64])),
        tmp_path / "t4" / "m-modelled.nc",
    )
    ledger.note(tmp_path, "sweep", runs=2)
    return tmp_path


def test_the_crate_says_what_made_what(folder):
    from rocrate.rocrate import ROCrate

    files = report.write(folder)
    assert [path.name for path in files] == [
        "windows.csv",
        "windows.parquet",
        "croissant.json",
        "ro-crate-metadata.json",
    ]
    crate = ROCrate(str(folder))
    actions = crate.get_by_type("CreateAction")
    assert len(actions) == 2 and all(
        action["actionStatus"].endswith("CompletedActionStatus") for action in actions
    )
    (measured,) = [action for action in actions if "llama-24m" in action["name"]]
    assert {item.id for item in measured["result"]} == {
        "box/llama-24m-eager-fp32.nc",
        "box/llama-24m-eager-fp32.ipynb",
    }
    assert measured["instrument"]["sha256"] == hashlib.sha256(b"notebook").hexdigest()
    assert any(
        item.startswith("numpy==") for item in measured["instrument"]["softwareRequirements"]
    )
    assert crate.dereference(".sweep/events.jsonl") and crate.root_dataset[
        "datePublished"
    ].startswith("2026-11-22")
    for entity in crate.get_by_type("File"):
        assert entity["sha256"] == hashlib.sha256((folder / entity.id).read_bytes()).hexdigest()


def test_the_tables_hold_every_window_with_its_energy(folder):
    report.write(folder)
    expected = energy.gather(folder)
    for table in (pd.read_csv(folder / "windows.csv"), pd.read_parquet(folder / "windows.parquet")):
        assert len(table) == expected.sizes["window"] and {
            "energy_J",
            "energy_status",
            "model",
            "phase",
        } <= set(table)
        assert set(table["file"]) == {"box/llama-24m-eager-fp32.nc", "t4/m-modelled.nc"}
        assert table["energy_J"].sum() == pytest.approx(float(expected["energy_J"].sum()))


def test_twice_is_the_same(folder):
    report.write(folder)
    first = (folder / "windows.csv").read_bytes()
    report.write(folder)
    assert (folder / "windows.csv").read_bytes() == first


def test_what_is_missing_is_said_in_one_sentence(folder, tmp_path_factory, monkeypatch):
    with pytest.raises(Refused, match="no trace"):
        report.write(tmp_path_factory.mktemp("empty"))
    real, said = importlib.util.find_spec, []
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else real(name)
    )
    assert [path.name for path in report.write(folder, said.append)] == [
        "windows.csv",
        "croissant.json",
        "ro-crate-metadata.json",
    ]
    assert said == ["no Parquet: pip install 'footprint[sweep]'"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"pip install 'footprint\[sweep\]'"):
        report.write(folder)


def test_a_folder_is_checked_before_it_is_sent(folder, monkeypatch):
    assert report.check(folder) == ["t4/m-modelled.nc has no executed notebook beside it."]
    trace.save(
        light.seed(status="interrupted", reason="Stopped.", run_id="9"), folder / "box" / "half.nc"
    )
    (folder / "box" / "half.ipynb").write_text('{"path": "/home/ada/x"}')
    (folder / "box" / "bad.nc").write_bytes(b"bad")
    monkeypatch.setattr(report, "MOST_MB", 0.01)
    faults = report.check(folder)
    assert any(fault.startswith("bad.nc is not a trace") for fault in faults)
    assert "box/half.nc is not finished: interrupted. Stopped." in faults
    assert any("names a place" in fault and "/home/ada" in fault for fault in faults)
    assert any("are allowed for all runs together" in fault for fault in faults)
    assert report.check(folder / "nowhere") == ["There is no trace in it."]
