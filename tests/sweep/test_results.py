"""Claims, placing, and pages that name no one."""

import json
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import light_project as light
from footprint import Refused, trace, workload
from footprint.measure import provenance
from footprint.sweep import results

PAGE = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def filled(scratch, page=PAGE, **attrs):
    """A scratch folder as a run leaves it."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "run.ipynb").write_text(json.dumps(page))
    trace.save(light.seed(**attrs), scratch / "run.nc")
    return scratch


def asked(**parameters):
    return provenance.asked(workload.request("profile", **parameters))


def test_a_run_is_one_process_s_at_a_time(tmp_path):
    with results.claim(tmp_path, "a") as mine:
        assert mine.is_dir()
        with results.claim(tmp_path, "a") as other, results.claim(tmp_path, "b") as free:
            assert other is None and free.is_dir()
    assert not list(tmp_path.iterdir())
    with results.claim(tmp_path, "a") as again:
        assert again.is_dir()


def test_a_scratch_folder_that_its_owner_removes_meanwhile_is_another_s(tmp_path, monkeypatch):
    real = os.open

    def late(path, *rest, **options):
        if Path(path).name == "claim":
            Path(path).parent.rmdir()  # the owner ends between our two steps
        return real(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", late)
        with results.claim(tmp_path, "a") as mine:
            assert mine is None
    with results.claim(tmp_path, "a") as mine:
        assert mine.is_dir()


def test_who_claims_a_folder_while_its_owner_removes_it_keeps_its_files(tmp_path, monkeypatch):
    real, names = os.unlink, [f"{number}.txt" for number in range(30)]
    following = results.claim(tmp_path, "a")

    def follow(path, *rest, **options):
        real(path, *rest, **options)
        if Path(path).name == "claim":
            monkeypatch.undo()
            mine = following.__enter__()
            for name in names:
                (mine / name).write_text("mine")

    with results.claim(tmp_path, "a") as scratch:
        for name in names:
            (scratch / name).write_text("old")
        monkeypatch.setattr(os, "unlink", follow)
    assert all((tmp_path / ".run-a" / name).read_text() == "mine" for name in names)
    with results.claim(tmp_path, "a") as other:
        assert other is None
    following.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


def test_page_and_trace_go_to_their_place_together(tmp_path):
    page = {**PAGE, "metadata": {"out": f"{results.STEM}.nc"}}
    scratch = filled(tmp_path / ".run-a", page, model="llama-24m")
    tree, place = results.settle(scratch, tmp_path)
    assert place == tmp_path / "box" / "llama-24m-eager-fp32.nc"
    assert tree.attrs["model"] == "llama-24m"
    assert (
        json.loads(place.with_suffix(".ipynb").read_text())["metadata"]["out"]
        == "llama-24m-eager-fp32.nc"
    )
    assert set(os.listdir(scratch)) == {"commit"}


def test_a_finished_run_of_another_request_is_not_overwritten(tmp_path):
    places = [
        results.settle(filled(tmp_path / ".run-a", request=asked(seed=seed)), tmp_path)[1]
        for seed in (1, 2, 1)
    ]
    assert places[0] == places[2] != places[1] and places[1].name.startswith("m-eager-fp32-")
    assert len(light.pairs(tmp_path)) == 2


def test_the_same_run_on_two_equal_boards_is_kept_twice(tmp_path):
    for board in ("abc", "def", "abc", "ghi"):
        results.settle(filled(tmp_path / ".run-a", device_hash=board), tmp_path)
    assert len(light.pairs(tmp_path)) == 3


def test_a_place_that_was_taken_meanwhile_is_not_overwritten(tmp_path):
    scratch = filled(tmp_path / ".run-a", request=asked(seed=1))
    (scratch / "claim").touch()
    (scratch / "commit").write_text("box/m-eager-fp32.nc")
    results.settle(filled(tmp_path / ".run-b", request=asked(seed=2)), tmp_path)
    results.recover(tmp_path)
    assert len(light.pairs(tmp_path)) == 2 and not list(tmp_path.glob(".run-*"))


def test_an_unfinished_run_gives_way(tmp_path):
    first = results.settle(
        filled(tmp_path / ".run-a", request=asked(seed=1), status="interrupted"), tmp_path
    )[1]
    assert results.settle(filled(tmp_path / ".run-a", request=asked(seed=2)), tmp_path)[1] == first


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_what_had_finished_when_the_power_went_is_placed_by_who_comes_next(
    tmp_path, monkeypatch, moment
):
    scratch = filled(tmp_path / ".run-a")
    (scratch / "claim").touch()
    count = {"before": 0, "between": 1, "after": 2}[moment]
    real = os.replace

    def dies(source, target):
        nonlocal count
        if Path(source).name in ("run.ipynb", "run.nc"):
            if not count:
                raise KeyboardInterrupt
            count -= 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        if moment == "after":
            results.settle(scratch, tmp_path)
        else:
            with pytest.raises(KeyboardInterrupt):
                results.settle(scratch, tmp_path)
    assert len(trace.names(tmp_path)) == (moment != "before")
    assert len([*tmp_path.glob("box/*.ipynb")]) == (moment == "after"), "no page without its trace"
    with results.claim(tmp_path, "a"):
        assert list(light.pairs(tmp_path)) == ["box/m-eager-fp32.nc"]
    assert not scratch.exists()


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_before_any_rename_loses_and_halves_nothing(tmp_path, moment):
    """A process kills itself before its n-th rename; who comes next finds all or none."""
    filled(tmp_path / ".run-a")
    (tmp_path / ".run-a" / "claim").touch()
    code = f"""
