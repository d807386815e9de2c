"""Many runs: each a process of its own, each result whole or absent, none done twice, none lost."""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from footprint import Refused, digest, spec
from footprint.measure import locks as devices
from footprint.sweep import events as ledger
from footprint.sweep import results
from footprint.sweep import runner as launch
from footprint.sweep.runner import STOP, Run

TRIES = 2  # how often a run is tried in one sweep that fails in a way that may pass
FINE = ("ok", "oom", "skipped")
Tell = Callable[..., None]


def quiet(event: str, run: Run | None = None, **facts) -> None:
    """Tell nobody."""


class Sweep(NamedTuple):
    """What the runs of a sweep share."""

    folder: Path
    tell: Tell
    known: dict[
        str, set[str]
    ]  # devices by name: what their traces may call them; empty where a scheduler decides
    full: list[Run]  # runs that ran out of memory before their first point
    seen: dict  # heads of traces that were read

    def find(self, one: Run, done: dict | None = None) -> tuple | None:
        """The finished run (device, status, trace) that is what `one` asks for, on a device that it may mean."""
        done = results.finished(self.folder, self.seen) if done is None else done
        for device, status, path in done.get(one.key, []):
            if one.device not in self.known or device in self.known[one.device]:
                return device, status, path
        return None

    def end(self, one: Run, outcome: dict) -> dict:
        """Note and tell how a run ended."""
        if outcome["status"] == "oom" and not outcome.get("file"):
            self.full.append(one)
        self.tell("end", one, **outcome)
        return {"run": one, **outcome}


def run(
    runs: list[Run], folder: str | Path, tell: Tell = quiet, tries: int = TRIES, scheduler: str = ""
) -> list[dict]:
    """Execute the runs that `folder` does not hold yet; returns an outcome for each: run, status, reason, file, ...

    tell: called with an event (`start`, `line`, `retry`, `end`), the run and facts. scheduler: address of a Dask
    scheduler; without one, several GPUs of this machine share the runs out, and all others go one after the other.
    Raises `Refused` when the device of a run is not there at all.
    """
    devices_ = () if scheduler else {one.device for one in runs} - {""}
    sweep = Sweep(Path(folder), tell, {name: devices.identities(name) for name in devices_}, [], {})
    with contextlib.suppress(OSError):
        results.recover(folder)
    logged = ledger.note(folder, "sweep", runs=len(runs), scheduler=bool(scheduler))
    outcomes, queue, done = {}, deque(), results.finished(folder, sweep.seen)
    for index, one in enumerate(runs):
        there = sweep.find(one, done)
        if there:
            outcomes[index] = sweep.end(one, already(there))
        else:
            queue.append((index, one, 1))
    with stoppable(tell):
        for (index, one, count), outcome in _engine(queue, sweep, scheduler):
            if outcome["again"] and count < tries and not STOP["asked"]:
                ledger.note(folder, "retry", key=one.key, run=one.label, reason=outcome["reason"])
                tell("retry", one, reason=outcome["reason"])
                queue.append((index, one, count + 1))
                continue
            outcomes[index] = sweep.end(one, outcome)
            facts = {
                name: outcome.get(name)
                for name in ("status", "reason", "seconds", "joules", "device")
            }
            place = os.path.relpath(outcome["file"], folder) if outcome.get("file") else None
            logged &= ledger.note(folder, "end", key=one.key, run=one.label, file=place, **facts)
    for index, one in enumerate(runs):
        if index not in outcomes:
            outcomes[index] = sweep.end(
                one, ended("interrupted", "Not started: the sweep was stopped.")
            )
    if not logged:
        tell("line", line="the event log could not be written")
    return [outcomes[index] for index in range(len(runs))]


