"""Sweeps of light notebooks: outcomes, retries, and that no run is lost or doubled."""

import math
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

import light_project as light
from footprint import sweep, trace
from footprint.sweep import sweeps

MODELS = [
    "llama-24m",
    "llama-1b",
    "llama-3b",
    "llama-7b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "llama-3.1-8b",
    "smollm2-135m",
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A light project, which is the working directory, and locks of its own."""
    monkeypatch.chdir(light.project(tmp_path / "project"))
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "project"


def matrix(place, each: str, rest: str = ""):
    """Runs of a matrix, written to `sweep.toml`."""
    light.matrix(
        place / "sweep.toml",
        f'[[m]]\nnotebook = "profile"\ndevice = "cpu"\neach = {{ {each} }}\n{rest}',
    )
    return sweep.runs(place / "sweep.toml", "m")


def listener():
    """Events as they are told, and the function to tell them to."""
    heard = []
    return heard, lambda event, run=None, **facts: heard.append(
        (event, run and run.request["model"], facts)
    )


def test_finished_runs_are_not_repeated_and_their_bytes_stay(place):
    runs = matrix(place, 'model = ["llama-24m", "llama-1b"]')
    heard, tell = listener()
    first = sweep.run(runs[:1], place / "out", tell)
    assert [outcome["status"] for outcome in first] == ["ok"]
    assert ("line", "llama-24m", {"line": "doing llama-24m"}) in heard
    kept = light.pairs(place / "out")
    assert list(kept) == ["box/llama-24m-eager-auto.nc"]
    second = sweep.run(runs, place / "out", tell)
    assert [outcome["reason"] for outcome in second] == ["Already there.", ""]
    after = light.pairs(place / "out")
    assert len(after) == 2 and kept.items() <= after.items()
    assert not list((place / "out").glob(".run-*"))
    assert [event["status"] for event in light.events(place / "out", "end")] == ["ok", "ok"]


@pytest.mark.slow
def test_each_fault_has_its_status_and_the_rest_goes_on(place):
    runs = matrix(
        place, "seed = [666, 668, 669, 1]", 'override = [{ when = { seed = 668 }, dtype = "bf16" }]'
    )
    runs += matrix(place, "seed = [667]", "limit_s = 3")
    outcomes = sweep.run(runs, place / "out", tries=1)
    assert [outcome["status"] for outcome in outcomes] == [
        "dead_kernel",
        "oom",
        "failed",
        "ok",
        "timeout",
    ]
    reasons = [outcome["reason"] for outcome in outcomes]
    assert reasons[1:3] == [
        "Out of memory before the first point: no room.",
        "ValueError: nonsense.",
    ]
    assert reasons[4] == "Ended after its limit of 3 s."
    assert len(light.pairs(place / "out")) == 1
    apart = sorted(path.name for path in (place / "out" / ".sweep" / "failed").iterdir())
    assert len(apart) == 4 and all(name.endswith(".ipynb") for name in apart)
    assert "nonsense" in outcomes[2]["page"].read_text()
    again = sweep.run([runs[1], runs[3]], place / "out")
    assert [(outcome["status"], outcome["reason"]) for outcome in again] == [
        ("oom", "Already there."),
        ("ok", "Already there."),
    ]


@pytest.mark.slow
def test_what_may_pass_is_tried_again(place):
    heard, tell = listener()
    outcomes = sweep.run(matrix(place, "seed = [670, 1]"), place / "out", tell)
    assert [outcome["status"] for outcome in outcomes] == ["ok", "ok"]
    told = [event for event, *_ in heard if event in ("start", "end", "retry")]
    assert told == ["start", "retry", "start", "end", "start", "end"]


def test_larger_models_are_not_tried_where_a_smaller_one_did_not_fit(place):
    runs = matrix(
        place,
        'model = ["llama-1b", "llama-24m", "llama-3b"]',
        'override = [{ when = { model = "llama-1b" }, seed = 668 }]',
    )
    outcomes = sweep.run(runs, place / "out")
    assert [outcome["status"] for outcome in outcomes] == ["oom", "ok", "skipped"]
    assert (
        outcomes[2]["reason"]
        == "Not tried: llama-1b ran out of memory there before its first point."
    )
    assert [outcome["status"] for outcome in sweep.run(runs, place / "out")] == [
        "oom",
        "ok",
        "skipped",
    ]


@pytest.mark.slow
def test_a_run_on_another_device_does_not_count(place, monkeypatch):
    runs = matrix(place, "seed = [1]")
    sweep.run(runs, place / "out")
    monkeypatch.setattr(sweeps.locks, "identities", lambda device: {"another processor"})
    assert sweep.run(runs, place / "out")[0]["reason"] == ""


def started(place, *more, **environ):
    """A sweep in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "footprint",
        "sweep",
        "sweep.toml",
        "--matrix",
        "m",
        "--to",
        "out",
        *more,
    ]
    environ = {**os.environ, "LIGHT_S": "0.3", **environ}
    return subprocess.Popen(
        command,
        cwd=place,
        env=environ,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed(place, kills: int, runs: int, longest: float) -> None:
    """Kill a sweep `kills` times at random moments, resume it to its end, and check its files."""
    chance, kept = random.Random(0), {}
    for _ in range(kills):
        child = started(place)
        time.sleep(chance.uniform(0.3, longest))
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        for name in trace.names(place / "out"):
            trace.load(place / "out" / name)  # raises for a half-written file
        now = light.pairs(place / "out")
        assert kept.items() <= now.items()
        kept = now
    child = started(place)
    said = child.communicate(timeout=600)[0]
    assert child.returncode == 0, said
    now = light.pairs(place / "out")
    assert kept.items() <= now.items() and len(now) == runs
    asked = [trace.head(place / "out" / name)["request"] for name in now]
    assert len(set(asked)) == runs
    assert not list((place / "out").glob(".run-*"))


@pytest.mark.slow
def test_a_sweep_that_is_killed_twenty_times_loses_and_doubles_nothing(place):
    matrix(place, f'model = {MODELS}, dtype = ["fp32", "bf16"]'.replace("'", '"'))
    killed(place, kills=20, runs=16, longest=8.0)


@pytest.mark.slow
def test_two_sweeps_of_the_same_folder_share_the_work(place):
    runs = matrix(place, 'model = ["llama-24m", "llama-1b"]')
    children = [started(place) for _ in range(2)]
    said = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert len(light.pairs(place / "out")) == len(light.events(place / "out", "sweep")) == 2
    assert sorted(
        event["reason"] for event in light.events(place / "out", "end") if event["seconds"]
    ) == ["", ""]
    assert len(runs) == 2


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["t", "x" * 120])
def test_temporary_folders_of_killed_sweeps_do_not_stay(place, folder):
    matrix(place, "seed = [667]")
    (temporary := place / folder).mkdir()
    child = started(place, TMPDIR=str(temporary))
    while "[1/1]" not in (line := child.stdout.readline()):
        assert line
    time.sleep(5)
    family = psutil.Process(child.pid).children(recursive=True)
    for process in [psutil.Process(child.pid), *family]:
        process.suspend()  # so that none of them tidies up
    for process in [psutil.Process(child.pid), *family]:
        process.kill()
    child.communicate()
    left = [*temporary.glob("*")]
    assert left or len(folder) > 100, "else this test tests nothing"
    for path in temporary.glob("fp-*/lock"):
        os.utime(path, (1, 1))
    matrix(place, "seed = [1]")
    child = started(place, TMPDIR=str(temporary))
    said = child.communicate(timeout=60)[0]
    assert child.returncode == 0, said
    assert not list(temporary.iterdir()), left


