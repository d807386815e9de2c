"""The device under torch: find it, probe its rates, watch its memory. With `engine`, the only importer of torch."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from footprint import Refused
from footprint.measure import nvml as meter

PROBE_BYTES = {"cpu": 2**28, "cuda": 2**30}
PROBE_SIDE = {"cpu": 2048, "cuda": 8192}


def find(device: str) -> torch.device:
    """The torch device of `cpu`, `cuda`, `cuda:N` or a UUID. Raises `Refused` when this machine has none such."""
    if device == "cpu":
        return torch.device("cpu")
    meter.handle(device)  # says in one sentence what is missing
    if not torch.cuda.is_available():
        raise Refused(
            f"torch {torch.__version__} sees no CUDA device; install the CUDA build, or use -p device cpu."
        )
    if device.startswith("GPU-"):
        uuids = [
            f"GPU-{torch.cuda.get_device_properties(i).uuid}"
            for i in range(torch.cuda.device_count())
        ]
        if device not in uuids:
            raise Refused(f"torch does not see the GPU {device}; it sees {', '.join(uuids)}.")
        return torch.device("cuda", uuids.index(device))
    return torch.device(device if ":" in device else "cuda:0")


def numbers(dtype: str) -> torch.dtype:
    """torch's name of a dtype. Raises `Refused` for one that this project cannot run."""
    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if dtype not in known:
        raise Refused(
            f"The dtype {dtype!r} cannot be measured yet; allowed are {', '.join(known)}."
        )
    return known[dtype]


def sync(device: torch.device) -> None:
    """Wait until the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def probe(device: torch.device, dtype: str) -> dict[str, float]:
    """Best rates of a few tries in this dtype: GB/s read by a matrix-vector product, GFLOP/s of a square product."""
    kind, size = numbers(dtype), PROBE_BYTES[device.type]
    rows = size // (4096 * kind.itemsize)
    matrix, vector = (
        torch.ones(rows, 4096, dtype=kind, device=device),
        torch.ones(1, 4096, dtype=kind, device=device),
    )
    square = torch.ones(PROBE_SIDE[device.type], PROBE_SIDE[device.type], dtype=kind, device=device)
    reading = min(
        _timed(lambda: torch.nn.functional.linear(vector, matrix), device) for _ in range(8)
    )
    multiplying = min(_timed(lambda: square @ square, device) for _ in range(5))
    return {
        "read_bandwidth_GBps": matrix.numel() * kind.itemsize / reading / 1e9,
        "matmul_GFLOPs": 2 * len(square) ** 3 / multiplying / 1e9,
    }


def exercise(device: torch.device) -> tuple[Callable, Callable, Callable]:
    """Three functions for a sensor card: make a context, fill half of the free memory, keep the device busy for seconds."""
    side, kept = PROBE_SIDE[device.type], []
    kind = torch.float16 if device.type == "cuda" else torch.float32

    def context() -> None:
        kept.append(torch.ones(side, side, dtype=kind, device=device))
        sync(device)

    def weights() -> None:
        kept.append(
            torch.ones(
                int(free_memory(device) / 8) if device.type == "cuda" else side, device=device
            )
        )
        sync(device)

    def busy(seconds: float) -> None:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            _timed(lambda: kept[0] @ kept[0], device)

    return context, weights, busy


@torch.inference_mode()
def _timed(call: Callable, device: torch.device) -> float:
    begin = time.perf_counter()
    call()
    sync(device)
    return time.perf_counter() - begin


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of the peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # Linux: resets the high-water mark of the resident memory


def peak_memory(device: torch.device) -> float:
    """Bytes at the peak since `reset_peak`: of device memory, or resident; NaN where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next(
        (float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), float("nan")
    )


def memory(device: torch.device) -> float:
    """GiB of memory that the device has."""
    total = psutil.virtual_memory().total
    return (
        torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total
    ) / 2**30


def free_memory(device: torch.device) -> float:
    """Bytes that are free on the device now, after giving back what is cached."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


def out_of_memory(error: Exception) -> bool:
    """Whether this error says that memory ran out, in torch's or Python's words."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
