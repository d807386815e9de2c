"""An instrument is one file and one line in the registry, its sampler's process included."""

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


def test_a_window_reads_it_at_both_ends():
    setup = window.Setup(scripted.Scripted("scripted"), quick=True)
    row = window.idle(0.2, setup)
    assert row["status"] in ("ok", "disturbed") and row["other_processes"] == 0
    joules = row["counter_stop_J"] - row["counter_start_J"]
    assert joules == pytest.approx(scripted.WATTS * 0.2, abs=2 * scripted.WATTS / 100)
