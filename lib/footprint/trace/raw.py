"""Attributes and windows of many traces by h5py's low-level calls; light, for a process of it on each core."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5p, h5s, h5t

from footprint import Refused
from footprint.trace import stack
from footprint.trace.schema import (
    ATTRS,
    DIMS,
    KINDS,
    PHASES,
    RUN_STATUS,
    SCHEMA,
    VERSION,
    WINDOW_STATUS,
    variables,
)

MANY = 1000  # files from which on a second process pays
CORE = h5p.create(
    h5p.FILE_ACCESS
)  # reads the file at once: a trace is small, and its pieces lie scattered
CORE.set_fapl_core(2**16, False)
TEXT = h5t.py_create(h5py.string_dtype())  # Python's own objects: bytes
COLUMNS = {
    kind: [
        [name for name, spec in variables("windows", kind).items() if spec[0] == letter]
        for letter in "Uif"
    ]
    for kind in KINDS
}
ODD = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, UnicodeDecodeError)
MEMORY = {"U": TEXT, "i": h5t.NATIVE_INT64, "f": h5t.NATIVE_DOUBLE}


def _attr(item, name: str, cast: type = str):
    at = h5a.open(item, name.encode())
    if cast is str:
        got = np.empty((), object)
        at.read(got, TEXT)
        return got.item().decode()
    got = np.empty(at.shape, np.int64 if cast is int else np.float64)
    at.read(got, MEMORY["i" if cast is int else "f"])
    return got.reshape(1)[0]


def head(path: str | Path) -> dict:
    """Root attributes of a trace, nothing else of it read or checked. Raises OSError or KeyError where there are none."""
    file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY)
    try:
        return {name: _attr(file, name, cast) for name, (cast, _) in ATTRS.items()}
    finally:
        file.close()


def quick(path: str | Path) -> tuple[dict, dict]:
    """Attributes and windows of one trace; raises at the least oddity.

    Checked as in `trace.check`, but for the units and number types that the schema's version stands for: to open them
    too would take as long as the rest.
    """
    file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, CORE)
    try:
        attrs = {name: _attr(file, name, cast) for name, (cast, _) in ATTRS.items()}
        texts, whole, floats = COLUMNS[attrs["kind"]]
        group = h5g.open(file, b"windows")
        count = h5d.open(group, b"batch").shape[0]
        numbers = np.empty((len(floats), count))
        windows = {name: np.empty(count, object) for name in texts} | {
            name: np.empty(count, np.int64) for name in whole
        }
        windows |= dict(zip(floats, numbers, strict=True))
        memory = h5s.create_simple((count,))
        for kind, names in zip("Uif", (texts, whole, floats), strict=True) if count else ():
            for name in names:  # raises when a dataset is not there or of another size
                h5d.open(group, name.encode()).read(memory, h5s.ALL, windows[name], MEMORY[kind])
        sound = group.get_num_objs() == len(windows) + 1 and all(
            name.encode() in file for name in SCHEMA
        )
    finally:
        file.close()
    for name in texts:
        windows[name] = stack.texts([sys.intern(text.decode()) for text in windows[name]])
    if not (
        sound
        and attrs["schema_version"] == VERSION
        and attrs["status"] in RUN_STATUS
        and not np.isinf(numbers).any()
        and set(windows["phase"]) <= set(PHASES)
        and set(windows["status"]) <= set(WINDOW_STATUS)
    ):
        raise ValueError(path)
    return attrs, windows


def columns(path: str | Path, group: str, kind: str) -> dict[str, np.ndarray]:
    """Samples or steps of one trace; raises one of `ODD` at the least oddity."""
    with h5py.File(path) as file:
        found = {name: file[group][name][()] for name in variables(group, kind)}
        sound = set(file[group]) - {DIMS[group]} == set(found)
    if (
        not sound
        or len({values.shape for values in found.values()}) > 1
        or any(np.isinf(v).any() for v in found.values())
    ):
        raise ValueError(path)
    return found


def read(path: str | Path) -> tuple[dict, dict]:
    """Attributes and windows of one checked trace; raises `Refused` with `trace.load`'s sentence for any other file."""
    try:
        return quick(path)
    except ODD:
        from footprint.trace import file as trace  # slow to import, and seldom needed

        tree = trace.load(path)  # older files and odd ones: slow, but it says what is wrong
        return dict(tree.attrs), {
            name: tree["windows"][name].values for name in tree["windows"].data_vars
        }


def read_all(paths: list[str]) -> dict:
    """The stack of these traces (see `stack`); beyond a thousand files, in a process for each core."""
    if len(paths) < MANY:
        return stack.pile(paths, [_or_reason(path) for path in paths])
    size = -(-len(paths) // min(8, os.cpu_count() or 1))
    parts = [paths[i : i + size] for i in range(0, len(paths), size)]
    children = [_child(part) for part in parts[1:]]
    found = [stack.pile(parts[0], [_or_reason(path) for path in parts[0]])]
    for child in children:
        said = child.communicate()[0]
        if child.returncode:
            raise OSError("A process that reads traces died.")
        found.append(pickle.loads(said))
    return stack.join(found)


def _child(part: list[str]) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-m", "footprint.trace.raw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdin.write(pickle.dumps(part))
    child.stdin.flush()
    return child


def _or_reason(path: str) -> tuple[dict, dict] | str:
    try:
        return read(path)
    except Refused as error:
        return str(error)


if __name__ == "__main__":
    wanted = pickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(pickle.dumps(stack.pile(wanted, [_or_reason(path) for path in wanted])))
