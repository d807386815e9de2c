"""The instrument of a GPU: what every make of it tells, the clocks of a measurement, and the registry that opens one."""

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import NamedTuple, Protocol

from footprint import Refused, digest, workload

FATAL = ("gpu_lost", "driver_mismatch")  # statuses after which nothing can be read


class Clock(NamedTuple):
    """The clocks of a measurement: `now` of samples and windows, `sleep`, and `boot`, which counts suspension."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], float] = lambda: time.clock_gettime(
        getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    )


REAL = Clock()


class Identity(NamedTuple):
    """Who a GPU is; empty texts for a device without an instrument. A trace stores the hash, never the UUID."""

    name: str = ""
    uuid: str = ""
    driver: str = ""

    @property
    def hash(self) -> str:
        """Twelve digits that stand for the UUID; empty without one."""
        return digest(self.uuid) if self.uuid else ""


class State(NamedTuple):
    """State of a GPU at one moment: NaN, -1 and None where it does not tell.

    throttle: reasons as the maker codes them; throttled: whether one of them is heat or a power brake; processes: ids of
    those that compute on the GPU; status: `ok`, or the fault after which nothing more can be read.
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
    """Power in W and counted energy in J, read together; NaN where absent. The status is one of the trace's windows."""

    power_W: float = math.nan
    counter_J: float = math.nan
    status: str = "not_supported"


class Instrument(Protocol):
    """What measures one GPU. Made from the name of a device; raises `Refused` where it cannot measure that device.

    present: False for a device without an instrument; power: how power is read (`none`: not at all); source: where the
    energy of a run comes from, as its trace says it (`..._counter` where there is a counter); calls: the calls that work
    here, by the names of a sensor card (instant, average, counter, both).
    """

    device: str
    present: bool
    power: str
    source: str
    calls: Mapping[str, Callable[[], object]]

    def identity(self) -> Identity:
        """Name, UUID and driver."""

    def reader(self) -> Callable[[], Reading]:
        """The cheapest function that reads power and counter; the sampler calls it many times a second."""

    def counter(self) -> tuple[float, str]:
        """Joules that the energy counter shows, and a status."""

    def state(self) -> State:
        """Temperature, clocks, limit, throttling and processes."""


class Absent:
    """The instrument of a device that has none: nothing is known and nothing is zero."""

    present, power, source, calls = False, "none", "none", {}

    def __init__(self, device: str = "cpu"):
        self.device = device

    def identity(self) -> Identity:
        """Nobody."""
        return Identity()

    def reader(self) -> Callable[[], Reading]:
        """Not supported."""
        return Reading

    def counter(self) -> tuple[float, str]:
        """Not supported."""
        return math.nan, "not_supported"

    def state(self) -> State:
        """Not supported."""
        return State()


def opened(device: str) -> Instrument:
    """The instrument of a device (`cpu` has none), as `workload.INSTRUMENTS` registers it by the device's name.

    Tests run on a CPU beside a scripted GPU: FOOTPRINT_FAKE_GPU names it, and only a GPU whose name says FAKE passes.
    Raises `Refused` where the device is absent or cannot be measured.
    """
    stand_in = os.environ.get("FOOTPRINT_FAKE_GPU", "") if device == "cpu" else ""
    places = (
        place
        for pattern, place in workload.INSTRUMENTS.items()
        if re.fullmatch(pattern, stand_in or device, re.ASCII)
    )
    place = next(places, None)
    if place is None:
        raise Refused(f"No instrument is registered for the device {device!r}.")
    instrument = resolve_name(place)(stand_in or device)
    if stand_in and "FAKE" not in (name := instrument.identity().name):
        raise Refused(
            f"FOOTPRINT_FAKE_GPU names {name!r}; only a card whose own name says FAKE is allowed there."
        )
    return instrument
