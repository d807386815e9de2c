"""What a sweep will cost before it runs: modelled time, memory, energy and grams.

The protocol itself runs, on a clock that costs no time, with an engine that takes modelled times.
"""

import functools
import math
import timeit
from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil

from footprint import Refused, carbon, predict, spec, workload
from footprint.measure import engine, instrument, locks, profile, rapl, window
from footprint.measure.instrument import Clock, Reading, State
from footprint.sweep.runner import Run

START_S = 8.0  # start of papermill, kernel and torch on two cores
LOAD_BPS = 1e9  # bytes of weights that are loaded in a second
MODELLED_S = 4.0  # a modelled run
COLD_C, HOT_C, WARMING_S = 50.0, 70.0, 60.0  # a GPU at work warms with this time constant
MANY = 50  # iterations of a window are modelled one by one up to this number
SOME = {"repeats": 2, "azure": 20}  # so many are modelled and stand for all that are asked;
WIDE, THIN = 100, 4  # of a grid of more points, so many on each axis


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
    quiet_s = START_S + model.weight_bytes(dtype) / LOAD_BPS
    seconds, busy_s, busy_J = _protocol(run, table.loc[shapes].to_dict("index"))
    cost = Cost(seconds + quiet_s, memory_GiB, points=len(shapes), misfits=misfits)
    if on_cpu:
        return cost._replace(note="energy unknown: no instrument on a CPU")
    energy_J = busy_J + (cost.seconds - busy_s) * gpu.idle_W
    embodied_kg = float(carbon.embodied(gpu)["embodied_kg"].sum())
    return cost._replace(
        energy_J=energy_J,
        operational_g=carbon.operational(energy_J, grid.g_per_kwh),
        embodied_g=carbon.amortised(embodied_kg, cost.seconds),
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


class Time:
    """A clock that only sleeping moves, and what a GPU did by it: busy seconds and their joules."""

    def __init__(self):
        self.now_s = self.busy_s = self.busy_J = 0.0
        self.clock = Clock(lambda: self.now_s, self.sleep, lambda: self.now_s)

    def sleep(self, seconds: float) -> None:
        """Move the clock on."""
        self.now_s += seconds

    def work(self, seconds: float, power_W: float) -> None:
        """Move the clock on under load."""
        self.sleep(seconds)
        self.busy_s += seconds
        self.busy_J += seconds * power_W


class Board(instrument.NoInstrument):
    """A GPU whose temperature follows from how long it was busy."""

    present = True

    def __init__(self, time: Time):
        super().__init__("modelled")
        self.time = time

    def reader(self):
        return lambda: Reading(0.0)

    def state(self) -> State:
        warm = -math.expm1(-self.time.busy_s / WARMING_S)
        return State(COLD_C + (HOT_C - COLD_C) * warm, 1000.0)


class Modelled(engine.Engine):
    """An engine whose steps take modelled times; out of memory where the model says so.

    data: values of `predict.windows` by batch, prompt and output; length_s: of a window, of whose
    iterations several count as one where they are many.
    """

    def __init__(self, request: dict, data: Mapping[tuple, Mapping], time: Time, length_s: float):
        super().__init__(request)
        self.data, self.time, self.length_s = data, time, length_s

    def load(self) -> dict:
        return {}

    def probe(self) -> dict[str, float]:
        return {}

    def answer(self, prompt: str, tokens: int) -> str:
        return ""

    def lead(self, phase: str, point: dict, seed: int):
        return self._runs(phase, point, min(point["output_tokens"], engine.LEAD_TOKENS))

    def iteration(self, phase: str, point: dict, seed: int):
        return self._runs(phase, point, point["output_tokens"])

    def _runs(self, phase: str, point: dict, tokens: int):
        at = self.data[tuple(point[name] for name in profile.LENGTHS)]
        if not at["fits"]:
            raise MemoryError(f"{at['memory_B'] / 2**30:.1f} GiB")
        prefill, decode = phase != "decode", phase != "prefill"
        times = [at["ttft_s"]] * prefill + [at["tpot_s"]] * decode * (tokens - 1)
        count = max(1, math.floor(self.length_s / MANY / sum(times)))
        if phase == "decode" and self._prepared is None:
            self.time.work(at["ttft_s"], at["prefill_power_W"])
        self._prepared = None if phase == "generate" else True

        def once() -> list[float]:
            if prefill:
                self.time.work(count * at["ttft_s"], at["prefill_power_W"])
            if decode:
                self.time.work(count * (tokens - 1) * at["tpot_s"], at["decode_power_W"])
            return times

        return once


def _protocol(run: Run, data: Mapping[tuple, Mapping]) -> tuple[float, float, float]:
    """Seconds of a run from its first window on, busy seconds, and the joules of these."""
    asked, time = run.request, Time()
    some = asked | {name: min(asked[name], most) for name, most in SOME.items()}
    if math.prod(len(asked[name]) for name in workload.AXES) > WIDE:
        some |= {name: _thinned(asked[name]) for name in workload.AXES}
    weights = {
        "grid": math.prod(len(asked[name]) / len(some[name]) for name in workload.AXES),
        "azure": asked["azure"] / max(some["azure"], 1),
    }
    board = instrument.NoInstrument("cpu") if run.device == "cpu" else Board(time)
    quiet = {"powercap": Path("none"), "cores": lambda: rapl.Cores(0.0, {})}
    setup = window.Setup(board, quick=asked["quick"], clock=time.clock, **quiet)
    model = Modelled(some, data, time, window.length(asked["window_s"], setup))
    for phase in ("idle_bare", "idle_loaded"):
        profile.idle(phase, asked["window_s"], setup)
    profile.heat(model, some, setup, lambda line: None)
    before = total = np.array([time.now_s, time.busy_s, time.busy_J])
    for row, _ in profile.measured(model, some, setup, lambda line: None):
        now = np.array([time.now_s, time.busy_s, time.busy_J])
        later = (asked["repeats"] - 1) / (some["repeats"] - 1) if row["repeat"] else 1
        total = total + (now - before) * weights[row["lengths"]] * later
        before = now
    return tuple(total.tolist())


def _thinned(values: list) -> list:
    """Some of the values, from the first to the last."""
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, THIN).round().astype(int))]
