"""Many traces: the files below a folder, and all their windows in one Dataset."""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused
from footprint.trace.reader import load
from footprint.trace.schema import OPTIONAL_ATTRS, notebook


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
            tree = load(path)
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
        except Exception as error:  # sound, but odd in a way that nobody foresaw
            rejected.append(f"{path.name} cannot be used ({type(error).__name__}: {error}).")
    if rejected:
        warnings.warn(
            f"{len(rejected)} files are not valid traces: {' '.join(rejected)}", stacklevel=2
        )
    return joined(found).assign_attrs(rejected=rejected, twice=twice)


def joined(found: list[xr.Dataset]) -> xr.Dataset:
    """Windows of several runs as one Dataset; without any it has no window."""
    if not found:
        return xr.Dataset(coords={"window": []})
    return xr.concat(found, "window", join="outer", combine_attrs="drop")


def labelled(windows: xr.Dataset, attrs: Mapping, path: str | Path) -> xr.Dataset:
    """Windows with the attributes of their run, and where it lies, as coordinates."""
    left_out = {"schema_version", "status", "reason", *OPTIONAL_ATTRS}  # older runs lack some
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