def _engine(queue: deque, sweep: Sweep, scheduler: str) -> Iterator:
    """Yields (item of the queue, outcome) until the queue is empty; the queue may grow meanwhile."""
    cards = {device: len(found) for device, found in sweep.known.items() if device != "cpu"}
    if scheduler or sum(cards.values()) > 1:
        from footprint.sweep import cluster

        if scheduler or cluster.available(sweep.tell):
            yield from cluster.spread(queue, sweep, scheduler, cards)
            return
    while queue and not STOP["asked"]:
        item = queue.popleft()
        yield item, one_of(item[1], sweep)


def one_of(one: Run, sweep: Sweep) -> dict:
    """Do one run here, unless another process does or did it; never raises for what goes wrong with the run."""
    smaller = prune(one, sweep.full)
    if smaller:
        return ended(
            "skipped", f"Not tried: {smaller} ran out of memory there before its first point."
        )
    sweep.tell("start", one)
    ledger.note(sweep.folder, "start", key=one.key, run=one.label)
    try:
        while not STOP["asked"]:
            with results.claim(sweep.folder, scratch_name(one, sweep)) as scratch:
                there = scratch and sweep.find(one)
                if there:
                    return already(there)
                if scratch:
                    outcome = launch.attempt(
                        one, scratch, lambda line: sweep.tell("line", one, line=line)
                    )
                    return place(one, outcome, scratch, sweep.folder)
            time.sleep(devices.POLL_S)
    except OSError as error:
        return ended(
            "failed",
            f"{error.strerror or error}: {os.path.basename(str(error.filename or sweep.folder))}.",
        )
    return ended("interrupted", "Stopped while another sweep did this run.")


def scratch_name(one: Run, sweep: Sweep) -> str:
    """Name of the claim on a run: what is asked, and of which device."""
    return f"{one.key}-{digest('+'.join(sorted(sweep.known.get(one.device, ()))))[:6]}"


def place(one: Run, outcome: dict, scratch: Path, folder: Path) -> dict:
    """Move the results of a run from `scratch` to their place, or apart when it failed; returns the outcome."""
    if outcome["status"] == "ok" and (scratch / "run.nc").exists():
        try:
            tree, file = results.settle(scratch, folder)
        except Refused as broken:
            return outcome | {"status": "failed", "reason": str(broken), "again": True}
        again = tree.attrs["status"] in ("gpu_lost", "failed")
        return (
            outcome
            | {key: tree.attrs[key] for key in ("status", "reason")}
            | {"file": file, "again": again}
        )
    if outcome["status"] == "ok":
        outcome |= {
            "status": "failed",
            "reason": "The notebook ended without a trace.",
            "again": True,
        }
    return outcome | {"page": results.keep_failed(scratch, folder, one.request["model"], one.key)}


def ended(status: str, reason: str) -> dict:
    """The outcome of a run that did not even begin."""
    return {"status": status, "reason": reason, "again": False, "seconds": 0.0}


def already(there: tuple) -> dict:
    """The outcome of a run that was finished before."""
    return ended(there[1], "Already there.") | {"file": there[2]}


# -- models that cannot fit -------------------------------------------------------------------------------------------


def prune(one: Run, full: list[Run]) -> str:
    """The model that ran out of memory where this run, with as many weights or more, would go; empty when none did."""
    for other in full:
        same = all(
            one.request.get(name) == other.request.get(name)
            for name in ("device", "dtype", "engine")
        )
        if same and one.device and _parameters(one) >= _parameters(other) > 0:
            return other.request["model"]
    return ""


def _parameters(one: Run) -> int:
    try:
        return spec.model(one.request["model"]).parameters
    except (KeyError, ValueError, OSError):
        return 0  # a hub id: unknown until it is loaded


@contextlib.contextmanager
def stoppable(tell: Tell) -> Iterator[None]:
    """SIGINT and SIGTERM once: finish the current windows and stop; twice: stop now."""

    def handler(number: int, frame) -> None:
        said = (
            "stopping after the current window; once more stops now"
            if not STOP["asked"]
            else "stopping now"
        )
        tell("line", line=said)
        launch.stop()

    STOP["asked"] = 0
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
