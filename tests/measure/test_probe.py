"""The device under torch, on a machine that has a CPU and no GPU."""

import pytest
import torch

from footprint import Refused
from footprint.measure import probe

CPU = torch.device("cpu")


def test_a_cpu_is_found_and_a_missing_gpu_refused(monkeypatch):
    assert probe.find("cpu") == CPU
    monkeypatch.setattr(probe.instrument, "opened", lambda device: None)
    if not torch.cuda.is_available():
        with pytest.raises(Refused, match="sees no CUDA device"):
            probe.find("cuda:0")


def test_the_probe_reads_plausible_rates():
    found = probe.rates(CPU, "fp32")
    assert 0.5 < found["read_bandwidth_GBps"] < 5000
    assert 1 < found["matmul_GFLOPs"] < 1e6


def test_peak_memory_sees_what_was_allocated():
    probe.reset_peak(CPU)
    before = probe.peak_memory(CPU)
    block = torch.ones(2**26)
    assert probe.peak_memory(CPU) - before > 0.9 * block.numel() * 4
    del block
    probe.reset_peak(CPU)
    assert probe.peak_memory(CPU) < before + 2**27


def test_memory_is_known_and_free_memory_is_less():
    assert 0 < probe.free_memory(CPU) < probe.memory(CPU) * 2**30


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            True,
        ),
        (RuntimeError("shape mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, expected):
    assert probe.out_of_memory(error) is expected


def test_an_unknown_dtype_is_refused():
    with pytest.raises(Refused, match="int4"):
        probe.torch_dtype("int4")
