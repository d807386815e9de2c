"""One run: papermill in a process group of its own, under limits of time, on a device that nobody else uses."""

import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from footprint import Refused, digest, root
from footprint.measure import locks as devices
from footprint.measure import nvml as meter
from footprint.measure import provenance
from footprint.sweep import mill, results

START_S, LIMIT_S = 120.0, 6 * 3600.0
RUNNING: dict[int, tuple[subprocess.Popen, Path]] = {}  # children of this process by their ids
STOP = {"asked": 0}  # how often this process was asked to stop


class Run(NamedTuple):
    """What to run: a notebook, its checked parameters, and the seconds after which it is ended."""

    notebook: str
    request: dict
    limit_s: float = LIMIT_S

    @property
    def key(self) -> str:
        """Hash of what is asked."""
        return results.key(self.notebook, provenance.asked(self.request))

    @property
    def device(self) -> str:
        """Where it measures; empty for a modelled run."""
        return self.request.get("device", "")

    @property
    def label(self) -> str:
        """A name for people."""
        where = self.request.get("gpu") or self.device
        return f"{self.notebook} {self.request['model']} on {where}, {self.request['engine']} {self.request['dtype']}"


def attempt(
    run: Run,
    scratch: Path,
    say: Callable[[str], None] = print,
    start_s: float = START_S,
    environ: Mapping[str, str] = os.environ,
) -> dict:
    """Execute a run into `scratch` (`run.ipynb`, scrubbed, and `run.nc`); never raises for what the run does.

    The outcome: status and reason in the schema's words, whether to try `again`, seconds, joules of the card (NaN
    without a counter) and the hash of the device.
    """
    template = root() / "notebooks" / f"{run.notebook}.ipynb"
    if not template.exists():
        raise Refused(
            f"There is no notebook {template.name} here; run this from a checkout of the project."
        )
    if STOP["asked"]:
        return _outcome("interrupted", "Not started: the sweep was stopped.")
    if not run.device:
        return _executed(run, template, scratch, say, start_s, environ, "")
    try:
        with devices.alone(run.device, lambda: STOP["asked"] > 0, say) as uuid:
            before = _joules(uuid)
            outcome = _executed(run, template, scratch, say, start_s, environ, uuid)
            device = digest(uuid) if uuid else provenance.processor()
            return outcome | {"joules": _joules(uuid) - before, "device": device}
    except InterruptedError as stopped:
        return _outcome("interrupted", str(stopped))
    except Refused as gone:
        return _outcome("gpu_lost" if "gpu_lost" in str(gone) else "failed", str(gone))


def _outcome(status: str, reason: str, again: bool = False, seconds: float = 0.0) -> dict:
    return {
        "status": status,
        "reason": reason,
        "again": again,
        "seconds": seconds,
        "joules": math.nan,
        "device": "",
    }


def _joules(uuid: str) -> float:
    """What the counter of a card shows; NaN where there is none."""
    try:
        return meter.counter(meter.handle(uuid))[0] if uuid else math.nan
    except Refused:
        return math.nan


def _executed(
    run: Run,
    template: Path,
    scratch: Path,
    say: Callable,
    start_s: float,
    environ: Mapping,
    uuid: str,
) -> dict:
    request = dict(run.request)
    environ = {**environ, results.MARK: str(scratch.resolve())}
    if uuid and run.device != "cpu":
        request["device"] = "cuda:0"  # the only one that it sees
        environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid}
    order = {
        "template": str(template),
        "page": str(scratch / "run.ipynb"),
        "root": str(root()),
        "parameters": {**request, "out": str((scratch / "run.nc").resolve())},
        "start_s": start_s,
    }
    began = time.monotonic()
    verdict = _watched(order, scratch, environ, say, run.limit_s)
    page = scratch / "run.ipynb"
    if page.exists():
        try:
            page.write_text(
                results.scrub(
                    page.read_text("utf-8"), run.notebook, template.read_bytes(), request["model"]
                )
            )
        except (OSError, ValueError) as error:
            page.unlink()  # cut off: better none than one that was not scrubbed
            if verdict["status"] == "ok":
                verdict = {
                    "status": "failed",
                    "reason": f"The page was not written: {error}.",
                    "again": True,
                }
    return _outcome(**verdict, seconds=time.monotonic() - began)


def _watched(order: dict, scratch: Path, environ: Mapping, say: Callable, limit_s: float) -> dict:
    """The verdict of the inner process, or what became of it: it is ended when the time is up or a stop is asked twice."""
    sockets = tempfile.mkdtemp(prefix="fp-")  # of the kernel; the path of a socket must be short
    child = subprocess.Popen(
        [sys.executable, "-m", "footprint.sweep.mill"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environ, "JUPYTER_RUNTIME_DIR": sockets},
        cwd=order["root"],
        start_new_session=True,
    )
    RUNNING[child.pid] = child, scratch
    try:
        with child.stdin, child.stdout, child.stderr:
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
            verdict, last = _listen(child, say, time.monotonic() + limit_s)
    except BrokenPipeError:
        verdict, last = None, "it ended at once"
    finally:
        end(child, scratch)
        del RUNNING[child.pid]
        shutil.rmtree(sockets, ignore_errors=True)
    if STOP["asked"] and not verdict:
        return {
            "status": "interrupted",
            "reason": "Stopped at once by the keyboard.",
            "again": False,
        }
    if verdict == "late":
        return {
            "status": "timeout",
            "reason": f"Ended after its limit of {limit_s:g} s.",
            "again": True,
        }
    return verdict or {
        "status": "dead_kernel",
        "reason": f"The process of the run died: {last}.",
        "again": True,
    }


def _listen(
    child: subprocess.Popen, say: Callable, deadline: float
) -> tuple[dict | str | None, str]:
    """Pass the lines of a run on until it ends; the verdict (`late` after the deadline) and the last words of an error."""
    verdict, last, rest = None, "no reason was given", {child.stdout: b"", child.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in rest:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and not verdict:
            if time.monotonic() > deadline:
                return "late", last
            if STOP["asked"] > 1:
                return None, last
            ready = selector.select(0.2)
            if not ready and child.poll() is not None:
                break  # something that it started holds the pipe; nothing more will come from itself
            for pipe in (key.fileobj for key, _ in ready):
                data = os.read(pipe.fileno(), 65536)
                if not data:
                    selector.unregister(pipe)
                *lines, rest[pipe] = (rest[pipe] + data).split(b"\n")
                for line in (line.decode(errors="replace").rstrip() for line in lines):
                    if line.startswith(mill.MARK):
                        verdict = json.loads(line[1:])
                    elif line and pipe is child.stdout:
                        say(line)
                    elif line:
                        last = line.strip().rstrip(".")
    return verdict, last


def end(child: subprocess.Popen, scratch: Path) -> None:
    """Leave no process of a run behind: not its group, not the kernel (a group of its own), nor what that started."""
    if child.poll() is None:
        for process in _family(child):
            process.kill()
    results.end(scratch)
    child.wait()


def _family(child: subprocess.Popen) -> list[psutil.Process]:
    try:
        process = psutil.Process(child.pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def stop(*_) -> None:
    """Ask the runs of this process to stop: once, after their current window; twice, now. A signal handler."""
    STOP["asked"] += 1
    for child, _ in list(RUNNING.values()):
        kernels = [
            process
            for process in _family(child)
            if "ipykernel_launcher" in " ".join(_command(process))
        ]
        for process in kernels if STOP["asked"] == 1 else ():
            process.send_signal(signal.SIGINT)
        if not kernels or STOP["asked"] > 1:
            for process in _family(child):
                process.kill()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
