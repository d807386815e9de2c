"""The analytic GPU model: time, power, energy and memory of serving a model on a card that nobody here owns."""

import hashlib
import json
import math
from collections.abc import Iterable
from functools import cache

import numpy as np
import xarray as xr

from footprint import Refused, roofline, spec, trace

DIMS = ("model", "gpu", "engine", "batch", "prompt", "output")


@cache
def parameters() -> dict[str, float]:
    """The fitted parameters of `data/parameters.csv` by name."""
    return {row["name"]: float(row["value"]) for row in spec.table("parameters")}


def card_from_probe(
    name: str, bandwidth_GBps: float, matmul_gflops: float, memory_GiB: float, cap_W: float = math.nan
) -> spec.GPU:
    """A processor as a card, from what it reached in a run of its own; its power is unknown and stays NaN.

    bandwidth_GBps: GB/s that a matrix-vector product read; matmul_gflops: GFLOP/s of a square matrix product, both in
    the dtype that shall be predicted. Reached rates are used as they are: no share of them is taken off.
    """
    return spec.GPU(
        id=name, name=name, peak_fp16_tflops=matmul_gflops / 1e3, bandwidth_GBps=bandwidth_GBps, memory_GiB=memory_GiB,
        memory_type="probed", tdp_W=1.0, die_mm2=1.0, node="unknown",
    )  # fmt: skip


def _several(items, read, kind) -> list:
    items = [items] if isinstance(items, str | kind) or not isinstance(items, Iterable) else list(items)
    return [item if isinstance(item, kind) else read(item) for item in items]


def _counts(name: str, values) -> np.ndarray:
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if array.ndim != 1 or not (np.isfinite(array) & (array >= 1)).all():
        raise Refused(f"{name} = {values!s:.80} is refused; finite numbers of 1 or more are allowed.")
    return array


def _engines(engine) -> list[str]:
    names = [engine] if isinstance(engine, str) else list(engine)
    for name in names:
        if name not in roofline.ENGINES:
            raise Refused(f"The engine {name!r} is unknown; allowed are {', '.join(roofline.ENGINES)}.")
    return names


def _axis(values, position: int):
    return np.reshape(values, [-1 if i == position else 1 for i in range(len(DIMS))])


def windows(model, gpu, *, batch, prompt, output, engine="eager", dtype="fp16", context=None) -> xr.Dataset:
    """Time, power, energy and memory of every combination, dims (model, gpu, engine, batch, prompt, output)."""
    p = parameters()
    spec.bytes_of(dtype)
    models, gpus = _several(model, spec.model, spec.Model), _several(gpu, spec.gpu, spec.GPU)
    engines = _engines(engine)
    sizes = {"batch": _counts("batch", batch), "prompt": _counts("prompt", prompt), "output": _counts("output", output)}
    m = roofline.Shapes(*(_axis(array, 0) for array in roofline.shapes(models)))
    g = roofline.Cards(*(_axis(array, 1) for array in roofline.cards(gpus, p)))
    e = _axis([roofline.ENGINES.index(name) for name in engines], 2)
    b, new, out = (_axis(array, 3 + i) for i, array in enumerate(sizes.values()))
    r = roofline.rates(p, m, g, e, dtype)
    prefill = roofline.run(p, m, r, b, new, 0.0)
    decode = roofline.run(p, m, r, b, 1.0, new + np.maximum(out - 2, 0) / 2)
    kept = np.maximum(new + out, context or 0)
    memory = roofline.memory(p, m, r, b, new, kept)
    values = {"ttft_s": prefill.time + r.request_s, "tpot_s": decode.time}
    values |= {"prefill_power_W": roofline.power(p, g, r, prefill), "decode_power_W": roofline.power(p, g, r, decode)}
    values["prefill_energy_J"] = values["prefill_power_W"] * values["ttft_s"]
    values["decode_energy_J"] = values["decode_power_W"] * values["tpot_s"] * (out - 1)
    full = {}
    for name, value in values.items():
        full |= {name: value, f"{name}_low": value * np.exp(-0.3), f"{name}_high": value * np.exp(0.3)}
    full |= {"memory_B": memory, "fits": memory <= roofline.usable(g)}
    shape = np.broadcast_shapes(*(np.shape(value) for value in full.values()))
    data = {name: (DIMS, np.broadcast_to(value, shape)) for name, value in full.items()}
    labels = {"model": [item.id for item in models], "gpu": [item.id for item in gpus], "engine": engines, **sizes}
    return xr.Dataset(data, labels, {"kind": "modelled", "dtype": dtype})


