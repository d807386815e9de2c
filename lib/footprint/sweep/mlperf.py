"""An export in the field names that MLPerf inference issue 2558 proposes: one record a point of one measured run."""

import json
import math
from pathlib import Path

import numpy as np
import xarray as xr

from footprint import Refused
from footprint.energy import window as energy
from footprint.trace import file as trace

METHODS = {"nvml_counter": "nvml", "nvml_instant": "nvml", "nvml_average": "nvml"}
POINT = ["batch", "prompt_tokens", "output_tokens"]


def records(tree: xr.DataTree) -> list[dict]:
    """Records of the points of a measured run; an energy that nobody measured is None, and `reason` says why.

    prefill_energy_joules and generation_energy_joules (the decode phase) are medians over repeats of one iteration of the
    whole batch, each measured in windows of its own; total_energy_joules is that of `generate`, measured too.
    Raises `Refused` for a modelled run: the proposal is about measurements.
    """
    if tree.attrs["kind"] != "measured":
        raise Refused(
            f"{tree.attrs['model']} on {tree.attrs['device']} is modelled; MLPerf's fields are for measured runs."
        )
    table = trace.frame(energy.windows(tree))
    table = table[table["batch"] > 0].assign(
        joules=lambda rows: rows["energy_J"] / rows["iterations"].where(rows["iterations"] > 0)
    )
    return [
        _record(tree.attrs, dict(zip(POINT, point, strict=True)), rows)
        for point, rows in table.groupby(POINT)
    ]


def _record(run: dict, point: dict, rows) -> dict:
    phases = dict(list(rows.groupby("phase")))
    joules = {
        name: phases[name]["joules"].median() if name in phases else math.nan
        for name in ("prefill", "decode", "generate")
    }
    whole = phases.get("generate", rows.iloc[:0])
    per_token = whole["energy_per_token_J"].dropna()
    record = {
        "prefill_energy_joules": joules["prefill"],
        "generation_energy_joules": joules["decode"],
        "total_energy_joules": joules["generate"],
        "energy_per_token_joules": {"mean": per_token.mean(), "std": per_token.std()},
        "gpu_power_draw_watts": {"mean": whole["power_W"].mean()},
        "output_token_count": point["batch"] * point["output_tokens"],
        "batch_size": point["batch"],
        "input_sequence_length": point["prompt_tokens"],
        "output_sequence_length": point["output_tokens"],
        "scenario": "singlestream" if point["batch"] == 1 else "offline",
        "measurement_method": METHODS.get(run["energy_source"]),
        "energy_source": run["energy_source"],
        "sampling_rate_hz": rows["sampling_rate_hz"].median(),
        "thermal_stabilization_seconds": rows["warmup_s"].max(),
        "repeats": int(rows["repeat"].nunique()),
        "model": run["model"],
        "device": run["device_name"],
        "reason": ", ".join(sorted(set(rows["energy_status"]) - {"ok"})),
    }
    return {key: _plain(value) for key, value in record.items()}


def _plain(value):
    """A value as JSON knows it: NaN is None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def write(tree: xr.DataTree, path: str | Path) -> Path:
    """The records as a JSON file."""
    text = json.dumps(records(tree), indent=1, allow_nan=False) + "\n"
    return trace.whole(
        Path(path), lambda temporary: Path(temporary).write_text(text, encoding="utf-8")
    )
