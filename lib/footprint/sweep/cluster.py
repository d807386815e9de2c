"""Runs on many machines, or on many GPUs of one: Dask gives each free worker a run, results come back to one folder.

A worker says how many runs it takes at a time by its resource `GPU`, and works in a checkout of the project:
`dask worker tcp://HOST:8786 --nthreads 1 --resources GPU=1`. With several GPUs in it, a run takes whichever is free.
"""

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path

from footprint import Refused
from footprint.sweep import events as ledger
from footprint.sweep import results
from footprint.sweep import runner as launch
from footprint.sweep.runner import STOP, Run
from footprint.sweep.sweeps import Sweep, ended, place, prune, scratch_name

MOST = 200  # runs that wait at the scheduler at a time
POLL_S = 0.5
CONNECT_S = 20
NEEDED = "several devices at a time need Dask: pip install 'footprint[sweep]'"


def available(tell: Callable) -> bool:
    """Whether Dask is installed; if not, says how to get it."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        tell("line", line=f"{NEEDED}; the runs go one after the other")
        return False
    return True


def remote(one: Run) -> tuple[dict, dict[str, bytes]]:
    """Do one run on the worker where this is called; the outcome, and page and trace as bytes."""
    from distributed import get_worker

    worker = get_worker()
    with tempfile.TemporaryDirectory(prefix=".run-") as folder:
        scratch = Path(folder)
        said = lambda line: worker.log_event("footprint", {"key": one.key, "line": line})  # noqa: E731
        outcome = launch.attempt(one, scratch, said, environ=environment())
        return outcome, {path.name: path.read_bytes() for path in scratch.glob("run.*")}


def environment() -> dict[str, str]:
    """The environment of a worker without what Dask put there: a single thread would double the times of a CPU run."""
    import dask

    added = dask.config.get("distributed.nanny.pre-spawn-environ", {}) | {"PYTHONHASHSEED": "6640"}
    return {name: value for name, value in os.environ.items() if str(added.get(name)) != value}


@contextlib.contextmanager
def connected(scheduler: str, cards: dict[str, int]) -> Iterator:
    """A client of the scheduler at this address, or of one that is made for the GPUs of this machine."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise Refused(f"{NEEDED[0].upper()}{NEEDED[1:]}.") from None
    if scheduler:
        try:
            client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Refused(
                f"There is no Dask scheduler at {scheduler} ({str(error).splitlines()[0]})."
            ) from None
        with client:
            yield client
        return
    workers = (
        sum(cards.values()) + 1
    )  # one for runs on the CPU and models, which wait for the others
    settings = {
        "threads_per_worker": 1,
        "resources": {"GPU": 1},
        "dashboard_address": None,
        "memory_limit": None,
    }
    with contextlib.ExitStack() as stack:
        with _deaf():
            client = stack.enter_context(
                Client(stack.enter_context(LocalCluster(n_workers=workers, **settings)))
            )
        yield client


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that start within do not hear Ctrl-C: it goes to all of a terminal, and is this process's to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def spread(
    queue: deque, sweep: Sweep, scheduler: str, cards: dict[str, int]
) -> Iterator[tuple[tuple, dict]]:
    """Yield (item of the queue, outcome) as runs end; the queue may grow meanwhile. A lost worker's run goes to another.

    Of each device of this machine as many runs are under way as it names GPUs; at a scheduler, as many as fit there.
    """
    with connected(scheduler, cards) as client, contextlib.ExitStack() as claims:
        client.run(_fresh)
        flying, told = {}, 0
        labels = {}
        client.subscribe_topic("footprint", lambda event: _line(event, labels, sweep))
        while queue or flying:
            lanes = Counter(item[1].device for item, _, _ in flying.values())
            for _ in range(len(queue) if not STOP["asked"] else 0):
                item = queue.popleft()
                room = (
                    MOST - len(flying)
                    if scheduler
                    else cards.get(item[1].device, 1) - lanes[item[1].device]
                )
                started = _start(client, item, sweep, claims) if room > 0 else None
                if isinstance(started, dict):
                    yield item, started
                elif started:
                    flying[started[0]] = item, started[1], started[2]
                    labels[item[1].key] = item[1]
                    lanes[item[1].device] += 1
                else:
                    queue.append(item)
            if STOP["asked"]:
                queue.clear()
            if STOP["asked"] > told:
                told += 1
                client.run(launch.stop)
                client.cancel(list(flying)) if told > 2 or not client.scheduler_info()[
                    "workers"
                ] else None
            time.sleep(POLL_S)
            for future in [future for future in flying if future.done()]:
                item, scratch, claim = flying.pop(future)
                outcome = _landed(future, item[1], scratch, sweep.folder)
                claim.close()
                yield item, outcome


def _fresh() -> None:
    """Forget an earlier sweep's request to stop, on a worker."""
    STOP["asked"] = 0


def _line(event: tuple, labels: dict, sweep: Sweep) -> None:
    said = event[1]
    if isinstance(said, dict) and said.get("key") in labels:
        sweep.tell("line", labels[said["key"]], line=said["line"])


def _start(client, item: tuple, sweep: Sweep, claims: contextlib.ExitStack) -> dict | tuple | None:
    """Submit a run and hold its claim: (future, scratch, claim); its outcome when it needs no run; None when taken."""
    one = item[1]
    smaller = prune(one, sweep.full)
    if smaller:
        return ended(
            "skipped", f"Not tried: {smaller} ran out of memory there before its first point."
        )
    claim = claims.enter_context(contextlib.ExitStack())
    try:
        scratch = claim.enter_context(results.claim(sweep.folder, scratch_name(one, sweep)))
    except OSError as error:
        return ended(
            "failed",
            f"{error.strerror or error}: {os.path.basename(str(error.filename or sweep.folder))}.",
        )
    there = scratch and sweep.find(one)
    if there or not scratch:
        claim.close()
        return (ended(there[1], "Already there.") | {"file": there[2]}) if there else None
    sweep.tell("start", one)
    ledger.note(sweep.folder, "start", key=one.key, run=one.label)
    needs = {"GPU": 1} if one.device else None
    return (
        client.submit(remote, one, key=f"{scratch.name}-{item[2]}", pure=False, resources=needs),
        scratch,
        claim,
    )


def _landed(future, one: Run, scratch: Path, folder: Path) -> dict:
    """The outcome of a run that a worker has done, its files in their place."""
    error = future.exception() if future.status != "cancelled" else None
    if future.status == "cancelled":
        return ended("interrupted", "Stopped before it began.")
    if error is not None:
        died = type(error).__name__ == "KilledWorker"
        reason = (
            "The worker died each time that it was tried."
            if died
            else f"{type(error).__name__}: {error}"
        )
        return ended("dead_kernel" if died else "failed", reason) | {
            "again": not isinstance(error, Refused) and not died
        }
    outcome, files = future.result()
    try:
        for name, data in files.items():
            (scratch / name).write_bytes(data)
        return place(one, outcome, scratch, folder)
    except OSError as full:
        return ended(
            "failed", f"{full.strerror or full}: {os.path.basename(str(full.filename or folder))}."
        )
