"""Which device a run is given, and nobody else on it: locks of the operating system, which end when a process does.

A run on a GPU holds that GPU alone and the host together with the runs on other GPUs; a run on the CPU holds the host
alone, so that its load and its power domain are its own.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from footprint import Refused, digest, workload
from footprint.measure import instrument, provenance

POLL_S = 0.2


def boards(device: str) -> list[str]:
    """UUIDs of the GPUs that `device` may mean: all that are visible for `cuda`, one for `cuda:N`, none for `cpu`."""
    found = [instrument.opened(device).identity().uuid]  # raises where there is none
    if not found[0]:
        return []
    while device.isalpha() and device != "cpu":
        try:
            found.append(instrument.opened(f"{device}:{len(found)}").identity().uuid)
        except Refused:
            break
    return found


def identities(device: str) -> set[str]:
    """What a trace of a run on this device, here and now, may call it: the hash of a UUID, or the processor's name."""
    return {digest(uuid) for uuid in boards(device)} or {provenance.processor()}


def name(device: str) -> str:
    """Id of the GPU (`t4`) or slug of the processor behind `device`."""
    if device == "cpu":
        return workload.slug(provenance.processor())
    return provenance.gpu_id(instrument.opened(device).identity().name)


@contextmanager
def alone(
    device: str, stopped: Callable[[], bool] = lambda: False, say: Callable = print
) -> Iterator[str]:
    """Hold `device` for as long as the block runs; yields the UUID of the GPU, or an empty text for a CPU.

    Waits for runs of other processes to end, and says so once. Raises InterruptedError when `stopped()` turns true.
    """
    uuids, waited = boards(device), False
    with _opened("host") as host:
        while True:
            for uuid in uuids or [""]:
                with _opened(uuid or "cpu") as board:
                    shared = fcntl.LOCK_SH if uuid else fcntl.LOCK_EX
                    if _taken(host, shared) and _taken(board, fcntl.LOCK_EX):
                        yield uuid
                        return
                    fcntl.flock(host, fcntl.LOCK_UN)
            if not waited:
                say(f"waiting for {device}: another run holds it")
            waited = True
            if stopped():
                raise InterruptedError(f"Stopped while it waited for {device}.")
            time.sleep(POLL_S)


def _taken(handle: int, how: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(handle, how | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _opened(what: str) -> Iterator[int]:
    """The lock file of a device, for all users of this host."""
    given = os.environ.get("FOOTPRINT_LOCKS")
    folder = Path(given or Path(tempfile.gettempdir()) / "footprint-locks")
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    path = folder / digest(what)
    try:
        handle = os.open(path, os.O_RDONLY)  # another user's file can be opened, not created again
    except FileNotFoundError:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)
