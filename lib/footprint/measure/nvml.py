"""The NVML instrument of a GPU: which card, what it tells, what it refuses to tell. Never a zero for an unknown."""

import math
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from footprint import Refused

POWER_INSTANT, ENERGY = 186, 83  # NVML field ids: power now, energy since the driver loaded
FAULTS = {
    "NotSupported": "not_supported",
    "FunctionNotFound": "not_supported",
    "NoPermission": "no_permission",
    "GpuIsLost": "gpu_lost",
    "GpuNotFound": "gpu_lost",
    "ResetRequired": "gpu_lost",
    "DriverNotLoaded": "gpu_lost",
    "Uninitialized": "gpu_lost",
    "LibRmVersionMismatch": "driver_mismatch",
}
FATAL = ("gpu_lost", "driver_mismatch")  # nothing can be read after these
TRANSIENT = ("Unknown", "Timeout", "NotReady", "InsufficientResources")
TRIES = 3
STATE = {
    "temperature_C": math.nan,
    "sm_clock_MHz": math.nan,
    "memory_clock_MHz": math.nan,
    "power_limit_W": math.nan,
    "throttle": -1,
    "processes": None,
    "status": "not_supported",
}


class Clock(NamedTuple):
    """The three clocks of a measurement: `now` of samples and windows, `sleep`, and `boot`, which counts suspension."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], float] = lambda: time.clock_gettime(
        getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    )


REAL = Clock()


class Reader(NamedTuple):
    """How power and energy of a card are read: `read()` gives (watts, joules, status); `power` and `counter` say how."""

    power: str
    counter: bool
    read: Callable[[], tuple[float, float, str]]


def nvml():
    """The NVML bindings. Raises `Refused` for the old unofficial package, whose calls differ."""
    import pynvml

    if not hasattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons"):
        raise Refused(
            "The module pynvml here is not NVIDIA's; run pip uninstall pynvml, then pip install nvidia-ml-py."
        )
    return pynvml


def fault(error: Exception) -> str:
    """The window status that an NVML error stands for."""
    return FAULTS.get(type(error).__name__.removeprefix("NVMLError_"), "unknown")


def ask(call: Callable, *arguments, tries: int = TRIES) -> tuple:
    """Value and status of one NVML call; NaN and the reason when it fails, a passing failure being tried again."""
    error_type = nvml().NVMLError
    for left in reversed(range(tries)):
        try:
            return call(*arguments), "ok"
        except error_type as error:
            status = fault(error)
            if not left or type(error).__name__.removeprefix("NVMLError_") not in TRANSIENT:
                return math.nan, status


# -- which card -------------------------------------------------------------------------------------------------------


def instrument(device: str) -> str:
    """The device whose instrument is read: the device itself; `cpu` has none.

    Tests run on a CPU beside a scripted card: FOOTPRINT_FAKE_GPU names it, and only a card whose name says FAKE passes.
    """
    stand_in = os.environ.get("FOOTPRINT_FAKE_GPU", "")
    if device != "cpu" or not stand_in:
        return device
    name = nvml().nvmlDeviceGetName(handle(stand_in))
    if "FAKE" not in name:
        raise Refused(
            f"FOOTPRINT_FAKE_GPU names {name!r}; only a card whose own name says FAKE is allowed there."
        )
    return stand_in


def handle(device: str):
    """NVML's handle of `cuda`, `cuda:N` (PCI order) or a `GPU-…` UUID. Raises `Refused` with the reason.

    Sets CUDA_DEVICE_ORDER, so that torch counts in the same order; the N of `cuda:N` counts what CUDA_VISIBLE_DEVICES
    leaves visible, as torch does.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    lib = _started()
    if device.startswith("MIG-"):
        raise Refused(
            "A MIG slice has no energy of its own (NVML reads the whole board); use a whole GPU."
        )
    cards = [lib.nvmlDeviceGetHandleByIndex(index) for index in range(lib.nvmlDeviceGetCount())]
    cards.sort(key=lambda card: lib.nvmlDeviceGetPciInfo(card).busId)
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        names = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        seen = [_named(lib, cards, name) for name in names]
    else:
        seen = cards
    number = device.partition(":")[2] or "0"
    card = _named(lib, seen, device if device.startswith("GPU-") else number)
    if card is None:
        raise Refused(
            f"There is no GPU {device!r}; this machine shows {len(seen)}, numbered from 0 in PCI order."
        )
    _whole(lib, card)
    return card


def _started():
    lib = nvml()
    try:
        lib.nvmlInit()
    except lib.NVMLError_LibraryNotFound:
        raise Refused(
            "There is no NVIDIA driver here (libnvidia-ml.so.1 was not found); use -p device cpu."
        ) from None
    except lib.NVMLError as error:
        remedy = (
            "reload the NVIDIA modules or reboot" if fault(error) in FATAL else "see nvidia-smi"
        )
        raise Refused(
            f"The NVIDIA driver does not start: {fault(error)} ({error}); {remedy}."
        ) from None
    return lib


def _named(lib, cards: list, name: str):
    """The card of a number or of the beginning of a UUID; None when there is none."""
    if name.isdigit():
        return cards[int(name)] if int(name) < len(cards) else None
    return next(
        (
            card
            for card in cards
            if card and str(ask(lib.nvmlDeviceGetUUID, card)[0]).startswith(name)
        ),
        None,
    )


