"""The instrument of NVIDIA GPUs, by NVML; what it does not report is NaN, never zero."""

import math
import os
from collections.abc import Callable
from functools import cached_property

from footprint import Refused
from footprint.measure.instrument import FATAL, Identity, Instrument, Reading, State

POWER_INSTANT, ENERGY = 186, 83  # NVML field ids: power now, energy since the driver loaded
SLOWED = 0x08 | 0x20 | 0x40 | 0x80  # throttle bits: hardware, two of heat, power brake
VIRTUAL = (2, 3, 4)  # virtualisation modes: a vGPU, and two kinds of hosts of vGPUs
STATUS = {  # statuses of NVML's errors in a trace; any other is `unknown`
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
TRANSIENT, TRIES = ("Unknown", "Timeout", "NotReady", "InsufficientResources"), 3


class Nvml(Instrument):
    """One NVIDIA GPU: `cuda`, `cuda:N` or a `GPU-…` UUID.

    N counts the visible GPUs in PCI order, as torch does once CUDA_DEVICE_ORDER is set here.
    Raises `Refused` for a GPU that is absent, a slice of another or shared by a hypervisor.
    """

    def __init__(self, device: str):
        super().__init__(device)
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        self._lib = started()
        if device.startswith("MIG-"):
            reason = "A MIG slice has no energy of its own (NVML reads the whole board)"
            raise Refused(f"{reason}; use a whole GPU.")
        visible = self._visible()
        number = device.partition(":")[2] or "0"
        self._gpu = self._named(visible, device if device.startswith("GPU-") else number)
        if self._gpu is None:
            there = f"this machine shows {len(visible)}, numbered from 0 in PCI order"
            raise Refused(f"There is no GPU {device!r}; {there}.")
        self._refuse_shared()

    def _visible(self) -> list:
        """Handles of the GPUs in CUDA_VISIBLE_DEVICES, else of all in PCI order."""
        gpus, names = handles(self._lib), os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus.sort(key=lambda gpu: self._lib.nvmlDeviceGetPciInfo(gpu).busId)
        return [self._named(gpus, name.strip()) for name in names.split(",")] if names else gpus

    def _named(self, gpus: list, name: str):
        """The GPU with this number or this beginning of its UUID; None when there is none."""
        if name.isdigit():
            return gpus[int(name)] if int(name) < len(gpus) else None
        for gpu in gpus:
            if gpu is not None and self._uuid(gpu).startswith(name):
                return gpu
        return None

    def _uuid(self, gpu) -> str:
        return str(ask(self._lib.nvmlDeviceGetUUID, gpu)[0])

    def _refuse_shared(self) -> None:
        """Refuse a GPU whose energy is also that of other slices or of other virtual machines."""
        mode = ask(self._lib.nvmlDeviceGetMigMode, self._gpu)[0]
        if mode is not math.nan and mode[0]:
            reason = "This GPU is cut into MIG slices and its energy is that of all of them"
            raise Refused(f"{reason}; switch MIG off first.")
        if ask(self._lib.nvmlDeviceGetVirtualizationMode, self._gpu)[0] in VIRTUAL:
            reason = "This is a vGPU or the host of some: its energy is shared with others"
            raise Refused(f"{reason}; use a whole GPU.")

    def identity(self) -> Identity:
        name = self._lib.nvmlDeviceGetName(self._gpu)
        return Identity(name, self._uuid(self._gpu), self._lib.nvmlSystemGetDriverVersion())

    @cached_property
    def calls(self) -> dict[str, Callable]:
        """Calls that work here: `instant` and `average` in W, `counter` in J, `both` in W and J."""
        lib, gpu = self._lib, self._gpu

        def fields(*ids: int) -> list[float]:
            pairs = [(number, 0) for number in ids]  # a bare id costs an exception inside
            values = []
            for field in lib.nvmlDeviceGetFieldValues(gpu, pairs):
                if field.nvmlReturn:
                    raise lib.NVMLError(field.nvmlReturn)
                value = field.value.ullVal if field.fieldId == ENERGY else field.value.uiVal
                values.append(value / 1e3)
            return values

        calls = {
            "instant": lambda: fields(POWER_INSTANT)[0],
            "average": lambda: lib.nvmlDeviceGetPowerUsage(gpu) / 1e3,
            "counter": lambda: lib.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
            "both": lambda: fields(POWER_INSTANT, ENERGY),
        }
        return {name: call for name, call in calls.items() if ask(call)[1] == "ok"}

    @property
    def power(self) -> str:
        """How power is read: `nvml_instant`, else `nvml_average` (over up to 1 s), else `none`."""
        ways = [f"nvml_{name}" for name in ("instant", "average") if name in self.calls]
        return ways[0] if ways else "none"

    @property
    def source(self) -> str:
        """Where energy comes from: the counter, else the integral of the power."""
        return "nvml_counter" if "counter" in self.calls else self.power

    def reader(self) -> Callable[[], Reading]:
        """A function that reads power and counter, by a single call where that works."""
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
        energy_mJ, status = ask(self._lib.nvmlDeviceGetTotalEnergyConsumption, self._gpu)
        return energy_mJ / 1e3, status

    def state(self) -> State:
        lib, gpu, statuses = self._lib, self._gpu, []

        def read(call: Callable, *which: int):
            value, status = ask(call, gpu, *which)
            statuses.append(status)
            return value

        temperature_C = read(lib.nvmlDeviceGetTemperature, lib.NVML_TEMPERATURE_GPU)
        sm_clock_MHz = read(lib.nvmlDeviceGetClockInfo, lib.NVML_CLOCK_SM)
        memory_clock_MHz = read(lib.nvmlDeviceGetClockInfo, lib.NVML_CLOCK_MEM)
        limit_mW = read(lib.nvmlDeviceGetEnforcedPowerLimit)
        throttle = read(lib.nvmlDeviceGetCurrentClocksEventReasons)
        processes = read(lib.nvmlDeviceGetComputeRunningProcesses_v3)
        has_throttle = throttle is not math.nan
        return State(
            float(temperature_C),
            float(sm_clock_MHz),
            float(memory_clock_MHz),
            limit_mW / 1e3,
            throttle=int(throttle) if has_throttle else -1,
            throttled=has_throttle and bool(int(throttle) & SLOWED),
            processes=None if processes is math.nan else frozenset(item.pid for item in processes),
            status=next((status for status in statuses if status in FATAL), "ok"),
        )


# -- the library -----------------------------------------------------------------------------------


def bindings():
    """The NVML bindings. Raises `Refused` for the old unofficial package, whose calls differ."""
    import pynvml

    if not hasattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons"):
        remedy = "run pip uninstall pynvml, then pip install nvidia-ml-py"
        raise Refused(f"The module pynvml here is not NVIDIA's; {remedy}.")
    return pynvml


def started():
    """The bindings, with the driver's library open; `Refused` where no driver starts."""
    lib = bindings()
    try:
        lib.nvmlInit()
    except lib.NVMLError_LibraryNotFound:
        reason = "There is no NVIDIA driver here (libnvidia-ml.so.1 was not found)"
        raise Refused(f"{reason}; use -p device cpu.") from None
    except lib.NVMLError as error:
        status = STATUS.get(_word(error), "unknown")
        remedy = "reload the NVIDIA modules or reboot" if status in FATAL else "see nvidia-smi"
        raise Refused(f"The NVIDIA driver does not start: {status} ({error}); {remedy}.") from None
    return lib


def ask(call: Callable, *arguments, tries: int = TRIES) -> tuple:
    """Value and status of one NVML call; NaN when it fails. A transient failure is tried again."""
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
    """NVML's handles of all GPUs of this machine."""
    return [lib.nvmlDeviceGetHandleByIndex(index) for index in range(lib.nvmlDeviceGetCount())]


def driver() -> str:
    """Version of NVIDIA's driver; raises NVML's own error where it does not answer."""
    lib = bindings()
    lib.nvmlInit()
    return lib.nvmlSystemGetDriverVersion()


def boards() -> list[tuple[str, float]]:
    """Name and memory in GiB of every GPU, also of those that cannot be measured."""
    lib, _ = bindings(), driver()
    name, memory = lib.nvmlDeviceGetName, lib.nvmlDeviceGetMemoryInfo
    return [(name(gpu), memory(gpu).total / 2**30) for gpu in handles(lib)]