@pytest.mark.slow
def test_ctrl_c_stops_clean_and_twice_stops_now(place):
    matrix(place, "seed = [667, 1]")
    for presses in (1, 2):
        child = started(place)
        while "[1/2]" not in (line := child.stdout.readline()):
            assert line
        time.sleep(5)  # until the notebook sleeps
        for _ in range(presses):
            child.send_signal(signal.SIGINT)
            time.sleep(0.3)
        said = child.communicate(timeout=30)[0]
        assert child.returncode == 1 and "2 interrupted of 2 runs" in said, said
    assert light.pairs(place / "out") == {}
    assert sweep.run(matrix(place, "seed = [1]"), place / "out")[0]["status"] == "ok"


@pytest.mark.slow
def test_ctrl_c_keeps_the_windows_of_the_real_notebook(place):
    import shutil
    from pathlib import Path

    shutil.copy(Path(__file__).parents[2] / "notebooks" / "profile.ipynb", place / "notebooks")
    small = "window_s = 1.0\nwarmup_s = 0\nbatches = [1]\nprompt_tokens = [8]\n"
    small += "output_tokens = [4]\nrepeats = 50"
    matrix(place, 'model = ["llama-24m"]', small)
    child = started(place)
    while "4/50" not in (line := child.stdout.readline()):
        assert line
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[0]
    assert (
        child.returncode == 1
        and "1 interrupted of 1 runs" in said
        and "stopping after the current window" in said
    ), said
    (name,) = light.pairs(place / "out")
    tree = trace.load(place / "out" / name)
    assert tree.attrs["status"] == "interrupted"
    assert "windows measured until then are kept" in tree.attrs["reason"]
    assert 2 + 9 < tree["windows"].sizes["window"] < 2 + 20
    assert set(tree["windows"]["status"].values) <= {"ok", "disturbed"}
    assert (
        float((tree["windows"]["stop_s"] - tree["windows"]["start_s"]).min()) >= 1.0
    )  # the last window was finished


@pytest.mark.slow
def test_a_full_disk_and_a_read_only_folder_fail_the_run_and_not_the_sweep(place):
    matrix(place, 'model = ["llama-24m", "llama-1b"]')
    disk = place / "out"
    disk.mkdir()
    for options, words in (("size=32k", "No space left"), ("ro", "Read-only file system")):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, text=True
        )
        assert mounted.returncode == 0, (
            f"this test mounts a small disk and needs the right to: {mounted.stderr}"
        )
        try:
            child = started(place)
            said = child.communicate(timeout=120)[0]
            assert child.returncode == 1 and "2 failed of 2 runs" in said and words in said, said
            assert trace.names(disk) == []
        finally:
            subprocess.run(["umount", disk], check=True)
    child = started(place)
    assert child.communicate(timeout=120) and child.returncode == 0


def test_an_outcome_says_how_long_and_never_zero_joules(place):
    outcome = sweep.run(matrix(place, "seed = [1]"), place / "out")[0]
    assert outcome["seconds"] > 0.05 and math.isnan(outcome["joules"])
