"""What a sweep will cost before it runs: modelled time, memory, energy and grams."""

import functools
import timeit
from math import nan
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil

from footprint import Refused, carbon, predict, spec, workload
from footprint.measure import engine, locks, window
from footprint.sweep.runner import Run

START_S = 8.0  # start of papermill, kernel and torch on two cores
LOAD_BPS = 1e9  # bytes of weights that are loaded in a second
MODELLED_S = 4.0  # a modelled run
WARM = 3  # least number of iterations of a warm-up


class Cost(NamedTuple):
    """Modelled cost of one run, with the energy and carbon of the GPU alone; NaN is unknown."""

    seconds: float = nan
    memory_GiB: float = nan  # of the largest point that fits
    energy_J: float = nan
    operational_g: float = nan
    embodied_g: float = nan
    points: int = 0
    misfits: tuple[str, ...] = ()  # points that need more memory than there is
    note: str = ""


def costs(runs: list[Run], grid: spec.Grid, card: str = "") -> list[Cost]:
    """The cost of each run; NaN and a note where the GPU or the model is unknown.

    card: id of the GPU to assume in place of the run's own device.
    """
    gpu_of = functools.cache(functools.partial(_gpu, card=card))
    costs = []
    for run in runs:
        try:
            gpu = gpu_of(run.device) if run.device else spec.gpu(run.request["gpu"])
            costs.append(_cost(run, gpu, grid))
        except (Refused, KeyError) as unknown:
            costs.append(Cost(note=str(unknown.args[0])))
    return costs


def _gpu(device: str, card: str) -> spec.GPU:
    """The CPU as a GPU for `cpu`, else the GPU of this id or of this device."""
    if device == "cpu":
        return probe()
    try:
        return spec.gpu(card or locks.name(device))
    except KeyError as unknown:
        reason = f"{unknown.args[0].rstrip('.')}; name the card that it resembles with --card."
    except Refused as missing:
        reason = f"{str(missing).partition(';')[0].rstrip('.')}; name the card with --card."
    raise Refused(reason)


def probe() -> spec.GPU:
    """The CPU as a GPU, with its memory bandwidth and fp32 rate measured in half a second."""
    matrix, vector = np.ones((2**14, 2**12), np.float32), np.ones(2**12, np.float32)
    square = np.ones((1024, 1024), np.float32)
    reading_s = min(timeit.repeat(lambda: matrix @ vector, number=1))
    multiplying_s = min(timeit.repeat(lambda: square @ square, number=1))
    bandwidth_GBps = matrix.nbytes / reading_s / 1e9
    matmul_GFLOPs = 2 * 1024**3 / multiplying_s / 1e9
    memory_GiB = psutil.virtual_memory().total / 2**30
    return predict.gpu_from_probe("cpu", bandwidth_GBps, matmul_GFLOPs, memory_GiB)


def _cost(run: Run, gpu: spec.GPU, grid: spec.Grid) -> Cost:
    request, model, on_cpu = run.request, spec.model(run.request["model"]), run.device == "cpu"
    dtype = engine.choose_dtype(request["dtype"], run.device, model, gpu.memory_GiB)
    shapes, modelled = _shapes(run), spec.ENGINES.get(request["engine"], request["engine"])
    sizes = {name: list(shapes.unique(name)) for name in shapes.names}
    data = predict.windows(model, gpu, **sizes, engine=modelled, dtype=dtype)
    table = data.squeeze(("model", "gpu", "engine")).to_dataframe(shapes.names)
    points = table.loc[shapes]
    misfits = tuple(
        f"batch {batch}, prompt {prompt}, output {output} ({memory_B / 2**30:.1f} GiB)"
        for (batch, prompt, output), memory_B in points.loc[~points["fits"], "memory_B"].items()
    )
    points = points[points["fits"]]
    memory_GiB = points["memory_B"].max() / 2**30
    if not run.device:
        return Cost(MODELLED_S, memory_GiB, points=len(shapes), misfits=misfits)
    full = not (on_cpu or request["quick"])
    length_s = max(request["window_s"], window.SHORTEST_S) if full else request["window_s"]
    quiet_s = START_S + model.weight_bytes(dtype) / LOAD_BPS + 2 * length_s
    measured_s, energy_J = _measured(request, points, length_s, min(window.LEAD_S, length_s) * full)
    seconds = measured_s + quiet_s
    cost = Cost(seconds, memory_GiB, points=len(shapes), misfits=misfits)
    if on_cpu:
        return cost._replace(note="energy unknown: no instrument on a CPU")
    energy_J += quiet_s * gpu.idle_W
    embodied_kg = float(carbon.embodied(gpu)["embodied_kg"].sum())
    return cost._replace(
        energy_J=energy_J,
        operational_g=carbon.operational(energy_J, grid.g_per_kwh),
        embodied_g=carbon.amortised(embodied_kg, seconds),
    )


def _shapes(run: Run) -> pd.MultiIndex:
    """The points of a run without repeats, as batch, prompt and output."""
    names = ("batch", "prompt_tokens", "output_tokens")
    if run.device:
        once = workload.windows({**run.request, "repeats": 1})
        points = {tuple(point[name] for name in names) for point in once}
        return pd.MultiIndex.from_tuples(sorted(points), names=["batch", "prompt", "output"])
    axes = [run.request[name] for name in ("batches", *names[1:])]
    return pd.MultiIndex.from_product(axes, names=["batch", "prompt", "output"])


def _measured(
    request: dict, points: pd.DataFrame, length_s: float, lead_s: float
) -> tuple[float, float]:
    """Seconds and joules of all windows at these points, with warm-ups, leads and prefills."""
    decode_s = points["tpot_s"] * (points.index.get_level_values("output") - 1)
    prefill_s = points["ttft_s"]
    prefill_W, decode_W = points["prefill_power_W"], points["decode_power_W"]
    whole_s = prefill_s + decode_s
    whole_W = (prefill_W * prefill_s + decode_W * decode_s) / whole_s
    prepared_s = request["repeats"] * prefill_s  # a cache for each window of decode
    seconds, joules = prepared_s, prepared_s * prefill_W
    for once_s, power_W in ((prefill_s, prefill_W), (decode_s, decode_W), (whole_s, whole_W)):
        warm_s = once_s * np.maximum(WARM, np.ceil(request["warmup_s"] / once_s))
        window_s = once_s * np.ceil(length_s / once_s) + lead_s
        seconds = seconds + request["repeats"] * window_s + warm_s
        joules = joules + (request["repeats"] * window_s + warm_s) * power_W
    return float(seconds.sum()), float(joules.sum())
