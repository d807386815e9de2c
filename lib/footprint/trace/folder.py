"""Many traces: the files below a folder, and all their windows in one Dataset."""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import xarray as xr
from h5py import h5a, h5d, h5f, h5g, h5p, h5s, h5t

from footprint import Refused
from footprint.trace import file
from footprint.trace.schema import ATTRS, DIMS, OPTIONAL_ATTRS, SCHEMA, VERSION, notebook, variables

CORE = h5p.create(h5p.FILE_ACCESS)  # reads the file at once: it is small, and its pieces lie apart
CORE.set_fapl_core(2**16, False)
TEXT = h5t.py_create(h5py.string_dtype())  # Python's own objects: bytes
NATIVE = {"U": (TEXT, object), "i": (h5t.NATIVE_INT64, np.int64), "f": (h5t.NATIVE_DOUBLE, float)}
LETTER = {str: "U", int: "i", float: "f"}
ODD = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


def names(folder: str | Path) -> list[str]:
    """The traces below `folder`, relative to it and sorted, without hidden (unfinished) ones."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = "" if here == str(folder) else os.path.relpath(here, folder) + os.sep
        visible = [name for name in files if name.endswith(".nc") and not name.startswith(".")]
        found += [inside + name for name in visible]
    return sorted(found, key=lambda name: name.split(os.sep))


def files(folder: str | Path) -> list[Path]:
    """Paths of the traces below `folder` (see `names`)."""
    return [Path(folder, name) for name in names(folder)]


def head(path: str | Path) -> dict:
    """Root attributes of a trace, unchecked; OSError or KeyError where there are none."""
    opened = h5f.open(os.fsencode(path), h5f.ACC_RDONLY)
    try:
        return _attrs(opened)
    finally:
        opened.close()


def read(path: str | Path) -> xr.DataTree:
    """What `trace.load` gives, many times faster for a sound trace of this schema.

    Units and number types are taken to be those that the schema's version stands for. Any other
    file is left to `trace.load`, whose sentence says what is wrong with it.
    """
    try:
        opened = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, CORE)
        try:
            attrs = _attrs(opened)
            if attrs["schema_version"] != VERSION:
                raise ValueError
            groups = {name: _columns(opened, name, attrs["kind"]) for name in SCHEMA}
        finally:
            opened.close()
        return file.check(file.tree(attrs, groups))
    except ODD:
        return file.load(path)


def _attrs(opened: h5f.FileID) -> dict:
    return {
        name: _values(h5a.open(opened, name.encode()), LETTER[cast]).reshape(())[()]
        for name, (cast, _) in (ATTRS | OPTIONAL_ATTRS).items()
        if name in ATTRS or h5a.exists(opened, name.encode())
    }


def _columns(opened: h5f.FileID, group: str, kind: str) -> dict[str, np.ndarray]:
    known, place = variables(group, kind), h5g.open(opened, group.encode())
    if place.get_num_objs() != len(known) + (DIMS[group].encode() in place):
        raise ValueError
    return {
        name: _values(h5d.open(place, name.encode()), variable.dtype)
        for name, variable in known.items()
    }


def _values(item: h5a.AttrID | h5d.DatasetID, letter: str) -> np.ndarray:
    """All values of an attribute or a dataset."""
    stored, dtype = NATIVE[letter]
    values = np.empty(item.shape, dtype)
    if isinstance(item, h5a.AttrID):
        item.read(values, stored)
    elif values.size:
        item.read(h5s.ALL, h5s.ALL, values, stored)
    if letter == "U":
        values = np.array([text.decode() for text in values.flat], object).reshape(item.shape)
    return values


def gather(
    folder: str | Path, each: Callable = lambda tree: tree["windows"].to_dataset()
) -> xr.Dataset:
    """One Dataset along `window` of all traces below `folder`; coordinates tell the runs.

    `each` gives the windows of one trace (`energy.gather` derives energies there). Files that fail
    the check are named in a warning and in the attribute `rejected`. An exact copy of a run is left
    out; it, and a run that repeats another's request on the same device, are named in `twice`.
    Without any trace the result has no window.
    """
    found, rejected, twice = [], [], []
    first: dict = {}  # run id, or request and device -> name of the first file that has it
    for name in names(folder):
        path = Path(folder, name)
        try:
            tree = read(path)
            run = tree.attrs
            copied = first.setdefault(run["run_id"] or name, name)
            if copied != name:
                twice.append(f"{name} is a copy of {copied} and is left out.")
                continue
            asked = (run["request"] or name, run["device_hash"] or run["device"])
            repeated = first.setdefault(asked, name)
            if repeated != name:
                twice.append(f"{name} repeats {repeated}: same request, same device.")
            found.append(labelled(each(tree), run, path))
        except Refused as error:
            rejected.append(str(error))
    if rejected:
        warnings.warn(
            f"{len(rejected)} files are not valid traces: {' '.join(rejected)}", stacklevel=2
        )
    data = xr.Dataset(coords={"window": []})
    if found:
        data = xr.concat(found, "window", join="outer", combine_attrs="drop")
    return data.assign_attrs(rejected=rejected, twice=twice)


def labelled(windows: xr.Dataset, attrs: Mapping, path: str | Path) -> xr.Dataset:
    """Windows with the attributes of their run, and where it lies, as coordinates."""
    left_out = ("schema_version", "status", "reason")
    run = {key: value for key, value in attrs.items() if key not in left_out}
    run |= {"run_status": attrs["status"], "run_reason": attrs["reason"], "file": str(path)}
    run["notebook"] = notebook(attrs)
    count = windows.sizes["window"]
    return windows.assign_coords(
        {
            key: ("window", np.full(count, value, object if isinstance(value, str) else None))
            for key, value in run.items()
        }
    )


def frame(data: xr.Dataset) -> pd.DataFrame:
    """The windows as a table, one row each, run coordinates as columns."""
    return data.reset_coords().to_dataframe().reset_index(drop=True)
