"""The sampler: a process of its own that reads power and energy counter of one GPU."""

import gc
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np

from footprint import Refused
from footprint.measure.instrument import FATAL, REAL, Clock, Instrument, Reading
from footprint.trace.schema import WINDOW_STATUS

RATE_HZ = 20.0
BUSIEST = 0.02  # largest share of a core that the calls may take
START_S = 10.0  # a sampler has this long for its first sample
LAST_S = 0.3  # it goes on this long after the block: the last window has samples on both sides
LAST_CALL_S = 10.0  # its last call may take this long
REVIVALS = 2
COLUMNS = ("time_s", "power_W", "counter_J", "code", "cpu_s")
NOTHING = {name: np.array([]) for name in COLUMNS}  # of a device without an instrument
CODES = {status: code for code, status in enumerate(WINDOW_STATUS)}
ROW = struct.Struct(f"{len(COLUMNS)}d")


class Recording:
    """A running sampler; after the block, `columns` holds an array for each of `COLUMNS`."""

    def __init__(self, out: BinaryIO, instrument: Instrument, rate_hz: float, busiest: float):
        kind, limits = type(instrument), (str(rate_hz), str(busiest))
        place = f"{kind.__module__}:{kind.__qualname__}"
        self._command = [sys.executable, "-m", __name__, place, instrument.device, *limits]
        self._out, self._left, self.columns = out, REVIVALS, NOTHING
        self._start()

    def _start(self) -> None:
        size, deadline = self._size(), time.monotonic() + START_S
        ends = {"stdout": self._out, "stdin": subprocess.PIPE}
        self._child = subprocess.Popen(self._command, start_new_session=True, **ends)  # no Ctrl-C
        while self._size() == size and self.alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _size(self) -> int:
        return os.fstat(self._out.fileno()).st_size

    def alive(self) -> bool:
        """Whether the sampler still runs."""
        return self._child.poll() is None

    def revive(self) -> None:
        """Start it again if it died, at most twice."""
        if not self.alive() and self._left:
            self._left -= 1
            self._child.stdin.close()
            self._start()

    def close(self) -> None:
        """End the sampler, by closing its standard input, and read what it wrote."""
        for end in (self._child.stdin.close, self._child.kill):
            end()
            with suppress(subprocess.TimeoutExpired):  # a call to the driver of a lost GPU may hang
                self._child.wait(timeout=LAST_CALL_S)
        self._out.seek(0)
        raw = np.frombuffer(self._out.read(), dtype=np.float64)
        rows = raw[: raw.size // len(COLUMNS) * len(COLUMNS)].reshape(-1, len(COLUMNS))
        self.columns = dict(zip(COLUMNS, rows.T.copy(), strict=True))
        self.columns["code"] = self.columns["code"].astype(np.int64)


@contextmanager
def sampling(
    instrument: Instrument,
    rate_hz: float = RATE_HZ,
    busiest: float = BUSIEST,
    into: BinaryIO | None = None,
) -> Iterator[Recording | SimpleNamespace]:
    """Sample power and counter while the block runs; yields a `Recording`, empty for a CPU.

    into: a file to append to, whose samples are read, too; a temporary one by default.
    """
    if not instrument.present:
        yield SimpleNamespace(columns=NOTHING, revive=lambda: None)
        return
    with nullcontext(into) if into else tempfile.TemporaryFile() as out:
        recording = Recording(out, instrument, rate_hz, busiest)
        try:
            yield recording
            time.sleep(LAST_S)
        finally:
            recording.close()


def sample(
    read: Callable[[], Reading],
    emit: Callable,
    stopped: Callable[[float], bool],
    *,
    rate_hz: float = RATE_HZ,
    busiest: float = BUSIEST,
    clock: Clock = REAL,
    cpu: Callable = time.process_time,
) -> str:
    """Emit a row of `COLUMNS` per sample until `stopped(pause)`, which also waits; last status.

    The time is the middle of the call. Pauses vary by a quarter, so that no sensor keeps step, and
    grow with slow calls, which take at most the share `busiest` of a core.
    """
    now, random_share, cost = clock.now, random.Random(0).random, 1.0
    due = now()
    while True:
        before = now()
        watts, joules, status = read()
        after = now()
        emit((before + after) / 2, watts, joules, CODES[status], cpu())
        if status in FATAL:
            return status
        cost = min(after - before, 1.25 * cost)  # one call that was held up is no slow call
        due = max(due + (0.75 + 0.5 * random_share()) / rate_hz, before + cost / busiest, after)
        if stopped(due - after):
            return status


def main(place: str, device: str, rate_hz: str, busiest: str) -> None:
    """Write samples to standard output until standard input closes; exit code 1 for a lost GPU.

    place: `module:class` of the instrument. Of a GPU that it cannot open it says why.
    """
    try:
        read, ended = resolve_name(place)(device).reader(), select.poll()
    except Refused as refused:
        sys.exit(f"footprint: the sampler ends: {refused}")
    ended.register(0)

    def emit(*row: float) -> None:
        os.write(1, ROW.pack(*row))  # one write a row: a row is whole or absent

    def stopped(pause: float) -> bool:
        return bool(ended.poll(max(0.0, 1e3 * pause)))

    gc.collect()
    gc.freeze()
    status = sample(read, emit, stopped, rate_hz=float(rate_hz), busiest=float(busiest))
    sys.exit(status in FATAL)


if __name__ == "__main__":
    main(*sys.argv[1:])
