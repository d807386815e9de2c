"""Many runs: each a process of its own, each result whole or absent, none done twice, none lost."""

import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from footprint import Refused, digest, spec, workload
from footprint.measure import locks
from footprint.sweep import cluster, results, runner
from footprint.sweep.runner import STOP, Run, disk_error, outcome

TRIES = 2  # attempts at a run whose failure may be transient
FINE = ("ok", "oom", "skipped")  # statuses of a run that need nobody's attention
LOGGED = ("status", "reason", "seconds", "joules", "device")  # of an outcome, in the event log
WEIGHTS = ("device", "dtype", "engine")  # what decides, with the model, whether its weights fit


class Try(NamedTuple):
    """A run that waits for its turn: its place among the runs, and which attempt this is."""

    index: int
    run: Run
    count: int = 1


@dataclass
class Sweep:
    """The folder of a sweep, whom it tells its events, and what its runs have in common."""

    folder: Path
    tell: Callable[..., None]
    devices: dict[str, set[str]]  # what traces may call each device; empty with a Dask scheduler
    full: list[Run] = field(default_factory=list)  # out of memory before their first point
    seen: dict = field(default_factory=dict)  # heads of traces that were read
    logged: bool = True  # whether the event log took every line

    def note(self, event: str, run: Run | None = None, **facts: object) -> None:
        """Log an event."""
        who = {"key": run.key, "run": run.label} if run else {}
        self.logged &= results.note(self.folder, event, **who, **facts)

    def find(self, run: Run, done: dict | None = None) -> dict | None:
        """The outcome of this run where it was finished before, on a device that it may mean."""
        done = results.finished(self.folder, self.seen) if done is None else done
        for there in done.get(run.key, []):
            if run.device not in self.devices or there.device in self.devices[run.device]:
                return outcome(there.status, "Already there.", file=there.file)
        return None

    def take(self, run: Run, claims: contextlib.ExitStack) -> Path | dict | None:
        """The scratch folder of a run, held until `claims` close; None while another has it.

        The outcome instead, where nothing is left to do.
        """
        smaller = self._too_large(run)
        if smaller:
            reason = f"Not tried: {smaller} ran out of memory there before its first point."
            return outcome("skipped", reason)
        device = digest("+".join(sorted(self.devices.get(run.device, ()))))
        try:
            scratch = claims.enter_context(results.claim(self.folder, f"{run.key}-{device[:6]}"))
            there = self.find(run) if scratch else None
        except OSError as error:
            there, scratch = disk_error(error, self.folder), None
        if there or not scratch:
            claims.close()
            return there
        self.tell("start", run)
        self.note("start", run)
        return scratch

    def place(self, run: Run, ended: dict, scratch: Path) -> dict:
        """The outcome after the run's files were moved to their place, or apart when it failed."""
        failed = {"status": "failed", "again": True}
        try:
            if ended["status"] == "ok" and (scratch / "run.nc").exists():
                tree, file = results.settle(scratch, self.folder)
                told = {name: tree.attrs[name] for name in ("status", "reason")}
                again = told["status"] in ("gpu_lost", "failed")
                return ended | told | {"file": file, "again": again}
            if ended["status"] == "ok":
                ended = ended | failed | {"reason": "The notebook ended without a trace."}
            name = f"{workload.slug(run.request['model'])}-{run.key}"
            return ended | {"page": results.keep_failed(scratch, self.folder, name)}
        except Refused as broken:
            return ended | failed | {"reason": str(broken)}
        except OSError as error:
            return disk_error(error, self.folder)

    def end(self, run: Run, ended: dict) -> dict:
        """Tell how a run ended."""
        if ended["status"] == "oom" and not ended.get("file"):
            self.full.append(run)
        self.tell("end", run, **ended)
        return {"run": run, **ended}

    def _too_large(self, run: Run) -> str:
        """The model, no larger than this run's, that ran out of memory there; empty if none did."""
        for other in self.full:
            same = all(run.request.get(name) == other.request.get(name) for name in WEIGHTS)
            if same and run.device and _parameters(run) >= _parameters(other) > 0:
                return other.request["model"]
        return ""


