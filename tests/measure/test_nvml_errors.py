"""Each call of NVML with each of its errors: a sentence or a status, and healthy GPUs go on."""

import math

import pynvml
import pytest

import fake_nvml as fake
from footprint import Refused
from footprint.measure import instrument, locks, nvml, preflight, sensor, window
from footprint.sweep import runner
from footprint.trace.schema import OPTIONAL_ATTRS, WINDOW_STATUS

OF_ALL = ("init", "driver", "cuda", "count")  # calls that concern no single GPU
CALLS = (*OF_ALL, "handle", "uuid", "name", "pci", "mig", "virtualisation", "memory", "power")
CALLS += ("counter", "fields", "instant", "counter_field", "temperature", "clock", "limit")
CALLS += ("throttle", "processes", "capability", "persistence", "ecc", "pcie", "usual_limit")
CALLS += ("memory_v2",)
CODES = {getattr(pynvml, name) for name in dir(pynvml) if name.startswith("NVML_ERROR_")}
SAMPLE = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_NO_PERMISSION)


def opened(name: str) -> instrument.Instrument | None:
    """The instrument of this name; None where one sentence says why there is none."""
    try:
        return instrument.opened(name)
    except Refused as refused:
        assert str(refused).endswith(".") and "\n" not in str(refused)
        return None


def read(gpu: instrument.Instrument) -> str:
    """Status of a window beside this GPU; every reading is a number or NaN with a reason."""
    assert "FAKE" in gpu.identity().name and gpu.identity().uuid.startswith("GPU-FAKE-")
    (joules, counted), state, reading = gpu.counter(), gpu.state(), gpu.reader()()
    assert math.isnan(joules) == (counted != "ok") and joules != 0
    assert {counted, state.status, reading.status} <= set(WINDOW_STATUS)
    assert math.isfinite(reading.power_W) or reading.status != "ok"
    assert state.power_limit_W != 0 and math.isnan(runner._joules(gpu.identity().uuid) * 0) in (
        0,
        1,
    )
    sensor.cost(gpu)
    return window.idle(1e-3, window.Setup(gpu, quick=True))["status"]


def shown() -> str:
    """What preflight says of the GPUs."""
    assert isinstance(preflight.driver().seen + preflight.counter().seen, str)
    answering, silent = nvml.surveyed()
    for gpu, facts in answering:
        checks = preflight.topics(facts, gpu.bus)
        assert all(check.seen == "unknown" for check in checks.values() if check.there is None)
        assert set(nvml.settings(facts)) <= set(OPTIONAL_ATTRS)
    return preflight.gpus(answering, silent).seen


def meet(script, call: str, code: int, cards: int, monkeypatch) -> None:
    """One call of one of the GPUs fails from the start, then from after the opening."""
    bad = code % cards
    fault = (call if call in OF_ALL else f"{call}@{bad}", code, *fake.ALWAYS)
    healthy = {f"GPU-FAKE-{card}" for card in range(cards)} - {f"GPU-FAKE-{bad}"}
    names = ["cuda", *(f"cuda:{number}" for number in range(cards)), f"GPU-FAKE-{bad}"]
    for late in (False, True):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        script(cards=cards, **({} if late else {"faults": [fault]}))
        before = [opened(name) for name in names]
        if late:
            script(cards=cards, faults=[fault])
        for gpu in filter(None, before):
            status = read(gpu)
            assert status in WINDOW_STATUS
            if gpu.identity().uuid in healthy and call not in OF_ALL:
                assert status in ("ok", "disturbed")
        if call in OF_ALL:
            for name in names:
                opened(name)
        else:
            assert not healthy - set(locks.boards("cuda") if healthy else ())
            assert all(read(opened(uuid)) in ("ok", "disturbed") for uuid in healthy)
            assert shown().count("FAKE GPU") >= len(healthy)


def all_met(gpu, monkeypatch, calls, codes, counts=(1, 3)) -> list:
    """The cases that ended in anything but a sentence or a status."""
    monkeypatch.setattr(sensor, "CALLS", 2)
    wrong = []
    for case in ((call, code, cards) for call in calls for code in codes for cards in counts):
        try:
            meet(gpu, *case, monkeypatch)
        except Exception as error:
            wrong.append((*case, repr(error)))
    return wrong


def test_some_errors_of_each_call_stop_no_healthy_gpu(gpu, monkeypatch):
    assert all_met(gpu, monkeypatch, CALLS, SAMPLE, counts=(3,)) == []


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_no_error_of_a_call_stops_a_healthy_gpu(gpu, monkeypatch, call):
    assert all_met(gpu, monkeypatch, [call], sorted(CODES)) == []
