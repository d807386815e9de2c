"""One run: papermill in a process group of its own, with a time limit, on a device of its own."""

import contextlib
import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from footprint import Refused, digest, root
from footprint.measure import instrument, locks, provenance
from footprint.sweep import kernel, results

LIMIT_S = 6 * 3600.0
RUNNING: set[subprocess.Popen] = set()  # the inner processes of this process
STOP = {"asked": 0}  # how often this process was asked to stop


class Run(NamedTuple):
    """What to run: a notebook, its checked parameters, and the seconds after which it is ended."""

    notebook: str
    request: dict
    limit_s: float = LIMIT_S

    @property
    def key(self) -> str:
        """Hash of the notebook and its parameters, except which of several equal devices to use."""
        return results.key(self.notebook, provenance.asked(self.request))

    @property
    def device(self) -> str:
        """Where it measures; empty for a modelled run."""
        return self.request.get("device", "")

    @property
    def label(self) -> str:
        """A name for people."""
        place = self.request.get("gpu") or self.device
        model, engine, dtype = (self.request[name] for name in ("model", "engine", "dtype"))
        return f"{self.notebook} {model} on {place}, {engine} {dtype}"


def outcome(
    status: str, reason: str, again: bool = False, seconds: float = 0.0, **facts: object
) -> dict:
    """How a run ended: status and reason in the schema's words, and whether to try `again`."""
    return {"status": status, "reason": reason, "again": again, "seconds": seconds, **facts}


def disk_error(error: OSError, folder: Path) -> dict:
    """The outcome of a run whose files the disk did not take."""
    name = os.path.basename(str(error.filename or folder))
    return outcome("failed", f"{error.strerror or error}: {name}.")


def attempt(
    run: Run, scratch: Path, say: Callable[[str], None], environ: Mapping[str, str] = os.environ
) -> dict:
    """Execute a run into `scratch` (`run.ipynb`, scrubbed, and `run.nc`); returns its outcome.

    Beside status and reason it has the seconds and, of a measured run, the joules of the GPU (NaN
    without a counter) and the hash of the device. Never raises for what goes wrong within the run;
    raises `Refused` where there is no such notebook.
    """
    template = root() / "notebooks" / f"{run.notebook}.ipynb"
    if not template.exists():
        where = "run this from a checkout of the project"
        raise Refused(f"There is no notebook {template.name} here; {where}.")
    if STOP["asked"]:
        return outcome("interrupted", "Not started: the sweep was stopped.")
    try:
        if not run.device:
            return _execute(run, template, scratch, say, environ)
        with locks.alone(run.device, lambda: STOP["asked"] > 0, say) as uuid:
            before = _joules(uuid)
            ended = _execute(run, template, scratch, say, environ, uuid)
            device = digest(uuid) if uuid else provenance.processor()
            return ended | {"joules": _joules(uuid) - before, "device": device}
    except InterruptedError as stopped:
        return outcome("interrupted", str(stopped))
    except OSError as error:
        return disk_error(error, scratch)
    except Refused as missing:
        return outcome("gpu_lost" if "gpu_lost" in str(missing) else "failed", str(missing))


def _joules(uuid: str) -> float:
    """Reading of a GPU's energy counter; NaN where there is none."""
    try:
        return instrument.opened(uuid).counter()[0] if uuid else math.nan
    except Refused:
        return math.nan


