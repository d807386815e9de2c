"""A folder for others: an RO-Crate, flat tables, and nothing that names this machine."""

import errno
import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import light_project as light
from footprint import Refused, predict, root, trace, workload
from footprint.energy import window as energy
from footprint.sweep import report, results, runner
from footprint.trace.schema import ATTRS

pytest.importorskip("rocrate")
mlc = pytest.importorskip("mlcroissant")
pytestmark = pytest.mark.filterwarnings(
    "ignore:ConjunctiveGraph:DeprecationWarning"
)  # of mlcroissant's reader
TEMPLATE = (Path(__file__).parents[2] / "notebooks" / "profile.ipynb").read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A measured run as a sweep leaves it, a modelled one without a page, and a log."""
    whole = tmp_path_factory.mktemp("made")
    scratch = whole / ".run-1"
    scratch.mkdir()
    (scratch / "run.ipynb").write_text(runner.scrub(TEMPLATE.decode(), "profile", TEMPLATE))
    trace.save(
        light.seed(model="llama-24m", start_utc="2026-11-22T20:00:00+00:00"), scratch / "run.nc"
    )
    results.settle(scratch, whole)
    shutil.rmtree(scratch)
    trace.save(
        predict.trace(workload.request("predict", batches=[1], prompt_tokens=[64])),
        whole / "t4" / "m-modelled.nc",
    )
    results.note(whole, "sweep", runs=2)
    return whole


@pytest.fixture
def folder(made, tmp_path):
    """That folder, for one test to change."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


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
    assert len(actions) == 2
    assert all(action["actionStatus"].endswith("CompletedActionStatus") for action in actions)
    (measured,) = [action for action in actions if "llama-24m" in action["name"]]
    assert {item.id for item in measured["result"]} == {
        "box/llama-24m-eager-fp32.nc",
        "box/llama-24m-eager-fp32.ipynb",
    }
    assert measured["instrument"]["sha256"] == hashlib.sha256(TEMPLATE).hexdigest()
    packages = measured["instrument"]["softwareRequirements"]
    assert any(package.startswith("numpy==") for package in packages)
    assert crate.dereference(".sweep/events.jsonl")
    assert crate.root_dataset["datePublished"].startswith("2026-11-22")
    for entity in crate.get_by_type("File"):
        assert entity["sha256"] == hashlib.sha256((folder / entity.id).read_bytes()).hexdigest()


def test_the_tables_hold_every_window_with_its_energy(folder):
    report.write(folder)
    expected = energy.gather(folder)
    for table in (pd.read_csv(folder / "windows.csv"), pd.read_parquet(folder / "windows.parquet")):
        assert len(table) == expected.sizes["window"]
        assert {"energy_J", "energy_status", "model", "phase"} <= set(table)
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
    text = (folder / "box" / "llama-24m-eager-fp32.ipynb").read_text()
    page = text.replace('"outputs": []', '"outputs": ["/home/ada/x"]', 1)
    (folder / "box" / "half.ipynb").write_text(page)
    monkeypatch.setattr(report, "MOST_MB", 0.01)
    faults = report.check(folder)
    assert "box/half.nc is not finished: interrupted. Stopped." in faults
    assert any("names a place" in fault and "/home/ada" in fault for fault in faults)
    assert any("are allowed for all runs together" in fault for fault in faults)
    assert report.check(folder / "nowhere") == ["There is no trace in it."]


