"""Results of runs: each claimed by one process, page and trace placed together or not at all.

A run works in the scratch folder `.run-<name>`. Its files move to their place once the file
`commit` is written there; after a crash the next process completes the move or deletes the folder.
"""

import fcntl
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import NamedTuple

import psutil
import xarray as xr

from footprint import Refused, digest, root, trace
from footprint.measure import provenance

FINAL = ("ok", "oom")  # statuses of runs that need no second try
LOG = Path(".sweep") / "events.jsonl"
VARIABLE = "FOOTPRINT_RUN"  # environment variable of all processes of a run: its scratch folder
STEM = "THIS-RUN"  # placeholder in a page for its final name
UNREADABLE = (Refused, OSError, KeyError, ValueError, TypeError, AttributeError)
NOBODY = re.compile("root|user|admin|ubuntu|debian|runner|docker|jovyan|localhost")


class Finished(NamedTuple):
    """A finished run; its file is None where the model did not fit."""

    device: str
    status: str
    file: Path | None


def key(notebook: str, asked: str) -> str:
    """Hash of the notebook and the request, without its device."""
    request = {name: value for name, value in json.loads(asked).items() if name != "device"}
    return digest(json.dumps([notebook, request], sort_keys=True))


def _identity(attrs: dict) -> tuple[str, str]:
    """Key of a run, and the hash of its GPU, else the name of its device."""
    name = attrs["device_name"] if attrs["kind"] == "measured" else attrs["device"]
    return key(trace.notebook(attrs), attrs["request"]), attrs["device_hash"] or name


def finished(folder: str | Path, heads: dict | None = None) -> dict[str, list[Finished]]:
    """Finished runs below a folder, by key.

    heads: attributes of traces that an earlier call read; unchanged files are not read again.
    """
    done, heads = {}, {} if heads is None else heads
    for path in trace.files(folder):
        try:
            now = path.stat()
            version = (path, now.st_ino, now.st_size, now.st_ctime_ns)
            if version not in heads:
                heads[version] = trace.head(path)
            status = heads[version]["status"]
            if status in FINAL:
                name, device = _identity(heads[version])
                done.setdefault(name, []).append(Finished(device, status, path))
        except UNREADABLE:
            continue  # `footprint gather` reports such files
    for name, event in last_ends(folder).items():
        if event["status"] == "oom" and name not in done and event.get("device"):
            done[name] = [Finished(event["device"], "oom", None)]
    return done


# -- claims ----------------------------------------------------------------------------------------


@contextmanager
def claim(folder: Path, name: str) -> Iterator[Path | None]:
    """The scratch folder of a run, locked by this process; None while another one holds it.

    What a killed owner left is cleared first: its processes end, its finished files are placed.
    """
    scratch = Path(folder) / f".run-{name}"
    scratch.mkdir(parents=True, exist_ok=True)
    handle = os.open(scratch / "claim", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.stat(scratch / "claim")):
            raise BlockingIOError  # removed by its owner after we opened it
    except (BlockingIOError, FileNotFoundError):
        os.close(handle)
        yield None
        return
    try:
        if len(os.listdir(scratch)) > 1:
            kill(scratch)
            _complete(scratch, folder)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def kill(scratch: Path) -> None:
    """Kill every process of the run in this scratch folder."""
    wanted = str(Path(scratch).resolve())
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it is gone, or another user's
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == wanted:
                process.kill()


def recover(folder: Path) -> None:
    """Place what killed sweeps had finished in a folder, and remove the rest of their files."""
    for scratch in sorted(Path(folder).glob(".run-*")):
        with claim(folder, scratch.name.removeprefix(".run-")):
            pass