import os, signal
from pathlib import Path
from footprint.sweep import results
real, left = os.replace, [{moment}]
def dies(source, target):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(source, target)
os.replace = dies
results.settle(Path("{tmp_path}/.run-a"), Path("{tmp_path}"))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert not [
        page for page in tmp_path.glob("box/*.ipynb") if not page.with_suffix(".nc").exists()
    ]
    with results.claim(tmp_path, "a"):
        kept = light.pairs(tmp_path)
    with results.claim(tmp_path, "a"):
        assert light.pairs(tmp_path) == kept
    assert list(kept) == (["box/m-eager-fp32.nc"] if moment > 1 else [])
    assert not [*tmp_path.glob("**/.*.*")] and not (tmp_path / ".run-a").exists()


def test_a_finished_run_waits_for_a_disk_that_has_room_again(tmp_path, monkeypatch):
    scratch, real = tmp_path / ".run-a", os.replace

    def full(source, target):
        if Path(source).name == "run.nc":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"), results.claim(tmp_path, "a"):
        results.settle(filled(scratch), tmp_path)
    results.recover(tmp_path)  # still full
    monkeypatch.undo()
    results.recover(tmp_path)
    assert list(light.pairs(tmp_path)) == ["box/m-eager-fp32.nc"] and not scratch.exists()


def test_a_page_does_not_follow_a_trace_that_another_run_replaced(tmp_path):
    scratch = tmp_path / ".run-a"
    scratch.mkdir()
    (scratch / "run.ipynb").write_text("old")
    (scratch / "commit").write_text("box/m-eager-fp32.nc")
    os.utime(scratch / "commit", (1, 1))
    place = results.settle(filled(tmp_path / ".run-b"), tmp_path)[1]
    results.recover(tmp_path)
    assert place.with_suffix(".ipynb").read_text() != "old" and not scratch.exists()


def test_a_run_by_hand_leaves_a_finished_run_of_another_request(tmp_path):
    pair = results.settle(filled(tmp_path / ".run-a", request=asked(seed=1)), tmp_path)[1]
    before = pair.read_bytes()
    beside = results.save(light.seed(request=asked(seed=2)), tmp_path)
    assert pair.read_bytes() == before and beside.name.startswith("m-eager-fp32-")
    assert results.save(light.seed(request=asked(seed=2)), tmp_path) == beside