def largest_batch(model, gpu, *, prompt, output, engine="eager", dtype="fp16") -> xr.DataArray:
    """Largest batch whose weights, KV cache and activations fit, dims (model, gpu, engine, prompt, output); 0: none."""
    two = windows(model, gpu, batch=[1, 2], prompt=prompt, output=output, engine=engine, dtype=dtype)
    one, each = two.memory_B.isel(batch=0), two.memory_B.diff("batch").isel(batch=0)
    gpus = _several(gpu, spec.gpu, spec.GPU)
    room = xr.DataArray(roofline.usable(roofline.cards(gpus, parameters())), dims="gpu", coords={"gpu": two.gpu})
    return np.floor((room - one) / each + 1).clip(0).astype(int).drop_vars("batch", errors="ignore")


def tree(model, gpu, *, engine="eager", dtype="fp16", batches, prompts, outputs, seed=0) -> xr.DataTree:
    """A modelled trace of one model on one card: windows of prefill, decode and generate for all combinations."""
    (shape,), (card,) = _several(model, spec.model, spec.Model), _several(gpu, spec.gpu, spec.GPU)
    data = windows(shape, card, batch=batches, prompt=prompts, output=outputs, engine=engine, dtype=dtype)
    points = data.squeeze(["model", "gpu", "engine"]).stack(point=("batch", "prompt", "output"))
    rows = []
    for i in range(points.sizes["point"]):
        at = {name: float(points[name][i]) for name in points.data_vars}
        count = {key: int(points[name][i]) for key, name in
                 (("batch", "batch"), ("prompt_tokens", "prompt"), ("output_tokens", "output"))}  # fmt: skip
        rows += [_window(phase, count, at) for phase in ("prefill", "decode", "generate")]
    asked = {"model": shape.id, "gpu": card.id, "engine": engine, "dtype": dtype, "batches": list(batches),
             "prompt_tokens": list(prompts), "output_tokens": list(outputs), "seed": seed}  # fmt: skip
    asked = json.dumps(asked, sort_keys=True)
    attrs = {
        "request": asked, "run_id": hashlib.sha256(asked.encode()).hexdigest()[:12], "status": "ok", "reason": "",
        "model": shape.id, "revision": "shape only", "parameters": shape.parameters, "weights": "trained",
        "device": card.id, "device_name": card.name, "device_hash": "", "engine": engine, "dtype": dtype,
        "attention": "modelled", "threads": 0, "load_average": math.nan, "memory_GiB": card.memory_GiB,
        "read_bandwidth_GBps": math.nan, "matmul_GFLOPs": math.nan, "software": "footprint", "driver": "",
        "git_commit": "", "seed": int(seed), "start_utc": "", "energy_source": "model", "window_s": math.nan,
    }  # fmt: skip
    return trace.new("modelled", attrs, rows)


def _window(phase: str, count: dict, at: dict) -> dict:
    """One window of a modelled trace from the predictions at one point."""
    batch, steps = count["batch"], count["output_tokens"] - 1
    tokens = {"prefill": batch * count["prompt_tokens"], "decode": batch * steps}
    tokens["generate"] = batch * (steps + 1)
    row = {"phase": phase, **count, "repeat": 0, "iterations": 1, "tokens": tokens[phase], "lengths": "grid"}
    if not at["fits"]:
        memory = {f"memory_B{end}": at["memory_B"] for end in ("", "_low", "_high")}
        return row | memory | {"status": "oom", "reason": "Weights, KV cache and activations do not fit."}
    for end in ("", "_low", "_high"):
        time = {"prefill": at[f"ttft_s{end}"], "decode": at[f"tpot_s{end}"] * steps}
        energy = {"prefill": at[f"prefill_energy_J{end}"], "decode": at[f"decode_energy_J{end}"]}
        time["generate"], energy["generate"] = sum(time.values()), sum(energy.values())
        row |= {f"duration_s{end}": time[phase], f"energy_J{end}": energy[phase], f"memory_B{end}": at["memory_B"]}
        power = {"prefill": at[f"prefill_power_W{end}"], "decode": at[f"decode_power_W{end}"]}
        row[f"power_W{end}"] = power.get(phase, energy["generate"] / time["generate"])
    return row | {"status": "ok", "reason": ""}


def run(request: dict) -> xr.DataTree:
    """The modelled trace that `workload.request("predict", ...)` asks for."""
    return tree(
        request["model"], request["gpu"], engine=request["engine"], dtype=request["dtype"], batches=request["batches"],
        prompts=request["prompt_tokens"], outputs=request["output_tokens"], seed=request["seed"],
    )  # fmt: skip
