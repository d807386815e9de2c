"""What a sweep will cost before it runs: time, memory, energy and grams of each run, by the model of `predict`."""

import math
import time
from typing import NamedTuple

import numpy as np
import psutil

from footprint import Refused, spec, workload
from footprint.carbon import equation as carbon
from footprint.measure import locks as devices
from footprint.measure import window
from footprint.predict import model as predict
from footprint.sweep.runner import Run

START_S = 8.0  # start of papermill, kernel and torch, as seen on two cores; weights come on top
LOAD_BPS = 1e9  # bytes of weights that are filled or read in a second
MODELLED_S = 4.0  # a run that only computes the model
WARM = 3  # iterations of a warm-up, at least


class Cost(NamedTuple):
    """Of one run: seconds, largest memory, joules of the card, grams of electricity and of the card's making."""

    seconds: float
    memory_GiB: float
    energy_J: float
    operational_g: float
    embodied_g: float
    points: int
    misfits: list[str]
    note: str


UNKNOWN = Cost(math.nan, math.nan, math.nan, math.nan, math.nan, 0, [], "")


def probe() -> spec.GPU:
    """The processor here as a card: what it reads and multiplies in fp32, tried for some tenths of a second."""
    matrix, vector, square = (
        np.ones((2**14, 2**12), np.float32),
        np.ones(2**12, np.float32),
        np.ones((1024,) * 2, "f4"),
    )
    reading = min(_timed(lambda: matrix @ vector) for _ in range(5))
    multiplying = min(_timed(lambda: square @ square) for _ in range(5))
    memory = psutil.virtual_memory().total / 2**30
    return predict.gpu_from_probe(
        "cpu", matrix.nbytes / reading / 1e9, 2 * 1024**3 / multiplying / 1e9, memory
    )


def _timed(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def card(device: str, named: str = "") -> spec.GPU:
    """The card behind a device: the one of this name, else what is here. Raises `Refused` when neither is known."""
    if device == "cpu":
        return probe()
    try:
        return spec.gpu(named or devices.name(device))
    except KeyError as unknown:
        raise Refused(
            f"{unknown.args[0].rstrip('.')}; name the card that it resembles with --card."
        ) from None
    except Refused as missing:
        raise Refused(
            f"{str(missing).partition(';')[0].rstrip('.')}; name the card with --card."
        ) from None


def of(runs: list[Run], grid: spec.Grid, named: str = "") -> list[Cost]:
    """The cost of each run; NaN and a note where the card or the model is unknown. `named`: a card to think of."""
    cards, costs = {}, []
    for run in runs:
        try:
            if run.device and run.device not in cards:
                cards[run.device] = card(run.device, named)
            costs.append(
                _one(run, cards[run.device] if run.device else spec.gpu(run.request["gpu"]), grid)
            )
        except (Refused, KeyError) as unknown:
            costs.append(UNKNOWN._replace(note=str(unknown.args[0])))
    return costs


def _one(run: Run, gpu: spec.GPU, grid: spec.Grid) -> Cost:
    request = run.request
    model, dtype, on_cpu = spec.model(request["model"]), _dtype(request, gpu), run.device == "cpu"
    shapes = _shapes(run)
    sizes = dict(
        zip(
            ("batch", "prompt", "output"),
            (sorted(set(axis)) for axis in zip(*shapes, strict=True)),
            strict=True,
        )
    )
    data = predict.windows(model, gpu, **sizes, engine=request["engine"], dtype=dtype).squeeze(
        ("model", "gpu", "engine")
    )
    seconds, joules, misfits, memory = 0.0, 0.0, [], 0.0
    for batch, prompt, output in shapes:
        at = {
            name: float(values)
            for name, values in data.sel(batch=batch, prompt=prompt, output=output).items()
        }
        if not at["fits"]:
            misfits.append(
                f"batch {batch}, prompt {prompt}, output {output} ({at['memory_B'] / 2**30:.1f} GiB)"
            )
            continue
        memory = max(memory, at["memory_B"] / 2**30)
        spent, used = _point(request, at, output, on_cpu) if run.device else (0.0, 0.0)
        seconds, joules = seconds + spent, joules + used
    if not run.device:
        return UNKNOWN._replace(
            seconds=MODELLED_S, memory_GiB=memory, points=len(shapes), misfits=misfits
        )
    quiet = START_S + model.weight_bytes(dtype) / LOAD_BPS + 2 * _length(request, on_cpu)
    seconds, joules = seconds + quiet, math.nan if on_cpu else joules + quiet * gpu.idle_W
    made = (
        math.nan
        if on_cpu
        else carbon.amortised(float(carbon.embodied(gpu)["embodied_kg"].sum()), seconds)
    )
    note = "energy unknown: no instrument on a CPU" if on_cpu else ""
    return Cost(
        seconds,
        memory,
        joules,
        carbon.operational(joules, grid.g_per_kwh),
        made,
        len(shapes),
        misfits,
        note,
    )


def _shapes(run: Run) -> list[tuple[int, int, int]]:
    """The points of a run, each once."""
    names = ("batch", "prompt_tokens", "output_tokens")
    if run.device:
        return sorted(
            {tuple(int(point[name]) for name in names) for point in workload.windows(run.request)}
        )
    axes = [run.request[name] for name in ("batches", *names[1:])]
    return [(b, p, o) for b in axes[0] for p in axes[1] for o in axes[2]]


def _dtype(request: dict, gpu: spec.GPU) -> str:
    """The dtype that `auto` becomes on this card, as `engine.choose_dtype` decides."""
    if request["dtype"] != "auto":
        return request["dtype"]
    if request["device"] != "cpu":
        return "fp16"
    return (
        "fp32"
        if spec.model(request["model"]).weight_bytes("fp32") < gpu.memory_GiB * 2**29
        else "bf16"
    )


def _length(request: dict, on_cpu: bool) -> float:
    return (
        request["window_s"]
        if on_cpu or request["quick"]
        else max(request["window_s"], window.SHORTEST_S)
    )


def _point(request: dict, at: dict, output: int, on_cpu: bool) -> tuple[float, float]:
    """Seconds and joules of the windows of a point, warm-up and ways of preparing it included, over all repeats."""
    length, full = _length(request, on_cpu), not (on_cpu or request["quick"])
    times = {"prefill": at["ttft_s"], "decode": at["tpot_s"] * (output - 1)}
    power = {"prefill": at["prefill_power_W"], "decode": at["decode_power_W"]}
    times["generate"] = sum(times.values())
    power["generate"] = sum(power[name] * times[name] for name in power) / times["generate"]
    seconds = joules = 0.0
    for phase, once in times.items():
        warm = once * max(WARM, math.ceil(request["warmup_s"] / once))
        busy = (
            request["repeats"]
            * (once * math.ceil(length / once) + (min(window.LEAD_S, length) if full else 0))
            + warm
        )
        prepared = request["repeats"] * times["prefill"] if phase == "decode" else 0.0
        seconds += busy + prepared
        joules += busy * power[phase] + prepared * power["prefill"]
    return seconds, joules