# -- a stranger's folder ---------------------------------------------------------------------------


@pytest.mark.parametrize("link", [".sweep", ".sweep/lock", ".run-a", ".run-a/claim", "box"])
@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_nothing_is_written_through_a_link(tmp_path, link, kind):
    folder, precious = tmp_path / "folder", tmp_path / "precious"
    (folder / link).parent.mkdir(parents=True)
    if kind == "file":
        precious.write_text("precious")
    if kind == "folder":
        precious.mkdir()
    (folder / link).symlink_to(precious)
    with pytest.raises(OSError), results.claim(folder, "a"):
        results.settle(filled(folder / ".run-a"), folder)
    results.note(folder, "start")
    results.recover(folder)
    with suppress(OSError):
        results.save(light.seed(), folder)
    if kind == "file":
        assert precious.read_text() == "precious"
    assert kind == "file" or not precious.exists() or not list(precious.iterdir())


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_log_that_is_no_file_is_neither_read_nor_written(tmp_path, kind):
    (tmp_path / "precious").write_text('{"event": "end", "key": "k", "status": "oom"}')
    log = tmp_path / results.LOG
    log.parent.mkdir()
    if kind == "link":
        log.symlink_to(tmp_path / "precious")
    else:
        (os.mkfifo if kind == "pipe" else os.mkdir)(log)
    assert not results.note(tmp_path, "start") and results.events(tmp_path) == []
    assert results.log_fault(tmp_path).startswith("events.jsonl is not read")
    assert "\n" not in (tmp_path / "precious").read_text()


@pytest.mark.parametrize(
    "place", ["../stolen/x.nc", "/stolen.nc", "box/../../x.nc", "x.nc", "\xff"]
)
def test_a_scratch_folder_says_no_place_outside(tmp_path, place):
    folder, scratch = tmp_path / "folder", tmp_path / "folder" / ".run-a"
    scratch.mkdir(parents=True)
    (scratch / "run.ipynb").write_text("stolen")
    (scratch / "commit").write_bytes(place.encode("latin-1"))
    for name in (tmp_path / "stolen", folder / "box"):
        name.mkdir()
    for name in ("stolen/x.nc", "x.nc", "folder/x.nc"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    results.recover(folder)
    assert not scratch.exists() and not list(tmp_path.rglob("*.ipynb"))
    with pytest.raises(Refused, match="in a folder of"):
        results.save(light.seed(device="../../stolen"), folder)


def test_a_page_that_is_a_link_is_not_published(tmp_path):
    scratch = filled(tmp_path / ".run-a")
    (tmp_path / "secret").write_text("secret")
    (scratch / "run.ipynb").unlink()
    (scratch / "run.ipynb").symlink_to(tmp_path / "secret")
    (scratch / "commit").write_text("box/m-eager-fp32.nc")
    results.recover(tmp_path)
    assert trace.names(tmp_path) == [] and not scratch.exists()


def test_no_process_is_looked_for_where_there_is_no_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(results.psutil, "process_iter", lambda: os.listdir("/no/proc"))
    results.kill(tmp_path)


def test_a_half_finished_run_is_swept_away_and_its_processes_end(tmp_path):
    scratch = tmp_path / ".run-a"
    scratch.mkdir()
    (scratch / "run.nc").write_bytes(b"half")
    (scratch / "claim").touch()
    environ = {**os.environ, results.VARIABLE: str(scratch.resolve())}
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env=environ, start_new_session=True
    )
    with results.claim(tmp_path, "a") as mine:
        assert mine and child.wait(10) == -9
    assert trace.names(tmp_path) == [] and not scratch.exists()


def test_what_is_no_trace_is_not_placed(tmp_path):
    scratch = filled(tmp_path / ".run-a")
    (scratch / "run.nc").write_bytes(b"nonsense")
    with pytest.raises(Refused, match="not a trace"):
        results.settle(scratch, tmp_path)
    assert trace.names(tmp_path) == []


