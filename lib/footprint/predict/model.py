"""The GPU model: time, power, energy and memory of serving, with intervals.

`roofline` is the physics, `intervals` says how far off it may be, `fit` fitted both to published
measurements; `data/parameters.csv` holds the numbers. Engines: `eager` (Hugging Face), `graphs`
(CUDA graphs, llama.cpp), `serving` (vLLM, TensorRT-LLM). Everything that this module returns is
modelled.
"""

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import ndtri

from footprint import Refused, spec
from footprint.predict import intervals, roofline
from footprint.predict.roofline import Dtype, Engine, Memory
from footprint.trace.points import build_points

DIMS = ("model", "gpu", "engine", "batch", "prompt", "output")
LOADS = ("batch", "closed")
KINDS = {"prefill": "ttft", "decode": "tpot"}
LABELS = {
    "ttft_s": ("s", "time of one prefill of the whole batch"),
    "tpot_s": ("s", "time of one decode step, mean over the output"),
    "prefill_energy_J": ("J", "energy of the prefill, the whole batch"),
    "decode_energy_J": ("J", "energy of all decode steps, the whole batch"),
    "prefill_power_W": ("W", "mean power in prefill"),
    "decode_power_W": ("W", "mean power in decode"),
    "memory_B": ("B", "memory at the peak"),
    "fits": ("1", "whether the memory of the GPU suffices"),
}


@cache
def parameters() -> dict[str, float]:
    """The parameters of `data/parameters.csv` by name."""
    return {row["name"]: row["value"] for row in spec.rows("parameters")}


@cache
def calibrated() -> frozenset[tuple[str, str]]:
    """Pairs (gpu, engine) that a calibration row measured."""
    return frozenset((row["gpu"], row["engine"]) for row in spec.table("measurements"))


def gpu_from_probe(
    name: str, bandwidth_GBps: float, matmul_GFLOPs: float, memory_GiB: float
) -> spec.GPU:
    """A device known only by what a probe on it reached; its power is unknown and stays NaN.

    bandwidth_GBps: GB/s that a matrix-vector product read; matmul_GFLOPs: GFLOP/s of a square
    matrix product, both in the dtype to be predicted. These are reached rates, so no share is taken
    off, and host and device do not overlap.
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


def usable_bytes(gpu: str | spec.GPU) -> float:
    """Bytes of the memory of a GPU (an id or a record) that programs can use."""
    gpus = _records(gpu, spec.gpu, spec.GPU)
    return float(roofline.usable(roofline.gpu_arrays(parameters(), gpus))[0])


class _Case(NamedTuple):
    """Models, GPUs and engines as arrays on the axes of DIMS, their rates, and the axes' labels."""

    p: dict[str, float]
    models: roofline.Models
    gpus: roofline.GPUs
    engine: np.ndarray
    dtype: Dtype
    rates: roofline.Rates
    labels: dict[str, list[str]]


def _case(model, gpu, engine, dtype: str, host: float = 1.0, known: Iterable[str] = ()) -> _Case:
    """The arrays of models, GPUs and engines, each given as an id, a record or several of them."""
    for name in known:
        _check_word("cause", name, intervals.READABLE)
    p = parameters() | {f"spread_{name}": 0.0 for name in known}
    if "floor" in known:
        p["spread_loaded"] = 0.0
    engines = [engine] if isinstance(engine, str) else list(engine)
    for name in engines:
        _check_word("engine", name, Engine.__members__)
    _check_word("dtype", dtype, Dtype.__members__)
    if not (math.isfinite(host) and host > 0):
        raise Refused(f"host = {host} is refused; a finite number above 0 is allowed.")
    models, gpus = _records(model, spec.model, spec.Model), _records(gpu, spec.gpu, spec.GPU)
    m = roofline.each(roofline.model_arrays(models), lambda array: _on_axis(array, "model"))
    g = roofline.each(roofline.gpu_arrays(p, gpus), lambda array: _on_axis(array, "gpu"))
    e = _on_axis([Engine[name] for name in engines], "engine")
    rates = roofline.rates(p, m, g, e, np.array(Dtype[dtype]), host)
    labels = {"model": [item.id for item in models], "gpu": [item.id for item in gpus]}
    return _Case(p, m, g, e, Dtype[dtype], rates, labels | {"engine": engines})


def _records(items, read, kind) -> list:
    """A list of records from one or several ids or records."""
    one = isinstance(items, str | kind) or not isinstance(items, Iterable)
    return [item if isinstance(item, kind) else read(item) for item in ([items] if one else items)]


def _check_word(name: str, word: str, allowed: Iterable[str]) -> None:
    if word not in allowed:
        raise Refused(f"The {name} {word!r:.80} is unknown; allowed are {', '.join(allowed)}.")


def _sizes(**given) -> dict[str, np.ndarray]:
    """The numbers of sequences or tokens by name, each a list of 1 or more."""
    sizes = {name: np.atleast_1d(np.asarray(values)) for name, values in given.items()}
    for name, array in sizes.items():
        numbers = array.ndim == 1 and array.dtype.kind in "iuf"
        if not numbers or not (np.isfinite(array) & (array >= 1)).all():
            raise Refused(
                f"{name} = {given[name]!s:.80} is refused; finite numbers of 1 or more are allowed."
            )
    return sizes