def _execute(
    run: Run, template: Path, scratch: Path, say: Callable, environ: Mapping, uuid: str = ""
) -> dict:
    """Run the inner process on the GPU `uuid` (none: without a GPU) and scrub its page."""
    page, request = scratch / "run.ipynb", dict(run.request)
    request["out"] = str((scratch / "run.nc").resolve())
    environ = {**environ, results.VARIABLE: str(scratch.resolve())}
    if uuid and run.device != "cpu":  # a CPU run may have a GPU beside it
        request["device"] = "cuda:0"  # the only one that the process sees
        environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid}
    order = {"template": str(template), "page": str(page), "parameters": request}
    began = time.monotonic()
    ended = _watch({**order, "root": str(root())}, scratch, environ, say, run.limit_s)
    try:
        if page.exists():
            text, sources = page.read_text("utf-8"), template.read_bytes()
            text = results.scrub(text, run.notebook, sources, run.request["model"])
            page.write_text(text, "utf-8")
    except (OSError, ValueError) as error:
        page.unlink()  # cut off: better none than one that was not scrubbed
        if ended["status"] == "ok":
            ended = outcome("failed", f"The page was not written: {error}.", again=True)
    return {**ended, "seconds": time.monotonic() - began}


def _watch(order: dict, scratch: Path, environ: Mapping, say: Callable, limit_s: float) -> dict:
    """The outcome that the inner process tells, or what became of it: too late, stopped or dead."""
    sockets = tempfile.mkdtemp(prefix="fp-")  # of the kernel; the path of a socket must be short
    child = subprocess.Popen(
        [sys.executable, "-m", kernel.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environ, "JUPYTER_RUNTIME_DIR": sockets},
        cwd=order["root"],
        start_new_session=True,
    )
    RUNNING.add(child)
    try:
        with child.stdin, child.stdout, child.stderr:
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
            return _listen(child, say, limit_s)
    except BrokenPipeError:
        return _died("it ended at once")
    finally:
        if child.poll() is None:
            _send(signal.SIGKILL, _family(child))
        results.kill(scratch)  # the kernel has a group of its own
        child.wait()
        RUNNING.discard(child)
        shutil.rmtree(sockets, ignore_errors=True)


def _died(last: str) -> dict:
    if STOP["asked"]:
        return outcome("interrupted", "Stopped at once by the keyboard.")
    return outcome("dead_kernel", f"The process of the run died: {last}.", again=True)


def _listen(child: subprocess.Popen, say: Callable, limit_s: float) -> dict:
    """Pass the lines of the inner process on until it tells its outcome, dies or is out of time."""
    deadline, last = time.monotonic() + limit_s, "no reason was given"
    rest = {child.stdout: b"", child.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in rest:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and STOP["asked"] < 2:
            if time.monotonic() > deadline:
                return outcome("timeout", f"Ended after its limit of {limit_s:g} s.", again=True)
            ready = selector.select(0.2)
            if not ready and child.poll() is not None:
                break  # something that it started holds the pipe; nothing more will come from it
            for pipe in (key.fileobj for key, _ in ready):
                data = os.read(pipe.fileno(), 65536)
                if not data:
                    selector.unregister(pipe)
                *lines, rest[pipe] = (rest[pipe] + data).split(b"\n")
                for line in (line.decode(errors="replace").rstrip() for line in lines):
                    if line.startswith(kernel.MARK):
                        return json.loads(line.removeprefix(kernel.MARK))
                    if line and pipe is child.stdout:
                        say(line)
                    elif line:
                        last = line.strip().rstrip(".")
    return _died(last)


def _family(child: subprocess.Popen) -> list[psutil.Process]:
    """The process and all that it started."""
    try:
        process = psutil.Process(child.pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it is gone
            process.send_signal(number)


def _is_kernel(process: psutil.Process) -> bool:
    try:
        return "ipykernel_launcher" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def stop(*_) -> None:
    """Ask the runs of this process to stop: once, after their current window; twice, at once."""
    STOP["asked"] += 1
    for child in list(RUNNING):
        family = _family(child)
        kernels = [process for process in family if _is_kernel(process)]
        if kernels and STOP["asked"] == 1:
            _send(signal.SIGINT, [*kernels, *family[:1]])  # a kernel that starts hears nothing
        else:
            _send(signal.SIGKILL, family)


@contextlib.contextmanager
def signals(handler: Callable | signal.Handlers, *numbers: signal.Signals) -> Iterator[None]:
    """Handle these signals so within the block; a thread, which cannot, changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
