"""The inner process of a run: it executes a notebook, reports how that ended, dies with its parent.

A process of its own survives a dead kernel; it imports little to start fast.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "\x1e"  # starts the last line, which is the outcome as JSON
FOLDERS = "fp-"  # start of the names of temporary folders
LONGEST = 80  # characters of a folder in which sockets can be: their paths are 107 at most
YOUNG_S = 60.0  # a folder of this age may not be locked yet
START_S = 120.0  # time limit for a kernel to answer
LOST = "gpu ?is ?lost|gpu_lost|driver_mismatch|off the bus|device-side error|launch failure"
LOST = re.compile(LOST, re.IGNORECASE)
REFUSALS = ("Refused", "Absent", "Lost")  # exceptions that are one sentence for the reader
NOW = {"busy": 0.0, "stop": False}  # since when a cell is under way; a stop between cells
SETTLED_S = 1.0  # after which a kernel that was given a cell executes it


@contextlib.contextmanager
def temporary() -> Iterator[str]:
    """A folder for sockets and temporary files of one run; what killed runs left is removed."""
    place = tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST else "/tmp"
    for lock in Path(place).glob(f"{FOLDERS}*/lock"):
        with contextlib.suppress(OSError), _locked(lock):  # another run's, or another user's
            if time.time() - lock.stat().st_mtime > YOUNG_S:
                shutil.rmtree(lock.parent, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=FOLDERS, dir=place)
    try:
        with _locked(Path(folder, "lock")):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; BlockingIOError while another process does."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def execute(template: str, page: str, parameters: dict, root: str) -> dict:
    """Execute `template` into `page`; returns status, reason and whether to try `again`."""
    import papermill
    from jupyter_client.manager import AsyncKernelManager

    class Local(AsyncKernelManager):
        """A kernel with sockets in a folder of the run, so that parallel starts share no ports."""

        def __init__(self, *arguments, **settings):
            sockets = os.path.join(os.environ["JUPYTER_RUNTIME_DIR"], "kernel")
            super().__init__(*arguments, **{"transport": "ipc", "ip": sockets, **settings})

    options = {"progress_bar": False, "stdout_file": sys.stdout, "cwd": root}
    options |= {"start_timeout": START_S, "kernel_manager_class": Local}
    options |= {"on_cell_execute": _begin, "on_cell_executed": _end}
    try:
        papermill.execute_notebook(template, page, parameters, **options)
    except BaseException as error:
        return outcome(InterruptedError() if NOW["stop"] else error)
    return {"status": "ok", "reason": "", "again": False}


def outcome(error: BaseException) -> dict:
    """The outcome of a run that ended with this exception of papermill."""
    from footprint.measure.engine import FULL

    name = getattr(error, "ename", type(error).__name__)
    text = str(getattr(error, "evalue", error)).strip()
    first = text.splitlines()[0].rstrip(".") if text else "no reason was given"
    again = True
    if name in REFUSALS:
        status, reason, again = "gpu_lost" if LOST.search(text) else "failed", text, False
    elif name in ("KeyboardInterrupt", "InterruptedError"):
        status, reason, again = "interrupted", "Stopped by the keyboard.", False
    elif name == "DeadKernelError" or "Kernel died" in text:
        status, reason = "dead_kernel", "The kernel died (killed, or out of memory)."
    elif "Kernel didn't respond" in text:
        status, reason = "timeout", f"The kernel did not start within {START_S:g} s."
    elif FULL.search(f"{name} {text}"):
        status, reason, again = "oom", f"Out of memory before the first point: {first}.", False
    else:
        status, reason = "failed", f"{name}: {first}."
        if LOST.search(f"{name} {text}"):
            status = "gpu_lost"
    return {"status": status, "reason": reason, "again": again}


def stop(*_) -> None:
    """Note a SIGINT between cells; within a cell, the kernel handles it.

    A kernel that was given its cell just now may not have heard it: it is told once more.
    """
    age_s = time.monotonic() - NOW["busy"]
    NOW["stop"] |= not NOW["busy"]
    if NOW["busy"] and age_s < SETTLED_S:
        threading.Timer(SETTLED_S, _interrupt).start()


def _interrupt() -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            child.send_signal(signal.SIGINT)


def _begin(**_) -> None:
    if NOW["stop"]:
        raise InterruptedError("Stopped between cells.")
    NOW["busy"] = time.monotonic()


def _end(**_) -> None:
    NOW["busy"] = 0.0


def _die_with_parent() -> None:
    """Kill the kernel and this process group once standard input closes: the parent died."""
    sys.stdin.read()
    shutil.rmtree(os.environ.get("JUPYTER_RUNTIME_DIR", ""), ignore_errors=True)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Read a line of JSON, arguments of `execute`; write the outcome as the last line."""
    signal.signal(signal.SIGINT, stop)
    sys.stdout.reconfigure(encoding="utf-8")  # the parent reads UTF-8, whatever the locale is
    if os.path.expanduser("~") == "~":  # a container's user without a name and a home
        os.environ["HOME"] = tempfile.gettempdir()
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    print(f"\n{MARK}{json.dumps(execute(**order))}", flush=True)
    os._exit(0)  # an ordinary exit would wait for the thread that watches the parent


if __name__ == "__main__":
    main()
