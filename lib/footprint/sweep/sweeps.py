"""Many runs: each in a process of its own, each result whole or absent, none done twice."""

import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from footprint import Refused, digest, spec, workload
from footprint.measure import locks, profile
from footprint.sweep import cluster, results, runner
from footprint.sweep.runner import STOP, Run, disk_error, outcome

TRIES = 2  # attempts at a run whose failure may be transient
FINE = ("ok", "oom", "skipped")  # statuses that are no failure
LOGGED = ("status", "reason", "seconds", "joules", "device")  # of an outcome, in the event log
WEIGHTS = ("device", "dtype", "engine")  # parameters that decide whether a model's weights fit


class Try(NamedTuple):
    """A run in the queue: its place among all runs, and which attempt this is."""

    index: int
    run: Run
    count: int = 1


@dataclass
class Sweep:
    """The folder of a sweep, the function that gets its events, and its state."""

    folder: Path
    tell: Callable[..., None]
    devices: dict[str, set[str]]  # names of each device in traces; empty with a Dask scheduler
    full: list[Run] = field(default_factory=list)  # out of memory before their first point
    heads: dict = field(default_factory=dict)  # attributes of traces that were read
    logged: bool = True  # whether all events were written to the log

    def note(self, event: str, run: Run | None = None, **facts: object) -> None:
        """Log an event."""
        who = {"key": run.key, "run": run.label} if run else {}
        self.logged &= results.note(self.folder, event, **who, **facts)

    def find(self, run: Run, done: dict | None = None) -> dict | None:
        """The outcome of this run if it was finished before, on this device."""
        done = results.finished(self.folder, self.heads) if done is None else done
        for earlier in done.get(run.key, []):
            if run.device not in self.devices or earlier.device in self.devices[run.device]:
                return outcome(earlier.status, "Already there.", file=earlier.file)
        return None

    def take(self, run: Run, claims: contextlib.ExitStack) -> Path | dict | None:
        """The scratch folder of a run, claimed until `claims` close, or an outcome without a run.

        None while another process holds the claim.
        """
        smaller = self._too_large(run)
        if smaller:
            reason = f"Not tried: {smaller} ran out of memory there before its first point."
            return outcome("skipped", reason)
        device = digest("+".join(sorted(self.devices.get(run.device, ()))))
        try:
            scratch = claims.enter_context(results.claim(self.folder, f"{run.key}-{device[:6]}"))
            ended = self.find(run) if scratch else None
        except OSError as error:
            ended, scratch = disk_error(error, self.folder), None
        if ended or not scratch:
            claims.close()
            return ended
        self.tell("start", run)
        self.note("start", run)
        return scratch

    def place(self, run: Run, ended: dict, scratch: Path) -> dict:
        """Move the files of a run to their place, those of a failed one apart; its outcome."""
        failed = {"status": "failed", "again": True}
        try:
            if ended["status"] == "ok" and (scratch / "run.nc").exists():
                tree, file = results.settle(scratch, self.folder)
                status = tree.attrs["status"]
                if status not in results.FINAL:  # another try goes on from its journal
                    (scratch / "commit").unlink(missing_ok=True)
                facts = {"status": status, "reason": tree.attrs["reason"], "file": file}
                return ended | facts | {"again": status in ("gpu_lost", "failed")}
            if ended["status"] == "ok":
                ended = ended | failed | {"reason": "The notebook ended without a trace."}
            name = f"{workload.slug(run.request['model'])}-{run.key}"
            return ended | {"page": results.keep_failed(scratch, self.folder, name)}
        except Refused as broken:
            return ended | failed | {"reason": str(broken)}
        except OSError as error:
            return disk_error(error, self.folder)

    def end(self, run: Run, ended: dict) -> dict:
        """Report the end of a run; returns its outcome with the run."""
        if ended["status"] == "oom" and not ended.get("file"):
            self.full.append(run)
        self.tell("end", run, **ended)
        return {"run": run, **ended}

    def _too_large(self, run: Run) -> str:
        """A model, no larger than this run's, that ran out of memory; empty if none did."""
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
    """Execute the runs that `folder` does not hold yet; returns the outcome of each run.

    tell: called with an event (`start`, `line`, `retry`, `end`), the run and facts. scheduler:
    address of a Dask scheduler; without one, only several GPUs of this machine run in parallel.
    Raises `Refused` when the device of a run does not exist.
    """
    devices = set() if scheduler else {one.device for one in runs} - {""}
    sweep = Sweep(Path(folder), tell, {name: locks.identities(name) for name in devices})
    with contextlib.suppress(OSError):
        results.recover(sweep.folder)
    if fault := results.log_fault(folder):
        tell("line", line=fault)
    sweep.note("sweep", runs=len(runs), scheduler=bool(scheduler))
    outcomes, queue, done = {}, deque(), results.finished(folder, sweep.heads)
    for index, one in enumerate(runs):
        earlier = sweep.find(one, done)
        if earlier:
            outcomes[index] = sweep.end(one, earlier)
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
            stopped = outcome("interrupted", "Not started: the sweep was stopped.")
            outcomes[index] = sweep.end(one, stopped)
    if not sweep.logged:
        tell("line", line="the event log could not be written")
    return [outcomes[index] for index in range(len(runs))]


def _engine(queue: deque[Try], sweep: Sweep, scheduler: str) -> Iterator[tuple[Try, dict]]:
    """Yield each turn of the queue with its outcome; the queue may grow meanwhile."""
    gpus = {device: len(names) for device, names in sweep.devices.items() if device != "cpu"}
    if scheduler or (sum(gpus.values()) > 1 and cluster.available(sweep.tell)):
        yield from cluster.spread(queue, sweep, scheduler, gpus)
    while queue and not STOP["asked"]:
        turn = queue.popleft()
        yield turn, _here(turn.run, sweep)


def _here(run: Run, sweep: Sweep) -> dict:
    """Do a run in this process, after any other process that has claimed it."""
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
    """Stop after the current windows at the first SIGINT or SIGTERM, at once at the second."""

    def handler(number: int, frame: object) -> None:
        first = "stopping after the current window; once more stops now"
        tell("line", line="stopping now" if STOP["asked"] else first)
        runner.stop()

    STOP["asked"] = 0
    with profile.signals(handler, signal.SIGINT, signal.SIGTERM):
        yield