def _on_axis(values, dim: str) -> np.ndarray:
    """A list of values along one axis of DIMS."""
    return np.reshape(values, [-1 if name == dim else 1 for name in DIMS])


def _on_axes(sizes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: _on_axis(array.astype(float), name) for name, array in sizes.items()}


def _decode_step(case: _Case, at: dict[str, np.ndarray]) -> roofline.Pass:
    """One step of decode, at the context that is the mean over the output."""
    context = at["prompt"] + np.maximum(at["output"] - 2, 0) / 2
    return roofline.forward_pass(case.p, case.models, case.rates, at["batch"], 1.0, context)


def _half_widths(case: _Case) -> dict[str, np.ndarray]:
    """Half-widths of ttft, tpot and power in standard deviations, for each GPU and engine."""
    kinds = ("ttft", "tpot", "power")
    if case.dtype >= Dtype.int8:
        return {kind: case.p[f"level_{kind}_quantised"] for kind in kinds}
    measured = calibrated()
    known = [[(gpu, e) in measured for e in case.labels["engine"]] for gpu in case.labels["gpu"]]
    known = np.array(known)[None, :, :, None, None, None]
    new = {kind: case.p[f"level_{kind}_new"] for kind in kinds}
    return {kind: np.where(known, case.p[f"level_{kind}_known"], new[kind]) for kind in kinds}


def _phase(case: _Case, work: roofline.Pass, steps, phase: str, load: str) -> dict:
    """Seconds of a step, watts, and joules of all steps of a phase, each with its 90 % interval."""
    kind = KINDS[phase]
    p, g, memory, closed = case.p, case.gpus, case.gpus.memory, load == "closed"
    power = roofline.power(g, case.rates, work.joules, work.time)
    time = work.time * (p["closed_time"] if closed else 1)
    watts = np.minimum(power.watts * p["closed_power"], g.cap) if closed else power.watts
    energy = watts * time * steps
    of_time = intervals.time_variance(p, work.shares, case.engine, memory)
    guessed = roofline.without_tensor_cores(g, case.dtype) & (memory != Memory.probed)
    of_time = of_time + np.where(guessed, (p["spread_fp32"] * work.shares["multiplying"]) ** 2, 0)
    of_power = intervals.power_variance(p, power.joules, power.floor, memory, g.loaded)
    of_energy = intervals.energy_variance(of_power, power.joules, of_time)
    level = _half_widths(case)
    wide = np.exp(level[kind] * np.sqrt(of_time))
    wide_W = np.exp(level["power"] * np.sqrt(of_power))
    wide_J = np.exp(level["power"] * np.sqrt(of_energy))
    low, high = time / wide, time * wide
    return {
        f"{kind}_s": time,
        f"{kind}_s_low": low,
        f"{kind}_s_high": high,
        f"{phase}_power_W": watts,
        f"{phase}_power_W_low": np.maximum(watts / wide_W, g.idle),
        f"{phase}_power_W_high": np.minimum(watts * wide_W, g.cap),
        f"{phase}_energy_J": energy,
        f"{phase}_energy_J_low": np.maximum(energy / wide_J, g.idle * low * steps),
        f"{phase}_energy_J_high": np.minimum(energy * wide_J, g.cap * high * steps),
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
    known=(),
) -> xr.Dataset:
    """Time, power, energy and memory of every combination of model, GPU, engine and lengths.

    Dimensions: (model, gpu, engine, batch, prompt, output).

    model, gpu: an id, a record, or several. batch, prompt, output: numbers or lists of them (tokens
    a sequence). engine: one or several of eager, graphs, serving. dtype of weights. context: tokens
    of KV cache reserved for each sequence (None: prompt + output). host: launch time of the host
    relative to the calibration's (0.5: twice as fast). load: `batch` (all sequences start together)
    or `closed` (as many users, each asking again when answered). known: what readings of this GPU
    have settled, of `intervals.READABLE`; its error leaves the intervals.

    ttft_s is one prefill of the whole batch, tpot_s one decode step, mean over the output; prefill
    gives the first token, so energies are of the prefill and of output - 1 steps, whole batch. Each
    has `_low` and `_high`, the bounds of its 90 % interval. Where it does not fit, `fits` is False
    and the figures say what a larger memory would see. Raises `Refused` for numbers below 1 and
    unknown words, KeyError for unknown ids.
    """
    case = _case(model, gpu, engine, dtype, host, known)
    _check_word("load", load, LOADS)
    sizes = _sizes(batch=batch, prompt=prompt, output=output)
    at = _on_axes(sizes)
    p, m, r = case.p, case.models, case.rates
    prefill = roofline.forward_pass(p, m, r, at["batch"], at["prompt"], 0.0)
    full = _phase(case, prefill, 1.0, "prefill", load)
    full |= _phase(case, _decode_step(case, at), at["output"] - 1, "decode", load)
    reserved = np.maximum(at["prompt"] + at["output"], context or 0)
    memory = roofline.memory(p, m, r, case.engine, at["batch"], at["prompt"], reserved)
    full |= {"memory_B": memory, "fits": memory <= roofline.usable(case.gpus)}
    shape = np.broadcast_shapes(*[np.shape(value) for value in full.values()])
    data = {}
    for name, value in full.items():
        units, meaning = LABELS[name.removesuffix("_low").removesuffix("_high")]
        attrs = {"units": units, "long_name": meaning}
        if name.endswith(("_low", "_high")):
            attrs["interval_level"] = intervals.COVERED
        data[name] = (DIMS, np.broadcast_to(value, shape), attrs)
    attrs = {"kind": "modelled", "dtype": dtype, "load": load}
    return xr.Dataset(data, case.labels | sizes, attrs)


