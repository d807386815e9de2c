"""Thousands of traces at once, kept stacked in one file that cannot go stale."""

import os
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from footprint.trace import file as trace
from footprint.trace import raw, stack
from footprint.trace.schema import ATTRS, KINDS, variables


def gather(folder: str | Path) -> xr.Dataset:
    """What `trace.gather(folder)` gives, at a thousand files a second, and from one stacked file the next time.

    A file is read again when its size, its inode or one of its times has changed, or when it was written so shortly
    before the last reading that its times could not tell. Files that fail the check stand in a warning and in the
    attribute `rejected`; what was found twice in `twice`, exact copies being left out.
    """
    folder = Path(folder)
    paths = trace.names(folder)
    signed, kept = stack.sign(folder, paths), stack.load(folder)
    if list(kept["path"]) != paths or not np.array_equal(kept["sign"], signed):
        kept = _refresh(folder, paths, kept)
    return _dataset(folder, kept)


def _refresh(folder: Path, paths: list[str], kept: dict) -> dict:
    """The stack of these files, what is known of unchanged ones taken over, the rest read; and keep it."""
    now = stack.clock(folder)  # before the files are looked at: what changes later shows
    signed, place = (
        stack.sign(folder, paths),
        {path: index for index, path in enumerate(kept["path"])},
    )
    known = np.array([place.get(path, -1) for path in paths], int)
    if len(kept["path"]):
        known[(kept["sign"][known] != signed).any(axis=1)] = -1
    fresh = np.flatnonzero(known < 0)
    new = raw.read_all([str(folder / paths[i]) for i in fresh])
    new["path"] = stack.texts([paths[i] for i in fresh])
    new["sign"] = stack.trusted(signed[fresh], now)
    known[fresh] = len(kept["path"]) + np.arange(len(fresh))
    kept = stack.take(stack.join([kept, new]), known)
    stack.save(folder, kept)
    return kept


def twice(paths, run_ids, asked, devices) -> tuple[set[int], list[str]]:
    """Indices of exact copies of a run (same id), and a sentence for each of them and for each run made more than once.

    The four arrays say of each run where it lies, its id, what was asked, and of which device.
    """
    first, made, copies, said = {}, {}, set(), []
    for index, (path, run) in enumerate(zip(paths, run_ids, strict=True)):
        if not run:
            continue  # no trace at all
        if first.setdefault(run, index) != index:
            copies.add(index)
            said.append(f"{path} is a copy of {paths[first[run]]} and is left out.")
        elif made.setdefault((asked[index], devices[index]), index) != index:
            said.append(
                f"{path} repeats {paths[made[asked[index], devices[index]]]}: same request, same device."
            )
    return copies, said


def _dataset(folder: Path, kept: dict) -> xr.Dataset:
    """The Dataset of a stack: windows with the attributes of their runs as coordinates."""
    rejected = [reason for reason in kept["reason"] if reason]
    if rejected:
        warnings.warn(
            f"{len(rejected)} files are not valid traces: {' '.join(rejected)}", stacklevel=3
        )
    copies, doubled = twice(
        kept["path"], kept["attr:run_id"], kept["attr:request"], _identity(kept)
    )
    runs = np.array(
        [i for i in range(len(kept["path"])) if not kept["reason"][i] and i not in copies], int
    )
    kinds = [kind for kind in KINDS if (kept["attr:kind"][runs] == kind).any()]
    if not kinds:
        return xr.Dataset(coords={"window": []}, attrs={"rejected": rejected, "twice": doubled})
    parts = [_of_kind(folder, kept, kind, runs) for kind in kinds]
    data = (
        parts[0]
        if len(parts) == 1
        else xr.concat(parts, "window", join="outer", combine_attrs="drop")
    )
    if len(parts) > 1:
        data = data.isel(window=np.argsort(data["file"].values, kind="stable"))
    return data.assign_attrs(rejected=rejected, twice=doubled)


def _identity(kept: dict) -> np.ndarray:
    return np.where(kept["attr:device_hash"] == "", kept["attr:device"], kept["attr:device_hash"])


def _of_kind(folder: Path, kept: dict, kind: str, runs: np.ndarray) -> xr.Dataset:
    count = np.where(kept["attr:kind"][runs] == kind, kept["count"][runs], 0)
    run = np.repeat(runs, count)
    named = {"status": "run_status", "reason": "run_reason"}
    attrs = {
        named.get(name, name): kept[f"attr:{name}"] for name in ATTRS if name != "schema_version"
    }
    attrs["file"] = stack.texts([f"{folder}{os.sep}{path}" for path in kept["path"]])
    at = slice(None) if len(runs) == len(kept["path"]) else stack.rows(kept, kind, runs)
    columns = {
        name: _along(kept[f"{kind}:{name}"], at, trace.described("windows", spec))
        for name, spec in variables("windows", kind).items()
    }
    return xr.Dataset(
        columns, {name: _along(stack.Picked(values, run)) for name, values in attrs.items()}
    )


def _along(values, at: slice | np.ndarray = slice(None), attrs: dict | None = None) -> xr.Variable:
    """A variable along the windows, whose values are picked or read from the file when they are looked at."""
    lazy = Later(stack.Picked(values, at) if isinstance(at, np.ndarray) else values)
    return xr.Variable("window", indexing.LazilyIndexedArray(lazy), attrs)


class Later(BackendArray):
    """What xarray asks of an array that is not in memory yet."""

    def __init__(self, values):
        self.values, self.dtype, self.shape = values, values.dtype, values.shape

    def __getitem__(self, key: indexing.ExplicitIndexer):
        support = indexing.IndexingSupport.VECTORIZED
        return indexing.explicit_indexing_adapter(
            key, self.shape, support, lambda at: self.values[at[0]]
        )
