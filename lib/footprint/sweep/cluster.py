"""Runs on several GPUs or machines: Dask spreads them, one folder collects their results.

A worker runs in a checkout of the project and takes as many runs at a time as its resource `GPU`
says: `dask worker tcp://HOST:8786 --nthreads 1 --resources GPU=1`.
"""

import contextlib
import importlib.util
import os
import re
import signal
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from footprint import Refused
from footprint.measure import profile
from footprint.sweep import runner
from footprint.sweep.runner import STOP, Run, disk_error, outcome

MOST = 200  # runs at the scheduler at a time
POLL_S = 0.5
CONNECT_S = 20
NEEDED = "several devices at a time need Dask: pip install 'footprint[sweep]'"
TOPIC = "footprint"
ADDRESS = re.compile(r"(\w+://)?[^\s/]+:\d{1,5}")


def available(tell: Callable[..., None]) -> bool:
    """Whether Dask is installed; if not, says how to get it."""
    there = importlib.util.find_spec("distributed") is not None
    if not there:
        tell("line", line=f"{NEEDED}; the runs go one after the other")
    return there


def remote(run: Run) -> tuple[dict, dict[str, bytes]]:
    """Do a run on this worker; returns its outcome, and its files as bytes by name."""
    from distributed import get_worker

    worker = get_worker()

    def say(line: str) -> None:
        worker.log_event(TOPIC, {"key": run.key, "line": line})

    with tempfile.TemporaryDirectory(prefix=".run-") as folder:
        ended = runner.attempt(run, Path(folder), say, environment())
        return ended, {path.name: path.read_bytes() for path in Path(folder).glob("run.*")}


def environment() -> dict[str, str]:
    """The environment without Dask's additions, which limit a CPU run to one thread."""
    import dask

    added = dask.config.get("distributed.nanny.pre-spawn-environ", {}) | {"PYTHONHASHSEED": "6640"}
    return {name: value for name, value in os.environ.items() if str(added.get(name)) != value}


@contextlib.contextmanager
def connected(scheduler: str, gpus: dict[str, int]) -> Iterator:
    """A client of the scheduler at this address, or of one made for the GPUs of this machine."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise Refused(f"{NEEDED[0].upper()}{NEEDED[1:]}.") from None
    if scheduler and not ADDRESS.fullmatch(scheduler):
        raise Refused(f"{scheduler!r:.80} is no address; one like tcp://HOST:8786 is allowed.")
    with contextlib.ExitStack() as stack:
        if scheduler:
            try:
                client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
            except (OSError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise Refused(f"There is no Dask scheduler at {scheduler} ({reason}).") from None
        else:
            workers = sum(gpus.values()) + 1  # one for runs on the CPU and for models
            options = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": None}
            calm = dask.config.set({"distributed.diagnostics.nvml": False})  # a lost GPU ends it
            with calm, profile.signals(signal.SIG_IGN, signal.SIGINT):  # we handle Ctrl-C
                cluster = LocalCluster(n_workers=workers, resources={"GPU": 1}, **options)
                client = Client(stack.enter_context(cluster))
        yield stack.enter_context(client)


def spread(
    queue: deque, sweep, scheduler: str, gpus: dict[str, int]
) -> Iterator[tuple[NamedTuple, dict]]:
    """Yield each turn of the queue with its outcome; the queue may grow meanwhile.

    A device of this machine has as many runs in flight as GPUs, a scheduler up to `MOST`. Dask
    gives the run of a lost worker to another one.
    """
    with connected(scheduler, gpus) as client, contextlib.ExitStack() as claims:
        client.run(_forget_stop)
        flying, runs, stops = {}, {}, 0
        client.subscribe_topic(TOPIC, lambda event: _line(event[1], runs, sweep))
        room = defaultdict(lambda: 1, {"": MOST} if scheduler else gpus)
        while queue or flying:
            for _ in range(len(queue) if not STOP["asked"] else 0):
                turn, claim = queue.popleft(), contextlib.ExitStack()
                lane = "" if scheduler else turn.run.device
                taken = sweep.take(turn.run, claim) if room[lane] else None
                if isinstance(taken, dict):
                    yield turn, taken
                elif taken:
                    claims.enter_context(claim)
                    runs[turn.run.key] = turn.run
                    flying[_submit(client, turn, taken.name)] = turn, taken, claim, lane
                    room[lane] -= 1
                else:
                    queue.append(turn)
            if STOP["asked"]:
                queue.clear()
            if STOP["asked"] > stops:
                stops += 1
                client.run(runner.stop)
                if stops > 2 or not client.scheduler_info()["workers"]:
                    client.cancel(list(flying))
            time.sleep(POLL_S)
            for future in [future for future in flying if future.done()]:
                turn, scratch, claim, lane = flying.pop(future)
                room[lane] += 1
                with claim:
                    ended = sweep.place(turn.run, _result(future, scratch), scratch)
                yield turn, ended


def _forget_stop() -> None:
    """On a worker: forget that an earlier sweep asked it to stop."""
    STOP["asked"] = 0


def _line(message: object, runs: dict[str, Run], sweep) -> None:
    """Pass on a line of output that a worker has sent."""
    if isinstance(message, dict) and message.get("key") in runs:
        sweep.tell("line", runs[message["key"]], line=message["line"])


def _submit(client, turn: NamedTuple, name: str):
    needs = {"GPU": 1} if turn.run.device else None
    return client.submit(remote, turn.run, key=f"{name}-{turn.count}", pure=False, resources=needs)


def _result(future, scratch: Path) -> dict:
    """The outcome of a run on a worker; its files are written to the scratch folder."""
    if future.status == "cancelled":
        return outcome("interrupted", "Stopped before it began.")
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return outcome("dead_kernel", "The worker died each time that it was tried.")
    if error is not None:
        again = not isinstance(error, Refused)
        return outcome("failed", f"{type(error).__name__}: {error}", again)
    ended, files = future.result()
    try:
        for name, data in files.items():
            (scratch / name).write_bytes(data)
    except OSError as full:
        return disk_error(full, scratch)
    return ended
