"""The instrument of NVIDIA GPUs, by NVML; what it does not report is NaN, never zero."""

import math
import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import NamedTuple

from footprint import Refused
from footprint.measure.instrument import FATAL, Absent, Identity, Instrument, Lost, Reading, State

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
FIRST_S = 0.3  # a driver that was loaded just now counts 0 J until the first tick of its counter
TRANSIENT, TRIES = ("Unknown", "Timeout", "NotReady", "InsufficientResources"), 3


class Nvml(Instrument):
    """One NVIDIA GPU: `cuda`, `cuda:N` or a `GPU-…` UUID.

    N counts the visible GPUs in PCI order, without those that do not answer. CUDA_VISIBLE_DEVICES
    is set to their UUIDs, so that torch, child processes and later calls count the same GPUs.
    Raises `Refused` for a GPU that is absent, a slice of another or shared by a hypervisor.
    """

    def __init__(self, device: str):
        super().__init__(device)
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        self._lib = started()
        self._board = _chosen(self._lib, device)
        self._gpu = self._board.handle
        self._refuse_shared()

    def _refuse_shared(self) -> None:
        """Refuse a GPU whose energy is also that of other slices or of other virtual machines."""
        mode, mig = ask(self._lib.nvmlDeviceGetMigMode, self._gpu)
        virtual, mapped = ask(self._lib.nvmlDeviceGetVirtualizationMode, self._gpu)
        for status in (mig, mapped):
            if status in FATAL:
                raise _lost(self.device, status)
        if mig == "ok" and mode[0]:
            reason = "This GPU is cut into MIG slices and its energy is that of all of them"
            raise Refused(f"{reason}; switch MIG off first.")
        if virtual in VIRTUAL:
            reason = "This is a vGPU or the host of some: its energy is shared with others"
            raise Refused(f"{reason}; use a whole GPU.")

    def identity(self) -> Identity:
        return Identity(self._board.name, self._board.uuid, driver(self._lib)[0] or "unknown")

    def settings(self) -> dict[str, str | float]:
        return settings(facts(self._board))

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
                values.append(_thousandth(value))
            return values

        calls = {
            "instant": lambda: fields(POWER_INSTANT)[0],
            "average": lambda: _thousandth(lib.nvmlDeviceGetPowerUsage(gpu)),
            "counter": self._count_J,
            "both": lambda: fields(POWER_INSTANT, ENERGY),
        }
        if ask(lib.nvmlDeviceGetTotalEnergyConsumption, gpu)[0] == 0:
            time.sleep(FIRST_S)
        works = {name: call for name, call in calls.items() if ask(call)[1] == "ok"}
        return {name: partial(ask, call, tries=1) for name, call in works.items()}

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
                values, status = calls["both"]()
                return Reading(*values, status) if status == "ok" else Reading(status=status)

            return both
        power = calls.get("instant") or calls.get("average")

        def each() -> Reading:
            watts, status = power() if power else (math.nan, "not_supported")
            joules, counted = self.counter() if "counter" in calls else (math.nan, "ok")
            return Reading(watts, joules, counted if status == "ok" else status)

        return each

    def _count_J(self) -> float:
        return _thousandth(self._lib.nvmlDeviceGetTotalEnergyConsumption(self._gpu))

    def counter(self) -> tuple[float, str]:
        return ask(self._count_J)

    def state(self) -> State:
        lib, gpu, statuses = self._lib, self._gpu, []

        def read(call: Callable, *which: int):
            value, status = ask(call, gpu, *which)
            statuses.append(status)
            return value

        temperature_C = read(lib.nvmlDeviceGetTemperature, lib.NVML_TEMPERATURE_GPU)
        sm_clock_MHz = read(lib.nvmlDeviceGetClockInfo, lib.NVML_CLOCK_SM)
        memory_clock_MHz = read(lib.nvmlDeviceGetClockInfo, lib.NVML_CLOCK_MEM)
        limit_W = read(lambda gpu: _thousandth(lib.nvmlDeviceGetEnforcedPowerLimit(gpu)))
        throttle = read(lib.nvmlDeviceGetCurrentClocksEventReasons)
        processes = read(lib.nvmlDeviceGetComputeRunningProcesses_v3)
        has_throttle = throttle is not math.nan
        return State(
            float(temperature_C),
            float(sm_clock_MHz),
            float(memory_clock_MHz),
            limit_W,
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


def _thousandth(value: int) -> float:
    """A reading in W or J; 0 is that of a board without this sensor, as none draws nothing."""
    if not value:
        lib = bindings()
        raise lib.NVMLError(lib.NVML_ERROR_NOT_SUPPORTED)
    return value / 1e3


# -- the GPUs of this machine ----------------------------------------------------------------------


class Board(NamedTuple):
    """A GPU that answers: NVML's handle of it, its place on the PCI bus, UUID and name."""

    handle: object
    bus: str
    uuid: str
    name: str


def boards(lib) -> tuple[list[Board], list[str]]:
    """The GPUs that answer, in PCI order, and a status for each that does not."""

    def board(index: int) -> Board:
        gpu = lib.nvmlDeviceGetHandleByIndex(index)
        bus = lib.nvmlDeviceGetPciInfo(gpu).busId
        return Board(gpu, bus, lib.nvmlDeviceGetUUID(gpu), lib.nvmlDeviceGetName(gpu))

    count, status = ask(lib.nvmlDeviceGetCount)
    if status != "ok":
        raise Refused(f"The NVIDIA driver does not count its GPUs: {status}; see nvidia-smi.")
    answers = [ask(board, index) for index in range(count)]
    found = sorted((gpu for gpu, status in answers if status == "ok"), key=lambda gpu: gpu.bus)
    return found, [status for _, status in answers if status != "ok"]


def _chosen(lib, device: str) -> Board:
    """The visible GPU of this name or number."""
    found, silent = boards(lib)
    names = _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))
    visible = [_named(found, name) for name in names]
    names = [gpu.uuid if gpu else name for gpu, name in zip(visible, names, strict=True)]
    if found:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    hidden = len(found) - len([*filter(None, visible)])
    names += silent[visible.count(None) :]  # GPUs that never had a number come last
    number = int(device.partition(":")[2] or 0)
    numbered = names[number] if number < len(names) else ""
    name = device if device.startswith(("GPU-", "MIG-")) else numbered
    if name.startswith("MIG-"):
        reason = "A MIG slice has no energy of its own (NVML reads the whole board)"
        raise Refused(f"{reason}; use a whole GPU.")
    gpu = _named([gpu for gpu in visible if gpu], name)
    if gpu:
        return gpu
    if name and (silent or name in names):
        raise _lost(device, ", ".join(sorted(set(silent))) or "gpu_lost")
    why = f"; CUDA_VISIBLE_DEVICES hides {hidden}" if hidden else ""
    there = f"this machine shows {len(visible)}, numbered from 0 in PCI order{why}"
    raise Absent(f"There is no GPU {device!r}; {there}.")