def test_the_finished_ones_are_known_by_request_and_device(tmp_path):
    for index, status in enumerate(("ok", "oom", "interrupted", "gpu_lost")):
        tree = light.seed(
            request=asked(seed=index), status=status, device_hash="abc" if index else ""
        )
        trace.save(tree, tmp_path / f"{index}.nc")
    (tmp_path / "bad.nc").write_bytes(b"bad")
    results.note(tmp_path, "end", key="k", status="oom", device="abc")
    results.note(tmp_path, "end", key="l", status="failed", device="abc")
    done = results.finished(tmp_path)
    assert done[results.key("profile", asked(seed=0))] == [
        (provenance.processor(), "ok", tmp_path / "0.nc")
    ]
    assert done[results.key("profile", asked(seed=1))][0][:2] == ("abc", "oom")
    assert done["k"] == [("abc", "oom", None)] and len(done) == 3


@pytest.mark.parametrize("odd", ["null", "[]", "7", '"x"', "no JSON", "[" * 9999])
def test_a_trace_whose_request_is_none_is_no_finished_run(tmp_path, odd):
    trace.save(light.seed(request=odd), tmp_path / "odd.nc")
    trace.save(light.seed(request=asked()), tmp_path / "sound.nc")
    assert list(results.finished(tmp_path)) == [results.key("profile", asked())]


def test_a_head_is_read_once(tmp_path, monkeypatch):
    trace.save(light.seed(), tmp_path / "a.nc")
    seen = {}
    first = results.finished(tmp_path, seen)
    monkeypatch.setattr(trace, "head", lambda path: pytest.fail("read again"))
    assert results.finished(tmp_path, seen) == first


# -- events ----------------------------------------------------------------------------------------


def test_events_come_back_in_order_and_unknown_numbers_as_null(tmp_path):
    assert results.note(tmp_path, "start", key="a")
    assert results.note(tmp_path, "end", key="a", status="ok", joules=math.nan)
    assert [event["event"] for event in results.events(tmp_path)] == ["start", "end"]
    assert results.last_ends(tmp_path)["a"]["joules"] is None


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    results.note(tmp_path, "end", key="a", status="ok")
    with open(tmp_path / results.LOG, "a") as file:
        file.write('{"event": "end", "key": "b", "sta')
    results.note(tmp_path, "end", key="c", status="oom")
    assert set(results.last_ends(tmp_path)) == {"a", "c"}


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "end", "key": ["a"], "status": "oom"}',
        '{"event": "end", "key": "a"}',
        '{"event": "end", "key": "a", "status": {}}',
        '{"event": "end", "key": "a", "status": "oom", "device": ["b"]}',
        '{"event": ["end"], "key": "a", "status": "oom"}',
    ],
)
def test_an_odd_event_is_no_end(tmp_path, line):
    results.note(tmp_path, "end", key="b", status="oom", device="c")
    with open(tmp_path / results.LOG, "a") as file:
        file.write(f"{line}\n")
    assert set(results.finished(tmp_path)) == {"b"} == set(results.last_ends(tmp_path))


def test_lines_that_are_no_events_are_counted(tmp_path):
    results.note(tmp_path, "start")
    with open(tmp_path / results.LOG, "ab") as file:
        file.write(b"[" * 100_000 + b"\n\xff\n\n[1]\n" + b"9" * 5000 + b"\n")
    results.note(tmp_path, "end")
    assert [event["event"] for event in results.events(tmp_path)] == ["start", "end"]
    said = results.log_fault(tmp_path)
    assert said == f"{results.LOG} has lines that are no events; 4 are left out."


def test_the_last_word_on_a_run_counts(tmp_path):
    for status in ("failed", "ok"):
        results.note(tmp_path, "end", key="a", status=status)
    assert results.last_ends(tmp_path)["a"]["status"] == "ok"


def test_a_disk_that_takes_nothing_is_no_error(tmp_path):
    (tmp_path / ".sweep").write_text("in the way")
    assert not results.note(tmp_path, "start")
    assert results.events(tmp_path / "nowhere") == []
