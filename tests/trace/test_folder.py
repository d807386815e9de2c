"""Many traces: fast and careful reading agree; nothing is hidden or counted twice."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import light_project as light
from footprint import Refused, predict, trace, workload


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three measured runs, the last one with other numbers, and a modelled one."""
    folder = tmp_path_factory.mktemp("made")
    for index, model in enumerate(("a", "b", "c")):
        tree = light.seed(
            1 + index, model=model, run_id=f"{index:012d}", request=f'{{"m": {index}}}'
        )
        trace.save(tree, folder / "box" / f"{model}.nc")
    request = workload.request("predict", batches=[1], prompt_tokens=[64])
    trace.save(predict.trace(request), folder / "t4" / "x-modelled.nc")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "runs"))


def harm(path: Path, what) -> Path:
    with h5py.File(path, "r+") as file:
        what(file)
    return path


def test_reading_gives_what_xarray_reads(folder):
    for path in trace.files(folder):
        ours = trace.load(path)
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            theirs = opened.load()
        assert ours.attrs == theirs.attrs or np.isnan(ours.attrs["window_s"])
        assert set(ours.attrs) == set(theirs.attrs)
        assert set(ours.children) == set(theirs.children)
        for group in ours.children:
            xr.testing.assert_identical(ours[group].to_dataset(), theirs[group].to_dataset())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda file: file["windows/stop_s"].__setitem__(0, np.inf), "infinite"),
        (lambda file: file["samples/power_W"].__setitem__(0, np.inf), "infinite"),
        (lambda file: file.pop("windows/batch"), "windows/batch is missing"),
        (lambda file: file.pop("samples/power_W"), "samples/power_W is missing"),
        (lambda file: file.attrs.__setitem__("status", "fine"), "status"),
        (lambda file: file.attrs.__delitem__("model"), "model"),
        (lambda file: file.attrs.__setitem__("schema_version", 99), "version 99"),
        (lambda file: file["steps/window"].__setitem__(0, 77), "steps/window points"),
    ],
)
def test_what_breaks_the_schema_is_refused_when_it_is_read(folder, what, said):
    path = harm(folder / "box" / "a.nc", what)
    with pytest.raises(Refused, match=said):
        trace.load(path)


def test_what_is_no_trace_is_named_not_hidden(folder):
    (folder / "box" / "half.nc").write_bytes((folder / "box" / "a.nc").read_bytes()[:3000])
    wrong = trace.load(folder / "box" / "b.nc")
    with pytest.warns(UserWarning, match=r"1 files are not valid traces: half\.nc"):
        assert len(trace.gather(folder).attrs["rejected"]) == 1
    wrong["windows"]["phase"][0] = "thinking"
    wrong.to_netcdf(folder / "box" / "wrong.nc", engine="h5netcdf")
    with pytest.warns(UserWarning, match="'thinkin"):
        assert len(trace.gather(folder).attrs["rejected"]) == 2


def test_a_copy_counts_once_and_a_repetition_is_named(folder):
    (folder / "other").mkdir()
    shutil.copy(folder / "box" / "a.nc", folder / "other" / "a.nc")
    trace.save(light.seed(model="b", run_id="later", request='{"m": 1}'), folder / "other" / "b.nc")
    data = trace.gather(folder)
    assert data.attrs["twice"] == [
        "other/a.nc is a copy of box/a.nc and is left out.",
        "other/b.nc repeats box/b.nc: same request, same device.",
    ]
    files = set(data["file"].values)
    assert str(folder / "other" / "a.nc") not in files
    assert {str(folder / "box" / "b.nc"), str(folder / "other" / "b.nc")} <= files


def test_runs_with_and_without_a_checksum_are_gathered(folder):
    harm(folder / "box" / "a.nc", lambda file: file.attrs.__delitem__("checksum"))
    assert len(set(trace.gather(folder)["file"].values)) == 4


def test_what_is_hidden_is_not_there(folder):
    (folder / "box" / ".run-1").mkdir()
    shutil.copy(folder / "box" / "a.nc", folder / "box" / ".run-1" / "run.nc")
    shutil.copy(folder / "box" / "a.nc", folder / "box" / ".a.nc.tmp.nc")
    assert len(set(trace.gather(folder)["file"].values)) == 4


def test_a_window_knows_its_run(folder):
    data = trace.gather(folder)
    assert data.attrs["rejected"] == data.attrs["twice"] == []
    assert data["phase"].dtype == object
    picked = data.where(data["model"] == "c", drop=True)
    assert picked.sizes["window"] == 6 and set(picked["notebook"].values) == {"profile"}
    assert set(picked["file"].values) == {str(folder / "box" / "c.nc")}
    assert data.isel(window=[3, 1])["batch"].values.tolist() == [1, 1]
    assert float(data["stop_s"].max()) == pytest.approx(2.9)


def test_kinds_are_joined(folder):
    table = trace.frame(trace.gather(folder))
    assert list(table["kind"]) == ["measured"] * 12 + ["modelled"] * 3
    assert table["duration_s"].isna().tolist() == [True] * 12 + [False] * 3
    assert table["stop_s"].isna().tolist() == [False] * 12 + [True] * 3


def test_no_trace_is_an_empty_dataset(tmp_path):
    data = trace.gather(tmp_path)
    assert isinstance(data, xr.Dataset) and data.sizes["window"] == 0
    assert data.attrs["rejected"] == data.attrs["twice"] == []


def test_a_head_is_all_that_a_sweep_needs(folder):
    assert trace.head(folder / "box" / "a.nc")["model"] == "a"
    with pytest.raises(Refused, match="no regular file"):
        trace.head(folder / "box")