def _visible(found: list[Board], listed: str | None) -> list[str]:
    """The names in CUDA_VISIBLE_DEVICES that count, as CUDA reads it: until the first wrong one.

    None where it is unset shows all, an empty one or one that names a GPU twice none. The UUID of
    a GPU that does not answer keeps its place.
    """
    if listed is None:
        return [gpu.uuid for gpu in found]
    names = []
    for name in listed.replace(" ", "").split(","):
        alike = [gpu for gpu in found if name and gpu.uuid.startswith(name)]
        number = name.isdigit() and int(name) < len(found)
        if not number and (not name.startswith(("GPU-", "MIG-")) or len(alike) > 1):
            break
        names.append(name)
    uuids = [gpu.uuid for name in names if (gpu := _named(found, name))]
    return names if len(uuids) == len({*uuids}) else []


def _named(gpus: list[Board], name: str) -> Board | None:
    """The GPU with this number or the only one with this beginning of its UUID."""
    if name.isdigit():
        return gpus[int(name)] if int(name) < len(gpus) else None
    alike = [gpu for gpu in gpus if name and gpu.uuid.startswith(name)]
    return alike[0] if len(alike) == 1 else None


def _lost(device: str, status: str) -> Lost:
    return Lost(f"The GPU {device!r} does not answer: {status}; see nvidia-smi.")


def facts(gpu: Board) -> dict[str, object]:
    """What NVML says of a GPU and its driver now; None for what it does not tell."""
    lib = bindings()
    calls = {
        "mig": lib.nvmlDeviceGetMigMode,
        "virtualisation": lib.nvmlDeviceGetVirtualizationMode,
        "capability": lib.nvmlDeviceGetCudaComputeCapability,
        "persistence": lib.nvmlDeviceGetPersistenceMode,
        "ecc": lib.nvmlDeviceGetEccMode,
        "pcie_generation": lib.nvmlDeviceGetMaxPcieLinkGeneration,
        "pcie_width": lib.nvmlDeviceGetCurrPcieLinkWidth,
        "usual_limit_mW": lib.nvmlDeviceGetPowerManagementDefaultLimit,
        "limit_mW": lib.nvmlDeviceGetEnforcedPowerLimit,
        "throttle": lib.nvmlDeviceGetCurrentClocksEventReasons,
        "processes": lib.nvmlDeviceGetComputeRunningProcesses_v3,
        "memory": lib.nvmlDeviceGetMemoryInfo,
        "memory_v2": lambda handle: lib.nvmlDeviceGetMemoryInfo(handle, lib.nvmlMemory_v2),
        "cuda": lambda _: lib.nvmlSystemGetCudaDriverVersion_v2(),
    }
    answers = {name: ask(call, gpu.handle) for name, call in calls.items()}
    return {name: value if status == "ok" else None for name, (value, status) in answers.items()}


def settings(facts: Mapping) -> dict[str, str | float]:
    """Optional attributes of a trace, from `facts`; `unknown` or NaN for what is not told."""
    limit_mW = facts["usual_limit_mW"]
    link, ecc = (facts["pcie_generation"], facts["pcie_width"]), facts["ecc"]
    switch = {0: "off", 1: "on"}
    used_B = facts["memory_v2"].used if facts["memory_v2"] else math.nan
    return {
        "driver_cuda": _cuda(facts["cuda"]),
        "compute_capability": ".".join(map(str, facts["capability"] or ["unknown"])),
        "default_power_limit_W": limit_mW / 1e3 if limit_mW else math.nan,
        "persistence_mode": switch.get(facts["persistence"], "unknown"),
        "ecc": switch.get(ecc[0] if ecc else None, "unknown"),
        "pcie": "unknown" if None in link else "gen {} x{}".format(*link),
        "memory_used_before_GiB": used_B / 2**30,
    }


def surveyed() -> tuple[list[tuple[Board, dict]], list[str]]:
    """Each GPU that answers with its facts, and the statuses of the others."""
    found, silent = boards(started())
    return [(gpu, facts(gpu)) for gpu in found], silent


def driver(lib) -> tuple[str, str]:
    """Version of NVIDIA's driver and the CUDA that it serves; no version but a status if silent."""
    version, status = ask(lib.nvmlSystemGetDriverVersion)
    if status != "ok":
        return "", status
    cuda, status = ask(lib.nvmlSystemGetCudaDriverVersion_v2)
    return version, _cuda(cuda if status == "ok" else None)


def _cuda(number: int | None) -> str:
    return f"{number // 1000}.{number % 1000 // 10}" if number else "unknown"
