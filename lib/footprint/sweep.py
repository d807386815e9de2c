"""Many runs: a matrix in TOML, one papermill process a run, each result whole or absent, none done twice."""

import getpass
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from footprint import Refused, provenance, trace, workload

FINAL = ("ok", "oom")  # statuses of runs that need no second try


def plan(path: str | Path, matrix: str) -> list[tuple[str, dict]]:
    """The runs of one matrix of a TOML file: (notebook, checked request) each, in the order of the file.

    Raises `Refused` for a missing file, an unknown matrix or notebook, or a parameter that the notebook refuses.
    """
    try:
        blocks = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"There is no sweep file at {path}.") from None
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"The sweep file {path} is not TOML ({error}).") from None
    if matrix not in blocks:
        raise Refused(f"There is no matrix {matrix!r} in {path}; there are {', '.join(blocks)}.")
    runs = []
    for block in blocks[matrix]:
        fixed = {key: value for key, value in block.items() if key not in ("notebook", "each")}
        notebook, each = block.get("notebook"), block.get("each", {})
        if notebook not in workload.PARAMETERS:
            allowed = " or ".join(workload.PARAMETERS)
            raise Refused(f"The notebook of matrix {matrix!r} is {notebook!r}; allowed is {allowed}.")
        for values in itertools.product(*each.values()):
            varied = dict(zip(each, values, strict=True))
            runs.append((notebook, workload.request(notebook, **fixed, **varied)))
    return runs


def finished(folder: str | Path) -> dict[str, Path]:
    """What was asked of the finished runs below `folder`, and where each trace lies."""
    done = {}
    for path in sorted(Path(folder).rglob("[!.]*.nc")):
        try:
            run = trace.load(path).attrs
        except Refused:
            continue  # `gather` names such files; here they only do not count as done
        if run["status"] in FINAL:
            done[run["request"]] = path
    return done


def run(runs: list[tuple[str, dict]], folder: str | Path, say: Callable[[str], None] = print) -> dict[str, str]:
    """Execute the runs that `folder` does not hold yet, one after the other; returns each one's status by its label."""
    done, statuses, began, fresh = finished(folder), {}, time.monotonic(), 0
    for index, (notebook, request) in enumerate(runs):
        label = f"{notebook} {request['model']} on {request.get('gpu') or request['device']}"
        if provenance.asked(request) in done:
            statuses[label] = "ok"
            say(f"[{index + 1}/{len(runs)}] {label}: already there")
            continue
        left = (time.monotonic() - began) / fresh * (len(runs) - index) if fresh else None
        say(f"[{index + 1}/{len(runs)}] {label}" + (f" (about {left / 60:.0f} min left)" if left else ""))
        statuses[label] = execute(notebook, request, Path(folder), say)
        fresh += 1
    return statuses


def execute(notebook: str, request: dict, folder: Path, say: Callable[[str], None]) -> str:
    """One papermill process: the executed notebook and its trace move to their place together, or not at all."""
    root = provenance.root()
    template = root / "notebooks" / f"{notebook}.ipynb"
    if not template.exists():
        raise Refused(f"There is no notebook {template.name} here; run this from a checkout of the project.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".run-") as scratch:
        page, result = Path(scratch) / "run.ipynb", Path(scratch) / "run.nc"
        parameters = json.dumps({**request, "out": str(result.resolve())})
        command = [sys.executable, "-m", "papermill", str(template), str(page), "-y", parameters,
                   "--no-progress-bar", "--stdout-file", "-", "--cwd", str(root)]  # fmt: skip
        code, complaint = _stream(command, say)
        if code or not result.exists():
            say(f"  failed: {complaint}")
            _keep_failed(page, folder, notebook, request)
            return "failed"
        tree = trace.load(result)
        target = trace.place(tree, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(scrub(page.read_text(encoding="utf-8"), notebook, target.stem), encoding="utf-8")
        os.replace(page, target.with_suffix(".ipynb"))
        os.replace(result, target)
        say(f"  {tree.attrs['status']}: {os.path.relpath(target)}")
        return tree.attrs["status"]


def _stream(command: list[str], say: Callable[[str], None]) -> tuple[int, str]:
    """Run a command in a process group of its own, pass its lines on; returns the exit code and the reason it gave."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        try:
            for line in child.stdout:
                say(f"  {line.rstrip()}")
            code = child.wait()
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        errors.seek(0)
        lines = [line.strip() for line in errors if line.strip()]
    refused = [line for line in lines if line.startswith("Refused: ")]
    return code, (refused or lines or ["no reason was given"])[-1]


def _keep_failed(page: Path, folder: Path, notebook: str, request: dict) -> None:
    """Keep the notebook of a failed run for reading, apart from the finished ones and without names or paths."""
    if page.exists():
        target = folder / ".failed" / f"{notebook}-{workload.slug(request['model'])}.ipynb"
        target.parent.mkdir(exist_ok=True)
        page.write_text(scrub(page.read_text(encoding="utf-8"), notebook, target.stem), encoding="utf-8")
        shutil.move(page, target)


def scrub(text: str, notebook: str, stem: str) -> str:
    """An executed notebook without host name, user name or absolute paths, and with relative ones in its record."""
    text = re.sub(r"[^\"'\\\s]*/\.run-[^/\"'\\\s]*/run\.(ipynb|nc)", rf"{stem}.\1", text)
    for secret, stand_in in ((str(provenance.root()), "."), (sys.prefix, "venv"), (str(Path.home()), "~")):
        text = text.replace(secret, stand_in)
    for secret in (platform.node(), getpass.getuser()):
        text = re.sub(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", "someone", text) if len(secret) > 3 else text
    page = json.loads(text)
    record = page["metadata"].get("papermill", {})
    record |= {"input_path": f"notebooks/{notebook}.ipynb", "output_path": f"{stem}.ipynb"}
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"
