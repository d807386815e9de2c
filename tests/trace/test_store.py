"""Many traces at once: the same as one by one, and never yesterday's."""

import os
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import light_project as light
from footprint import workload
from footprint.predict import model as predict
from footprint.trace import file as trace
from footprint.trace import raw, stack, store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three measured runs, the last one with other numbers, and a modelled one."""
    folder = tmp_path_factory.mktemp("made")
    for index, model in enumerate(("a", "b", "c")):
        tree = light.seed(
            1 + index, model=model, run_id=f"{index:012d}", request=f'{{"m": {index}}}'
        )
        trace.save(tree, folder / "box" / f"{model}.nc")
    trace.save(
        predict.run(workload.request("predict", batches=[1], prompt_tokens=[64])),
        folder / "t4" / "x-modelled.nc",
    )
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "runs"))


@pytest.fixture
def settled(folder, monkeypatch):
    """The folder after a wait in which the file system's times come to tell every change, and gathered."""
    monkeypatch.setattr(stack, "RACY_NS", 50_000_000)
    time.sleep(0.1)
    store.gather(folder)
    return folder


def same(folder):
    """Whether the fast way gives what the careful one does, value for value."""
    found, expected = store.gather(folder), trace.gather(folder)
    assert set(found.variables) == set(expected.variables)
    for name in expected.variables:
        values, wanted = found[name].values, expected[name].values
        assert found[name].dims == expected[name].dims
        equal = [
            a == b or (a != a and b != b)
            for a, b in zip(values.tolist(), wanted.tolist(), strict=True)
        ]
        assert all(equal), name
    return found


def test_gives_what_the_careful_way_gives(folder):
    data = same(folder)
    assert data.attrs["rejected"] == data.attrs["twice"] == []
    assert data["batch"].attrs == trace.gather(folder)["batch"].attrs
    same(folder)  # and again from the stack


def test_only_measured_traces_come_lazily_and_can_be_used_as_any_dataset(folder):
    shutil.rmtree(folder / "t4")
    store.gather(folder)
    data = store.gather(folder)
    assert data["phase"].dtype == object
    picked = data.where(data["model"] == "c", drop=True)
    assert picked.sizes["window"] == 6 and set(picked["file"].values) == {
        str(folder / "box" / "c.nc")
    }
    assert data.isel(window=[3, 1])["batch"].values.tolist() == [1, 1]
    assert float(data["stop_s"].max()) == pytest.approx(2.9)


def test_the_second_time_reads_no_trace(settled, monkeypatch):
    monkeypatch.setattr(raw, "read", lambda path: pytest.fail(f"{path} was read again"))
    same(settled)


def test_a_trace_that_is_replaced_is_read_again(settled):
    trace.save(light.seed(4, model="b", run_id="new", request="{}"), settled / "box" / "b.nc")
    assert set(same(settled)["run_id"].values) >= {"new"}


def test_a_change_in_place_shows_although_size_and_time_are_put_back(settled):
    import h5py

    path = settled / "box" / "a.nc"
    before = path.stat()
    with h5py.File(path, "r+") as file:
        file["windows/stop_s"][0] = 7.0
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert 7.0 in same(settled)["stop_s"].values


def test_a_file_that_has_just_been_written_is_not_trusted_yet(folder):
    import h5py

    store.gather(folder)  # right after the writing: the times of a further change could be the same
    kept = stack.load(folder)
    assert (kept["sign"] == -1).all()
    with h5py.File(folder / "box" / "a.nc", "r+") as file:
        file["windows/stop_s"][0] = 8.0
    assert 8.0 in same(folder)["stop_s"].values


@pytest.mark.parametrize("change", ["add", "remove", "rename"])
def test_the_list_of_files_counts(settled, change):
    if change == "add":
        trace.save(light.seed(run_id="d", request="{}"), settled / "aa" / "d.nc")
    if change == "remove":
        (settled / "box" / "b.nc").unlink()
    if change == "rename":
        (settled / "box" / "b.nc").rename(settled / "box" / "z.nc")
    same(settled)


@pytest.mark.parametrize("damage", [b"", b"{", b"x" * 5000, None])
def test_a_damaged_stack_is_made_anew(settled, damage):
    place = settled / stack.PLACE / "windows"
    place.write_bytes(place.read_bytes()[:-100] if damage is None else damage)
    same(settled)
    assert len(stack.load(settled)["path"]) == 4


def test_what_is_no_trace_is_named_not_hidden(folder):
    (folder / "box" / "half.nc").write_bytes((folder / "box" / "a.nc").read_bytes()[:3000])
    bad = trace.load(folder / "box" / "b.nc")
    with pytest.warns(UserWarning, match="1 files are not valid traces: half.nc"):
        data = store.gather(folder)
    assert len(data.attrs["rejected"]) == 1
    bad["windows"]["phase"][0] = "thinking"
    bad.to_netcdf(folder / "box" / "wrong.nc", engine="h5netcdf")
    for _ in range(2):  # also when it comes from the stack
        with pytest.warns(UserWarning, match="'thinkin"):
            assert len(store.gather(folder).attrs["rejected"]) == 2


def test_a_copy_counts_once_and_a_repetition_is_named(folder):
    (folder / "other").mkdir()
    shutil.copy(folder / "box" / "a.nc", folder / "other" / "a.nc")
    trace.save(light.seed(model="b", run_id="later", request='{"m": 1}'), folder / "other" / "b.nc")
    data = store.gather(folder)
    assert data.attrs["twice"] == [
        "other/a.nc is a copy of box/a.nc and is left out.",
        "other/b.nc repeats box/b.nc: same request, same device.",
    ]
    assert str(folder / "other" / "a.nc") not in set(data["file"].values)
    assert {str(folder / "box" / "b.nc"), str(folder / "other" / "b.nc")} <= set(
        data["file"].values
    )


def test_what_is_hidden_is_not_there(folder):
    (folder / "box" / ".run-1").mkdir()
    shutil.copy(folder / "box" / "a.nc", folder / "box" / ".run-1" / "run.nc")
    shutil.copy(folder / "box" / "a.nc", folder / "box" / ".a.nc.tmp.nc")
    assert len(set(same(folder)["file"].values)) == 4


def test_no_trace_is_an_empty_dataset(tmp_path):
    data = store.gather(tmp_path)
    assert (
        isinstance(data, xr.Dataset) and data.sizes["window"] == 0 and data.attrs["rejected"] == []
    )


def test_where_nothing_can_be_written_nothing_is_kept(folder):
    (folder / stack.PLACE).write_text("in the way")
    same(folder)
    same(folder)


def test_a_process_for_each_core_reads_the_same(folder, monkeypatch):
    paths = [str(path) for path in trace.files(folder)] * 3
    alone = raw.read_all(paths)
    monkeypatch.setattr(raw, "MANY", 4)
    shared = raw.read_all(paths)
    assert alone.keys() == shared.keys()
    for name, values in alone.items():
        np.testing.assert_array_equal(np.asarray(values), np.asarray(shared[name]), err_msg=name)


def test_reading_needs_no_xarray(folder):
    import subprocess
    import sys

    read = f"raw.quick({str(folder / 'box' / 'a.nc')!r})"
    code = f"import sys; from footprint.trace import raw; {read}; print('xarray' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_a_head_is_all_that_a_sweep_needs(folder):
    assert raw.head(folder / "box" / "a.nc")["model"] == "a"
    with warnings.catch_warnings(), pytest.raises((OSError, KeyError)):
        raw.head(folder / "box")
