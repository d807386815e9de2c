"""Predictions in the form of a run: the modelled trace of one model on one GPU."""

import json
import math

import xarray as xr

from footprint import __version__, digest, spec
from footprint.predict import model
from footprint.trace import file
from footprint.trace.schema import ATTRS, VERSION


def trace(request: dict) -> xr.DataTree:
    """A modelled trace of one model on one GPU, as `workload.request("predict", ...)` asks for it.

    Windows of prefill, decode and generate for every combination of batches, prompt_tokens and
    output_tokens.
    """
    shape, gpu = spec.model(request["model"]), spec.gpu(request["gpu"])
    names = {"batch": "batches", "prompt": "prompt_tokens", "output": "output_tokens"}
    sizes = {dim: request[name] for dim, name in names.items()}
    about = {name: request[name] for name in ("engine", "dtype")}
    data = model.windows(shape, gpu, **sizes, **about)
    table = data.squeeze(["model", "gpu", "engine"], drop=True).to_dataframe().reset_index()
    points = table.to_dict("records")
    rows = [_window(phase, at) for at in points for phase in ("prefill", "decode", "generate")]
    about |= {"model": shape.id, "seed": int(request["seed"])}
    asked = about | {"gpu": gpu.id} | {name: request[name] for name in names.values()}
    text = json.dumps(asked, sort_keys=True)
    empty = {str: "", int: 0, float: math.nan}
    attrs = {name: empty[cast] for name, (cast, _) in ATTRS.items()} | about
    attrs |= {
        "schema_version": VERSION,
        "kind": "modelled",
        "request": text,
        "run_id": digest(text),
        "status": "ok",
        "revision": "shape only",
        "parameters": shape.parameters,
        "weights": "trained",
        "device": gpu.id,
        "device_name": gpu.name,
        "attention": "modelled",
        "memory_GiB": float(gpu.memory_GiB),
        "software": f"footprint {__version__}",
        "energy_source": "model",
    }
    return file.new("modelled", attrs, rows)


def _window(phase: str, at: dict) -> dict:
    """One window of a modelled trace from the predictions at one point."""
    batch, prompt, steps = int(at["batch"]), int(at["prompt"]), int(at["output"]) - 1
    tokens = {"prefill": prompt, "decode": steps, "generate": steps + 1}
    wide = math.exp(model.parameters()["memory_half_width"])
    row = {
        "phase": phase,
        "batch": batch,
        "prompt_tokens": prompt,
        "output_tokens": steps + 1,
        "repeat": 0,
        "iterations": 1,
        "tokens": batch * tokens[phase],
        "lengths": "grid",
        "memory_B": at["memory_B"],
        "memory_B_low": at["memory_B"] / wide,
        "memory_B_high": at["memory_B"] * wide,
        "status": "ok",
        "reason": "",
    }
    if not at["fits"]:
        reason = "Weights, KV cache and activations do not fit the GPU."
        return row | {"status": "oom", "reason": reason}
    whole = at["ttft_s"] + at["tpot_s"] * steps
    for end in ("", "_low", "_high"):
        time = {"prefill": at[f"ttft_s{end}"], "decode": at[f"tpot_s{end}"] * steps}
        energy = {"prefill": at[f"prefill_energy_J{end}"], "decode": at[f"decode_energy_J{end}"]}
        power = {"prefill": at[f"prefill_power_W{end}"], "decode": at[f"decode_power_W{end}"]}
        mixed = (power["prefill"] * at["ttft_s"] + power["decode"] * at["tpot_s"] * steps) / whole
        row[f"duration_s{end}"] = time.get(phase, sum(time.values()))
        row[f"energy_J{end}"] = energy.get(phase, sum(energy.values()))
        row[f"power_W{end}"] = power.get(phase, mixed)
    return row