def points(model, gpu, **settings) -> xr.Dataset:
    """The predictions as points (`trace.build_points`); arguments as in `windows`.

    time_s, energy_J: of one prefill, or of all output - 1 decode steps, for the whole batch;
    `<name>_low_sd` and `<name>_high_sd` are the standard deviations of their logarithm below and
    above. What does not fit is NaN with the status `oom`. idle_W (gpu) is the published idle power,
    or modelled where nobody published it.
    """
    gpus = _records(gpu, spec.gpu, spec.GPU)
    data = windows(model, gpus, **settings)
    fits, half = data["fits"], ndtri((1 + intervals.COVERED) / 2)
    steps = {"ttft_s": 1, "tpot_s": data["output"] - 1}
    names = {"time_s": list(steps), "energy_J": ["prefill_energy_J", "decode_energy_J"]}
    values = {}
    for name, sources in names.items():
        values[name] = _by_phase([data[source] * steps.get(source, 1) for source in sources], fits)
        for end in ("low", "high"):
            deviations = [
                _log_distance(data[source], data[f"{source}_{end}"]) for source in sources
            ]
            values[f"{name}_{end}_sd"] = _by_phase(deviations, fits) / half
    labels = {"evidence": "modelled", "dtype": data.attrs["dtype"], "weights": "trained"}
    labels |= {"place": "predicted", "status": xr.where(fits, "ok", "oom")}
    idle = [roofline.idle_W(parameters(), gpu) for gpu in gpus]
    axes = {dim: data[dim].values for dim in DIMS}
    return build_points(axes, values | labels | {"idle_W": idle})


def _by_phase(values: list[xr.DataArray], fits: xr.DataArray) -> xr.DataArray:
    """Values of prefill and decode along the dimension phase; NaN where they do not fit."""
    return xr.concat(values, "phase", combine_attrs="drop").where(fits)


def _log_distance(value: xr.DataArray, bound: xr.DataArray) -> xr.DataArray:
    """|ln(bound / value)|; 0 where the value is 0 (the decode of a single token has no step)."""
    return np.abs(np.log(bound / value.where(value != 0))).where(value != 0, 0.0)


def causes(model, gpu, *, batch, prompt, output, engine="eager", dtype="fp16") -> xr.DataArray:
    """Seconds of a decode step by cause, dims (*DIMS, cause); they add up to `tpot_s` of `windows`.

    reading weights, multiplying (matrices and attention), traffic of the KV cache and of
    activations, waiting for the latency of kernels, the host's launching, and the cap on power: d
    time / d ln of each cause (see `roofline`).
    """
    case = _case(model, gpu, engine, dtype)
    sizes = _sizes(batch=batch, prompt=prompt, output=output)
    step = _decode_step(case, _on_axes(sizes))
    parts = [step.time * share for share in step.shares.values()]
    parts = np.stack(np.broadcast_arrays(*parts), axis=-1)
    coords = {**case.labels, **sizes, "cause": list(step.shares)}
    attrs = {"units": "s", "long_name": "time of a decode step by cause"}
    return xr.DataArray(parts, coords, [*DIMS, "cause"], "step_s", attrs)


def largest_batch(model, gpu, *, prompt, output, engine="eager", dtype="fp16") -> xr.DataArray:
    """Largest batch that fits, 0 where not even one sequence does.

    Dimensions: (model, gpu, engine, prompt, output).
    """
    case, sizes = _case(model, gpu, engine, dtype), _sizes(prompt=prompt, output=output)
    at, usable = _on_axes(sizes), roofline.usable(case.gpus)
    p, m, r, e, reserved = case.p, case.models, case.rates, case.engine, at["prompt"] + at["output"]
    most = roofline.largest_batch(p, m, r, e, at["prompt"], reserved, usable)
    most = np.floor(np.maximum(most, 0)).astype(int).squeeze(DIMS.index("batch"))
    attrs = {"long_name": "largest batch that fits", "units": "1"}
    dims = [dim for dim in DIMS if dim != "batch"]
    return xr.DataArray(most, case.labels | sizes, dims, attrs=attrs)
