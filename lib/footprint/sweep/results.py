"""Results of runs: each claimed by one process, page and trace placed together or not at all.

A run works in the scratch folder `.run-<name>`. Its files move to their place once the file
`commit` is written there; after a crash the next process completes the move or deletes the folder.
Nothing is written through a link: a folder of results may come from a stranger.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import NamedTuple

import psutil
import xarray as xr

from footprint import Refused, digest, trace

FINAL = ("ok", "oom")  # statuses of runs that need no second try
LOG = Path(".sweep") / "events.jsonl"
VARIABLE = "FOOTPRINT_RUN"  # environment variable of all processes of a run: its scratch folder
JOURNAL = "journal"  # in a scratch folder: what a killed run had measured
STEM = "THIS-RUN"  # placeholder in a page for its final name
UNREADABLE = (Refused, OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError)


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
    scratch = Path(folder, f".run-{name}")
    try:
        handle = _opened(_inside(folder, scratch.name) / "claim")
    except (FileExistsError, FileNotFoundError):
        if os.path.lexists(scratch) and not scratch.is_dir():
            raise  # what is in the way stays there
        yield None  # removed by its owner while we opened it
        return
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
        if not _pending(scratch) and not _unfinished(scratch):
            _remove(scratch)
        os.close(handle)


def _remove(scratch: Path) -> None:
    """Remove a scratch folder; its claim goes last: once it is gone the next owner may write."""
    with suppress(OSError):
        _clear(scratch, {"claim"})
        (scratch / "claim").unlink()
        scratch.rmdir()


def kill(scratch: Path) -> None:
    """Kill every process of the run in this scratch folder."""
    wanted = str(Path(scratch).resolve())
    processes = []
    with suppress(OSError):  # there is no /proc
        processes = list(psutil.process_iter())
    for process in processes:
        with suppress(psutil.Error, OSError):  # it is gone, or another user's
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == wanted:
                process.kill()


def recover(folder: Path) -> None:
    """Place what killed sweeps had finished in a folder, and remove the rest of their files."""
    for scratch in sorted(Path(folder).glob(".run-*")):
        with suppress(OSError), claim(folder, scratch.name.removeprefix(".run-")):
            pass


# -- placing ---------------------------------------------------------------------------------------


def _inside(folder: str | Path, *names: str) -> Path:
    """A folder below `folder`, made where it is missing; OSError for a link in its place."""
    place = Path(folder)
    for name in names:
        place /= name
        place.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            raise OSError(errno.ELOOP, "It is a link", str(place))
    return place


def _opened(path: Path, flags: int = 0) -> int:
    """A handle to read and write a regular file, made where it is missing; OSError for others."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "It is no regular file", str(path))
    return handle


