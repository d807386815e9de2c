"""The trace: one NetCDF file a run, an xarray DataTree of root attributes and groups. Stored is what was observed."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused
from footprint.trace.schema import (
    ATTRS,
    DIMS,
    KINDS,
    NUMPY,
    PHASES,
    RUN_STATUS,
    SCHEMA,
    VERSION,
    WINDOW_STATUS,
    variables,
)

NOTHING: Mapping = {}


def new(
    kind: str,
    attrs: Mapping,
    windows: Iterable[Mapping],
    samples: Mapping = NOTHING,
    steps: Mapping = NOTHING,
) -> xr.DataTree:
    """A checked trace from root attributes, one mapping a window, and arrays of samples and steps.

    Left out are only float values, which become NaN, and texts and counts, which become empty and 0.
    """
    empty = {"U": "", "i": 0, "f": np.nan}
    windows = list(windows)
    columns = {
        "windows": {
            name: [window.get(name, empty[spec[0]]) for window in windows]
            for name, spec in variables("windows", kind).items()
        },
        "samples": _filled(samples, variables("samples", kind), empty),
        "steps": _filled(steps, variables("steps", kind), empty),
    }
    groups = {"/": xr.Dataset(attrs={"schema_version": VERSION, "kind": kind, **attrs})}
    for group, arrays in columns.items():
        known = variables(group, kind)
        groups[f"/{group}"] = xr.Dataset(
            {
                name: (
                    DIMS[group],
                    np.asarray(values, dtype=NUMPY[known[name][0]]),
                    described(group, known[name]),
                )
                for name, values in arrays.items()
            }
        )
    return check(xr.DataTree.from_dict(groups))


def _filled(given: Mapping, known: Mapping, empty: Mapping) -> dict:
    length = max((len(values) for values in given.values()), default=0)
    return {
        name: given[name] if name in given else [empty[spec[0]]] * length
        for name, spec in known.items()
    }


def described(group: str, spec: tuple[str, str, str, str]) -> dict:
    """Attributes that a variable with this entry in the schema has."""
    level = {"interval_level": 0.9} if "quantile" in spec[3] else {}
    return {"units": spec[1], "long_name": spec[2], **level}


def check(tree: xr.DataTree, name: str = "the trace") -> xr.DataTree:
    """The same tree if it follows the schema; raises `Refused` that names the variable and the file if not."""
    version = tree.attrs.get("schema_version")
    if version is None or int(version) > VERSION:
        raise Refused(f"{name} has schema version {version}; versions up to {VERSION} are allowed.")
    kind = tree.attrs.get("kind")
    allowed = {"kind": KINDS, "status": RUN_STATUS}
    for key, (cast, _) in ATTRS.items():
        value = tree.attrs.get(key)
        fits = (
            isinstance(value, str)
            if cast is str
            else np.isscalar(value) and not isinstance(value, str | bool)
        )
        if not fits or value not in allowed.get(key, (value,)):
            raise Refused(f"{name}: the attribute {key} is {value!r}; {ATTRS[key][1]} is allowed.")
    for group in SCHEMA:
        if group not in tree.children:
            raise Refused(f"{name} has no group {group!r}.")
        _check_group(tree[group].to_dataset(), group, kind, name)
    index = tree["steps"]["window"].values if "window" in tree["steps"] else np.array([], dtype=int)
    if index.size and not (index.min() >= 0 and index.max() < tree["windows"].sizes["window"]):
        raise Refused(f"{name}: steps/window points to a window that is not there.")
    return tree


def _check_group(data: xr.Dataset, group: str, kind: str, name: str) -> None:
    known = variables(group, kind)
    for variable in [*known, *data.variables]:
        if variable not in data.variables:
            raise Refused(f"{name}: the variable {group}/{variable} is missing.")
        if variable not in known:
            raise Refused(f"{name}: the variable {group}/{variable} is not in the schema.")
        values = data[variable]
        wanted, units = known[variable][:2]
        if values.dims != (DIMS[group],):
            raise Refused(
                f"{name}: {group}/{variable} has dimensions {values.dims}; ({DIMS[group]!r},) is allowed."
            )
        if {"U": "OUT", "i": "iu", "f": "f"}[wanted].find(values.dtype.kind) < 0:
            raise Refused(
                f"{name}: {group}/{variable} holds {values.dtype}; {NUMPY[wanted].__name__} is allowed."
            )
        if wanted != "U" and values.attrs.get("units") != units:
            raise Refused(
                f"{name}: {group}/{variable} has units {values.attrs.get('units')!r}; {units!r} is allowed."
            )
        if wanted == "f" and np.isinf(values.values).any():
            raise Refused(
                f"{name}: {group}/{variable} holds an infinite value; finite values and NaN are allowed."
            )
    for variable, words in (("phase", PHASES), ("status", WINDOW_STATUS)):
        wrong = set(data[variable].values) - set(words) if group == "windows" else set()
        if wrong:
            raise Refused(
                f"{name}: windows/{variable} holds {str(min(wrong))!r}; allowed are {', '.join(words)}."
            )


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a checked trace so that `path` holds all of it or is left as it was (temporary file, fsync, rename)."""
    path = Path(path)
    check(tree, path.name)
    encoding = {
        f"/{group}": {v: {"zlib": True} for v in tree[group].data_vars if _pays(tree[group][v])}
        for group in SCHEMA
    }
    return whole(
        path, lambda temporary: tree.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
    )


