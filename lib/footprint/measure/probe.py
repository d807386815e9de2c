"""The device that torch runs on: its memory, its rates, and a load for its sensor card."""

import gc
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

from footprint import Refused, workload
from footprint.measure import engine, instrument, locks, preflight, sensor

OVERDRAFT = 1.3  # a GPU refuses what it lacks; Linux lets a process grow, and kills it
PROBE_BYTES = {"cpu": 2**28, "cuda": 2**30}
PROBE_SIDE = {"cpu": 2048, "cuda": 8192}
SUSTAINED_S = {"cpu": 0.0, "cuda": 2.0}  # of matrix products
BESIDE_S = 0.2  # of them while the instrument is read: a power reading looks back some 0.1 s
LAUNCHES, LAUNCH_S = 1000, 1.0
HIDDEN = "other processes are unknown, as our own id is hidden (docker run --pid=host shows it)"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine(engine.Engine):
    """What engines that run torch in this process share: the device and its memory."""

    library = "torch"
    dtype: str  # set by `load`

    def __init__(self, request: dict):
        super().__init__(request)
        self.device = find(request["device"])
        self.on_gpu = self.device.type == "cuda"
        self.overdraft = OVERDRAFT if self.on_gpu else 1.0

    def memory_GiB(self) -> float:
        """Memory of the device."""
        if self.on_gpu:
            return torch.cuda.get_device_properties(self.device).total_memory / 2**30
        return psutil.virtual_memory().total / 2**30

    def probe(self) -> dict[str, float]:
        gpu, share = instrument.opened(self.request["device"]), 0.1 if self.request["quick"] else 1
        found = rates(self.device, self.dtype, gpu, share * SUSTAINED_S[self.device.type])
        found |= {"launch_ms": launch_ms(self.device, share * LAUNCH_S)}
        return found | {"memory_GiB": self.memory_GiB()}

    def free_bytes(self) -> float:
        return free_bytes(self.device)

    def reset_peak(self) -> None:
        resident = Path("/proc/self/clear_refs")
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        elif resident.exists():
            resident.write_text("5")  # Linux: resets the high-water mark of the resident memory

    def peak_bytes(self) -> float:
        """Peak of the reserved GPU memory, on a CPU of the resident memory (NaN but on Linux)."""
        if self.on_gpu:
            return float(torch.cuda.max_memory_reserved(self.device))
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        marks = [float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
        return marks[0] if marks else math.nan


def find(device: str) -> torch.device:
    """The torch device of `cpu`, `cuda`, `cuda:N` or a UUID; `Refused` where torch cannot use it.

    The instrument says in one sentence what is missing on the side of the driver.
    """
    if device == "cpu":
        return torch.device("cpu")
    gpu, build = instrument.opened(device), torch.version.cuda or ""
    if wrong := preflight.misfit(build, gpu.settings(), torch.cuda.get_arch_list()):
        raise Refused(wrong)
    if not torch.cuda.is_available():
        remedy = f"run make TORCH_INDEX={preflight.PYPI} profile, or use -p device cpu"
        if build:
            remedy = "python -c 'import torch; torch.cuda.init()' says why"
        raise Refused(f"torch {torch.__version__}, CUDA {build or None}, sees no GPU: {remedy}.")
    if not device.startswith("GPU-"):
        return torch.device(device if ":" in device else "cuda:0")
    numbers = range(torch.cuda.device_count())
    uuids = [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in numbers]
    if (uuid := gpu.identity().uuid) not in uuids:
        raise Refused(f"torch does not see the GPU {uuid}; it sees {', '.join(uuids)}.")
    return torch.device("cuda", uuids.index(uuid))


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of this name; `Refused` where it cannot be measured."""
    if dtype not in DTYPES:
        allowed = ", ".join(DTYPES)
        raise Refused(f"The dtype {dtype!r} cannot be measured yet; allowed are {allowed}.")
    return DTYPES[dtype]


def sync(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_bytes(device: torch.device) -> float:
    """Memory that is free on the device after torch's cache was emptied."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


def normals(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Seeded normal numbers: equal ones would draw less power than the numbers of a model."""
    generator = torch.Generator(device=device).manual_seed(0)
    return torch.empty(*shape, dtype=dtype, device=device).normal_(generator=generator)


def rates(
    device: torch.device, dtype: str, gpu: instrument.Instrument, sustained_s: float = 0.0
) -> dict[str, float]:
    """GB/s of a matrix-vector product, GFLOP/s of a square product, clock and power beside it.

    The vector counts with its best of eight. The square is repeated for `sustained_s`: of a GPU,
    which slows as it warms, the median of the later half counts; of a CPU, which others use too,
    the best.
    """
    options = {"dtype": torch_dtype(dtype), "device": device}
    side, width = PROBE_SIDE[device.type], options["dtype"].itemsize
    matrix = normals(PROBE_BYTES[device.type] // (4096 * width), 4096, **options)
    vector, square = normals(1, 4096, **options), normals(side, side, **options)
    linear = torch.nn.functional.linear
    reading_s = min(_timed(lambda: linear(vector, matrix), device) for _ in range(8))
    times, stop = [], time.monotonic() + sustained_s
    while len(times) < 5 or time.monotonic() < stop:
        times.append(_timed(lambda: square @ square, device))
    later_s = float(np.median(times[len(times) // 2 :]))
    multiplying_s, read = later_s if device.type == "cuda" else min(times), gpu.reader()
    with torch.inference_mode():
        for _ in range(math.ceil(min(BESIDE_S, sustained_s) / later_s)):
            square @ square  # the instrument is read while these run
    watts, clock_MHz = read().power_W, gpu.state().sm_clock_MHz
    sync(device)
    return {
        "read_bandwidth_GBps": matrix.numel() * width / reading_s / 1e9,
        "matmul_GFLOPs": 2 * side**3 / multiplying_s / 1e9,
        "probe_power_W": watts,
        "probe_sm_clock_MHz": clock_MHz,
    }


@torch.inference_mode()
def launch_ms(device: torch.device, seconds: float) -> float:
    """Milliseconds that Python takes to start one operation on a single number, many in a row."""
    number, times, stop = torch.zeros(1, device=device), [], time.monotonic() + seconds
    while not times or time.monotonic() < stop:
        begin = time.perf_counter()
        for _ in range(LAUNCHES):
            number.add_(1.0)
        sync(device)
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times)) / LAUNCHES


@torch.inference_mode()
def _timed(call: Callable, device: torch.device) -> float:
    begin = time.perf_counter()
    call()
    sync(device)
    return time.perf_counter() - begin


def exercise(name: str) -> sensor.Load:
    """The load of a sensor card: a context, half of the free memory filled, square products."""
    device, kept = find(name), []
    side, on_gpu = PROBE_SIDE[device.type], device.type == "cuda"

    def keep(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        kept.append(normals(*shape, dtype=dtype, device=device))
        sync(device)
        return kept[-1]

    def busy(seconds: float) -> None:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            _timed(lambda: kept[0] @ kept[0], device)

    return sensor.Load(
        context=lambda: keep(side, side, dtype=DTYPES["fp16" if on_gpu else "fp32"]),
        weights=lambda: keep(int(free_bytes(device) / 8) if on_gpu else side),
        busy=busy,
    )


# -- for preflight ---------------------------------------------------------------------------------


def trial(device: str = "cuda") -> str:
    """Generate four tokens by the smallest model on a free GPU; says how that went."""
    with locks.alone(device, stopped=lambda: True, say=lambda _: None) as uuid:
        gpu = instrument.opened(uuid)
        before = gpu.state().processes
        request = workload.request("profile", model="llama-24m", weights="random", device=uuid)
        small = engine.opened(request)
        small.load()
        lengths = ("batch", "prompt_tokens", "output_tokens")
        once = small.iteration("generate", dict.fromkeys(lengths, 4), 0)
        once()
        spent_ms, after = 1e3 * sum(once()), gpu.state().processes
    said = f"4 tokens of 4 sequences in {spent_ms:.0f} ms"
    hidden = after is not None and instrument.own(before, after) is None
    return f"{said}; {HIDDEN}" if hidden else said


if __name__ == "__main__":
    try:
        print(trial())
    except (Refused, InterruptedError) as error:
        sys.exit(str(error))