# -- placing ---------------------------------------------------------------------------------------


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Only one process at a time chooses and takes a name in a folder."""
    (Path(folder) / ".sweep").mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / ".sweep" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def settle(scratch: Path, folder: Path) -> tuple[xr.DataTree, Path]:
    """Place `run.ipynb` and `run.nc` of a finished run; returns the checked trace and its path."""
    tree = trace.load(scratch / "run.nc")
    text = (scratch / "run.ipynb").read_text(encoding="utf-8")
    with _one_at_a_time(folder):
        target = _free(trace.place(tree, folder), tree.attrs)
        write(scratch / "run.ipynb", text.replace(STEM, target.stem))
        write(scratch / "commit", os.path.relpath(target, folder))
        _land(scratch, target)
    return tree, target


def write(place: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return trace.whole(place, lambda path: Path(path).write_text(text, encoding="utf-8"))


def _move(scratch: Path, target: Path) -> None:
    """Move the page, then the trace: a run counts once its trace is there."""
    for ending in (".ipynb", ".nc"):
        if (scratch / f"run{ending}").exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / f"run{ending}", target.with_suffix(ending))


def _land(scratch: Path, target: Path) -> None:
    """Move page and trace, and synchronise the folder on the disk."""
    _move(scratch, target)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _complete(scratch: Path, folder: Path) -> None:
    """Complete the move of a dead process that wrote `commit`, unless its place is taken."""
    if not (scratch / "commit").exists() or not (scratch / "run.nc").exists():
        return
    if (scratch / "run.ipynb").exists():
        settle(scratch, folder)
        return
    target = Path(folder) / (scratch / "commit").read_text(encoding="utf-8")
    with _one_at_a_time(folder):
        if not target.exists():
            _land(scratch, target)


def _free(path: Path, attrs: dict) -> Path:
    """The path, or one beside it where a finished run of another request or device lies."""
    with suppress(*UNREADABLE):
        other = trace.head(path)
        if other["status"] in FINAL and _identity(other) != _identity(attrs):
            return path.with_stem(f"{path.stem}-{digest(' '.join(_identity(attrs)))[:8]}")
    return path


def keep_failed(scratch: Path, folder: Path, name: str) -> Path | None:
    """Move page and trace of a failed run to `.sweep/failed`; returns the page, if there is one."""
    target = Path(folder) / ".sweep" / "failed" / f"{name}.ipynb"
    _move(scratch, target)
    return target if target.exists() else None


def scrub(text: str, notebook: str, template: bytes, model: str = "") -> str:
    """An executed notebook with its provenance, without names, UUIDs or absolute paths."""
    text = re.sub(r"[^\"'\\\s]*/\.run-[^/\"'\\\s]*/run\.(ipynb|nc)", rf"{STEM}.\1", text)
    text = re.sub(r"\b(GPU|MIG)-[0-9a-f]{8}-[0-9a-f-]{27}\b", r"\1-someone", text)
    paths = {str(root()): ".", sys.prefix: "venv", str(Path.home()): "~"}
    if Path(model).exists():
        paths = {str(Path(model).parent) + os.sep: "", **paths}
    for path in paths:
        text = text.replace(path, paths[path]) if len(path) > 3 else text
    for name in {platform.node(), getpass.getuser()}:
        if len(name) > 3 and not NOBODY.fullmatch(name):
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "someone", text)
    page = json.loads(text)
    record = page["metadata"].setdefault("papermill", {})
    record |= {"input_path": f"notebooks/{notebook}.ipynb", "output_path": f"{STEM}.ipynb"}
    packages = importlib.metadata.distributions()
    page["metadata"]["footprint"] = {
        "notebook": f"notebooks/{notebook}.ipynb",
        "notebook_sha256": hashlib.sha256(template).hexdigest(),
        "git_commit": provenance.commit(),
        "python": platform.python_version(),
        "environment": sorted({f"{item.name}=={item.version}" for item in packages}),
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


# -- events ----------------------------------------------------------------------------------------


def note(folder: str | Path, event: str, **facts: object) -> bool:
    """Append an event to the log as a line of JSON, NaN as null; False when the disk fails."""
    unknown = [name for name, value in facts.items() if isinstance(value, float) and isnan(value)]
    record = {"utc": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
    line = json.dumps(record | dict.fromkeys(unknown), default=str) + "\n"
    path = Path(folder) / LOG
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = "\n" + line  # the last write was cut off
            return file.write(line.encode()) == len(line.encode())
    except OSError:
        return False


def events(folder: str | Path) -> list[dict]:
    """All logged events in order, except lines that were cut off."""
    path, records = Path(folder) / LOG, []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def last_ends(folder: str | Path) -> dict[str, dict]:
    """The last `end` event of each run, by the run's key."""
    ends = [event for event in events(folder) if event.get("event") == "end" and "key" in event]
    return {event["key"]: event for event in ends}