def _whole(lib, card) -> None:
    """Refuse a card that is cut in slices or lent by a hypervisor: its energy is not the energy of our work."""
    mode = ask(lib.nvmlDeviceGetMigMode, card)[0]
    if mode is not math.nan and mode[0]:
        raise Refused(
            "This GPU is cut into MIG slices and its energy is that of all of them; switch MIG off first."
        )
    if ask(lib.nvmlDeviceGetVirtualizationMode, card)[0] in (2, 3, 4):
        raise Refused(
            "This is a vGPU or the host of some: its energy is shared with others; use a whole GPU."
        )


def identity(device: str) -> dict[str, str]:
    """Name, UUID and driver of a GPU (the UUID is for this process only: stored is its hash)."""
    lib, card = nvml(), handle(device)
    return {
        "name": lib.nvmlDeviceGetName(card),
        "uuid": str(ask(lib.nvmlDeviceGetUUID, card)[0]),
        "driver": lib.nvmlSystemGetDriverVersion(),
    }


# -- what it tells ----------------------------------------------------------------------------------------------------


def counter(card) -> tuple[float, str]:
    """Joules that the card's counter shows, and a status; (NaN, not_supported) without a card."""
    if card is None:
        return math.nan, "not_supported"
    value, status = ask(nvml().nvmlDeviceGetTotalEnergyConsumption, card)
    return value / 1e3, status


def state(card) -> dict:
    """Temperature, clocks, power limit, throttle reasons and processes now; NaN, -1 and None where a call fails.

    The status is `ok`, or the fault after which nothing more can be read.
    """
    if card is None:
        return dict(STATE)
    lib = nvml()
    got = {
        "temperature_C": ask(lib.nvmlDeviceGetTemperature, card, lib.NVML_TEMPERATURE_GPU),
        "sm_clock_MHz": ask(lib.nvmlDeviceGetClockInfo, card, lib.NVML_CLOCK_SM),
        "memory_clock_MHz": ask(lib.nvmlDeviceGetClockInfo, card, lib.NVML_CLOCK_MEM),
        "power_limit_W": ask(lib.nvmlDeviceGetEnforcedPowerLimit, card),
        "throttle": ask(lib.nvmlDeviceGetCurrentClocksEventReasons, card),
        "processes": ask(lib.nvmlDeviceGetComputeRunningProcesses_v3, card),
    }
    values = {
        name: float(value)
        for name, (value, _) in got.items()
        if name not in ("throttle", "processes")
    }
    values["power_limit_W"] /= 1e3
    throttle, (running, listed) = got["throttle"][0], got["processes"]
    values["throttle"] = -1 if throttle is math.nan else int(throttle)
    values["processes"] = frozenset(process.pid for process in running) if listed == "ok" else None
    return values | {
        "status": next((status for _, status in got.values() if status in FATAL), "ok")
    }


def read(card) -> dict:
    """`state` and `counter_J`; the status is the counter's, or the fault after which nothing more can be read."""
    now, (joules, status) = state(card), counter(card)
    return now | {
        "counter_J": joules,
        "status": now["status"] if now["status"] in FATAL else status,
    }


def power_call(card) -> tuple[str, Callable[[], float] | None]:
    """The best power reading that the card has, as (name, function giving watts): instantaneous, else the average."""
    lib = nvml()
    average = lambda: lib.nvmlDeviceGetPowerUsage(card) / 1e3  # noqa: E731
    for name, call in (
        ("nvml_instant", lambda: fields(card, [POWER_INSTANT])[0] / 1e3),
        ("nvml_average", average),
    ):
        if ask(call)[1] == "ok":
            return name, call
    return "none", None


def fields(card, ids: list[int]) -> list[int]:
    """Values of NVML fields in one call: power in mW, energy in mJ. Raises the NVML error of the first that fails."""
    lib = nvml()
    found = lib.nvmlDeviceGetFieldValues(
        card, [(field, 0) for field in ids]
    )  # a bare id costs an exception inside
    for field in found:
        if field.nvmlReturn:
            raise lib.NVMLError(field.nvmlReturn)
    return [field.value.ullVal if field.fieldId == ENERGY else field.value.uiVal for field in found]


def reader(card) -> Reader:
    """The cheapest way to read power and counter together: one call where both are fields, else a call each."""
    power, watts = power_call(card)
    has_counter = counter(card)[1] == "ok"
    if (
        power == "nvml_instant"
        and has_counter
        and ask(fields, card, [POWER_INSTANT, ENERGY])[1] == "ok"
    ):

        def both() -> tuple[float, float, str]:
            got, status = ask(fields, card, [POWER_INSTANT, ENERGY], tries=1)
            return (
                (got[0] / 1e3, got[1] / 1e3, status)
                if status == "ok"
                else (math.nan, math.nan, status)
            )

        return Reader(power, True, both)

    def each() -> tuple[float, float, str]:
        got, status = ask(watts, tries=1) if watts else (math.nan, "not_supported")
        joules, also = counter(card) if has_counter else (math.nan, "ok")
        return got, joules, also if status == "ok" else status

    return Reader(power, has_counter, each)
