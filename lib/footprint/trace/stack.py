"""A stack of traces: a dictionary of flat arrays, and the file that keeps it.

Arrays of runs: `path`, `reason` (empty when it passed the check), `count` (windows), `sign` (what the file system says
of the file), `attr:<name>`. Arrays of windows: `<kind>:<variable>`, run after run of that kind.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from footprint.trace.schema import ATTRS, KINDS, NUMPY, SCHEMA, VERSION, variables

PLACE = ".gathered"
RACY_NS = 2_000_000_000  # a file system tells apart two writes that are this far from each other
FORM = json.dumps(
    [1, VERSION, list(ATTRS), SCHEMA], default=str
)  # another schema makes another stack
TEXTS = ("path", "reason", *(f"attr:{name}" for name, (cast, _) in ATTRS.items() if cast is str))


class Picked:
    """`values[index]`, picked when it is looked at: texts of a few kinds, for very many windows."""

    def __init__(self, values: np.ndarray, index: np.ndarray):
        self.values, self.index, self.dtype, self.shape = values, index, values.dtype, index.shape

    def __getitem__(self, at) -> np.ndarray:
        return self.values[self.index[at]] if len(self.values) else np.empty(0, self.dtype)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:]


def _empty() -> dict[str, np.ndarray]:
    runs = {name: np.empty(0, object) for name in TEXTS} | {
        "count": np.empty(0, int),
        "sign": np.empty((0, 4), int),
    }
    runs |= {
        f"attr:{name}": np.empty(0, cast) for name, (cast, _) in ATTRS.items() if cast is not str
    }
    return runs | {
        f"{kind}:{name}": np.empty(0, NUMPY[spec[0]])
        for kind in KINDS
        for name, spec in variables("windows", kind).items()
    }


def pile(
    paths: list[str], found: list[tuple[dict, dict] | str], sign: np.ndarray | None = None
) -> dict:
    """The stack of some traces: (attributes, windows) of each, or the sentence that says why it is none."""
    stack, blank = _empty(), {str: "", int: 0, float: np.nan}
    stack["path"] = texts(paths)
    stack["reason"] = texts([item if isinstance(item, str) else "" for item in found])
    stack["sign"] = np.full((len(paths), 4), -1) if sign is None else sign
    for name, (cast, _) in ATTRS.items():
        values = [blank[cast] if isinstance(item, str) else cast(item[0][name]) for item in found]
        stack[f"attr:{name}"] = texts(values) if cast is str else np.array(values, cast)
    good = [item for item in found if not isinstance(item, str)]
    stack["count"] = np.array(
        [0 if isinstance(item, str) else len(item[1]["batch"]) for item in found], int
    )
    for kind in KINDS:
        for name in variables("windows", kind):
            pieces = [windows[name] for attrs, windows in good if attrs["kind"] == kind]
            if pieces:
                stack[f"{kind}:{name}"] = np.concatenate(pieces)
    return stack


def texts(values: list) -> np.ndarray:
    """An array of Python's own strings."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def join(stacks: list[dict]) -> dict:
    """One stack, the runs in the order given."""
    return {
        name: np.concatenate([np.asarray(stack[name]) for stack in stacks]) for name in stacks[0]
    }


def rows(stack: dict, kind: str, runs: np.ndarray) -> np.ndarray:
    """Where the windows of these runs lie in the arrays of a kind."""
    count = np.where(stack["attr:kind"] == kind, stack["count"], 0)
    start, wanted = np.cumsum(count) - count, count[runs]
    return np.repeat(start[runs] - (np.cumsum(wanted) - wanted), wanted) + np.arange(wanted.sum())


def take(stack: dict, runs: np.ndarray) -> dict:
    """The stack of some runs, in the order of their indices."""
    at = {kind: rows(stack, kind, runs) for kind in KINDS}
    return {name: values[at.get(name.partition(":")[0], runs)] for name, values in stack.items()}


# -- the file ---------------------------------------------------------------------------------------------------------


def sign(folder: Path, paths: list[str]) -> np.ndarray:
    """What the file system says of each file: size, time of the last write, of the last change, and inode."""
    found = [os.stat(f"{folder}{os.sep}{path}") for path in paths]
    return np.array(
        [(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in found], int
    ).reshape(-1, 4)


def trusted(signed: np.ndarray, now_ns: int) -> np.ndarray:
    """The same, but never to match for files that changed so lately that a further change could look the same."""
    return np.where(signed[:, 2:3] < now_ns - RACY_NS, signed, -1)


def clock(folder: Path) -> int:
    """The file system's own time, in ns; 0 where nothing can be written (nothing is trusted then)."""
    try:
        (folder / PLACE).mkdir(exist_ok=True)
        (folder / PLACE / ".gitignore").write_text("*\n")
        return os.stat(folder / PLACE / ".gitignore").st_mtime_ns
    except OSError:
        return 0


def load(folder: Path) -> dict:
    """The stack that is kept in `folder`, mapped and not read; an empty one where there is none of this form."""
    try:
        with open(folder / PLACE / "windows", "rb") as file:
            head = json.loads(file.readline())
            if (
                head["form"] != FORM
                or os.fstat(file.fileno()).st_size != file.tell() + head["size"]
            ):
                return _empty()
            raw = np.memmap(file, np.uint8, "r", offset=file.tell(), shape=head["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return _empty()
    stack = {
        name: raw[start:stop].view(dtype).reshape(shape)
        for name, dtype, shape, start, stop in head["arrays"]
    }
    for name in [name.removesuffix("#words") for name in stack if name.endswith("#words")]:
        picked = Picked(
            texts(json.loads(bytes(stack.pop(f"{name}#words")))), stack.pop(f"{name}#codes")
        )
        stack[name] = picked[:] if name in TEXTS else picked
    return stack


def save(folder: Path, stack: dict) -> None:
    """Keep the stack, whole or not at all: a line of JSON that says where each array lies, then the arrays."""
    from pandas import factorize  # slow to import: not for those who only read traces

    arrays = {}
    for name, values in stack.items():
        if values.dtype == object:
            arrays[f"{name}#codes"], words = factorize(np.asarray(values))
            arrays[f"{name}#words"] = np.frombuffer(json.dumps(list(words)).encode(), np.uint8)
        else:
            arrays[name] = values
    pieces, end = [], 0
    for name, values in arrays.items():
        pieces.append((name, values.dtype.str, values.shape, end, end + values.nbytes))
        end += values.nbytes + -values.nbytes % 8
    head = json.dumps({"form": FORM, "size": end, "arrays": pieces}).encode()
    head += b" " * (-(len(head) + 1) % 8) + b"\n"
    with contextlib.suppress(OSError):  # a folder or disk that takes no file is left as it is
        whole(folder / PLACE / "windows", [head, *(_padded(values) for values in arrays.values())])


def _padded(values: np.ndarray) -> bytes:
    return values.tobytes() + b"\0" * (-values.nbytes % 8)


def whole(path: Path, pieces: list[bytes]) -> None:
    """Write a file that is there as a whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with open(handle, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
