"""The GPU model: time, power, energy and memory of serving a model on a card that nobody here owns, with intervals.

`roofline` is the physics, `intervals` says how far off it may be, `calibrate` fitted both to published measurements;
`data/parameters.csv` holds the numbers. Engines: `eager` (Hugging Face), `graphs` (CUDA graphs, llama.cpp), `serving`
(vLLM, TensorRT-LLM). Everything that this module returns is modelled.
"""

import json
import math
from collections.abc import Iterable
from functools import cache

import numpy as np
import xarray as xr
from scipy.special import ndtri

from footprint import Refused, __version__, digest, spec, trace
from footprint.predict import intervals, roofline
from footprint.trace.points import build_points

DIMS = ("model", "gpu", "engine", "batch", "prompt", "output")
LOADS = ("batch", "closed")
LABELS = {
    "ttft_s": ("s", "time of one prefill of the whole batch"),
    "tpot_s": ("s", "time of one decode step, mean over the output"),
    "prefill_energy_J": ("J", "energy of the prefill, the whole batch"),
    "decode_energy_J": ("J", "energy of all decode steps, the whole batch"),
    "prefill_power_W": ("W", "mean power in prefill"),
    "decode_power_W": ("W", "mean power in decode"),
    "memory_B": ("B", "memory at the peak"),
    "fits": ("1", "whether the memory of the card suffices"),
}


@cache
def parameters() -> dict[str, float]:
    """The parameters of `data/parameters.csv` by name."""
    return {row["name"]: float(row["value"]) for row in spec.table("parameters")}


@cache
def calibrated() -> frozenset[tuple[str, str]]:
    """Pairs (gpu, engine) that a calibration row measured."""
    return frozenset((row["gpu"], row["engine"]) for row in spec.table("measurements"))


def gpu_from_probe(
    name: str, bandwidth_GBps: float, matmul_GFLOPs: float, memory_GiB: float
) -> spec.GPU:
    """A processor in the form of a GPU, from what it reached in a run of its own; its power is unknown and stays NaN.

    bandwidth_GBps: GB/s that a matrix-vector product read; matmul_GFLOPs: GFLOP/s of a square matrix product, both in
    the dtype to be predicted. These are reached rates, so no share is taken off, and host and device do not overlap.
    """
    return spec.GPU(
        id=name,
        name=name,
        peak_fp16_tflops=matmul_GFLOPs / 1e3,
        bandwidth_GBps=bandwidth_GBps,
        memory_GiB=memory_GiB,
        memory_type="unknown",
        tdp_W=math.nan,
        die_mm2=math.nan,
        node="unknown",
        cache_MB=32.0,
        probed=True,
    )


def _several(items, read, kind) -> list:
    """A list of records from one or several ids or records."""
    items = (
        [items] if isinstance(items, str | kind) or not isinstance(items, Iterable) else list(items)
    )
    return [item if isinstance(item, kind) else read(item) for item in items]


def _counts(name: str, values) -> np.ndarray:
    array = np.atleast_1d(np.asarray(values))
    if (
        array.ndim != 1
        or array.dtype.kind not in "iuf"
        or not (np.isfinite(array) & (array >= 1)).all()
    ):
        raise Refused(
            f"{name} = {values!s:.80} is refused; finite numbers of 1 or more are allowed."
        )
    return array


def _word(name: str, values, allowed: tuple[str, ...]) -> list[str]:
    words = [values] if isinstance(values, str) else list(values)
    for word in words:
        if word not in allowed:
            raise Refused(f"The {name} {word!r:.80} is unknown; allowed are {', '.join(allowed)}.")
    return words


def _axis(values, position: int) -> np.ndarray:
    return np.reshape(values, [-1 if i == position else 1 for i in range(len(DIMS))])


def _arrays(model, gpu, engine, dtype: str, host: float):
    """Parameters, shapes, cards, engine numbers and rates on their axes of DIMS, and the labels of these axes."""
    p, engines = parameters(), _word("engine", engine, roofline.ENGINES)
    (dtype,) = _word("dtype", dtype, roofline.DTYPES)
    if not (math.isfinite(host) and host > 0):
        raise Refused(f"host = {host} is refused; a finite number above 0 is allowed.")
    models, gpus = _several(model, spec.model, spec.Model), _several(gpu, spec.gpu, spec.GPU)
    m = roofline.Shapes(*(_axis(array, 0) for array in roofline.shapes(models)))
    g = roofline.Cards(*(_axis(array, 1) for array in roofline.cards(p, gpus)))
    e = _axis([roofline.ENGINES.index(name) for name in engines], 2)
    r = roofline.rates(p, m, g, e, np.array(roofline.DTYPES.index(dtype)), host)
    return (
        p,
        m,
        g,
        e,
        r,
        {
            "model": [item.id for item in models],
            "gpu": [item.id for item in gpus],
            "engine": engines,
        },
    )


