"""Exclusive use: one run a GPU, the CPU for one alone, and locks that end with their process."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from footprint import Refused, digest, workload
from footprint.measure import instrument, locks, provenance

A, B = "GPU-aaaaaaaa", "GPU-bbbbbbbb"
HOLD = """
import sys, time
from footprint.measure import locks
with locks.alone(sys.argv[1]) as uuid:
    print(uuid, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def two_gpus(tmp_path, monkeypatch):
    """Locks of our own, and two GPUs that NVML would name."""
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))

    def opened(device):
        gpus = {"cuda": A, "cuda:0": A, "cuda:1": B, A: A, B: B}
        if device == "cpu":
            return instrument.NoInstrument("cpu")
        if device not in gpus:
            raise instrument.Absent(f"There is no GPU {device!r}; this machine shows 2.")
        return SimpleNamespace(identity=lambda: instrument.Identity("FAKE", gpus[device], "1"))

    monkeypatch.setattr(instrument, "opened", opened)


def test_a_name_may_mean_several_gpus():
    assert locks.boards("cuda") == [A, B] and locks.boards("cuda:1") == [B]
    assert locks.boards("cpu") == []
    assert locks.identities("cuda") == {digest(A), digest(B)}
    assert locks.identities("cpu") == {provenance.processor()}
    assert locks.name("cpu") == workload.slug(provenance.processor())
    with pytest.raises(Refused, match="no GPU 'cuda:2'"):
        locks.boards("cuda:2")


def test_a_gpu_that_cannot_be_measured_leaves_the_others(monkeypatch):
    usual, bad = instrument.opened, {"cuda:0": Refused("It is cut.")}

    def opened(device):
        if device in bad:
            raise bad[device]
        return usual(device)

    monkeypatch.setattr(instrument, "opened", opened)
    assert locks.boards("cuda") == [B] and locks.name("cuda") == "fake"
    bad["cuda:1"] = instrument.Lost("It is lost.")
    assert locks.identities("cuda:1") == {"cuda:1"}
    with pytest.raises(Refused, match="It is cut"):
        locks.identities("cuda")


def taken(device):
    """Whether somebody else would have to wait for this device now."""
    said = []
    try:
        with locks.alone(device, stopped=lambda: True, say=said.append):
            return False
    except InterruptedError:
        assert said == [f"waiting for {device}: another run holds it"]
        return True


def test_each_gpu_is_held_by_one_and_the_host_by_all_of_them():
    with locks.alone("cuda:0") as first:
        assert first == A and taken("cuda:0") and taken("cpu") and not taken("cuda:1")
        with locks.alone("cuda") as second:
            assert second == B and taken("cuda")
    assert not taken("cuda:0") and not taken("cpu")


def test_a_run_on_the_cpu_has_the_host_for_itself():
    with locks.alone("cpu") as uuid:
        assert uuid == "" and taken("cpu") and taken("cuda:1")


def test_a_lock_ends_with_its_process():
    child = subprocess.Popen([sys.executable, "-c", HOLD, "cpu"], stdout=subprocess.PIPE, text=True)
    with child.stdout:
        child.stdout.readline()
        assert taken("cpu")
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not taken("cpu")


def test_who_waits_gets_it_when_it_is_free():
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("60", "0.5"), "cpu"], stdout=subprocess.PIPE, text=True
    )
    with child.stdout:
        child.stdout.readline()
        began = time.monotonic()
        with locks.alone("cpu", say=lambda line: None):
            assert time.monotonic() - began > 0.2
    assert child.wait() == 0


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Three places that all users can write to, and one that they cannot."""
    monkeypatch.delenv("FOOTPRINT_LOCKS")
    for name, mode in (("run", 0o1777), ("shm", 0o1777), ("tmp", 0o1777), ("own", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    names = ("run", "shm", "own", "missing")
    monkeypatch.setattr(locks, "SHARED", [f"{tmp_path}/{name}" for name in names])
    return tmp_path


def test_one_place_in_common_is_enough(places):
    hold = HOLD.replace("with locks", "locks.SHARED = sys.argv[2:]\nwith locks")
    for others, common in (("tmp shm", True), ("run", True), ("tmp own", False)):
        theirs = [f"{places}/{name}" for name in others.split()]
        command = [sys.executable, "-c", hold, "cpu", *theirs]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with child.stdout:
            child.stdout.readline()
            assert taken("cpu") == common, others
            child.kill()
            child.wait()
    assert not taken("cpu")


def test_only_places_for_all_users_are_taken_and_one_that_fails_is_left_out(places, monkeypatch):
    assert locks.folders() == [places / name / "footprint-locks" for name in ("run", "shm")]
    (places / "run" / "footprint-locks").write_text("somebody's file")
    with locks.alone("cuda:0"):
        assert taken("cuda:0") and len([*(places / "shm" / "footprint-locks").iterdir()]) == 2
    monkeypatch.setattr(locks, "SHARED", [f"{places}/run"])
    with pytest.raises(OSError, match="footprint-locks"), locks.alone("cuda:0"):
        pass
    monkeypatch.setattr(locks, "SHARED", [f"{places}/own"])
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(places / "tmp"))
    assert locks.folders() == [places / "tmp" / "footprint-locks"]


def test_the_walls_of_a_container_are_told(places, monkeypatch):
    monkeypatch.setattr(locks, "WALLS", [f"{places}/run/mark"])
    assert not locks.walled()
    (places / "run" / "mark").touch()
    assert locks.walled()
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(places))
    assert not locks.walled()


def test_the_files_of_other_users_can_be_locked_too(tmp_path):
    with locks.alone("cpu"):
        pass
    folder = tmp_path / "locks"
    assert folder.stat().st_mode & 0o1777 == 0o1777
    for path in folder.iterdir():
        os.chmod(path, 0o444)
    assert not taken("cpu")
