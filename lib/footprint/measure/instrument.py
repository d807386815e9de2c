"""The instrument of a GPU: what every make of it tells, the clocks of a measurement, and the registry that opens one."""

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from types import MappingProxyType
from typing import NamedTuple

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


class Instrument:
    """What measures one GPU. This base knows nothing: it is the instrument of a device that has none, like `cpu`.

    A maker's library is a class that overrides what it can tell; made from the name of a device, it raises `Refused` where
    it cannot measure that. present: whether there is something to read; power: how power is read; source: where the
    energy of a run comes from, as its trace says it: `<maker>_counter`, else as `power`; calls: the calls that work here,
    by the names of a sensor card (instant, average, counter, both).
    """

    present = False
    power = source = "none"
    calls: Mapping[str, Callable[[], object]] = MappingProxyType({})

    def __init__(self, device: str = "cpu"):
        self.device = device

    def identity(self) -> Identity:
        """Name, UUID and driver."""
        return Identity()

    def reader(self) -> Callable[[], Reading]:
        """The cheapest function that reads power and counter; the sampler calls it many times a second."""
        return Reading

    def counter(self) -> tuple[float, str]:
        """Joules that the energy counter shows, and a status."""
        return math.nan, "not_supported"

    def state(self) -> State:
        """Temperature, clocks, limit, throttling and processes."""
        return State()


def opened(device: str) -> Instrument:
    """The instrument of a device (`cpu` has none), as `workload.INSTRUMENTS` registers it by the device's name.

    Tests run on a CPU beside a scripted GPU: FOOTPRINT_FAKE_GPU names it, and only a GPU whose name says FAKE passes.
    Raises `Refused` where the device is absent or cannot be measured.
    """
    stand_in = os.environ.get("FOOTPRINT_FAKE_GPU", "") if device == "cpu" else ""
    device = stand_in or device
    registered = workload.INSTRUMENTS.items()
    places = [place for pattern, place in registered if re.fullmatch(pattern, device, re.ASCII)]
    if not places:
        raise Refused(f"No instrument is registered for the device {device!r}.")
    instrument = resolve_name(places[0])(device)
    if stand_in and "FAKE" not in (name := instrument.identity().name):
        raise Refused(
            f"FOOTPRINT_FAKE_GPU names {name!r}; only a card whose own name says FAKE is allowed there."
        )
    return instrument
