"""Where results lie: a claim on each run, page and trace placed together or not at all, pages of failed runs apart."""

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
from contextlib import contextmanager
from pathlib import Path

import psutil
import xarray as xr

from footprint import digest, root, workload
from footprint.measure import provenance
from footprint.sweep import events as ledger
from footprint.trace import file as trace
from footprint.trace import raw

FINAL = ("ok", "oom")  # statuses of runs that need no second try
MARK = "FOOTPRINT_RUN"  # names the scratch folder in the environment of all processes of a run
STEM = "THIS-RUN"  # stands in a page for the name that it will get
NOBODY = {
    "root",
    "user",
    "admin",
    "ubuntu",
    "debian",
    "runner",
    "docker",
    "jovyan",
    "localhost",
}  # names of no one


def key(notebook: str, asked: str) -> str:
    """Hash of what was asked of which notebook; on which of equal devices is left out."""
    request = {name: value for name, value in json.loads(asked).items() if name != "device"}
    return digest(json.dumps([notebook, request], sort_keys=True))


def whose(run: dict) -> str:
    """What the device of a trace is known by: the hash of its UUID, else its name."""
    return run["device_hash"] or (
        run["device_name"] if run["kind"] == "measured" else run["device"]
    )


def finished(
    folder: str | Path, seen: dict | None = None
) -> dict[str, list[tuple[str, str, Path]]]:
    """Finished runs below `folder` by their key: (device, status, trace) of each.

    seen: what an earlier call read, by file; it is filled, and unchanged files are not read again.
    """
    done, seen = {}, {} if seen is None else seen
    for path in trace.files(folder):
        try:
            now = path.stat()
            mark = (path, now.st_ino, now.st_size, now.st_ctime_ns)
            if mark not in seen:
                seen[mark] = raw.head(path)
            run = seen[mark]
            if run["status"] in FINAL:
                name = "predict" if run["kind"] == "modelled" else "profile"
                done.setdefault(key(name, run["request"]), []).append(
                    (whose(run), run["status"], path)
                )
        except (OSError, KeyError, ValueError, RuntimeError):
            continue  # `gather` names such files; here they only do not count as done
    for name, event in ledger.last(folder).items():
        if event["status"] == "oom" and name not in done and event.get("device"):
            done[name] = [(event["device"], "oom", None)]  # did not even load: there is no trace
    return done


@contextmanager
def claim(folder: Path, name: str) -> Iterator[Path | None]:
    """The scratch folder of a run, for this process alone; None while another process has it.

    What a killed process left of the run is ended; results that it had finished are in `folder` afterwards.
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
            end(scratch)
            _complete(scratch, folder)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def end(scratch: Path) -> None:
    """Kill every process that belongs to the run in this scratch folder, wherever it went."""
    wanted = str(Path(scratch).resolve())
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == wanted:
                process.kill()
        except (psutil.Error, OSError):
            continue  # gone, or somebody else's


def recover(folder: Path) -> None:
    """End what killed sweeps left in `folder`: place what had finished, remove the rest."""
    for scratch in sorted(Path(folder).glob(".run-*")):
        with claim(folder, scratch.name.removeprefix(".run-")):
            pass


# -- placing ----------------------------------------------------------------------------------------------------------


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Names are chosen and taken by one process at a time."""
    (Path(folder) / ".sweep").mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / ".sweep" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def settle(scratch: Path, folder: Path) -> tuple[xr.DataTree, Path]:
    """Place `run.ipynb` and `run.nc` of a finished run; returns the checked trace and where it lies.

    From the moment that `commit` is there the run counts: who finds it after a crash completes the two renames.
    """
    tree = trace.load(scratch / "run.nc")
    text = (scratch / "run.ipynb").read_text(encoding="utf-8")
    with _one_at_a_time(folder):
        target = _free(trace.place(tree, folder), tree)
        page = text.replace(STEM, target.stem)
        trace.whole(
            scratch / "run.ipynb", lambda path: Path(path).write_text(page, encoding="utf-8")
        )
        line = os.path.relpath(target, folder)
        trace.whole(scratch / "commit", lambda path: Path(path).write_text(line, encoding="utf-8"))
        _land(scratch, target)
    return tree, target


def _land(scratch: Path, target: Path) -> None:
    """First the page, then the trace, which makes both count."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for ending in (".ipynb", ".nc"):
        if (scratch / f"run{ending}").exists():
            os.replace(scratch / f"run{ending}", target.with_suffix(ending))
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _complete(scratch: Path, folder: Path) -> None:
    """Do what `commit` in the scratch folder of a dead process promises, unless another run took the place since."""
    if not (scratch / "commit").exists() or not (scratch / "run.nc").exists():
        return
    if (scratch / "run.ipynb").exists():
        settle(scratch, folder)
        return
    target = Path(folder) / (scratch / "commit").read_text(encoding="utf-8")
    with _one_at_a_time(folder):
        if not target.exists():
            _land(scratch, target)


def _free(path: Path, tree: xr.DataTree) -> Path:
    """The place itself, unless the finished run of another request or device lies there: then one beside it."""
    name = "predict" if tree.attrs["kind"] == "modelled" else "profile"
    own = key(name, tree.attrs["request"]), whose(tree.attrs)
    try:
        other = raw.head(path)
        taken = other["status"] in FINAL and (key(name, other["request"]), whose(other)) != own
    except (OSError, KeyError, ValueError, RuntimeError):
        taken = False
    ending = digest(" ".join(own))[:8]
    return path.with_stem(f"{path.stem}-{ending}") if taken else path


def keep_failed(scratch: Path, folder: Path, model: str, name: str) -> Path | None:
    """Keep page and trace of a failed run for reading, apart from the finished ones."""
    target = Path(folder) / ".sweep" / "failed" / f"{workload.slug(model)}-{name}.ipynb"
    for ending in (".ipynb", ".nc"):
        if (scratch / f"run{ending}").exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / f"run{ending}", target.with_suffix(ending))
    return target if target.exists() else None


def scrub(text: str, notebook: str, template: bytes, model: str = "") -> str:
    """An executed notebook without host name, user name, serial numbers or absolute paths, and with its provenance."""
    text = re.sub(r"[^\"'\\\s]*/\.run-[^/\"'\\\s]*/run\.(ipynb|nc)", rf"{STEM}.\1", text)
    text = re.sub(r"\b(GPU|MIG)-[0-9a-f]{8}-[0-9a-f-]{27}\b", r"\1-someone", text)
    paths = [(str(root()), "."), (sys.prefix, "venv"), (str(Path.home()), "~")]
    if Path(model).exists():
        paths.insert(0, (str(Path(model).parent) + os.sep, ""))
    for secret, stand_in in paths:
        text = text.replace(secret, stand_in) if len(secret) > 3 else text
    for secret in {platform.node(), getpass.getuser()} - NOBODY:
        text = (
            re.sub(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", "someone", text)
            if len(secret) > 3
            else text
        )
    page = json.loads(text)
    record = page["metadata"].setdefault("papermill", {})
    record |= {"input_path": f"notebooks/{notebook}.ipynb", "output_path": f"{STEM}.ipynb"}
    versions = sorted(
        {f"{item.name}=={item.version}" for item in importlib.metadata.distributions()}
    )
    page["metadata"]["footprint"] = {
        "notebook": f"notebooks/{notebook}.ipynb",
        "notebook_sha256": hashlib.sha256(template).hexdigest(),
        "git_commit": provenance.commit(),
        "python": platform.python_version(),
        "environment": versions,
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"