DAMAGED = {
    "empty": b"",
    "cut": b'{"cells": [], "metad',
    "no text": b"\xff\xfe\x00",
    "no object": b"[1, 2]",
    "no metadata": b"{}",
    "odd metadata": b'{"metadata": 3}',
    "odd record": b'{"metadata": {"footprint": [1]}}',
    "odd hash": b'{"metadata": {"footprint": {"notebook_sha256": 5}}}',
    "odd packages": b'{"metadata": {"footprint": {"environment": [NaN]}}}',
    "half a letter": b'{"metadata": {"footprint": {"git_commit": "\\ud800"}}}',
    "deep": b"[" * 100_000,
    "digits": b'{"metadata": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_page_is_named_and_left_out(folder, content):
    (folder / "t4" / "m-modelled.ipynb").write_bytes(content)
    report.write(folder)
    crate = (folder / "ro-crate-metadata.json").read_text("utf-8")
    assert "t4/m-modelled.nc" in crate and "m-modelled.ipynb" not in crate
    said = "m-modelled.ipynb is no executed notebook of this project."
    assert report.check(folder) == [f"t4/m-modelled.ipynb: {said}"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_page_or_a_log_that_is_no_file_is_left_out(folder, tmp_path_factory, kind):
    secret = tmp_path_factory.mktemp("else") / "secret"
    secret.write_text('{"metadata": {}, "cells": ["secret"]}')
    (folder / results.LOG).unlink()
    for path in (folder / "t4" / "m-modelled.ipynb", folder / results.LOG):
        if kind == "link":
            path.symlink_to(secret)
        else:
            (os.mkfifo if kind == "pipe" else os.mkdir)(path)
    report.write(folder)
    crate = (folder / "ro-crate-metadata.json").read_text("utf-8")
    assert "m-modelled.ipynb" not in crate and "events.jsonl" not in crate
    assert any(fault.startswith("t4/m-modelled.") for fault in report.check(folder))


def test_a_damaged_trace_is_said_and_left_out(folder):
    (folder / "bad.nc").write_bytes(b"bad")
    report.write(folder, (said := []).append)
    assert len(said) == 1 and said[0].startswith("bad.nc is not a trace")


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(folder, monkeypatch, capsys):
    from footprint import __main__

    real = os.open

    def read_only(path, flags, *rest):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    assert __main__.main(["report", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("footprint: Read-only file system: ") and said.count("\n") == 1


def test_a_text_is_no_formula_for_a_spreadsheet(folder):
    trace.save(light.seed(revision="=cmd|' /C calc'!A0", run_id="1"), folder / "evil.nc")
    report.write(folder)
    table = pd.read_csv(folder / "windows.csv")
    assert "'=cmd|' /C calc'!A0" in set(table["revision"])
    assert "=cmd|' /C calc'!A0" in set(pd.read_parquet(folder / "windows.parquet")["revision"])


PLACES = ["/scratch/ada", "/gpfs/ada", "/nfs/home", "/Volumes/ada", "/srv/ada", "/home/ada/a b"]
PLACES += ["C:\\Users\\ada", "c:/Users/ada", "MIG-01234567-89ab-cdef-0123-456789abcdef"]


def test_a_place_of_this_machine_is_found(folder):
    (folder / "t4" / "m-modelled.nc").unlink()
    said, path = "box/llama-24m-eager-fp32", folder / "box" / "llama-24m-eager-fp32.ipynb"
    page = json.loads(path.read_text())
    for place in PLACES:
        for before in ("", "saved to ", "one\n", "file://"):
            page["cells"][1]["outputs"] = [{"text": [f"{before}{place}/x.nc\n"]}]
            path.write_text(json.dumps(page))
            (fault,) = report.check(folder)
            assert fault.startswith(f"{said}.nc or its page names a place or a serial number")
    page["cells"][1]["outputs"] = ["https://x.org/home/ada notebooks/data/x ~/home/x"]
    path.write_text(json.dumps(page))
    assert report.check(folder) == []


def test_the_committed_runs_are_fit_to_be_sent():
    assert report.check(root() / "notebooks" / "runs") == []


def test_a_strangers_folder_is_checked_and_nothing_is_written(folder, capsys):
    """A hostile page in Markdown, a hostile notebook, a hostile trace, a script and a link."""
    from footprint import __main__

    box = folder / "box"
    page = json.loads((box / "llama-24m-eager-fp32.ipynb").read_text())
    page["cells"][0]["source"] = "```{literalinclude} ../../../../secret\n```"
    (box / "page.ipynb").write_text(json.dumps(page))
    trace.save(light.seed(run_id="8"), box / "page.nc")
    (box / "bad.nc").write_bytes(b"bad")
    (box / "note.md").write_text("```{code-cell} python\nopen('ran', 'w')\n```")
    (box / "set_up.sh").touch()
    os.symlink("/etc/passwd", box / "link.nc")
    before = sorted(folder.rglob("*"))
    assert __main__.main(["report", "--check", str(folder)]) == 1
    said = capsys.readouterr().out
    for words in (
        "box/bad.nc: bad.nc is not a trace in NetCDF",
        "box/note.md is no part of a run",
        "box/page.ipynb: page.ipynb executed something else than it records",
        "box/set_up.sh is no part of a run",
        "box/link.nc is a link",
        "t4/m-modelled.nc has no executed notebook beside it.",
        "is not yet fit to be sent",
    ):
        assert words in said
    assert sorted(folder.rglob("*")) == before


# -- Croissant: the format's own reader accepts the description and finds what the table holds -----

DATA = pd.DataFrame(
    {
        "model": ["llama-1b", 't, "x"'],
        "batch": [1, 4],
        "energy_J": [2.5, 10.0],
        "fits": [True, False],
    }
)
SAID = {"energy_J": {"units": "J", "long_name": "energy of the window"}}


@pytest.fixture
def described(tmp_path):
    """A table and its description side by side."""
    table = tmp_path / "windows.csv"
    DATA.to_csv(table, index=False)
    place = tmp_path / "croissant.json"
    found = report.croissant(table, DATA, SAID, "Two windows.", "2026-11-22")
    place.write_text(json.dumps(found, default=str))
    return place


def test_a_reader_finds_every_row_and_every_type(described):
    dataset = mlc.Dataset(jsonld=str(described))
    assert not dataset.metadata.ctx.issues.errors
    rows = [
        {
            key.removeprefix("windows/"): value.decode() if isinstance(value, bytes) else value
            for key, value in row.items()
        }
        for row in dataset.records("windows")
    ]
    assert pd.DataFrame(rows).equals(DATA)


def test_columns_say_what_they_are(described):
    fields = {
        field["name"]: field for field in json.loads(described.read_text())["recordSet"][0]["field"]
    }
    assert fields["energy_J"]["description"] == "energy of the window [J]"
    assert fields["model"]["description"] == "id of the model"
    assert {name: field["dataType"] for name, field in fields.items()} == {
        "model": "sc:Text",
        "batch": "sc:Integer",
        "energy_J": "sc:Float",
        "fits": "sc:Boolean",
    }


def test_another_table_is_noticed(described):
    table = described.parent / "windows.csv"
    table.write_text(table.read_text().replace("2.5", "2.6"))
    with pytest.raises(Exception, match=r"Download\(windows\.csv\)"):
        list(mlc.Dataset(jsonld=str(described)).records("windows"))


# -- MLPerf: measured points only, unknown energies as null with a reason --------------------------

RUN = {name: cast() for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")}
RUN |= {"status": "ok", "model": "llama-24m", "device": "t4", "device_name": "Tesla T4"}
FIELDS = {
    "prefill_energy_joules",
    "generation_energy_joules",
    "total_energy_joules",
    "energy_per_token_joules",
    "batch_size",
    "sampling_rate_hz",
    "measurement_method",
    "thermal_stabilization_seconds",
    "output_token_count",
}


def run(source: str):
    """Five seconds of each phase (100, 200 and 160 W), batch 4, twice, sampled at 20 Hz."""
    watts = {"prefill": 100.0, "decode": 200.0, "generate": 160.0}
    time_s = np.arange(0, 70, 0.05)
    rows, power = [], np.full(len(time_s), 50.0)
    for i, (phase, k) in enumerate((phase, k) for phase in watts for k in range(2)):
        start = 2.0 + 10 * i
        power[(time_s > start - 1) & (time_s < start + 6)] = watts[phase]
        ends = {
            "start_s": start,
            "stop_s": start + 5,
            "boot_s": 5.0,
            "warmup_s": 3.0,
            "status": "ok",
        }
        shape = {
            "batch": 4,
            "prompt_tokens": 64,
            "output_tokens": 9,
            "iterations": 10,
            "tokens": 360,
        }
        rows.append({"phase": phase, "repeat": k, **shape, **ends})
    samples = {"time_s": time_s, "power_W": power} if source != "none" else {}
    return trace.new("measured", RUN | {"energy_source": source}, rows, samples)


def modelled():
    return trace.new("modelled", RUN, [{"phase": "decode", "batch": 1, "status": "ok"}])


def windows(tree):
    """The windows of a trace as a report has them."""
    return trace.frame(trace.labelled(energy.windows(tree), tree.attrs, "a.nc"))


def test_a_measured_point_is_one_record(tmp_path):
    trace.save(run("nvml_instant"), tmp_path / "t4" / "a.nc")
    trace.save(modelled(), tmp_path / "t4" / "b.nc")
    assert tmp_path / "mlperf.json" in report.write(tmp_path, mlperf=True)
    (record,) = json.loads((tmp_path / "mlperf.json").read_text())
    assert set(record) > FIELDS
    assert record["prefill_energy_joules"] == pytest.approx(50)
    assert record["generation_energy_joules"] == pytest.approx(100)
    assert record["total_energy_joules"] == pytest.approx(80)
    assert record["gpu_power_draw_watts"]["mean"] == pytest.approx(160)
    assert record["energy_per_token_joules"]["mean"] == pytest.approx(800 / 360)
    assert record["sampling_rate_hz"] == pytest.approx(20, rel=0.02)
    assert record["measurement_method"] == "nvml" and record["scenario"] == "offline"
    assert record["thermal_stabilization_seconds"] == 3 and record["reason"] == ""
    assert record["output_token_count"] == 36 and record["file"] == "t4/a.nc"


def test_what_nobody_measured_is_null_with_a_reason():
    (record,) = report.records(windows(run("none")))
    assert record["prefill_energy_joules"] is None
    assert record["energy_per_token_joules"] == {"mean": None, "std": None}
    assert record["measurement_method"] is None and record["reason"] == "not_supported"


def test_a_modelled_run_is_refused():
    with pytest.raises(Refused, match="is modelled"):
        report.records(windows(modelled()))