def _levels(p: dict[str, float], labels: dict, dtype: str) -> dict[str, np.ndarray]:
    """Half-widths in standard deviations for each card and engine, dims as in DIMS."""
    if dtype in ("int8", "int4"):
        return {name: p[f"level_{name}_quantised"] for name in ("ttft", "tpot", "power")}
    pairs = [
        [(gpu, engine) in calibrated() for engine in labels["engine"]] for gpu in labels["gpu"]
    ]
    same = np.array(pairs)[None, :, :, None, None, None]
    return {
        name: np.where(same, p[f"level_{name}_known"], p[f"level_{name}_new"])
        for name in ("ttft", "tpot", "power")
    }


def _phase(p, g, r, e, work, steps, levels, kind: str, dtype: str, load: str) -> dict:
    """Time of a step, power and energy of a phase, each with the bounds of its 90 % interval."""
    time = work.time * (p["closed_time"] if load == "closed" else 1)
    draw = roofline.power(g, r, work.joules, work.time)
    watts = np.minimum(draw.watts * p["closed_power"], g.cap) if load == "closed" else draw.watts
    kinds = g.memory.astype(int)
    of_time = intervals.time_variance(p, work.shares, e, kinds)
    unmeasured = roofline.without_tensor_cores(g, np.array(roofline.DTYPES.index(dtype))) & (
        kinds != 3
    )
    of_time = of_time + np.where(
        unmeasured, (p["spread_fp32"] * work.shares["multiplying"]) ** 2, 0
    )
    of_power = intervals.power_variance(p, draw.joules, draw.floor, kinds)
    of_energy = intervals.energy_variance(of_power, draw.joules, of_time)
    wide = np.exp(levels[kind] * np.sqrt(of_time))
    of_watts, of_joules = (
        np.exp(levels["power"] * np.sqrt(variance)) for variance in (of_power, of_energy)
    )
    energy, low, high = watts * time * steps, time / wide, time * wide
    return {
        "time": (time, low, high),
        "power": (watts, np.maximum(watts / of_watts, g.idle), np.minimum(watts * of_watts, g.cap)),
        "energy": (
            energy,
            np.maximum(energy / of_joules, g.idle * low * steps),
            np.minimum(energy * of_joules, g.cap * high * steps),
        ),
    }


def windows(
    model,
    gpu,
    *,
    batch,
    prompt,
    output,
    engine="eager",
    dtype="fp16",
    context=None,
    host=1.0,
    load="batch",
) -> xr.Dataset:
    """Time, power, energy and memory of every combination, dims (model, gpu, engine, batch, prompt, output).

    model, gpu: an id, a record, or several. batch, prompt, output: numbers or lists of them (tokens a sequence). engine:
    one or several of eager, graphs, serving. dtype of weights. context: tokens of KV cache reserved for each sequence
    (None: prompt + output). host: launch time of the host relative to the calibration's (0.5: twice as fast). load:
    `batch` (all sequences start together) or `closed` (as many users, each asking again when answered).

    ttft_s is one prefill of the whole batch, tpot_s one decode step, mean over the output; prefill gives the first token,
    so energies are of the prefill and of output - 1 steps, whole batch. Each has `_low` and `_high`, the bounds of its
    90 % interval. Where it does not fit, `fits` is False and the figures say what a larger memory would see.
    Raises `Refused` for numbers below 1 and unknown words, KeyError for unknown ids.
    """
    p, m, g, e, r, labels = _arrays(model, gpu, engine, dtype, host)
    (load,) = _word("load", load, LOADS)
    sizes = {
        "batch": _counts("batch", batch),
        "prompt": _counts("prompt", prompt),
        "output": _counts("output", output),
    }
    b, new, out = (_axis(array.astype(float), 3 + i) for i, array in enumerate(sizes.values()))
    levels = _levels(p, labels, dtype)
    full = {}
    for phase, kind, steps, work in (
        ("prefill", "ttft", 1.0, roofline.run(p, m, r, b, new, 0.0)),
        (
            "decode",
            "tpot",
            out - 1,
            roofline.run(p, m, r, b, 1.0, new + np.maximum(out - 2, 0) / 2),
        ),
    ):
        found = _phase(p, g, r, e, work, steps, levels, kind, dtype, load)
        names = {"time": f"{kind}_s", "power": f"{phase}_power_W", "energy": f"{phase}_energy_J"}
        full |= {
            f"{names[key]}{end}": found[key][i]
            for key in names
            for i, end in enumerate(("", "_low", "_high"))
        }
    memory = roofline.memory(p, m, r, e, b, new, np.maximum(new + out, context or 0))
    full |= {"memory_B": memory, "fits": memory <= roofline.usable(g)}
    shape = np.broadcast_shapes(*(np.shape(value) for value in full.values()))
    data = {}
    for name, value in full.items():
        units, meaning = LABELS[name.removesuffix("_low").removesuffix("_high")]
        level = {"interval_level": intervals.COVERED} if name.endswith(("_low", "_high")) else {}
        data[name] = (
            DIMS,
            np.broadcast_to(value, shape),
            {"units": units, "long_name": meaning, **level},
        )
    return xr.Dataset(data, {**labels, **sizes}, {"kind": "modelled", "dtype": dtype, "load": load})


