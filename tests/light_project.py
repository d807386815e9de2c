"""A project whose notebooks write a trace in a moment, for tests of sweeps."""

import json
import os
import time
from pathlib import Path

import numpy as np

from footprint import digest, workload
from footprint.measure import provenance
from footprint.trace.schema import ATTRS

os.environ["LIGHT"] = str(Path(__file__).parent)  # the kernels inherit it
BODY = """
import os, sys
sys.path.insert(0, os.environ["LIGHT"])  # not written out: an executed notebook names no place
import light_project as light
from footprint import workload
light.behave(request := workload.given(globals()))
light.write(request)
"""


def seed(points: int = 2, samples: int = 40, **attrs):
    """A small measured trace with plausible numbers."""
    from footprint.trace import file as trace  # not at the top: notebooks must start fast

    blank = {str: "", int: 1, float: 1.0}
    kept = {
        name: blank[cast]
        for name, (cast, _) in ATTRS.items()
        if name not in ("schema_version", "kind")
    }
    kept |= {
        "status": "ok",
        "device": "box",
        "device_name": provenance.processor(),
        "model": "m",
        "dtype": "fp32",
        "engine": "eager",
        "weights": "random",
        "energy_source": "none",
        "request": "{}",
        "run_id": "0",
    }
    kept |= attrs
    windows = [
        {
            "phase": phase,
            "batch": 1 + point,
            "prompt_tokens": 64,
            "output_tokens": 32,
            "iterations": 2,
            "tokens": 64,
            "lengths": "grid",
            "status": "ok",
            "start_s": point + 0.1,
            "stop_s": point + 0.9,
        }
        for point in range(points)
        for phase in ("prefill", "decode")
    ]
    random = np.random.default_rng(0)
    power = {"time_s": np.arange(samples) * 0.05, "power_W": random.normal(100, 5, samples)}
    steps = {
        "window": np.arange(samples) % len(windows),
        "step_s": random.normal(0.02, 0.001, samples),
    }
    return trace.new("measured", kept, windows, power, steps)


def project(folder: Path) -> Path:
    """A checkout whose `profile.ipynb` has the real parameters, then calls `behave` and `write`."""
    import nbformat

    from footprint import trace

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_toc.yml").touch()
    real = Path(__file__).parents[1] / "notebooks" / "profile.ipynb"
    book = nbformat.read(real, as_version=4)
    parameters = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    book.cells = [parameters, nbformat.v4.new_code_cell(BODY)]
    (folder / "notebooks").mkdir(exist_ok=True)
    nbformat.write(book, folder / "notebooks" / "profile.ipynb")
    trace.save(seed(), folder / "seed.h5")
    return folder


def behave(request: dict) -> None:
    """Go wrong in the way that the seed number asks for; otherwise take a moment."""
    kind = request["seed"]
    if kind == 666:
        os.kill(os.getpid(), 9)
    if kind == 667:
        time.sleep(3600)
    if kind == 668:
        raise MemoryError("no room")
    if kind == 669:
        raise ValueError("nonsense")
    if kind == 670 and not (flag := Path(request["model"] + ".once")).exists():
        flag.touch()
        os.kill(os.getpid(), 9)
    if kind == 671:
        print("grün 绿", flush=True)
    print(f"doing {request['model']}", flush=True)
    time.sleep(float(os.environ.get("LIGHT_S", "0.05")))


def write(request: dict) -> None:
    """The seed trace with this request in it, whole or not at all."""
    import h5py

    out = Path(request["out"])
    out.with_suffix(".part").write_bytes(Path("seed.h5").read_bytes())
    asked, seen = provenance.asked(request), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    assert "," not in seen, "a run sees one GPU"
    assert request["device"] in ("cpu", "cuda:0"), "and that is its first"
    told = {"request": asked, "model": workload.slug(request["model"]), "dtype": request["dtype"]}
    told |= {"run_id": digest(f"{asked}{time.time_ns()}")}
    told |= {"device_hash": digest(seen) if seen else ""}
    with h5py.File(out.with_suffix(".part"), "r+") as file:
        for name, value in told.items():
            file.attrs[name] = value
        del file.attrs["checksum"]  # that of the seed
    os.replace(out.with_suffix(".part"), out)


def matrix(path: Path, text: str) -> Path:
    """A sweep file."""
    path.write_text(text, encoding="utf-8")
    return path


def pairs(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    """Bytes of trace and page of all results below a folder, by name; each trace has a page."""
    from footprint import trace

    names = trace.names(folder)
    return {
        name: ((folder / name).read_bytes(), (folder / name).with_suffix(".ipynb").read_bytes())
        for name in names
    }


def events(folder: Path, kind: str) -> list[dict]:
    """Events of one kind in a sweep's log."""
    lines = (folder / ".sweep" / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
