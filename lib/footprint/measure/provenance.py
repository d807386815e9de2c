"""Where a run comes from: hardware, software, code and time, without personal or host names."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from footprint import digest, spec, workload
from footprint.measure.instrument import Instrument

PACKAGES = ("torch", "transformers", "numpy", "nvidia-ml-py", "xarray", "papermill")


def attributes(request: dict, instrument: Instrument) -> dict:
    """Root attributes of a trace that are known before the model is loaded."""
    gpu, question = instrument.identity(), asked(request)
    name = gpu.name or processor()
    start = datetime.now(UTC).isoformat(timespec="seconds")
    release = re.match(r"[\d.]*", platform.release())[0]
    versions = [f"{package} {version(package) or 'absent'}" for package in PACKAGES]
    software = [f"Python {platform.python_version()}", *versions, f"Linux {release}"]
    return {
        "run_id": digest(f"{question} {name} {start}"),
        "request": question,
        "device": gpu_id(name) if gpu.name else workload.slug(name),
        "device_name": name,
        "device_hash": gpu.hash,
        "load_average": os.getloadavg()[0],
        "driver": gpu.driver,
        "git_commit": commit(),
        "software": ", ".join(software),
        "seed": request["seed"],
        "start_utc": start,
        "energy_source": instrument.source,
        "window_s": float(request["window_s"]),
        "host_cpu": processor(),
        "governor": governor(),
        "cuda": cuda_build(),
        **instrument.settings(),
    }


def asked(request: dict) -> str:
    """The request as JSON with sorted keys, without the path of the result."""
    kept = {key: value for key, value in request.items() if key != "out"}
    if Path(kept["model"]).exists():
        path = Path(kept["model"]).resolve()  # the place of a local folder is private
        kept["model"] = path.parent.name if path.name == "config.json" else path.name
    return json.dumps(kept, sort_keys=True)


def gpu_id(name: str) -> str:
    """Id of the GPU whose `nvml_name` in gpus.csv is this name, else a slug of the name.

    Only whole names count: an A10G is not taken for an A10.
    """
    ids = {
        _bare(known): row["id"]
        for row in spec.table("gpus")
        for known in row["nvml_name"].split("|")
    }
    return ids.get(_bare(name), _bare(name))


def _bare(name: str) -> str:
    """A slug of a GPU's name without the words that only some drivers report."""
    return workload.slug(re.sub(r"\b(NVIDIA|Tesla|Quadro|GeForce|Generation)\b", "", name).strip())


def processor() -> str:
    """Name of the CPU by Linux, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name = re.search(r"^model name.*?:(.*)$", text, re.MULTILINE)
    if not name:
        return platform.machine()
    return re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", name[1].strip()).strip()


def governor(folder: Path = Path("/sys/devices/system/cpu")) -> str:
    """Linux's frequency governor of the CPUs, several if they differ; `unknown` without one."""
    files = folder.glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({file.read_text().strip() for file in files})) or "unknown"


def commit() -> str:
    """Commit of the code, with `+` where files have changed; empty outside a checkout."""
    here = Path(__file__).resolve().parents[3]

    def git(*command: str) -> str:
        try:
            done = subprocess.run(["git", *command], cwd=here, capture_output=True, text=True)
        except OSError:  # there is no git
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    if git("rev-parse", "--show-toplevel") != str(here):
        return ""  # unpacked from an archive, maybe within another project
    return git("describe", "--always", "--dirty=+")


def cuda_build() -> str:
    """The CUDA version that torch is built for, read and not imported; empty without CUDA."""
    module = importlib.util.find_spec("torch")
    if not module:
        return ""
    text = Path(module.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)", text, re.MULTILINE)
    return found[1] if found else ""


def version(package: str) -> str:
    """Version of an installed package; empty where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