def points(
    model,
    gpu,
    *,
    batch,
    prompt,
    output,
    engine="eager",
    dtype="fp16",
    context=None,
    host=1.0,
    load="batch",
) -> xr.Dataset:
    """The same predictions as points, dims (model, gpu, engine, batch, prompt, output, phase); arguments as in `windows`.

    time_s, energy_J: of one prefill, or of all output - 1 decode steps, for the whole batch; `<name>_low_sd` and
    `<name>_high_sd` are the standard deviations of their logarithm below and above. What does not fit is NaN with the
    status `oom`. idle_W (gpu) is the published idle power, or modelled where nobody published it.
    """
    gpus = _several(gpu, spec.gpu, spec.GPU)
    sizes = {"batch": batch, "prompt": prompt, "output": output, "context": context}
    asked = {"engine": engine, "dtype": dtype, "host": host, "load": load}
    found = windows(model, gpus, **sizes, **asked)
    fits, half = found["fits"], ndtri((1 + intervals.COVERED) / 2)
    steps = {"ttft_s": 1, "tpot_s": found["output"] - 1}
    names = {"time_s": list(steps), "energy_J": ["prefill_energy_J", "decode_energy_J"]}
    values = {}
    for name, sources in names.items():
        values[name] = _by_phase([found[source] * steps.get(source, 1) for source in sources], fits)
        for end in ("low", "high"):
            deviations = [
                _log_distance(found[source], found[f"{source}_{end}"]) for source in sources
            ]
            values[f"{name}_{end}_sd"] = _by_phase(deviations, fits) / half
    labels = {"evidence": "modelled", "dtype": dtype, "weights": "trained", "place": "predicted"}
    labels["status"] = xr.where(fits, "ok", "oom")
    idle = roofline.cards(parameters(), gpus).idle
    axes = {dim: found[dim].values for dim in DIMS}
    return build_points(axes, values | labels | {"idle_W": idle})


def _by_phase(values: list[xr.DataArray], fits: xr.DataArray) -> xr.DataArray:
    """Values of prefill and decode along the dimension phase; NaN where the memory does not suffice."""
    return xr.concat(values, "phase", combine_attrs="drop").where(fits)


def _log_distance(value: xr.DataArray, bound: xr.DataArray) -> xr.DataArray:
    """|ln(bound / value)|; 0 where the value is 0 (the decode of a single token has no step)."""
    return np.abs(np.log(bound / value.where(value != 0))).where(value != 0, 0.0)


def causes(model, gpu, *, batch, prompt, output, engine="eager", dtype="fp16") -> xr.DataArray:
    """Seconds of a decode step by cause, dims (*DIMS, cause): they add up to `tpot_s` of `windows`.

    reading weights, multiplying (matrices and attention), traffic of the KV cache and of activations, waiting for the
    latency of kernels, the host's launching, and the cap on power: d time / d ln of each cause (see `roofline`).
    """
    p, m, _, _, r, labels = _arrays(model, gpu, engine, dtype, 1.0)
    sizes = {
        "batch": _counts("batch", batch),
        "prompt": _counts("prompt", prompt),
        "output": _counts("output", output),
    }
    b, new, out = (_axis(array.astype(float), 3 + i) for i, array in enumerate(sizes.values()))
    work = roofline.run(p, m, r, b, 1.0, new + np.maximum(out - 2, 0) / 2)
    parts = np.stack(
        np.broadcast_arrays(*(work.time * share for share in work.shares.values())), axis=-1
    )
    coords = {**labels, **sizes, "cause": list(work.shares)}
    return xr.DataArray(
        parts,
        coords,
        [*DIMS, "cause"],
        "step_s",
        {"units": "s", "long_name": "time of a decode step by cause"},
    )