@contextmanager
def _one_at_a_time(folder: str | Path) -> Iterator[None]:
    """Only one process at a time chooses and takes a name in a folder."""
    handle = _opened(_inside(folder, ".sweep") / "lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def save(tree: xr.DataTree, folder: str | Path) -> Path:
    """Save a trace at its place in a folder, or beside a finished run of another request there."""
    with _one_at_a_time(folder):
        return trace.save(tree, _free(tree, folder))


def settle(scratch: Path, folder: Path) -> tuple[xr.DataTree, Path]:
    """Place `run.ipynb` and `run.nc` of a finished run; returns the checked trace and its path."""
    tree = trace.load(scratch / "run.nc")
    text = trace.content(scratch / "run.ipynb").decode()
    with _one_at_a_time(folder):
        target = _free(tree, folder)
        write(scratch / "run.ipynb", text.replace(STEM, target.stem))
        write(scratch / "commit", os.path.relpath(target, folder))
        _move(scratch, target)
    return tree, target


def write(place: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return trace.whole(place, lambda path: Path(path).write_text(text, encoding="utf-8"))


def _move(scratch: Path, target: Path) -> None:
    """Move the trace, then its page, which alone would stop the book; synchronise the disk."""
    for ending in (".nc", ".ipynb"):
        if (scratch / f"run{ending}").exists():
            os.replace(scratch / f"run{ending}", target.with_suffix(ending))
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pending(scratch: Path) -> bool:
    """Whether a finished run waits here to be moved, all of it or its page."""
    return (scratch / "commit").exists() and any(scratch.glob("run.*"))


def _unfinished(scratch: Path) -> bool:
    """Whether another try can go on from what is here."""
    return (scratch / JOURNAL).exists() and not (scratch / "commit").exists()


def _complete(scratch: Path, folder: Path) -> None:
    """Complete the move of a dead process that wrote `commit`, and clear the scratch folder."""
    if _pending(scratch):
        with suppress(Refused, UnicodeDecodeError):  # damaged, or a stranger's
            _resume(scratch, folder)
    _clear(scratch, {"claim", JOURNAL} if _unfinished(scratch) else {"claim"})


def _clear(scratch: Path, kept: set[str]) -> None:
    """Remove all but some files of a scratch folder."""
    for name in {*os.listdir(scratch)} - kept:
        left = scratch / name
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _resume(scratch: Path, folder: Path) -> None:
    """Place a whole run, or the page whose trace has its place already."""
    if (scratch / "run.nc").exists():
        settle(scratch, folder)
        return
    target = _checked(Path(folder, trace.content(scratch / "commit").decode()), folder)
    with _one_at_a_time(folder):
        written = (scratch / "commit").stat().st_mtime
        if target.exists() and target.stat().st_mtime <= written:  # no later run took its place
            _move(scratch, target)


def _checked(path: Path, folder: str | Path) -> Path:
    """The path, if it lies in a folder of `folder` and no link leads there."""
    if path.parent.parent != Path(folder) or ".." in path.parts[-2:]:
        raise Refused(f"A run lies in a folder of {folder}; {path} is refused.")
    return _inside(folder, path.parent.name) / path.name


def _free(tree: xr.DataTree, folder: str | Path) -> Path:
    """The place of a trace, or one beside a finished run of another request or device."""
    path = _checked(trace.place(tree, folder), folder)
    with suppress(*UNREADABLE):
        other, mine = trace.head(path), _identity(tree.attrs)
        if other["status"] in FINAL and _identity(other) != mine:
            return path.with_stem(f"{path.stem}-{digest(' '.join(mine))[:8]}")
    return path


def keep_failed(scratch: Path, folder: Path, name: str) -> Path | None:
    """Move page and trace of a failed run to `.sweep/failed`; returns the page, if there is one."""
    target = _inside(folder, ".sweep", "failed") / f"{name}.ipynb"
    _move(scratch, target)
    return target if target.exists() else None


# -- events ----------------------------------------------------------------------------------------


def note(folder: str | Path, event: str, **facts: object) -> bool:
    """Append an event to the log as a line of JSON, NaN as null; False when the disk fails."""
    unknown = [name for name, value in facts.items() if isinstance(value, float) and isnan(value)]
    record = {"utc": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
    line = json.dumps(record | dict.fromkeys(unknown), default=str) + "\n"
    try:
        path = _inside(folder, LOG.parent.name) / LOG.name
        with open(_opened(path, os.O_APPEND), "ab+", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = "\n" + line  # the last write was cut off
            return file.write(line.encode()) == len(line.encode())
    except OSError:
        return False


def events(folder: str | Path) -> list[dict]:
    """All logged events in order, except lines that are none (see `log_fault`)."""
    return _log(folder)[0]


def log_fault(folder: str | Path) -> str:
    """A sentence on lines of the log that are no events, or on a log that is no file."""
    return _log(folder)[1]


def _log(folder: str | Path) -> tuple[list[dict], str]:
    """The events of the log, and its fault."""
    path, records = Path(folder) / LOG, []
    try:
        text = trace.content(path).decode(errors="replace") if os.path.lexists(path) else ""
    except Refused as unread:
        return [], str(unread)
    lines = [line for line in text.split("\n") if line.strip()]
    for line in lines:
        with suppress(ValueError, RecursionError):
            records.append(json.loads(line))
    known = [record for record in records if isinstance(record, dict)]
    odd = len(lines) - len(known)
    return known, f"{LOG} has lines that are no events; {odd} are left out." if odd else ""


def last_ends(folder: str | Path) -> dict[str, dict]:
    """The last `end` event of each run, by the run's key."""
    return {event["key"]: event for event in events(folder) if _is_end(event)}


def _is_end(event: dict) -> bool:
    """Whether an event is the end of a run, with the facts that are read of it as texts."""
    facts = (event.get(name) for name in ("event", "key", "status"))
    named = isinstance(event.get("device"), str | None)
    return named and all(isinstance(fact, str) for fact in facts) and event["event"] == "end"
