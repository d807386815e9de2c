"""An instrument without a driver that stands for the next vendor's library."""

import math
import time

from footprint.measure.instrument import Identity, Instrument, Reading, State

WATTS = 150.0
PLACE = "scripted_instrument:Scripted"


class Scripted(Instrument):
    """A GPU that always draws 150 W; its name is in no table."""

    power, source = "scripted_instant", "scripted_counter"

    @property
    def calls(self) -> dict:
        """Two of the four."""
        return {"instant": lambda: (WATTS, "ok"), "counter": self.counter}

    def identity(self) -> Identity:
        """A name that no table knows."""
        return Identity("Scripted Accelerator 9000", "GPU-FAKE-0", "9.0")

    def reader(self):
        """Both at once."""
        return lambda: Reading(WATTS, *self.counter())

    def counter(self) -> tuple[float, str]:
        """Joules in ticks of 10 ms."""
        return WATTS * math.floor(100 * time.monotonic()) / 100, "ok"

    def state(self) -> State:
        """Cool, and without anybody else."""
        return State(40.0, 1500.0, 7000.0, 400.0, 0, False, frozenset(), "ok")
