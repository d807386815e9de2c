"""An instrument is one file and one line in the registry, its sampler's process included."""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import scripted_instrument as scripted
from footprint import Refused, workload
from footprint.measure import instrument, locks, sampler, window


@pytest.fixture
def registered(monkeypatch):
    """Register the scripted instrument; processes that start from here can import it."""
    monkeypatch.setitem(workload.INSTRUMENTS, r"scripted(:\d)?", scripted.PLACE)
    monkeypatch.syspath_prepend(str(scripted.__file__).rpartition("/")[0])
    monkeypatch.setenv("PYTHONPATH", str(scripted.__file__).rpartition("/")[0], prepend=":")


def test_a_registered_instrument_opens_by_the_name_of_its_device(registered):
    assert workload.request(device="scripted:0")["device"] == "scripted:0"
    assert instrument.opened("scripted:0").identity().driver == "9.0"
    assert locks.name("scripted") == "scripted-accelerator-9000"
    with pytest.raises(Refused, match="'scripted:10'"):
        workload.request(device="scripted:10")


def test_a_name_that_nobody_registered_has_no_instrument():
    with pytest.raises(Refused, match="No instrument is registered for the device 'tpu'"):
        instrument.opened("tpu")


def test_the_sampler_samples_it_in_a_process_of_its_own(registered):
    with sampler.sampling(instrument.opened("scripted:0"), rate_hz=50.0) as recording:
        time.sleep(0.5)
    seen = recording.columns
    assert (seen["code"] == 0).all() and len(seen["time_s"]) > 10
    assert (seen["power_W"] == scripted.WATTS).all() and (np.diff(seen["counter_J"]) >= 0).all()


@pytest.mark.parametrize(
    ("others", "held_GiB", "said"),
    [
        (0, 0.1, ""),
        (-1, math.nan, ""),
        (2, 5.0, "2 other processes compute on this GPU: until they end"),
        (0, 1.5, "1.5 GiB of this GPU are in use and no process is listed"),
        (-1, 1.5, "1.5 GiB of this GPU are in use and no process is listed"),
    ],
)
def test_strangers_are_told_by_the_list_or_by_the_memory_they_hold(others, held_GiB, said):
    assert (
        instrument.strangers(others, held_GiB).startswith(said)
        if said
        else (instrument.strangers(others, held_GiB) == "")
    )


def test_our_processes_are_told_from_those_that_came_meanwhile():
    own, stranger, late = os.getpid(), 4000000, 4000001
    before, after = frozenset({stranger}), frozenset({stranger, own, late})
    assert instrument.own(before, after) == {own}
    assert instrument.own(None, after) == {own}, "the list was not there before"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child.stdin:
        assert instrument.own(before, after - {own} | {child.pid}) == {child.pid}
    child.wait()
    assert instrument.own(before, before | {late}) == {late}, "numbered by another namespace"
    assert instrument.own(before, before) is instrument.own(before, None) is None


@pytest.mark.parametrize(
    ("own", "listed", "others"),
    [
        (frozenset({7}), {7}, 0),
        (frozenset({7}), {7, 8}, 1),
        (frozenset(), set(), 0),
        (None, set(), -1),
        (None, {8, 9}, 2),
        (None, None, -1),
    ],
)
def test_where_our_process_is_hidden_others_are_unknown_unless_seen(own, listed, others):
    seen = instrument.State(processes=None if listed is None else frozenset(listed))
    assert window._others(seen, seen, own) == others


def test_a_window_reads_it_at_both_ends():
    setup = window.Setup(scripted.Scripted("scripted"), quick=True)
    row = window.idle(0.2, setup)
    assert row["status"] in ("ok", "disturbed") and row["other_processes"] == 0
    joules = row["counter_stop_J"] - row["counter_start_J"]
    assert joules == pytest.approx(scripted.WATTS * 0.2, abs=2 * scripted.WATTS / 100)