def _pays(values: xr.DataArray) -> bool:
    """Whether to compress: a short array would only grow by what says how, and open later."""
    return values.dtype.kind in "if" and values.size > 512


def whole(path: Path, write: Callable[[str], object]) -> Path:
    """Let `write` make the file at `path`, which then holds all of it or is left as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.close(handle)
        write(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def place(tree: xr.DataTree, folder: str | Path) -> Path:
    """Where a trace lives below a folder of runs: `<device>/<model>-<engine>-<dtype>[-modelled].nc`."""
    run = tree.attrs
    ending = "-modelled" if run["kind"] == "modelled" else ""
    return (
        Path(folder) / run["device"] / f"{run['model']}-{run['engine']}-{run['dtype']}{ending}.nc"
    )


def load(path: str | Path) -> xr.DataTree:
    """The checked trace in this file, in memory. Raises `Refused` when there is none or when it breaks the schema."""
    path = Path(path)
    if not path.is_file():
        raise Refused(f"There is no trace at {path}.")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            tree = tree.load()
    except (OSError, ValueError, KeyError) as error:
        raise Refused(
            f"{path.name} is not a trace in NetCDF ({str(error).splitlines()[0]})."
        ) from None
    return check(tree, path.name)


def names(folder: str | Path) -> list[str]:
    """The traces below `folder`, relative to it and sorted. What is hidden is left out: it is not finished."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = "" if here == str(folder) else os.path.relpath(here, folder) + os.sep
        found += [
            inside + name for name in files if name.endswith(".nc") and not name.startswith(".")
        ]
    return sorted(found, key=lambda name: name.split(os.sep))


def files(folder: str | Path) -> list[Path]:
    """Paths of the traces below `folder` (see `names`)."""
    return [Path(folder, name) for name in names(folder)]


def gather(
    folder: str | Path,
    each: Callable = lambda tree: tree["windows"].to_dataset(),
    read: Callable = load,
) -> xr.Dataset:
    """One Dataset along `window` over all traces below `folder`, run attributes as coordinates of the windows.

    `each` gives the windows of one trace (`energy.gather` derives energies there) that `read` has opened. Files that fail
    the check are named in a warning and in the attribute `rejected`, never hidden; without any trace the result has no window.
    """
    found, rejected = [], []
    for path in files(folder):
        try:
            tree = read(path)
            found.append(labelled(each(tree), tree.attrs, path))
        except Refused as error:
            rejected.append(str(error))
    if rejected:
        warnings.warn(
            f"{len(rejected)} files are not valid traces: {' '.join(rejected)}", stacklevel=2
        )
    if not found:
        return xr.Dataset(coords={"window": []}, attrs={"rejected": rejected})
    return xr.concat(found, "window", join="outer", combine_attrs="drop").assign_attrs(
        rejected=rejected
    )


def labelled(windows: xr.Dataset, attrs: Mapping, path: str | Path) -> xr.Dataset:
    """Windows with the attributes of their run, and where it lies, as coordinates."""
    run = {
        key: value
        for key, value in attrs.items()
        if key not in ("schema_version", "status", "reason")
    }
    run |= {"run_status": attrs["status"], "run_reason": attrs["reason"], "file": str(path)}
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
