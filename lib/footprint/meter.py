"""Instruments: NVML's energy counter and instantaneous power for a GPU, and none where there is none. Never a zero."""

import math
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import numpy as np

from footprint import Refused

RATE_HZ = 20.0
START_S = 10.0  # the sampler has this long for its first sample
BUSIEST = 0.05  # largest share of one core that the sampler may spend inside the driver
NOTHING = {"counter_J": math.nan, "temperature_C": math.nan, "sm_clock_MHz": math.nan, "power_limit_W": math.nan,
           "throttle": 0, "status": "not_supported"}  # fmt: skip
FAULTS = {"NotSupported": "not_supported", "NoPermission": "no_permission", "GpuIsLost": "gpu_lost",
          "LibRmVersionMismatch": "driver_mismatch", "DriverNotLoaded": "gpu_lost"}  # fmt: skip


def fault(error: Exception) -> str:
    """The window status that an NVML error stands for."""
    return FAULTS.get(type(error).__name__.removeprefix("NVMLError_"), "not_supported")


def _read(call, *arguments) -> tuple[float, str]:
    """Value and status of one NVML call; NaN and the reason when it fails."""
    import pynvml

    try:
        return call(*arguments), "ok"
    except pynvml.NVMLError as error:
        return math.nan, fault(error)


def handle(device: str):
    """NVML's handle of `cuda`, `cuda:N` (PCI order) or a `GPU-…` UUID. Raises `Refused` with the reason."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise Refused("There is no NVIDIA driver here (libnvidia-ml.so.1 was not found); use -p device cpu.") from None
    except pynvml.NVMLError as error:
        raise Refused(f"The NVIDIA driver does not start ({error}); its modules may need a reload or a reboot.") from None
    if device.startswith("MIG-"):
        raise Refused("A MIG slice has no energy of its own (NVML reads the whole board); use a whole GPU.")
    try:
        if device.startswith("GPU-"):
            return pynvml.nvmlDeviceGetHandleByUUID(device)
        return pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
    except pynvml.NVMLError as error:
        count = pynvml.nvmlDeviceGetCount()
        raise Refused(f"There is no GPU {device!r} ({error}); this machine has {count}, numbered from 0.") from None


def identity(device: str) -> dict[str, str]:
    """Name, UUID and driver of a GPU (the UUID is for this process only: stored is its hash)."""
    import pynvml

    card = handle(device)
    return {"name": pynvml.nvmlDeviceGetName(card), "uuid": _read(pynvml.nvmlDeviceGetUUID, card)[0],
            "driver": pynvml.nvmlSystemGetDriverVersion()}  # fmt: skip


def read(card) -> dict:
    """Counter, temperature, clock, power limit and throttle reasons now; NaN and a status where a call fails."""
    import pynvml

    if card is None:
        return dict(NOTHING)
    counter, status = _read(pynvml.nvmlDeviceGetTotalEnergyConsumption, card)
    throttle = _read(pynvml.nvmlDeviceGetCurrentClocksEventReasons, card)[0]
    return {
        "counter_J": counter / 1e3,
        "temperature_C": float(_read(pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU)[0]),
        "sm_clock_MHz": float(_read(pynvml.nvmlDeviceGetClockInfo, card, pynvml.NVML_CLOCK_SM)[0]),
        "power_limit_W": _read(pynvml.nvmlDeviceGetEnforcedPowerLimit, card)[0] / 1e3,
        "throttle": 0 if math.isnan(throttle) else int(throttle),
        "status": status,
    }


def power_call(card):
    """The best power reading that the card has, as (name, function giving watts): instantaneous, else the average."""
    import pynvml

    def instant() -> float:
        field = pynvml.nvmlDeviceGetFieldValues(card, [pynvml.NVML_FI_DEV_POWER_INSTANT])[0]
        pynvml._nvmlCheckReturn(field.nvmlReturn)
        return field.value.uiVal / 1e3

    def average() -> float:
        return pynvml.nvmlDeviceGetPowerUsage(card) / 1e3

    for name, call in (("nvml_instant", instant), ("nvml_average", average)):
        if _read(call)[1] == "ok":
            return name, call
    return "none", None


@contextmanager
def sampling(device: str):
    """Sample the power of `device` in a process of its own for as long as the block runs.

    Yields a dictionary; after the block it holds `time_s` (monotonic), `power_W` and `status` (`ok` or `sampler_died`).
    """
    got = {"time_s": np.array([]), "power_W": np.array([]), "status": "not_supported"}
    if device == "cpu" or power_call(handle(device))[1] is None:
        yield got
        return
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen([sys.executable, "-m", "footprint.meter", device], stdout=out, stdin=subprocess.PIPE)
        try:
            deadline = time.monotonic() + START_S
            while not os.fstat(out.fileno()).st_size and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            yield got
        finally:
            died = child.poll() is not None
            child.stdin.close()  # the sampler ends when its standard input does, even if this process is killed
            child.wait(timeout=10)
            out.seek(0)
            raw = np.frombuffer(out.read(), dtype=np.float64)
            rows = raw[: raw.size // 2 * 2].reshape(-1, 2)
            got.update(time_s=rows[:, 0], power_W=rows[:, 1], status="sampler_died" if died else "ok")


def sample(device: str) -> None:
    """Write (monotonic time, watts) pairs to standard output until standard input closes; slow calls, fewer of them."""
    call = power_call(handle(device))[1]
    while True:
        before = time.monotonic()
        watts, status = _read(call)
        after = time.monotonic()
        sys.stdout.buffer.write(np.array([(before + after) / 2, watts]).tobytes())
        sys.stdout.buffer.flush()
        if status == "gpu_lost":
            sys.exit(1)
        pause = max(1 / RATE_HZ, (after - before) / BUSIEST)
        if select.select([sys.stdin], [], [], max(0.0, before + pause - after))[0]:
            return


if __name__ == "__main__":
    sample(sys.argv[1])
