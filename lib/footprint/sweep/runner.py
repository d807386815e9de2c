"""One run: papermill in a process group of its own, with a time limit and a locked device."""

import contextlib
import getpass
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psutil

from footprint import Refused, digest, root
from footprint.measure import instrument, journal, locks, provenance
from footprint.sweep import kernel, results

LIMIT_S = 6 * 3600.0
NOBODY = re.compile("root|user|admin|ubuntu|debian|runner|docker|jovyan|localhost")
RUNNING: set[subprocess.Popen] = set()  # the inner processes of this process
STOP = {"asked": 0}  # how often this process was asked to stop


class Run(NamedTuple):
    """A notebook to run, its checked parameters, and its time limit."""

    notebook: str
    request: dict
    limit_s: float = LIMIT_S

    @property
    def key(self) -> str:
        """Hash of the notebook and its parameters, without the device."""
        return results.key(self.notebook, provenance.asked(self.request))

    @property
    def device(self) -> str:
        """The device that is measured; empty for a modelled run."""
        return self.request.get("device", "")

    @property
    def label(self) -> str:
        """A readable name."""
        place = self.request.get("gpu") or self.device
        model, engine, dtype = (self.request[name] for name in ("model", "engine", "dtype"))
        return f"{self.notebook} {model} on {place}, {engine} {dtype}"


def outcome(
    status: str, reason: str, again: bool = False, seconds: float = 0.0, **facts: object
) -> dict:
    """How a run ended: status and reason as in a trace, and whether to try `again`."""
    return {"status": status, "reason": reason, "again": again, "seconds": seconds, **facts}


def disk_error(error: OSError, folder: Path) -> dict:
    """The outcome of a run whose files could not be written."""
    name = os.path.basename(str(error.filename or folder))
    return outcome("failed", f"{error.strerror or error}: {name}.")


def attempt(
    run: Run, scratch: Path, say: Callable[[str], None], environ: Mapping[str, str] = os.environ
) -> dict:
    """Execute a run into `scratch` as `run.ipynb`, scrubbed, and `run.nc`; returns its outcome.

    A measured run adds joules of the GPU (NaN without a counter) and the hash of the device.
    Failures of the run are outcomes; only a missing notebook raises `Refused`.
    """
    template = root() / "notebooks" / f"{run.notebook}.ipynb"
    if not template.exists():
        remedy = "run this from a checkout of the project"
        raise Refused(f"There is no notebook {template.name} here; {remedy}.")
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
        lost = any(status in str(missing) for status in instrument.FATAL)
        return outcome("gpu_lost" if lost else "failed", str(missing))


def _joules(uuid: str) -> float:
    """The energy counter of a GPU in J; NaN without one."""
    try:
        return instrument.opened(uuid).counter()[0] if uuid else math.nan
    except Refused:
        return math.nan


def _execute(
    run: Run, template: Path, scratch: Path, say: Callable, environ: Mapping, uuid: str = ""
) -> dict:
    """Run the inner process, on the GPU `uuid` if there is one, and scrub its page."""
    page, request = scratch / "run.ipynb", dict(run.request)
    request["out"] = str((scratch / "run.nc").resolve())
    environ = {**environ, results.VARIABLE: str(scratch.resolve())}
    environ[journal.VARIABLE] = str(scratch.resolve() / results.JOURNAL)
    if uuid and run.device != "cpu":  # a CPU run may have a GPU beside it
        request["device"] = "cuda:0"  # the only one that the process sees
        environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid}
    order = {"template": str(template), "page": str(page), "parameters": request}
    began = time.monotonic()
    ended = _watch({**order, "root": str(root())}, scratch, environ, say, run.limit_s)
    try:
        if page.exists():
            text, sources = page.read_text("utf-8"), template.read_bytes()
            text = scrub(text, run.notebook, sources, run.request["model"])
            page.write_text(text, "utf-8")
    except (OSError, ValueError) as error:
        page.unlink()  # cut off: better none than one that was not scrubbed
        if ended["status"] == "ok":
            ended = outcome("failed", f"The page was not written: {error}.", again=True)
    return {**ended, "seconds": time.monotonic() - began}


