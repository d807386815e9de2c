"""The device under torch: find it, probe its rates, keep it busy, watch its memory."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from footprint import Refused
from footprint.measure import instrument, sensor

PROBE_BYTES = {"cpu": 2**28, "cuda": 2**30}
PROBE_SIDE = {"cpu": 2048, "cuda": 8192}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def find(device: str) -> torch.device:
    """The torch device of `cpu`, `cuda`, `cuda:N` or a UUID. Raises `Refused` when this machine has none such."""
    if device == "cpu":
        return torch.device("cpu")
    instrument.opened(device)  # says in one sentence what is missing
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


def torch_dtype(dtype: str) -> torch.dtype:
    """torch's name of a dtype. Raises `Refused` for one that this project cannot run."""
    if dtype not in DTYPES:
        raise Refused(
            f"The dtype {dtype!r} cannot be measured yet; allowed are {', '.join(DTYPES)}."
        )
    return DTYPES[dtype]


def sync(device: torch.device) -> None:
    """Wait until the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rates(device: torch.device, dtype: str) -> dict[str, float]:
    """Best rates of a few tries in this dtype: GB/s read by a matrix-vector product, GFLOP/s of a square product."""
    options = {"dtype": torch_dtype(dtype), "device": device}
    side, width = PROBE_SIDE[device.type], options["dtype"].itemsize
    matrix = torch.ones(PROBE_BYTES[device.type] // (4096 * width), 4096, **options)
    vector, square = torch.ones(1, 4096, **options), torch.ones(side, side, **options)
    linear = torch.nn.functional.linear
    reading = min(_timed(lambda: linear(vector, matrix), device) for _ in range(8))
    multiplying = min(_timed(lambda: square @ square, device) for _ in range(5))
    return {
        "read_bandwidth_GBps": matrix.numel() * width / reading / 1e9,
        "matmul_GFLOPs": 2 * side**3 / multiplying / 1e9,
    }


def exercise(device: torch.device) -> sensor.Load:
    """What a sensor card is measured with: a context, half of the free memory filled, square products for seconds."""
    on_gpu, side, kept = device.type == "cuda", PROBE_SIDE[device.type], []
    dtype = torch.float16 if on_gpu else torch.float32

    def keep(*shape: int, dtype: torch.dtype = torch.float32) -> None:
        kept.append(torch.ones(*shape, dtype=dtype, device=device))
        sync(device)

    def busy(seconds: float) -> None:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            _timed(lambda: kept[0] @ kept[0], device)

    return sensor.Load(
        context=lambda: keep(side, side, dtype=dtype),
        weights=lambda: keep(int(free_memory(device) / 8) if on_gpu else side),
        busy=busy,
    )


@torch.inference_mode()
def _timed(call: Callable, device: torch.device) -> float:
    begin = time.perf_counter()
    call()
    sync(device)
    return time.perf_counter() - begin


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of the peak memory."""
    resident = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif resident.exists():
        resident.write_text("5")  # Linux: resets the high-water mark of the resident memory


def peak_memory(device: torch.device) -> float:
    """Bytes at the peak since `reset_peak`: of device memory, or resident; NaN where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    marks = (float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return next(marks, float("nan"))


def memory(device: torch.device) -> float:
    """GiB of memory that the device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    return psutil.virtual_memory().total / 2**30


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
