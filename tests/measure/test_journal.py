"""The journal of a run: nothing that was measured is lost or doubled when a try is killed."""

import json
import random
import signal
import threading
import time

import numpy as np
import pytest

from footprint import trace, workload
from footprint.measure import journal, profile
from footprint.sweep import runner

IDENTITY = {"request": "{}", "device": "box"}
WIDTH = 8
SMALL = {
    "model": "llama-24m",
    "batches": [1, 2],
    "prompt_tokens": [8],
    "output_tokens": [5],
    "warmup_s": 0.0,
    "threads": 1,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a journal, and a boot whose name can be changed."""
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    monkeypatch.setattr(journal, "BOOT", boot)
    monkeypatch.setenv(journal.VARIABLE, str(tmp_path / "journal"))
    return tmp_path / "journal"


def window(start: float, status: str = "ok") -> dict:
    times = {"start_s": start, "stop_s": start + 1.0, "pauses": [(start + 0.25, start + 0.5)]}
    return {**times, "status": status, "watts": float("nan")}


def attempt(moments, *, identity=IDENTITY, status="ok"):
    """A try that samples and measures a window at each of these moments."""
    with journal.kept(identity, WIDTH) as (kept, samples):
        for moment in moments:
            samples.write(np.array([moment + 0.5]).tobytes())
            kept.add(window(moment, status), [0.5, 0.5])
        samples.seek(0)
        return kept, kept.joined({"time_s": np.frombuffer(samples.read())})


def test_without_a_folder_a_run_is_kept_in_memory(monkeypatch):
    monkeypatch.delenv(journal.VARIABLE, raising=False)
    with journal.kept(IDENTITY, WIDTH) as (kept, samples):
        kept.add(window(1.0), [1.0])
    assert samples is None and len(kept.tries) == 1
    windows, columns, steps = kept.joined({"time_s": np.empty(0)})
    assert [w["start_s"] for w in windows] == [1.0] and columns["time_s"].size == 0
    assert steps == {"window": [0], "step_s": [1.0]}


def test_a_second_try_goes_on_from_the_first(folder):
    attempt([1.0, 3.0])
    kept, (windows, columns, steps) = attempt([6.0])
    assert [w["start_s"] for w in windows] == [1.0, 3.0, 6.0] and len(kept.tries) == 2
    assert columns["time_s"].tolist() == [1.5, 3.5, 6.5] and np.isnan(windows[0]["watts"])
    assert steps["window"] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("other", [{"request": "{1}"}, {"device": "another"}])
def test_what_another_run_left_does_not_count(folder, other):
    attempt([1.0, 3.0], identity=IDENTITY | other)
    kept, (windows, columns, _) = attempt([6.0])
    assert [w["start_s"] for w in windows] == [6.0] and len(kept.tries) == 1
    assert columns["time_s"].tolist() == [6.5]


def test_what_was_cut_off_does_not_count_and_harms_nothing(folder):
    attempt([1.0])
    with (folder / journal.WINDOWS).open("ab") as rows, (folder / journal.SAMPLES).open("ab") as s:
        rows.write(json.dumps({"window": window(3.0)}).encode()[:-9])
        s.write(b"half")
    _, (windows, columns, _) = attempt([6.0])
    assert [w["start_s"] for w in windows] == [1.0, 6.0]
    assert columns["time_s"].tolist() == [1.5, 6.5]


def test_a_window_of_a_lost_gpu_is_measured_again(folder):
    attempt([1.0])
    attempt([3.0], status="gpu_lost")
    assert [w["start_s"] for w in attempt([6.0])[1][0]] == [1.0, 6.0]


def test_after_a_boot_earlier_times_lie_before_later_ones(folder):
    attempt([1000.0, 1003.0])
    journal.BOOT.write_text("second\n")
    attempt([50.0])
    journal.BOOT.write_text("third\n")
    attempt([20.0])
    _, (windows, columns, _) = attempt([30.0])
    starts = np.array([w["start_s"] for w in windows])
    assert (np.diff(starts) > 1).all() and starts[-2:].tolist() == [20.0, 30.0]
    assert starts[1] - starts[0] == 3.0, "times of one boot keep their distances"
    assert np.allclose(columns["time_s"], starts + 0.5)
    assert all(w["stop_s"] - w["start_s"] == 1.0 for w in windows)
    begun = [start for w in windows for start, _ in w["pauses"]]
    assert np.allclose(begun, starts + 0.25), "pauses go with their windows"


def test_what_was_not_tried_has_no_times_to_move(folder):
    attempt([1000.0])
    with journal.kept(IDENTITY, WIDTH) as (kept, _):
        kept.add({"status": "skipped"}, [])
    journal.BOOT.write_text("second\n")
    _, (windows, _, _) = attempt([20.0])
    assert windows[1] == {"status": "skipped"} and windows[0]["stop_s"] < 20.0


def test_a_link_in_its_place_is_not_followed(folder, tmp_path):
    folder.mkdir()
    (tmp_path / "precious").write_text("kept")
    (folder / journal.WINDOWS).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), journal.kept(IDENTITY, WIDTH):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def places(tree) -> list[tuple]:
    """What tells the windows of a trace apart, sorted."""
    table = trace.frame(tree["windows"].to_dataset())
    names = ["phase", "batch", "prompt_tokens", "output_tokens", "repeat"]
    busy = table[table["batch"] > 0]
    return sorted(busy[names].itertuples(index=False, name=None))


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_is_that_of_one_try(folder, monkeypatch):
    request = workload.request("profile", **SMALL, repeats=2, window_s=0.05)
    real, seen = profile.attempt, []
    for count in (3, 4):
        left = iter(range(count))

        def stopping(*arguments, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(profile, "attempt", stopping)
        _, tree = profile.run(request, lambda line: None)
        assert tree.attrs["status"] == "interrupted"
        seen.append(set(tree["windows"]["start_s"].values))
    monkeypatch.setattr(profile, "attempt", real)
    _, tree = profile.run(request, lambda line: None)
    monkeypatch.delenv(journal.VARIABLE)
    assert tree.attrs["status"] == "ok" and tree.attrs["tries"] == 3
    assert places(tree) == places(profile.run(request, lambda line: None)[1])
    assert seen[0] < seen[1] < set(tree["windows"]["start_s"].values)


@pytest.mark.slow
def test_a_kernel_killed_twenty_times_loses_and_doubles_no_window(tmp_path):
    request = workload.request("profile", **SMALL, repeats=15, window_s=0.4)
    run, chance, kept = runner.Run("profile", request), random.Random(0), set()
    scratch = tmp_path / ".run-long"
    scratch.mkdir()
    inside = 0
    for _ in range(20):
        told = (ended := []).append
        thread = threading.Thread(
            target=lambda told=told: told(runner.attempt(run, scratch, lambda line: None))
        )
        thread.start()
        rows = scratch / "journal" / journal.WINDOWS
        before = rows.stat().st_size if rows.exists() else 0
        while not rows.exists() or rows.stat().st_size <= before:
            time.sleep(0.05)
            assert thread.is_alive(), ended
        time.sleep(chance.uniform(0.5, 3.0))
        family = [process for child in runner.RUNNING for process in runner._family(child)]
        (kernel,) = filter(runner._is_kernel, family)
        kernel.send_signal(signal.SIGKILL)
        thread.join()
        assert ended[0]["status"] == "dead_kernel" and ended[0]["again"]
        lines = [json.loads(line) for line in rows.read_text().split("\n") if line[-1:] == "}"]
        now = {line["window"]["start_s"] for line in lines if "window" in line}
        assert kept <= now
        inside += now != kept
        kept = now
    ended = runner.attempt(run, scratch, lambda line: None)
    tree = trace.load(scratch / "run.nc")
    assert ended["status"] == tree.attrs["status"] == "ok" and tree.attrs["tries"] == 21
    expected = [
        (phase, point["batch"], 8, 5, point["repeat"])
        for point in workload.windows(request)
        for phase in profile.ORDERS[0]
    ]
    assert places(tree) == sorted(expected) and len(set(expected)) == len(expected)
    assert kept <= set(tree["windows"]["start_s"].values) and inside > 10
    assert (np.diff(tree["windows"]["start_s"].values) > 0).all()
