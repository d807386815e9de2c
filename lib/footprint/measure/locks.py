"""Locks that give a run its device alone; the operating system ends them with their process.

A run on a GPU locks that GPU and shares the host with runs on other GPUs; a run on the CPU locks
the whole host.
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
from footprint.measure.instrument import Instrument

POLL_S = 0.2
SHARED = ("/run/lock", "/dev/shm", "/tmp")
WALLS = ("/.dockerenv", "/run/.containerenv")
MOST = 1000  # GPUs of a machine; device numbers have three digits


def _opened_all(device: str) -> list[Instrument]:
    """The instruments that a device may mean; `cuda` means all GPUs that can be measured."""
    if device == "cpu" or not device.isalpha():
        return [instrument.opened(device)]
    found, refused = [], None
    for number in range(MOST):
        try:
            found.append(instrument.opened(f"{device}:{number}"))
        except instrument.Absent as absent:
            refused = refused or absent
            break
        except Refused as reason:  # the others may do
            refused = refused or reason
    if not found:
        raise refused
    return found


def boards(device: str) -> list[str]:
    """UUIDs of the GPUs that a device may mean, none for `cpu`; `Refused` where there is none."""
    uuids = [gpu.identity().uuid for gpu in _opened_all(device)]
    return [uuid for uuid in uuids if uuid]


def identities(device: str) -> set[str]:
    """What a trace may call this device: the hash of a GPU's UUID, or the name of the CPU.

    Of a GPU that does not answer, its own name, which no trace has: the others are measured.
    """
    try:
        return {digest(uuid) for uuid in boards(device)} or {provenance.processor()}
    except instrument.Lost:
        return {device}


def name(device: str) -> str:
    """Id of the GPU (`t4`), or a slug of the CPU's name."""
    if device == "cpu":
        return workload.slug(provenance.processor())
    return provenance.gpu_id(_opened_all(device)[0].identity().name)


@contextmanager
def alone(
    device: str, stopped: Callable[[], bool] = lambda: False, say: Callable = print
) -> Iterator[str]:
    """Lock a device while the block runs; yields the UUID of the GPU, empty for a CPU.

    Waits while other processes hold it; raises InterruptedError once `stopped()` is true.
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
                    for handle in host:
                        fcntl.flock(handle, fcntl.LOCK_UN)
            if not waited:
                say(f"waiting for {device}: another run holds it")
            waited = True
            if stopped():
                raise InterruptedError(f"Stopped while it waited for {device}.")
            time.sleep(POLL_S)


def folders() -> list[Path]:
    """Folders of the locks: FOOTPRINT_LOCKS, else in every place that all users can write to.

    A job or a container may have one of these places for itself; two runs need only one in common.
    """
    if named := os.environ.get("FOOTPRINT_LOCKS"):
        return [Path(named)]
    shared = [place for place in SHARED if _open_to_all(place)] or [tempfile.gettempdir()]
    return [Path(place, "footprint-locks") for place in shared]


def walled() -> bool:
    """Whether this is a container whose locks no other one sees."""
    return not os.environ.get("FOOTPRINT_LOCKS") and any(map(os.path.exists, WALLS))


def _open_to_all(place: str) -> bool:
    with suppress(OSError):
        return os.stat(place).st_mode & 0o1777 == 0o1777 and os.access(place, os.W_OK)
    return False


def _taken(handles: list[int], how: int) -> bool:
    with suppress(BlockingIOError):
        for handle in handles:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _opened(what: str) -> Iterator[list[int]]:
    """The lock files of a device, for all users of this host."""
    handles, failed = [], None
    try:
        for folder in folders():
            try:
                handles.append(_handle(folder, what))
            except OSError as error:
                failed = error
        if not handles:
            raise failed
        yield handles
    finally:
        for handle in handles:
            os.close(handle)


def _handle(folder: Path, what: str) -> int:
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    path = folder / digest(what)
    try:
        return os.open(path, os.O_RDONLY)  # another user's file can be opened, not created again
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