def _parameters(run: Run) -> int:
    try:
        return spec.model(run.request["model"]).parameters
    except (KeyError, ValueError, OSError):
        return 0  # a hub id: unknown until it is loaded


def run(
    runs: list[Run],
    folder: str | Path,
    tell: Callable[..., None] = lambda event, run=None, **facts: None,
    tries: int = TRIES,
    scheduler: str = "",
) -> list[dict]:
    """Execute the runs that `folder` does not hold yet; returns each outcome: run, status, ...

    tell: called with an event (`start`, `line`, `retry`, `end`), the run and facts. scheduler:
    address of a Dask scheduler; without one, several GPUs of this machine share the runs, and all
    others follow one another. Raises `Refused` when the device of a run does not exist.
    """
    devices = set() if scheduler else {one.device for one in runs} - {""}
    sweep = Sweep(Path(folder), tell, {name: locks.identities(name) for name in devices})
    with contextlib.suppress(OSError):
        results.recover(sweep.folder)
    sweep.note("sweep", runs=len(runs), scheduler=bool(scheduler))
    outcomes, queue, done = {}, deque(), results.finished(folder, sweep.seen)
    for index, one in enumerate(runs):
        there = sweep.find(one, done)
        if there:
            outcomes[index] = sweep.end(one, there)
        else:
            queue.append(Try(index, one))
    with _stoppable(tell):
        for turn, ended in _engine(queue, sweep, scheduler):
            if ended["again"] and turn.count < tries and not STOP["asked"]:
                sweep.note("retry", turn.run, reason=ended["reason"])
                tell("retry", turn.run, reason=ended["reason"])
                queue.append(turn._replace(count=turn.count + 1))
                continue
            outcomes[turn.index] = sweep.end(turn.run, ended)
            place = ended["file"].relative_to(sweep.folder) if ended.get("file") else None
            facts = {name: ended.get(name) for name in LOGGED}
            sweep.note("end", turn.run, file=place, **facts)
    for index, one in enumerate(runs):
        if index not in outcomes:
            never = outcome("interrupted", "Not started: the sweep was stopped.")
            outcomes[index] = sweep.end(one, never)
    if not sweep.logged:
        tell("line", line="the event log could not be written")
    return [outcomes[index] for index in range(len(runs))]


def _engine(queue: deque[Try], sweep: Sweep, scheduler: str) -> Iterator[tuple[Try, dict]]:
    """Yield each turn of the queue with its outcome; the queue may grow meanwhile."""
    gpus = {device: len(found) for device, found in sweep.devices.items() if device != "cpu"}
    if scheduler or (sum(gpus.values()) > 1 and cluster.available(sweep.tell)):
        yield from cluster.spread(queue, sweep, scheduler, gpus)
    while queue and not STOP["asked"]:
        turn = queue.popleft()
        yield turn, _here(turn.run, sweep)


def _here(run: Run, sweep: Sweep) -> dict:
    """Do one run here, once no other process does it."""
    waiting = False
    while not STOP["asked"]:
        with contextlib.ExitStack() as claims:
            taken = sweep.take(run, claims)
            if isinstance(taken, Path):
                ended = runner.attempt(run, taken, lambda line: sweep.tell("line", run, line=line))
                return sweep.place(run, ended, taken)
            if taken:
                return taken
        if not waiting:
            sweep.tell("line", run, line="waiting: another sweep does this run")
        waiting = True
        time.sleep(locks.POLL_S)
    return outcome("interrupted", "Stopped while another sweep did this run.")


@contextlib.contextmanager
def _stoppable(tell: Callable[..., None]) -> Iterator[None]:
    """SIGINT and SIGTERM once: finish the current windows and stop; twice: stop now."""

    def handler(number: int, frame: object) -> None:
        first = "stopping after the current window; once more stops now"
        tell("line", line="stopping now" if STOP["asked"] else first)
        runner.stop()

    STOP["asked"] = 0
    with runner.signals(handler, signal.SIGINT, signal.SIGTERM):
        yield
