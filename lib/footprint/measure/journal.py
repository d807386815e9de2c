"""The journal of a run: its windows and samples as they end, so that a killed run can go on."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from footprint.measure.instrument import FATAL

VARIABLE = "FOOTPRINT_JOURNAL"  # environment variable: folder in which a run keeps its journal
BOOT = Path("/proc/sys/kernel/random/boot_id")
GAP_S = 1.0  # between the times of an earlier boot and those of the next
ENDS = ("start_s", "stop_s")  # a window that was not tried has none
SAMPLES, WINDOWS = "samples", "windows.jsonl"


class Journal:
    """What a run and its earlier tries have measured; in memory alone where there is no folder.

    rows: windows, each with its step times; tries: from the first that counts on, what each began
    with: its boot, and how many rows and samples there were.
    """

    def __init__(self, file: BinaryIO | None = None):
        self._file, self.rows, self.tries = file, [], []

    def add(self, window: dict, times: list[float]) -> None:
        """Keep a window and its step times: on the disk when this returns."""
        self.rows.append((window, times))
        self._write({"window": window, "times": times})

    def begin(self, identity: dict, samples: int = 0) -> None:
        """Read what earlier tries of the same identity left, and begin another one."""
        for line in self._lines():
            if "window" in line and self.tries:
                if line["window"]["status"] not in FATAL:  # that one is tried again
                    self.rows.append((line["window"], line["times"]))
            elif "boot" in line:
                if line["identity"] != identity:
                    self.rows, self.tries = [], []
                else:
                    self.tries.append({**line, "rows": len(self.rows)})
        boot = BOOT.read_text().strip() if BOOT.exists() else ""
        head = {"identity": identity, "boot": boot, "samples": samples}
        self.tries.append({**head, "rows": len(self.rows)})
        self._write(head)

    def _lines(self) -> Iterator[dict]:
        """The lines of the file but those that were cut off."""
        text = self._file.read() if self._file else b""
        for line in text.split(b"\n"):
            with suppress(ValueError):
                yield json.loads(line)

    def _write(self, record: dict) -> None:
        """Append a line; the one before may have been cut off."""
        if self._file:
            line = json.dumps(record, default=lambda number: number.item())
            self._file.write(f"\n{line}\n".encode())
            os.fsync(self._file.fileno())

    def joined(self, columns: Mapping[str, np.ndarray]) -> tuple[list[dict], dict, dict]:
        """Windows, samples and steps of all tries, as `trace.new` takes them.

        columns: samples of the sampler, `time_s` among them. After a boot the clock begins anew:
        the times of earlier boots are moved to before those of the next one.
        """
        windows = [dict(window) for window, _ in self.rows]
        columns = {name: values[self.tries[0]["samples"] :] for name, values in columns.items()}
        time_s, later = columns["time_s"].copy(), np.inf
        pairs = zip(self.tries, [{"boot": None}, *self.tries], strict=False)
        boots = [this for this, before in pairs if this["boot"] != before["boot"]]
        rows, samples = len(windows), len(time_s)
        for this in reversed(boots):
            first, start = this["rows"], this["samples"] - self.tries[0]["samples"]
            mine, part = windows[first:rows], time_s[start:samples]
            ends = [(window, end) for window in mine for end in ENDS if end in window]
            times = [*part, *(window[end] for window, end in ends)]
            moved = 0.0 if this is boots[-1] or not times else later - GAP_S - max(times)
            part += moved
            for window, end in ends:
                window[end] += moved
            for window in mine:
                if pauses := window.get("pauses"):
                    window["pauses"] = [(begin + moved, end + moved) for begin, end in pauses]
            later = min([later, *(moment + moved for moment in times)])
            rows, samples = first, start
        steps = {
            "window": [at for at, (_, times) in enumerate(self.rows) for _ in times],
            "step_s": [second for _, times in self.rows for second in times],
        }
        return windows, {**columns, "time_s": time_s}, steps


@contextmanager
def kept(identity: dict, width: int) -> Iterator[tuple[Journal, BinaryIO | None]]:
    """The journal of this run in the folder that the environment names, and a file for samples.

    identity: what must be equal for an earlier try to count. width: bytes of a sample. Without a
    folder the journal lives in memory, and there is no file.
    """
    folder = Path(os.environ.get(VARIABLE, ""))
    if not folder.name:
        journal = Journal()
        journal.begin(identity)
        yield journal, None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _appended(folder / WINDOWS) as rows, _appended(folder / SAMPLES) as samples:
        fcntl.flock(rows, fcntl.LOCK_EX)
        whole = os.fstat(samples.fileno()).st_size // width
        os.ftruncate(samples.fileno(), whole * width)  # the last one was cut off
        journal = Journal(rows)
        journal.begin(identity, whole)
        yield journal, samples


def _appended(path: Path) -> BinaryIO:
    """A file to read from its start and to append to; OSError for a link in its place."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    file = os.fdopen(os.open(path, flags, 0o666), "ab+", buffering=0)
    file.seek(0)
    return file
