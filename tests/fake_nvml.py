"""The scripted GPU of the tests: compile the fake NVML, write its script, know its true energy."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pynvml
import pytest

from footprint.measure.instrument import Clock

SOURCE = Path(__file__).with_name("fake_nvml.c")
ALWAYS, FOREVER = (0, 0.0, 10**9), 1e18
ZERO = -1  # in place of an error code: the call succeeds and its value is 0
Points = Sequence[tuple[float, float]]


def compiler() -> list[str]:
    """The C compiler of the system, else Zig's; RuntimeError where there is none."""
    if system := next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None):
        return [system]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise RuntimeError(
        "no C compiler for the fake NVML: install gcc or clang, or pip install ziglang"
    )


def build(folder: Path) -> Path:
    """The fake `libnvidia-ml.so.1` in `folder`; raises what `compiler` raises."""
    library = folder / "libnvidia-ml.so.1"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command = [*compiler(), *flags, "-o", str(library), str(SOURCE), "-lm"]
    caches = {f"ZIG_{which}_CACHE_DIR": str(folder) for which in ("GLOBAL", "LOCAL")}
    subprocess.run(command, check=True, env=os.environ | caches)
    return library


def write(path: Path, points: Points, **keys) -> Path:
    """Write a script: power along `points` (s, W), repeated for ever, and the sensor's `keys`.

    faults: tuples of call (`all` for each, `name@1` on the second card alone), NVML code, first
    call, first second, and number of times; pids: process id -> second from which NVML lists it.
    """
    faults, pids = keys.pop("faults", []), keys.pop("pids", {})
    lines = [f"point {t!r} {watts!r}" for t, watts in np.asarray(points, float).tolist()]
    lines += [
        f"{key} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for key, value in keys.items()
    ]
    lines += [f"fault {' '.join(map(str, fault))}" for fault in faults]
    lines += [f"pid {number} {start_s}" for number, start_s in pids.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def install(patch: pytest.MonkeyPatch, library: Path, script: Path) -> Callable[..., Path]:
    """Put the fake under the real bindings, in child processes too; returns its script writer."""
    patch.setenv("FAKE_NVML", str(script))
    patch.setenv("LD_LIBRARY_PATH", str(library.parent))
    patch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    patch.setenv("CUDA_VISIBLE_DEVICES", "")  # restored at the end, when the instrument has set it
    patch.delenv("CUDA_VISIBLE_DEVICES")
    patch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
    patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})

    def rewrite(points: Points = ((0, 100), (1, 100)), **keys) -> Path:
        write(script, points, **keys)
        with contextlib.suppress(pynvml.NVMLError):  # a test may script an error right here
            pynvml.nvmlInit()
        return script

    return rewrite


def energy(points: Points, start_s: float, stop_s: float) -> float:
    """True joules of a script between two times."""
    at, watts = np.asarray(points, float).T
    inner = np.concatenate([[0.0], np.cumsum(np.diff(at) * (watts[1:] + watts[:-1]) / 2)])

    def until(t: float) -> float:
        rounds, rest = divmod(t, at[-1])
        i = min(np.searchsorted(at, rest, side="right") - 1, len(at) - 2)
        rise = (watts[i + 1] - watts[i]) / (at[i + 1] - at[i]) if at[i + 1] > at[i] else 0.0
        part = rest - at[i]
        return rounds * inner[-1] + inner[i] + part * (watts[i] + rise * part / 2)

    return until(stop_s) - until(start_s)


# -- loads -----------------------------------------------------------------------------------------


def constant(watts: float) -> list:
    """The same power for ever."""
    return [(0, watts), (1, watts)]


def square(low: float, high: float, period: float, share: float = 0.5) -> list:
    """`high` for the first share of a period, `low` for the rest."""
    return [(0, high), (share * period, high), (share * period, low), (period, low)]


def ramp(low: float, high: float, seconds: float) -> list:
    """Up in `seconds`, and down in as many."""
    return [(0, low), (seconds, high), (2 * seconds, low)]


def steps(levels: Sequence[float], seconds: float) -> list:
    """Each level for `seconds`, one after the other."""
    return [(t, watts) for i, watts in enumerate(levels) for t in (i * seconds, (i + 1) * seconds)]


# -- time ------------------------------------------------------------------------------------------


class VirtualTime:
    """A clock in a file, which every call of the fake library moves on."""

    def __init__(self, path: Path):
        path.write_bytes(bytes(4096))
        self.path, self.cell = path, np.memmap(path, np.float64, "r+")

    def set(self, seconds: float) -> None:
        """Go to this time, forwards or back."""
        self.cell[0] = seconds

    def clock(self) -> Clock:
        """The clock that the library measures with."""

        def sleep(seconds: float) -> None:
            self.cell[0] += max(seconds, 0.0)

        now = lambda: float(self.cell[0])  # noqa: E731
        return Clock(now, sleep, now)
