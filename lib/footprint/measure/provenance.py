"""Where a run comes from: hardware, software, code and time, without names of people or machines."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from footprint import digest, spec, workload
from footprint.measure import nvml as meter

PACKAGES = ("torch", "transformers", "numpy", "nvidia-ml-py", "xarray", "papermill")


def run(request: dict, card) -> dict:
    """Root attributes that are known before the model is loaded. No host name, no user name, no path, no raw UUID."""
    gpu = meter.identity(meter.instrument(request["device"])) if card is not None else {}
    name = gpu.get("name") or processor()
    start = datetime.now(UTC).isoformat(timespec="seconds")
    has_counter = meter.read(card)["status"] == "ok"
    source = (
        "none" if card is None else "nvml_counter" if has_counter else meter.power_call(card)[0]
    )
    release = re.match(r"[\d.]*", platform.release())[0]
    versions = [f"{package} {_version(package)}" for package in PACKAGES]
    return {
        "run_id": digest(f"{asked(request)} {name} {start}"),
        "request": asked(request),
        "device": card_id(name) if gpu else workload.slug(name),
        "device_name": name,
        "device_hash": digest(gpu["uuid"]) if gpu else "",
        "engine": request["engine"],
        "load_average": os.getloadavg()[0],
        "driver": gpu.get("driver", ""),
        "git_commit": commit(),
        "software": ", ".join(
            [f"Python {platform.python_version()}", *versions, f"Linux {release}"]
        ),
        "seed": request["seed"],
        "start_utc": start,
        "energy_source": source,
        "window_s": float(request["window_s"]),
    }


def asked(request: dict) -> str:
    """What was asked, as JSON with sorted keys, without the place of the result."""
    kept = {key: value for key, value in request.items() if key != "out"}
    if Path(kept["model"]).exists():
        path = Path(kept["model"]).resolve()  # where a local folder lies is nobody's business
        kept["model"] = path.parent.name if path.name == "config.json" else path.name
    return json.dumps(kept, sort_keys=True)


def card_id(name: str) -> str:
    """Id of the card in the table that calls itself by this name, else a slug of the name.

    Names count as a whole, so a relative with other limits (an A10G, an A100-PCIE-40GB) is never taken for a known card.
    """
    known = {
        _bare(one): row["id"] for row in spec.table("gpus") for one in row["nvml_name"].split("|")
    }
    return known.get(_bare(name), _bare(name))


def _bare(name: str) -> str:
    """A slug of a card's name without the words that come and go with the version of the driver."""
    return workload.slug(re.sub(r"\b(NVIDIA|Tesla|Quadro|GeForce|Generation)\b", "", name).strip())


def processor() -> str:
    """Name of the CPU as Linux gives it, else the architecture."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", names[0]).strip()
        if names
        else platform.machine()
    )


def commit() -> str:
    """Commit of the code, with `+` when the checkout holds changes; empty outside a checkout."""
    here = Path(__file__).parent
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
