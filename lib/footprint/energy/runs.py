"""All runs at hand: their list, the closure of their phases, and those of processors."""

import warnings
from pathlib import Path

import pandas as pd
import xarray as xr

from footprint import root
from footprint.energy.point import from_processor
from footprint.energy.window import gather
from footprint.trace import frame, joined

FOLDERS = {"runs": "committed", "local": "this machine"}  # below notebooks/ -> place
RUN = ["file", "place", "kind", "device_name", "model", "engine", "dtype", "weights"]
RUN += ["run_status", "energy_source", "start_utc"]
LENGTHS = ["prompt_tokens", "output_tokens"]
PROBED = {"read_bandwidth_GBps": "bandwidth", "matmul_GFLOPs": "matmul"}


def gather_runs(notebooks: str | Path | None = None) -> xr.Dataset:
    """Windows of all runs below `notebooks/`; `place` is `committed` or `this machine`.

    The attribute `rejected` names the files that cannot be used, without a warning.
    """
    found, rejected = [], []
    for folder, place in FOLDERS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data = gather(Path(notebooks or root() / "notebooks", folder))
        rejected += data.attrs["rejected"]
        if data.sizes["window"]:
            found.append(data.assign_coords(place=("window", [place] * data.sizes["window"])))
    return joined(found).assign_attrs(rejected=rejected)


def list_runs(data: xr.Dataset) -> pd.DataFrame:
    """One row a run: its file, place, model, device, start, end and number of windows."""
    rows = frame(data).reindex(columns=RUN)
    table = rows.groupby(RUN, sort=False).size().reset_index(name="windows")
    return table.rename(columns=lambda name: name.replace("_", " "))


def closure(data: xr.Dataset) -> pd.DataFrame:
    """Time of prefill plus decode over that of generate, for each measured point and repeat.

    A check of the protocol, never a correction. Disturbed windows are left out: other processes
    disturb the three phases unevenly.
    """
    keys = ["model", "device", "engine", "place", "batch", *LENGTHS, "repeat"]
    rows = frame(data).reindex(columns=[*keys, "kind", "phase", "status", "time_per_iteration_s"])
    rows = rows[(rows["kind"] == "measured") & rows["status"].isin(["ok", "throttled"])]
    wide = rows.pivot_table(index=keys, columns="phase", values="time_per_iteration_s")
    wide = wide.reindex(columns=["prefill", "decode", "generate"]).dropna()
    return wide.assign(closure=(wide["prefill"] + wide["decode"]) / wide["generate"]).reset_index()


def processors(data: xr.Dataset) -> pd.DataFrame:
    """Measured decode at batch 1 without a GPU, one row a run: the shortest prompt of the grid.

    time_s is the median over repeats of all decode steps; tokens_per_s its rate, with `least` and
    `most` over the repeats; bandwidth (GB/s) and matmul (GFLOP/s) are what the run probed;
    compile_s are the seconds that the decode step was compiled for.
    """
    keys = ["model", "device", "engine", "dtype", "weights", "place", *LENGTHS]
    properties = ["parameters", "memory_GiB", *PROBED]
    columns = [
        *keys,
        *properties,
        "kind",
        "phase",
        "batch",
        "lengths",
        "device_hash",
        "energy_source",
    ]
    rows = frame(data).reindex(columns=[*columns, "time_per_iteration_s", "compile_s"])
    decode = (rows["phase"] == "decode") & (rows["batch"] == 1) & (rows["lengths"] == "grid")
    rows = rows[from_processor(rows) & decode & (rows["read_bandwidth_GBps"] > 0)]
    groups = rows.groupby(keys, sort=False)
    times = groups["time_per_iteration_s"].agg(["median", "min", "max"])
    table = times.join(groups[properties].median()).join(groups["compile_s"].max()).reset_index()
    table = table.sort_values("prompt_tokens", kind="stable")
    table = table.groupby(keys[: keys.index("place") + 1]).head(1)
    steps = table["output_tokens"] - 1
    table = table.assign(
        tokens_per_s=steps / table["median"], least=steps / table["max"], most=steps / table["min"]
    )
    return table.rename(columns={"median": "time_s", **PROBED}).drop(columns=["min", "max"])
