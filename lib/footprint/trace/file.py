"""The trace: one NetCDF file a run that holds what was observed, and nothing derived."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from footprint import Refused
from footprint.trace import schema
from footprint.trace.schema import DIMS, NUMPY, SCHEMA, Variable, variables

NOTHING: Mapping = {}
EMPTY = {"U": "", "i": 0, "f": np.nan}
UNKNOWN = {"U": "", "i": -1, "f": np.nan}
TYPES = {"U": "OUT", "i": "iu", "f": "f"}  # kinds of NumPy's types that a variable may have


def new(
    kind: str,
    attrs: Mapping,
    windows: Iterable[Mapping],
    samples: Mapping = NOTHING,
    steps: Mapping = NOTHING,
) -> xr.DataTree:
    """A checked trace from root attributes, one mapping a window, and arrays of samples and steps.

    What is left out becomes NaN (floats), 0 (whole numbers) or empty (texts). The key `pauses` of a
    window holds the starts and stops of its pauses.
    """
    windows = list(windows)
    ends = [(at, *pause) for at, window in enumerate(windows) for pause in window.get("pauses", ())]
    pauses = dict(zip(("window", "start_s", "stop_s"), zip(*ends, strict=True), strict=False))
    groups = {
        "windows": {
            name: [window.get(name, EMPTY[variable.dtype]) for window in windows]
            for name, variable in variables("windows", kind).items()
        }
    }
    for group, arrays in (("samples", samples), ("steps", steps), ("pauses", pauses)):
        length = max(map(len, arrays.values()), default=0)
        groups[group] = {
            name: arrays.get(name, np.full(length, EMPTY[variable.dtype]))
            for name, variable in variables(group, kind).items()
        }
    return check(tree({"schema_version": schema.VERSION, "kind": kind, **attrs}, groups))


def tree(attrs: Mapping, groups: Mapping[str, Mapping]) -> xr.DataTree:
    """A trace of root attributes and of the columns of each group, not checked."""
    datasets = {"/": xr.Dataset(attrs=attrs)}
    for group, columns in groups.items():
        known = variables(group, attrs["kind"])
        datasets[f"/{group}"] = xr.Dataset(
            {
                name: (DIMS[group], np.asarray(values, NUMPY[known[name].dtype]), known[name].attrs)
                for name, values in columns.items()
            }
        )
    return xr.DataTree.from_dict(datasets)


def check(tree: xr.DataTree, name: str = "the trace") -> xr.DataTree:
    """The same tree if it follows the schema; else `Refused` names the file and the variable."""
    check_attrs(tree.attrs, name)
    for group in SCHEMA:
        if group not in tree.children:
            if group in schema.LATER:
                continue
            raise Refused(f"{name} has no group {group!r}.")
        data, known = tree[group].to_dataset(), variables(group, tree.attrs["kind"])
        for variable in [*known, *data.variables]:
            if variable not in data.variables:
                if variable in schema.LATER:
                    continue
                raise Refused(f"{name}: the variable {group}/{variable} is missing.")
            if variable not in known:
                raise Refused(f"{name}: the variable {group}/{variable} is not in the schema.")
            fault = _fault(data[variable], DIMS[group], known[variable])
            if fault:
                raise Refused(f"{name}: {group}/{variable} {fault}")
    for variable, words in (("phase", schema.PHASES), ("status", schema.WINDOW_STATUS)):
        wrong = set(tree["windows"][variable].values) - set(words)
        if wrong:
            raise Refused(
                f"{name}: windows/{variable} holds {str(min(wrong))!r}; "
                f"allowed are {', '.join(words)}."
            )
    for group in ("steps", "pauses"):
        data = tree[group].to_dataset() if group in tree.children else {}
        index = data["window"].values if "window" in data else np.empty(0)
        if index.size and not (index.min() >= 0 and index.max() < tree["windows"].sizes["window"]):
            raise Refused(f"{name}: {group}/window points to a window that is not there.")
    return tree


def check_attrs(attrs: Mapping, name: str) -> None:
    """Raise `Refused` unless the root attributes follow the schema."""
    version = attrs.get("schema_version")
    if not isinstance(version, int | np.integer) or version > schema.VERSION:
        raise Refused(
            f"{name} has schema version {version}; versions up to {schema.VERSION} are allowed."
        )
    allowed = {"kind": schema.KINDS, "status": schema.RUN_STATUS}
    present = {key: spec for key, spec in schema.OPTIONAL_ATTRS.items() if key in attrs}
    for key, (cast, meaning) in (schema.ATTRS | present).items():
        value = attrs.get(key)
        text = isinstance(value, str)
        number = np.isscalar(value) and not isinstance(value, str | bool)
        if not (text if cast is str else number) or value not in allowed.get(key, (value,)):
            raise Refused(f"{name}: the attribute {key} is {value!r}; {meaning} is allowed.")
        if key in schema.WORDS and not schema.WORD.fullmatch(value):
            signs = "letters, digits, spaces and . + / ( ) - are allowed"
            raise Refused(f"{name}: the attribute {key} is {value!r:.80}; {signs}.")


def complete(tree: xr.DataTree) -> xr.DataTree:
    """The same tree with the variables that were not yet known when its file was written."""
    for group in SCHEMA:
        known = variables(group, tree.attrs["kind"])
        if group not in tree.children:
            tree[group] = xr.DataTree()
        for name in [name for name in known if name not in tree[group].data_vars]:
            size, kind = tree[group].sizes.get(DIMS[group], 0), known[name].dtype
            values = np.full(size, UNKNOWN[kind], NUMPY[kind])
            tree[group][name] = xr.Variable(DIMS[group], values, known[name].attrs)
    return tree


def _fault(values: xr.DataArray, dim: str, wanted: Variable) -> str:
    """What is wrong with a variable, as the end of a sentence; empty when nothing is."""
    units = values.attrs.get("units")
    if values.dims != (dim,):
        return f"has dimensions {values.dims}; ({dim!r},) is allowed."
    if values.dtype.kind not in TYPES[wanted.dtype]:
        return f"holds {values.dtype}; {NUMPY[wanted.dtype].__name__} is allowed."
    if wanted.dtype != "U" and units != wanted.units:
        return f"has units {units!r}; {wanted.units!r} is allowed."
    if wanted.dtype == "f" and np.isinf(values.values).any():
        return "holds an infinite value; finite values and NaN are allowed."
    return ""


def checksum(tree: xr.DataTree) -> str:
    """Hash of all attributes but itself and of all values of a trace."""
    attrs = {name: value for name, value in tree.attrs.items() if name != "checksum"}
    found = hashlib.sha256(
        repr(sorted((name, str(value)) for name, value in attrs.items())).encode()
    )
    for group in [group for group in SCHEMA if group in tree.children]:
        for name, values in sorted(tree[group].data_vars.items()):
            found.update(f"{group}/{name} {values.size} ".encode())
            text = values.dtype.kind not in "if"
            data = repr(values.values.tolist()).encode() if text else values.values.tobytes()
            found.update(data)
    return found.hexdigest()


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a checked trace with its checksum, whole or not at all (see `whole`)."""
    path = Path(path)
    check(tree, path.name)
    tree = tree.copy(deep=False)
    tree.attrs = {**tree.attrs, "checksum": checksum(tree)}
    encoding = {
        f"/{group}": {
            name: {"zlib": True}
            for name, values in tree[group].data_vars.items()
            if values.dtype.kind in "if" and values.size > 512  # a shorter array would grow
        }
        for group in tree.children
    }
    return whole(path, lambda name: tree.to_netcdf(name, engine="h5netcdf", encoding=encoding))


def whole(path: Path, write: Callable[[str], object]) -> Path:
    """Let `write` make the file at `path`, which then holds all of it or is left as it was.

    A temporary file is written, synchronised and renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o666))  # the umask counts
    try:
        write(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def place(tree: xr.DataTree, folder: str | Path) -> Path:
    """Where a trace lies in a folder: `<device>/<model>-<engine>-<dtype>[-modelled].nc`."""
    run, ending = tree.attrs, "-modelled" if tree.attrs["kind"] == "modelled" else ""
    name = "-".join([run["model"], run["engine"], run["dtype"]])
    return Path(folder, run["device"], f"{name}{ending}.nc")
