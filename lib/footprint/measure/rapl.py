"""The host beside the GPU: its energy counters (RAPL) and the load of its cores."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from footprint.measure import journal

POWERCAP = Path("/sys/class/powercap")
KINDS = ("package", "dram")
STUCK_S = 0.5  # a package counter moves every millisecond; one that rests this long is broken


class Zone(NamedTuple):
    """One RAPL counter: its reading and the value at which it wraps around, in microjoules."""

    kind: str
    reading: int
    range: int


def zones(folder: Path = POWERCAP) -> tuple[dict[str, Zone], str]:
    """The RAPL counters by name, and a status: `ok`, `not_supported` or `no_permission`.

    Packages and memory only, each once: other zones are parts of a package or hold several.
    """
    counters, status = {}, "not_supported"
    for place in (*sorted(folder.glob("intel-rapl:*")), *sorted(folder.glob("intel-rapl-mmio:*"))):
        try:
            name = (place / "name").read_text().strip()
            kind = next((kind for kind in KINDS if name.startswith(kind)), None)
            owner = place.parent / place.name.rpartition(":")[0] / "name"
            if kind == "dram" and owner.exists():
                name = f"{owner.read_text().strip()}/{name}"
            if kind is None or name in counters:
                continue
            reading = int((place / "energy_uj").read_text())
            counters[name] = Zone(kind, reading, int((place / "max_energy_range_uj").read_text()))
            status = "ok"
        except PermissionError:
            status = "no_permission" if status != "ok" else status
        except (OSError, ValueError):
            continue
    return counters, status


def joules(
    before: Mapping[str, Zone], after: Mapping[str, Zone], status: str, seconds: float
) -> dict:
    """Window variables of the counters in J, summed over zones and without wrap-around.

    NaN without counters; `host_status` says why. A package that rests is `counter_stuck`.
    """
    values = {f"{kind}_{end}_J": math.nan for kind in KINDS for end in ("start", "stop")}
    if status != "ok":
        return values | {"host_status": status}
    growth = {
        name: (after[name].reading - zone.reading) % zone.range
        for name, zone in before.items()
        if name in after
    }
    packages = [growth[name] for name in growth if before[name].kind == "package"]
    if not packages or (not all(packages) and seconds > STUCK_S):
        return values | {"host_status": "counter_stuck" if packages else "not_supported"}
    for kind in KINDS:
        names = [name for name in growth if before[name].kind == kind]
        if names:
            start = sum(before[name].reading for name in names)
            values[f"{kind}_start_J"] = start / 1e6
            values[f"{kind}_stop_J"] = (start + sum(growth[name] for name in names)) / 1e6
    return values | {"host_status": "ok"}


class Cores(NamedTuple):
    """Core seconds that were used: by all on the cores that we may use, and by each of ours."""

    busy_s: float
    ours_s: Mapping[int, float]  # by process id


def cores() -> Cores:
    """What was used of the cores that this process may use, by all and by runs of this project.

    Runs on other GPUs of this host are ours, not others: their processes have the environment of a
    run. Where no other is readable it is this process alone.
    """
    ours_s, here = {}, usable()
    for process in psutil.process_iter():
        try:
            own = process.pid == os.getpid()
            run = own or (journal.VARIABLE in process.environ() and here & usable(process.pid))
            if run:
                used = process.cpu_times()
                ours_s[process.pid] = used.user + used.system
        except (psutil.Error, OSError):
            continue
    each = psutil.cpu_times(percpu=True)
    seen = [times for number, times in enumerate(each) if number in here] or each
    resting = sum(times.idle + getattr(times, "iowait", 0.0) for times in seen)
    return Cores(sum(sum(times[:8]) for times in seen) - resting, ours_s)


def usable(pid: int = 0) -> set[int]:
    """Numbers of the cores that a process (else this one) may use; all where nobody can tell."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(pid)
    return set(range(psutil.cpu_count()))


def shares(before: Cores, after: Cores, seconds: float) -> dict[str, float]:
    """Shares of our cores that all, and others than us, used between two readings of `cores`.

    A process of ours that ended in between counts as another from its first reading on.
    """
    busy_s = after.busy_s - before.busy_s
    ours_s = sum(used - before.ours_s.get(pid, 0.0) for pid, used in after.ours_s.items())
    total_s = seconds * len(usable())
    others_s = max(0.0, busy_s - ours_s)
    return {"cpu_share": max(0.0, busy_s) / total_s, "foreign_cpu_share": others_s / total_s}