def _watch(order: dict, scratch: Path, environ: Mapping, say: Callable, limit_s: float) -> dict:
    """Run the inner process; returns the outcome that it reports, or how it was ended or died."""
    with kernel.temporary() as folder:
        environ = {**environ, "JUPYTER_RUNTIME_DIR": folder, "TMPDIR": folder}
        return _watch_in(environ, order, scratch, say, limit_s)


def _watch_in(environ: Mapping, order: dict, scratch: Path, say: Callable, limit_s: float) -> dict:
    """Run the inner process in this environment."""
    child = subprocess.Popen(
        [sys.executable, "-m", kernel.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
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


def _died(last: str) -> dict:
    if STOP["asked"]:
        return outcome("interrupted", "Stopped at once by the keyboard.")
    return outcome("dead_kernel", f"The process of the run died: {last}.", again=True)


def _listen(child: subprocess.Popen, say: Callable, limit_s: float) -> dict:
    """Pass on the lines of the inner process until it reports its outcome, dies or times out."""
    deadline, last = time.monotonic() + limit_s, "no reason was given"
    unfinished = {child.stdout: b"", child.stderr: b""}  # the line that is being read
    with selectors.DefaultSelector() as selector:
        for pipe in unfinished:
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
                *lines, unfinished[pipe] = (unfinished[pipe] + data).split(b"\n")
                for line in (line.decode(errors="replace").rstrip() for line in lines):
                    if line.startswith(kernel.MARK):
                        return json.loads(line.removeprefix(kernel.MARK))
                    if line and pipe is child.stdout:
                        say(line)
                    elif line:
                        last = line.strip().rstrip(".")
    return _died(last)


def _family(child: subprocess.Popen) -> list[psutil.Process]:
    """The process and its descendants."""
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
    """Stop the runs of this process: once, after their current windows; twice, at once."""
    STOP["asked"] += 1
    for child in list(RUNNING):
        family = _family(child)
        kernels = [process for process in family if _is_kernel(process)]
        if kernels and STOP["asked"] == 1:
            _send(signal.SIGINT, [*kernels, *family[:1]])  # a kernel that starts hears nothing
        else:
            _send(signal.SIGKILL, family)


# -- the page --------------------------------------------------------------------------------------


def _user() -> str:
    """Name of the user; empty in a container whose user has none."""
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return ""


def scrub(text: str, notebook: str, template: bytes, model: str = "") -> str:
    """An executed notebook with its provenance, without names, UUIDs or absolute paths."""
    asked = json.loads(text)["metadata"].get("papermill", {}).get("parameters", {})
    folder, home = Path(asked.get("out") or ".").parent.parent, os.path.expanduser("~")
    paths = {str(root()): ".", str(folder): "results", sys.prefix: "venv", home: "~"}
    if Path(model).exists():
        paths = {str(Path(model).parent) + os.sep: "", **paths}
    for path in filter(os.path.isabs, paths):
        once = json.dumps(path)[1:-1]  # as it stands in JSON, then in JSON within JSON, in links
        for written in {path, once, json.dumps(once)[1:-1], quote(path)}:
            text = text.replace(written, paths[path]) if len(path) > 3 else text
    text = re.sub(r"[^\"'\\\s]*/\.run-[^/\"'\\\s]*/run\.(ipynb|nc)", rf"{results.STEM}.\1", text)
    text = re.sub(r"\b(GPU|MIG)-[0-9a-f]{8}-[0-9a-f-]{27}\b", r"\1-someone", text)
    for name in {platform.node(), _user()}:
        if len(name) > 3 and not NOBODY.fullmatch(name):
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "someone", text)
    page = json.loads(text)
    record = page["metadata"].setdefault("papermill", {})
    record |= {"input_path": f"notebooks/{notebook}.ipynb", "output_path": f"{results.STEM}.ipynb"}
    packages = importlib.metadata.distributions()
    page["metadata"]["footprint"] = {
        "notebook": f"notebooks/{notebook}.ipynb",
        "notebook_sha256": hashlib.sha256(template).hexdigest(),
        "git_commit": provenance.commit(),
        "python": platform.python_version(),
        "environment": sorted({f"{item.name}=={item.version}" for item in packages}),
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"