def largest_batch(model, gpu, *, prompt, output, engine="eager", dtype="fp16") -> xr.DataArray:
    """Largest batch that fits, dims (model, gpu, engine, prompt, output); 0 where not even one sequence does."""
    p, m, g, e, r, labels = _arrays(model, gpu, engine, dtype, 1.0)
    sizes = {"prompt": _counts("prompt", prompt), "output": _counts("output", output)}
    new, out = (_axis(array.astype(float), 4 + i) for i, array in enumerate(sizes.values()))
    most = roofline.largest_batch(p, m, r, e, new, new + out, roofline.usable(g))
    found = xr.DataArray(
        np.floor(np.maximum(most, 0)).astype(int), {**labels, "batch": [0], **sizes}, DIMS
    )
    return found.isel(batch=0, drop=True).assign_attrs(
        long_name="largest batch that fits", units="1"
    )


def tree(
    model, gpu, *, engine="eager", dtype="fp16", batches, prompts, outputs, seed=0
) -> xr.DataTree:
    """A modelled trace of one model on one card: windows of prefill, decode and generate for every combination."""
    (shape,), (card,) = _several(model, spec.model, spec.Model), _several(gpu, spec.gpu, spec.GPU)
    data = windows(
        shape, card, batch=batches, prompt=prompts, output=outputs, engine=engine, dtype=dtype
    )
    table = (
        data.squeeze(["model", "gpu", "engine"], drop=True)
        .to_dataframe()
        .reset_index()
        .to_dict("records")
    )
    rows = [_window(phase, point) for point in table for phase in ("prefill", "decode", "generate")]
    asked = {"model": shape.id, "gpu": card.id, "engine": engine, "dtype": dtype, "seed": int(seed)}
    lists = (("batches", "batch"), ("prompt_tokens", "prompt"), ("output_tokens", "output"))
    asked |= {name: data[dim].values.tolist() for name, dim in lists}
    text = json.dumps(asked, sort_keys=True)
    attrs = {
        "request": text,
        "run_id": digest(text),
        "status": "ok",
        "reason": "",
        "model": shape.id,
        "revision": "shape only",
        "parameters": shape.parameters,
        "weights": "trained",
        "device": card.id,
        "device_name": card.name,
        "device_hash": "",
        "engine": engine,
        "dtype": dtype,
        "attention": "modelled",
        "threads": 0,
        "load_average": math.nan,
        "memory_GiB": float(card.memory_GiB),
        "read_bandwidth_GBps": math.nan,
        "matmul_GFLOPs": math.nan,
        "software": f"footprint {__version__}",
        "driver": "",
        "git_commit": "",
        "seed": int(seed),
        "start_utc": "",
        "energy_source": "model",
        "window_s": math.nan,
    }
    return trace.new("modelled", attrs, rows)


def _window(phase: str, at: dict) -> dict:
    """One window of a modelled trace from the predictions at one point."""
    batch, prompt, steps = int(at["batch"]), int(at["prompt"]), int(at["output"]) - 1
    tokens = {"prefill": batch * prompt, "decode": batch * steps, "generate": batch * (steps + 1)}[
        phase
    ]
    row = {
        "phase": phase,
        "batch": batch,
        "prompt_tokens": prompt,
        "output_tokens": steps + 1,
        "repeat": 0,
        "iterations": 1,
        "tokens": tokens,
        "lengths": "grid",
        "memory_B": at["memory_B"],
    }
    wide = math.exp(parameters()["memory_half_width"])
    row |= {"memory_B_low": at["memory_B"] / wide, "memory_B_high": at["memory_B"] * wide}
    if not at["fits"]:
        return row | {
            "status": "oom",
            "reason": "Weights, KV cache and activations do not fit the card.",
        }
    whole = at["ttft_s"] + at["tpot_s"] * steps
    for end in ("", "_low", "_high"):
        time = {"prefill": at[f"ttft_s{end}"], "decode": at[f"tpot_s{end}"] * steps}
        energy = {"prefill": at[f"prefill_energy_J{end}"], "decode": at[f"decode_energy_J{end}"]}
        power = {"prefill": at[f"prefill_power_W{end}"], "decode": at[f"decode_power_W{end}"]}
        mixed = (power["prefill"] * at["ttft_s"] + power["decode"] * at["tpot_s"] * steps) / whole
        row[f"duration_s{end}"] = time.get(phase, sum(time.values()))
        row[f"energy_J{end}"] = energy.get(phase, sum(energy.values()))
        row[f"power_W{end}"] = power.get(phase, mixed)
    return row | {"status": "ok", "reason": ""}


def run(request: dict) -> xr.DataTree:
    """The modelled trace that `workload.request("predict", ...)` asks for."""
    return tree(
        request["model"],
        request["gpu"],
        engine=request["engine"],
        dtype=request["dtype"],
        batches=request["batches"],
        prompts=request["prompt_tokens"],
        outputs=request["output_tokens"],
        seed=request["seed"],
    )
