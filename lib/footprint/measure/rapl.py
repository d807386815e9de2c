"""The host beside the GPU: its energy counters (RAPL) and the load of its cores."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

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


def cores() -> tuple[float, float]:
    """Core seconds that all processes, and this process, have used."""
    total, own = psutil.cpu_times(), psutil.Process().cpu_times()
    resting = total.idle + getattr(total, "iowait", 0.0)
    return sum(total[:8]) - resting, own.user + own.system


def shares(
    before: tuple[float, float], after: tuple[float, float], seconds: float
) -> dict[str, float]:
    """Shares of all cores that all, and other, processes used between two readings of `cores`."""
    busy_s, own_s = after[0] - before[0], after[1] - before[1]
    total_s = seconds * psutil.cpu_count()
    others_s = max(0.0, busy_s - own_s)
    return {"cpu_share": max(0.0, busy_s) / total_s, "foreign_cpu_share": others_s / total_s}
