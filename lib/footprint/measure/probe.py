"""The device under torch: find it, probe its rates, keep it busy, watch its memory."""

import gc
import math
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from footprint import Refused
from footprint.measure import instrument, sensor
from footprint.measure.engine import Engine

PROBE_BYTES = {"cpu": 2**28, "cuda": 2**30}
PROBE_SIDE = {"cpu": 2048, "cuda": 8192}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine(Engine):
    """What engines share that run under torch in this process: the device and its memory."""

    library = "torch"

    def __init__(self, request: dict):
        super().__init__(request)
        self.device = find(request["device"])
        self.on_gpu = self.device.type == "cuda"

    def memory_GiB(self) -> float:
        """Memory that the device has."""
        if self.on_gpu:
            return torch.cuda.get_device_properties(self.device).total_memory / 2**30
        return psutil.virtual_memory().total / 2**30

    def free_bytes(self) -> float:
        """Memory that is free on the device now, after giving back what is cached."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            return float(torch.cuda.mem_get_info(self.device)[0])
        return float(psutil.virtual_memory().available)

    def reset_peak(self) -> None:
        resident = Path("/proc/self/clear_refs")
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        elif resident.exists():
            resident.write_text("5")  # Linux: resets the high-water mark of the resident memory

    def peak_bytes(self) -> float:
        """Device memory at its peak, or resident memory; NaN where the system does not tell."""
        if self.on_gpu:
            return float(torch.cuda.max_memory_reserved(self.device))
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        marks = [float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
        return marks[0] if marks else math.nan

    def out_of_memory(self, error: Exception) -> bool:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        return known or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def find(device: str) -> torch.device:
    """The torch device of `cpu`, `cuda`, `cuda:N` or a UUID. Raises `Refused` when this machine has none such."""
    if device == "cpu":
        return torch.device("cpu")
    instrument.opened(device)  # says in one sentence what is missing
    if not torch.cuda.is_available():
        raise Refused(
            f"torch {torch.__version__} sees no CUDA device; install the CUDA build, or use -p device cpu."
        )
    if not device.startswith("GPU-"):
        return torch.device(device if ":" in device else "cuda:0")
    numbers = range(torch.cuda.device_count())
    uuids = [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in numbers]
    if device not in uuids:
        raise Refused(f"torch does not see the GPU {device}; it sees {', '.join(uuids)}.")
    return torch.device("cuda", uuids.index(device))


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


@torch.inference_mode()
def _timed(call: Callable, device: torch.device) -> float:
    begin = time.perf_counter()
    call()
    sync(device)
    return time.perf_counter() - begin


def exercise(device: str) -> sensor.Load:
    """What a sensor card is measured with: a context, half of the free memory filled, square products for seconds."""
    engine, kept = TorchEngine({"device": device}), []
    side = PROBE_SIDE[engine.device.type]

    def keep(*shape: int, dtype: torch.dtype = torch.float32) -> None:
        kept.append(torch.ones(*shape, dtype=dtype, device=engine.device))
        sync(engine.device)

    def busy(seconds: float) -> None:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            _timed(lambda: kept[0] @ kept[0], engine.device)

    return sensor.Load(
        context=lambda: keep(side, side, dtype=DTYPES["fp16" if engine.on_gpu else "fp32"]),
        weights=lambda: keep(int(engine.free_bytes() / 8) if engine.on_gpu else side),
        busy=busy,
    )
