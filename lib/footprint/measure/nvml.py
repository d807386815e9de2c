"""NVIDIA's instrument: which GPU a name means, what NVML tells of it and refuses. Never a zero for an unknown."""

import math
import os
from collections.abc import Callable
from functools import cached_property

from footprint import Refused
from footprint.measure.instrument import FATAL, Identity, Instrument, Reading, State

POWER_INSTANT, ENERGY = 186, 83  # NVML field ids: power now, energy since the driver loaded
SLOWED = 0x08 | 0x20 | 0x40 | 0x80  # throttle bits: hardware, two of heat, power brake
VIRTUAL = (2, 3, 4)  # virtualisation modes: a vGPU, and two kinds of hosts of vGPUs
STATUS = {  # what an error of NVML is in a trace; any other is `unknown`
    "NotSupported": "not_supported",
    "FunctionNotFound": "not_supported",
    "NoPermission": "no_permission",
    **dict.fromkeys(("GpuIsLost", "GpuNotFound", "ResetRequired"), "gpu_lost"),
    **dict.fromkeys(("DriverNotLoaded", "Uninitialized"), "gpu_lost"),
    "LibRmVersionMismatch": "driver_mismatch",
}
TRANSIENT, TRIES = ("Unknown", "Timeout", "NotReady", "InsufficientResources"), 3


class Nvml(Instrument):
    """One NVIDIA GPU: `cuda`, `cuda:N` (PCI order) or a `GPU-…` UUID. Raises `Refused` with the reason.

    Sets CUDA_DEVICE_ORDER, so that torch counts in the same order; the N of `cuda:N` counts what CUDA_VISIBLE_DEVICES
    leaves visible, as torch does.
    """

    present = True

    def __init__(self, device: str):
        super().__init__(device)
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        self._lib = started()
        if device.startswith("MIG-"):
            raise Refused(
                "A MIG slice has no energy of its own (NVML reads the whole board); use a whole GPU."
            )
        visible = self._visible()
        number = device.partition(":")[2] or "0"
        self._gpu = self._named(visible, device if device.startswith("GPU-") else number)
        if self._gpu is None:
            raise Refused(
                f"There is no GPU {device!r}; this machine shows {len(visible)}, numbered from 0 in PCI order."
            )
        self._refuse_shared()

    def _visible(self) -> list:
        """Handles of the GPUs that CUDA_VISIBLE_DEVICES leaves visible, in its order, else all in PCI order."""
        every, names = handles(self._lib), os.environ.get("CUDA_VISIBLE_DEVICES")
        every.sort(key=lambda gpu: self._lib.nvmlDeviceGetPciInfo(gpu).busId)
        return [self._named(every, name.strip()) for name in names.split(",")] if names else every

    def _named(self, gpus: list, name: str):
        """The GPU of a number or of the beginning of a UUID; None when there is none."""
        if name.isdigit():
            return gpus[int(name)] if int(name) < len(gpus) else None
        uuid_of, known = self._lib.nvmlDeviceGetUUID, [gpu for gpu in gpus if gpu is not None]
        return next((gpu for gpu in known if str(ask(uuid_of, gpu)[0]).startswith(name)), None)

    def _refuse_shared(self) -> None:
        """Refuse a GPU that is cut in slices or lent by a hypervisor: its energy is not the energy of our work."""
        mode = ask(self._lib.nvmlDeviceGetMigMode, self._gpu)[0]
        if mode is not math.nan and mode[0]:
            raise Refused(
                "This GPU is cut into MIG slices and its energy is that of all of them; switch MIG off first."
            )
        if ask(self._lib.nvmlDeviceGetVirtualizationMode, self._gpu)[0] in VIRTUAL:
            raise Refused(
                "This is a vGPU or the host of some: its energy is shared with others; use a whole GPU."
            )

    def identity(self) -> Identity:
        lib, uuid = self._lib, ask(self._lib.nvmlDeviceGetUUID, self._gpu)[0]
        return Identity(
            lib.nvmlDeviceGetName(self._gpu), str(uuid), lib.nvmlSystemGetDriverVersion()
        )

    @cached_property
    def calls(self) -> dict[str, Callable]:
        """The calls that work here: watts by `instant` and `average`, joules by `counter`, both by one field call."""
        lib, gpu = self._lib, self._gpu

        def fields(*ids: int) -> list[float]:
            pairs = [(one, 0) for one in ids]  # a bare id costs an exception inside
            found = lib.nvmlDeviceGetFieldValues(gpu, pairs)
            for field in found:
                if field.nvmlReturn:
                    raise lib.NVMLError(field.nvmlReturn)
            values = [
                one.value.ullVal if one.fieldId == ENERGY else one.value.uiVal for one in found
            ]
            return [value / 1e3 for value in values]

        every = {
            "instant": lambda: fields(POWER_INSTANT)[0],
            "average": lambda: lib.nvmlDeviceGetPowerUsage(gpu) / 1e3,
            "counter": lambda: lib.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
            "both": lambda: fields(POWER_INSTANT, ENERGY),
        }
        return {name: call for name, call in every.items() if ask(call)[1] == "ok"}

    @property
    def power(self) -> str:
        """How power is read: `nvml_instant`, else `nvml_average` (it may average over a second), else `none`."""
        ways = [f"nvml_{name}" for name in ("instant", "average") if name in self.calls]
        return ways[0] if ways else "none"

    @property
    def source(self) -> str:
        """Where energy comes from: the counter where there is one, else the integral of the power."""
        return "nvml_counter" if "counter" in self.calls else self.power

    def reader(self) -> Callable[[], Reading]:
        """A function that reads power and counter, in one call where both are fields, else in a call each."""
        calls = self.calls
        if calls.keys() >= {"both", "counter"}:

            def both() -> Reading:
                values, status = ask(calls["both"], tries=1)
                return Reading(*values, status) if status == "ok" else Reading(status=status)

            return both
        power = calls.get("instant") or calls.get("average")

        def each() -> Reading:
            watts, status = ask(power, tries=1) if power else (math.nan, "not_supported")
            joules, counted = self.counter() if "counter" in calls else (math.nan, "ok")
            return Reading(watts, joules, counted if status == "ok" else status)

        return each

    def counter(self) -> tuple[float, str]:
        millijoules, status = ask(self._lib.nvmlDeviceGetTotalEnergyConsumption, self._gpu)
        return millijoules / 1e3, status

    def state(self) -> State:
        lib, gpu, statuses = self._lib, self._gpu, []

        def asked(call: Callable, *which: int):
            value, status = ask(call, gpu, *which)
            statuses.append(status)
            return value

        temperature_C = asked(lib.nvmlDeviceGetTemperature, lib.NVML_TEMPERATURE_GPU)
        sm_clock_MHz = asked(lib.nvmlDeviceGetClockInfo, lib.NVML_CLOCK_SM)
        memory_clock_MHz = asked(lib.nvmlDeviceGetClockInfo, lib.NVML_CLOCK_MEM)
        limit_mW = asked(lib.nvmlDeviceGetEnforcedPowerLimit)
        throttle = asked(lib.nvmlDeviceGetCurrentClocksEventReasons)
        processes = asked(lib.nvmlDeviceGetComputeRunningProcesses_v3)
        known = throttle is not math.nan
        return State(
            float(temperature_C),
            float(sm_clock_MHz),
            float(memory_clock_MHz),
            limit_mW / 1e3,
            throttle=int(throttle) if known else -1,
            throttled=known and bool(int(throttle) & SLOWED),
            processes=None if processes is math.nan else frozenset(one.pid for one in processes),
            status=next((status for status in statuses if status in FATAL), "ok"),
        )


