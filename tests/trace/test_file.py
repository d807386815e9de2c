"""The trace: what is saved comes back, faults are named, files are whole or absent."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from footprint import Refused, trace
from footprint.trace.schema import ATTRS, SCHEMA, variables

EMPTY = {str: "", int: 0, float: float("nan")}
RUN = {
    name: EMPTY[cast] for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")
}
RUN |= {
    "status": "ok",
    "model": "llama-24m",
    "device": "t4",
    "engine": "eager",
    "dtype": "fp16",
    "seed": 7,
}


def measured(**changes) -> xr.DataTree:
    window = {
        "phase": "prefill",
        "batch": 2,
        "tokens": 128,
        "status": "ok",
        "start_s": 0.0,
        "stop_s": 2.0,
    }
    samples = {"time_s": [0.0, 1.0, 2.0], "power_W": [10.0, np.nan, 30.0]}
    return trace.new(
        "measured", RUN | changes, [window], samples, {"window": [0, 0], "step_s": [0.5, 0.25]}
    )


def modelled() -> xr.DataTree:
    return trace.new(
        "modelled", RUN, [{"phase": "decode", "batch": 1, "status": "ok", "duration_s": 0.5}]
    )


@pytest.mark.parametrize("name", ["model", "weights", "device", "engine", "dtype"])
@pytest.mark.parametrize("text", ["x\n\n```{raw} html\n```", "<b>", "[x](y)", "`x`"])
def test_what_becomes_a_word_of_a_page_is_no_markdown(name, text):
    with pytest.raises(Refused, match=f"the attribute {name} is .* letters, digits"):
        trace.check(measured(**{name: text}))


def test_what_is_saved_comes_back(tmp_path):
    tree = measured()
    path = trace.save(tree, tmp_path / "a" / "run.nc")
    back = trace.load(path)
    assert back.attrs["seed"] == 7 and back.attrs["kind"] == "measured"
    for group in SCHEMA:
        xr.testing.assert_equal(tree[group].to_dataset(), back[group].to_dataset())
        for name, variable in variables(group, "measured").items():
            attrs = back[group][name].attrs
            assert (attrs["units"], attrs["long_name"]) == (variable.units, variable.long_name)


def test_unknown_stays_unknown():
    window = measured()["windows"].to_dataset()
    assert np.isnan(window["counter_start_J"]).all() and np.isnan(window["peak_memory_B"]).all()


def test_bounds_carry_their_level():
    assert modelled()["windows"]["energy_J_low"].attrs["interval_level"] == 0.9
    assert "interval_level" not in modelled()["windows"]["energy_J"].attrs


def test_a_trace_may_name_its_notebook_and_old_ones_are_told_by_their_kind(tmp_path):
    tree = measured(notebook="serve")
    assert trace.notebook(trace.load(trace.save(tree, tmp_path / "run.nc")).attrs) == "serve"
    assert trace.notebook(measured().attrs) == "profile"
    assert trace.notebook(modelled().attrs) == "predict"
    with pytest.raises(Refused, match="the attribute notebook is 3"):
        measured(notebook=3)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda tree: tree["windows"].to_dataset().drop_vars("batch"), "windows/batch is missing"),
        (
            lambda tree: tree["windows"].to_dataset().assign(joules=("window", [1.0])),
            "windows/joules is not in",
        ),
        (
            lambda tree: tree["windows"].to_dataset().assign(batch=("window", [1.5])),
            "windows/batch holds float64",
        ),
        (
            lambda tree: tree["windows"].to_dataset().assign(phase=("window", ["nap"])),
            "windows/phase holds 'nap'",
        ),
        (
            lambda tree: (
                tree["windows"].to_dataset().assign(start_s=("window", [np.inf], {"units": "s"}))
            ),
            "infinite",
        ),
        (
            lambda tree: (
                tree["windows"].to_dataset().assign(start_s=("window", [1.0], {"units": "ms"}))
            ),
            "units 'ms'",
        ),
    ],
)
def test_a_broken_variable_is_named_with_its_file(harm, named):
    tree = measured()
    tree["windows"] = xr.DataTree(harm(tree))
    with pytest.raises(Refused, match=named) as caught:
        trace.check(tree, "x.nc")
    assert str(caught.value).startswith("x.nc")


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "fine"), ("kind", "guessed"), ("model", 3), ("seed", "x"), ("parameters", True)],
)
def test_a_broken_attribute_is_named(name, value):
    tree = measured()
    tree.attrs[name] = value
    with pytest.raises(Refused, match=name):
        trace.check(tree)


def test_steps_point_to_windows_that_are_there():
    with pytest.raises(Refused, match="steps/window"):
        trace.new("measured", RUN, [], steps={"window": [3], "step_s": [0.1]})


def test_a_newer_schema_is_refused():
    tree = measured()
    tree.attrs["schema_version"] = 99
    with pytest.raises(Refused, match="version 99"):
        trace.check(tree)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = trace.save(measured(), tmp_path / "run.nc")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        trace.save(measured(seed=8), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_invalid_trace_is_not_saved(tmp_path):
    tree = measured()
    tree.attrs["status"] = "fine"
    with pytest.raises(Refused, match=r"run\.nc.*status"):
        trace.save(tree, tmp_path / "run.nc")
    assert not any(tmp_path.iterdir())


def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(Refused, match="There is no file"):
        trace.load(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("not a file of that kind")
    with pytest.raises(Refused, match=r"text\.nc is not a trace in NetCDF"):
        trace.load(tmp_path / "text.nc")
    xr.Dataset({"x": ("y", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(Refused, match=r"other\.nc has schema version None"):
        trace.load(tmp_path / "other.nc")


def test_place_tells_kinds_apart(tmp_path):
    assert trace.place(measured(), tmp_path) == tmp_path / "t4" / "llama-24m-eager-fp16.nc"
    assert trace.place(modelled(), tmp_path) == tmp_path / "t4" / "llama-24m-eager-fp16-modelled.nc"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_rights_that_the_umask_gives(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        path = trace.save(measured(), tmp_path / "a.nc")
        text = trace.whole(tmp_path / "b.txt", lambda place: Path(place).write_text("b"))
    finally:
        os.umask(before)
    assert [place.stat().st_mode & 0o777 for place in (path, text)] == [mode, mode]
    assert len([*tmp_path.iterdir()]) == 2
