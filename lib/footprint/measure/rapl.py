"""The host beside the GPU: energy counters of the processor and its memory (RAPL), and who keeps its cores busy."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

POWERCAP = Path("/sys/class/powercap")
KINDS = ("package", "dram")
STUCK_S = 0.5  # a package counter moves every millisecond or so; one that rests for longer is not counting


class Zone(NamedTuple):
    """One RAPL counter: its reading and the value after which it starts again, both in microjoules."""

    kind: str
    reading: int
    range: int


def zones(folder: Path = POWERCAP) -> tuple[dict[str, Zone], str]:
    """The RAPL counters by name, and a status: `ok`, `not_supported` (there are none) or `no_permission`.

    A zone that the kernel shows twice (intel-rapl and intel-rapl-mmio) is taken once; the counter of the whole board
    (psys) and those of parts of a package (core, uncore) are left out, since the package holds them.
    """
    found, status = {}, "not_supported"
    for place in (*sorted(folder.glob("intel-rapl:*")), *sorted(folder.glob("intel-rapl-mmio:*"))):
        try:
            name = (place / "name").read_text().strip()
            kind = next((kind for kind in KINDS if name.startswith(kind)), None)
            owner = place.parent / place.name.rpartition(":")[0] / "name"
            if kind == "dram" and owner.exists():
                name = f"{owner.read_text().strip()}/{name}"
            if kind is None or name in found:
                continue
            reading = int((place / "energy_uj").read_text())
            found[name] = Zone(kind, reading, int((place / "max_energy_range_uj").read_text()))
            status = "ok"
        except PermissionError:
            status = "no_permission" if status != "ok" else status
        except (OSError, ValueError):
            continue
    return found, status


def joules(
    before: Mapping[str, Zone], after: Mapping[str, Zone], status: str, seconds: float
) -> dict:
    """Window variables of the host counters: start and stop in J, summed over packages, wrap-around taken out.

    Without counters they are NaN and `host_status` says why; a package counter that rests is `counter_stuck`.
    """
    values = {f"{kind}_{end}_J": math.nan for kind in KINDS for end in ("start", "stop")}
    if status != "ok":
        return values | {"host_status": status}
    grown = {
        name: (after[name].reading - zone.reading) % zone.range
        for name, zone in before.items()
        if name in after
    }
    packages = [grown[name] for name in grown if before[name].kind == "package"]
    if not packages or (not all(packages) and seconds > STUCK_S):
        return values | {"host_status": "counter_stuck" if packages else "not_supported"}
    for kind in KINDS:
        names = [name for name in grown if before[name].kind == kind]
        if names:
            start = sum(before[name].reading for name in names)
            values[f"{kind}_start_J"] = start / 1e6
            values[f"{kind}_stop_J"] = (start + sum(grown[name] for name in names)) / 1e6
    return values | {"host_status": "ok"}


def cores() -> tuple[float, float]:
    """Seconds that all processes, and this one, have spent on the cores."""
    total, own = psutil.cpu_times(), psutil.Process().cpu_times()
    resting = total.idle + getattr(total, "iowait", 0.0)
    return sum(total[:8]) - resting, own.user + own.system


def shares(
    before: tuple[float, float], after: tuple[float, float], seconds: float
) -> dict[str, float]:
    """Share of all cores that was busy, and the share that other processes used, between two readings of `cores`."""
    busy, own = after[0] - before[0], after[1] - before[1]
    room = seconds * psutil.cpu_count()
    return {"cpu_share": max(0.0, busy) / room, "foreign_cpu_share": max(0.0, busy - own) / room}