# -- the library -------------------------------------------------------------------------------------------------------


def bindings():
    """The NVML bindings. Raises `Refused` for the old unofficial package, whose calls differ."""
    import pynvml

    if not hasattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons"):
        raise Refused(
            "The module pynvml here is not NVIDIA's; run pip uninstall pynvml, then pip install nvidia-ml-py."
        )
    return pynvml


def started():
    """The bindings with the driver's library open. Raises `Refused` without a driver, or where it does not start."""
    lib = bindings()
    try:
        lib.nvmlInit()
    except lib.NVMLError_LibraryNotFound:
        raise Refused(
            "There is no NVIDIA driver here (libnvidia-ml.so.1 was not found); use -p device cpu."
        ) from None
    except lib.NVMLError as error:
        status = STATUS.get(_word(error), "unknown")
        remedy = "reload the NVIDIA modules or reboot" if status in FATAL else "see nvidia-smi"
        raise Refused(f"The NVIDIA driver does not start: {status} ({error}); {remedy}.") from None
    return lib


def ask(call: Callable, *arguments, tries: int = TRIES) -> tuple:
    """Value and status of one NVML call; NaN and the reason when it fails. A passing failure is tried again."""
    error_type = bindings().NVMLError
    for left in reversed(range(tries)):
        try:
            return call(*arguments), "ok"
        except error_type as error:
            if not left or _word(error) not in TRANSIENT:
                return math.nan, STATUS.get(_word(error), "unknown")


def _word(error: Exception) -> str:
    return type(error).__name__.removeprefix("NVMLError_")


def handles(lib) -> list:
    """NVML's handles of all boards of this machine."""
    return [lib.nvmlDeviceGetHandleByIndex(index) for index in range(lib.nvmlDeviceGetCount())]


def driver() -> str:
    """Version of NVIDIA's driver. Raises NVML's own error where it does not answer."""
    lib = bindings()
    lib.nvmlInit()
    return lib.nvmlSystemGetDriverVersion()


def boards() -> list[tuple[str, float]]:
    """Name and memory in GiB of every board with a driver, also of those that cannot be measured."""
    lib, _ = bindings(), driver()
    name, memory = lib.nvmlDeviceGetName, lib.nvmlDeviceGetMemoryInfo
    return [(name(gpu), memory(gpu).total / 2**30) for gpu in handles(lib)]
