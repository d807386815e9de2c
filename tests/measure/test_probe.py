"""The device under torch, on a machine that has a CPU and no GPU."""

import math

import pytest
import torch

from footprint import Refused, workload
from footprint.measure import probe
from footprint.measure.eager import Eager
from footprint.measure.instrument import NoInstrument

CPU = torch.device("cpu")


@pytest.fixture
def engine():
    return Eager(workload.request(device="cpu"))


def test_a_cpu_is_found_and_a_missing_gpu_refused(monkeypatch):
    assert probe.find("cpu") == CPU
    monkeypatch.setattr(probe.instrument, "opened", NoInstrument)
    if not torch.cuda.is_available():
        with pytest.raises(Refused, match="CUDA None, sees no GPU: run make TORCH_INDEX=https"):
            probe.find("cuda:0")


def test_the_probe_reads_plausible_rates():
    found = probe.rates(CPU, "fp32", NoInstrument("cpu"))
    assert 0.5 < found["read_bandwidth_GBps"] < 5000
    assert 1 < found["matmul_GFLOPs"] < 1e6
    assert math.isnan(found["probe_power_W"]) and math.isnan(found["probe_sm_clock_MHz"])


@pytest.mark.parametrize("dtype", probe.DTYPES.values())
def test_what_it_multiplies_is_normal_and_seeded(dtype):
    numbers = probe.normals(300, 300, dtype=dtype, device=CPU)
    assert torch.equal(numbers, probe.normals(300, 300, dtype=dtype, device=CPU))
    assert abs(numbers.float().mean()) < 0.02 and abs(numbers.float().std() - 1) < 0.02
    assert len(numbers[:, 0].unique()) > 200


def test_a_launch_takes_its_share_of_the_loop(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(probe.time, "perf_counter", lambda: 5.0 * next(ticks))
    assert probe.launch_ms(CPU, 0.0) == pytest.approx(1e3 * 5.0 / probe.LAUNCHES)
    monkeypatch.undo()
    assert 1e-4 < probe.launch_ms(CPU, 0.05) < 1


def test_peak_memory_sees_what_was_allocated(engine):
    engine.reset_peak()
    before = engine.peak_bytes()
    block = torch.ones(2**26)
    assert engine.peak_bytes() - before > 0.9 * block.numel() * 4
    del block
    engine.reset_peak()
    assert engine.peak_bytes() < before + 2**27


def test_memory_is_known_and_free_memory_is_less(engine):
    assert 0 < engine.free_bytes() < engine.memory_GiB() * 2**30


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (torch.OutOfMemoryError("HIP has no more"), True),
        (
            torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
            True,
        ),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("cudaErrorMemoryAllocation"), True),
        (RuntimeError("NVRM: Out of memory"), True),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: not enough memory: you tried"), True),
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
def test_out_of_memory_is_told_from_other_errors(engine, error, expected):
    assert engine.out_of_memory(error) is expected


def test_an_unknown_dtype_is_refused():
    with pytest.raises(Refused, match="int4"):
        probe.torch_dtype("int4")
