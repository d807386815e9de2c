"""The instrument that measures a GPU, how it is opened, and the clocks of a measurement."""

import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from types import MappingProxyType
from typing import NamedTuple

import psutil

from footprint import Refused, digest, workload

FATAL = ("gpu_lost", "driver_mismatch")  # statuses after which nothing can be read
HELD_GIB = 0.25  # of GPU memory in use, without the driver's own: somebody is there


class Absent(Refused):
    """There is no such device here: the number is beyond the last one."""


class Lost(Refused):
    """The device is there and does not answer; others may."""


class Clock(NamedTuple):
    """The clocks of a measurement; only `boot` goes on while the machine is suspended."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], float] = lambda: time.clock_gettime(
        getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    )


REAL = Clock()


class Identity(NamedTuple):
    """Which GPU it is, empty for a CPU; a trace stores the hash, never the UUID."""

    name: str = ""
    uuid: str = ""
    driver: str = ""

    @property
    def hash(self) -> str:
        """Digest of the UUID; empty without one."""
        return digest(self.uuid) if self.uuid else ""


class State(NamedTuple):
    """State of a GPU at one moment; NaN, -1 or None where the GPU does not report it.

    throttle: reasons in the vendor's code; throttled: one of them is heat or a power brake;
    processes: ids of those that compute on the GPU; status: `ok`, or a fault of `FATAL`.
    """

    temperature_C: float = math.nan
    sm_clock_MHz: float = math.nan
    memory_clock_MHz: float = math.nan
    power_limit_W: float = math.nan
    throttle: int = -1
    throttled: bool = False
    processes: frozenset[int] | None = None
    status: str = "not_supported"


class Reading(NamedTuple):
    """Power and energy counter, read together; NaN where absent."""

    power_W: float = math.nan
    counter_J: float = math.nan
    status: str = "not_supported"


class Instrument(ABC):
    """What measures one GPU; a subclass wraps the library of a vendor.

    present: whether there is a GPU to read; power: how its power is read; source: where the energy
    of a run comes from (`<vendor>_counter`, else `power`); calls: functions that work on this GPU,
    by the names of a sensor card, and give a value and a status. Its constructor raises `Refused`
    for a device it cannot measure: `Absent` where there is none, `Lost` where it does not answer.
    """

    present: bool = True
    power: str
    source: str
    calls: Mapping[str, Callable[[], tuple]]

    def __init__(self, device: str):
        self.device = device

    @abstractmethod
    def identity(self) -> Identity:
        """Name, UUID and driver."""

    @abstractmethod
    def reader(self) -> Callable[[], Reading]:
        """The cheapest function that reads power and counter, for the sampler."""

    @abstractmethod
    def counter(self) -> tuple[float, str]:
        """The energy counter in J, and a status."""

    @abstractmethod
    def state(self) -> State:
        """Temperature, clocks, power limit, throttling and processes."""

    def settings(self) -> dict[str, str | float]:
        """Optional attributes of a trace that say how the GPU is set up."""
        return {}


class NoInstrument(Instrument):
    """The instrument of a CPU: every reading is absent."""

    present = False
    power = source = "none"
    calls = MappingProxyType({})

    def identity(self) -> Identity:
        return Identity()

    def reader(self) -> Callable[[], Reading]:
        return Reading

    def counter(self) -> tuple[float, str]:
        return math.nan, "not_supported"

    def state(self) -> State:
        return State()


def strangers(others: int, held_GiB: float) -> str:
    """A line on who else is on the GPU before the model is loaded; empty where nobody is seen.

    others: processes that compute on it, -1 when unknown; held_GiB: memory in use, or NaN.
    """
    if others > 0:
        reason = "until they end, windows are shared_gpu and have no energy"
        return f"{others} other processes compute on this GPU: {reason}"
    if held_GiB > HELD_GIB:
        reason = "whether others compute on it is unknown"
        return f"{held_GiB:.1f} GiB of this GPU are in use and no process is listed: {reason}"
    return ""


def own(before: frozenset[int] | None, after: frozenset[int] | None) -> frozenset[int] | None:
    """Which of the processes on the GPU are ours, from those before and after the model was loaded.

    Ours by their ids; where a container numbers them otherwise, those that came. None where the
    list does not show us: then it may hide others too.
    """
    if after is None:
        return None
    children = psutil.Process().children(recursive=True)
    known = after & {os.getpid(), *(child.pid for child in children)}
    return known or (after - (before or frozenset())) or None


def opened(device: str) -> Instrument:
    """The instrument that `workload.INSTRUMENTS` registers for a device.

    For tests, FOOTPRINT_FAKE_GPU names a GPU that stands in for the CPU; its name must say FAKE.
    Raises `Refused` where the device is absent, lost or cannot be measured.
    """
    stand_in = os.environ.get("FOOTPRINT_FAKE_GPU", "") if device == "cpu" else ""
    device = stand_in or device
    registered = workload.INSTRUMENTS.items()
    places = [place for pattern, place in registered if re.fullmatch(pattern, device, re.ASCII)]
    if not places:
        raise Absent(f"No instrument is registered for the device {device!r}.")
    instrument = resolve_name(places[0])(device)
    if stand_in and "FAKE" not in (name := instrument.identity().name):
        allowed = "only a card whose own name says FAKE is allowed there"
        raise Refused(f"FOOTPRINT_FAKE_GPU names {name!r}; {allowed}.")
    return instrument
