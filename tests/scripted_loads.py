"""Does the interval hold the truth? Scripted loads, real windows and budget, a virtual clock.

`python tests/scripted_loads.py` writes data/sensor_coverage.csv, a table of the book (minutes).
"""

import csv
import functools
import itertools
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pynvml
import pytest
import xarray as xr

import fake_nvml as fake
from footprint import trace
from footprint.energy import uncertainty as budget
from footprint.energy import window as energy
from footprint.measure import instrument, sampler, window
from footprint.measure.instrument import Clock, Instrument
from footprint.trace.schema import ATTRS

TERMS = ("quantisation", "sampling", "gain")  # of one window: no other repeats its point
TABLE = Path(__file__).parents[1] / "lib/footprint/data/sensor_coverage.csv"
WINDOWS, WINDOW_S, SEED = 200, 5.0, 2024
SLOT_S, REST_S, IDLE_W = (
    10.037,
    2.4,
    60.0,
)  # each window has a slot: rest, then the load; no sensor keeps step with slots
SENSOR = {
    "counter_tick_s": 0.1,
    "power_update_s": 0.1,
    "power_average_s": 0.1,
    "power_duty": 1.0,
    "gain": 1.0,
    "gain_bound": 0.05,
}
PART = {"power_average_s": 0.025, "power_duty": 0.25}
NO_COUNTER = [("counter", 3, *fake.ALWAYS), ("counter_field", 3, *fake.ALWAYS)]
SQUARE = fake.square(100, 300, 0.5)
NO_INSTANT = [("instant", 3, *fake.ALWAYS)]
BLIND = {"span": 0.025, "blind": 1, "phase": 0.03}
UNSEEN = {"span": 0.025, "phase": 0.03, "faults": NO_COUNTER}
TAIL = (40.0, 2.0)


class Load(NamedTuple):
    """One scripted load: its power, how long an iteration takes, the sensor and its card."""

    says: str
    points: list
    iteration_s: float
    script: dict = {}  # noqa: RUF012
    card: dict = {}  # noqa: RUF012
    tail: tuple = ()  # watts above rest, and for how long, once an iteration ends; then it rests


def _random(seed: int, low: float, high: float) -> list:
    return fake.steps(np.random.default_rng(seed).uniform(low, high, 190), 0.04)


LOADS = {
    "steady": Load("steady 300 W", fake.constant(300), 0.02),
    "slow square": Load("300 W and 100 W, 0.5 s", SQUARE, 0.5),
    "fast square": Load("300 W and 100 W, 0.13 s", fake.square(100, 300, 0.13), 0.13),
    "ramp": Load("150 W to 350 W and back, 15 s each way", fake.ramp(150, 350, 15), 0.1),
    "random steps": Load("150 W to 350 W, a new level each 40 ms", _random(1, 150, 350), 0.04),
    "long tick": Load(
        "300 W and 250 W, 0.3 s; counter ticks of 250 ms",
        fake.square(250, 300, 0.3),
        0.3,
        {"tick": 0.25},
        {"counter_tick_s": 0.25},
    ),
    "fine tick": Load(
        "slow square; counter ticks of 20 ms", SQUARE, 0.5, {"tick": 0.02}, {"counter_tick_s": 0.02}
    ),
    "late counter": Load(
        "steady after rest, the counter 100 ms late", fake.constant(300), 0.05, {"lag": 0.1}
    ),
    "slow call": Load("slow square; each call takes 2.4 ms", SQUARE, 0.5, {"latency": 2.4e-3}),
    "part-time": Load(
        "320 W and 280 W, 0.13 s; sees 25 of 100 ms, the counter too",
        fake.square(280, 320, 0.13),
        0.13,
        BLIND,
        PART,
    ),
    "part-time, no counter": Load(
        "320 W and 280 W, 0.37 s; sees 25 of 100 ms",
        fake.square(280, 320, 0.37),
        0.37,
        UNSEEN,
        PART,
    ),
    "part-time, in step": Load(
        "320 W and 280 W, 0.2 s; sees 25 of 100 ms in step with it",
        fake.square(280, 320, 0.2),
        0.2,
        {"span": 0.025, "faults": NO_COUNTER},
        PART,
    ),
    "falls in pauses": Load(
        "300 W in 12 ms, 40 W above rest after it; sees 25 of 100 ms, the counter too",
        fake.constant(300),
        0.012,
        BLIND,
        PART,
        TAIL,
    ),
    "falls in pauses, no counter": Load(
        "300 W in 12 ms, 40 W above rest after it; sees 25 of 100 ms",
        fake.constant(300),
        0.012,
        UNSEEN,
        PART,
        TAIL,
    ),
    "falls in pauses, true counter": Load(
        "300 W in 30 ms, 40 W above rest after it; sees 25 of 100 ms, the counter all",
        fake.constant(300),
        0.03,
        {"span": 0.025, "phase": 0.03},
        PART,
        TAIL,
    ),
    "falls to rest": Load(
        "300 W in 0.75 s, at rest at once after it; sees 25 of 100 ms",
        fake.constant(300),
        0.75,
        UNSEEN,
        PART,
        (0.0, 2.0),
    ),
    "averaging": Load(
        "slow square; 1 s averages beside the counter",
        SQUARE,
        0.5,
        {"span": 1.0},
        {"power_average_s": 1.0},
    ),
    "averaging, no counter": Load(
        "350 W and 250 W, 0.25 s; 1 s averages and nothing else",
        fake.square(250, 350, 0.25),
        0.25,
        {"faults": NO_COUNTER + NO_INSTANT},
        {"power_average_s": 1.0},
    ),
    "no counter": Load(
        "300 W and 150 W, 0.5 s; instantaneous power only",
        fake.square(150, 300, 0.5),
        0.5,
        {"faults": NO_COUNTER},
    ),
    "old sensor": Load(
        "random steps; old call only, sees 10 of 20 ms",
        _random(2, 250, 350),
        0.04,
        {"update": 0.02, "span": 0.01, "average": 0.01, "faults": NO_COUNTER + NO_INSTANT},
        {"power_update_s": 0.02, "power_average_s": 0.01, "power_duty": 0.5},
    ),
    "noisy": Load(
        "steady 120 W; 3 W of noise in each reading, no counter",
        fake.constant(120),
        0.05,
        {"noise": 3.0, "faults": NO_COUNTER},
    ),
    "low gain": Load("slow square; reads 5 % low", SQUARE, 0.5, {"gain": 0.95}),
    "high gain": Load("steady 300 W; reads 4 % high", fake.constant(300), 0.05, {"gain": 1.04}),
    "no card": Load(
        "steady 300 W; nothing is known of the sensor",
        fake.constant(300),
        0.05,
        {},
        dict.fromkeys(SENSOR, np.nan),
    ),
}


def slot(points: list) -> list:
    """The load after a rest, for one slot: what the script repeats."""
    at, watts = np.asarray(points, float).T
    rounds = int(np.ceil((SLOT_S - REST_S) / at[-1]))
    times = np.concatenate([REST_S + k * at[-1] + at for k in range(rounds)])
    inside = times < SLOT_S
    tail = [(SLOT_S, np.tile(watts, rounds)[inside][-1])]
    return [
        (0, IDLE_W),
        (REST_S, IDLE_W),
        *zip(times[inside], np.tile(watts, rounds)[inside], strict=True),
        *tail,
    ]


def answering(load: Load, busy: list, stop_s: float) -> list:
    """The power of a load that falls once an iteration ends, by its `tail`."""
    watts, (above_W, held_s) = load.points[0][1], load.tail
    points = [(0.0, IDLE_W), (busy[0][0], IDLE_W), (busy[0][0], watts)]
    for (_, stop), (after, _) in itertools.pairwise([*busy, (stop_s, stop_s)]):
        if after - stop > 1e-9:
            held = min(stop + held_s, after)
            points += [(stop, watts), (stop, IDLE_W + above_W), (held, IDLE_W + above_W)]
            points += [(held, IDLE_W), (after, IDLE_W), (after, watts)]
    return [*points[:-1], (stop_s, IDLE_W)]


def simulate(
    load: Load, time: fake.VirtualTime, script: Path, count: int, seed: int
) -> tuple[xr.Dataset, np.ndarray]:
    """Derived windows of `count` slots and the true energies of their work, on a virtual clock.

    A load that answers to pauses runs twice: its power follows from when it ran the first time.
    """
    points, busy = slot(load.points), []
    if load.tail:
        _run(load, points, time, script, (count, seed, busy))
        points = answering(load, busy, count * SLOT_S + 2)
        busy = []
    data = _run(load, points, time, script, (count, seed, busy))
    starts, stops = np.array(busy).T
    if load.tail:
        joules = load.points[0][1] * (stops - starts)
    else:
        joules = np.array([fake.energy(points, *ends) for ends in busy])
    ends = zip(data["start_s"].values, data["stop_s"].values, strict=True)
    inside = [(starts >= start - 1e-9) & (stops <= stop + 1e-9) for start, stop in ends]
    return data, np.array([joules[those].sum() for those in inside])


def _run(load: Load, points: list, time: fake.VirtualTime, script: Path, ask: tuple) -> xr.Dataset:
    """Derived windows; ask: how many, a seed, and the list that gets the ends of iterations."""
    count, seed, busy = ask
    fake.write(script, points, clock=str(time.path), **load.script)
    time.set(0.0)
    pynvml.nvmlInit()
    gpu, clock, rng = instrument.opened("cuda:0"), time.clock(), np.random.default_rng(seed)
    known = SENSOR | load.card
    setup = window.Setup(gpu, known, powercap=Path("none"), clock=clock, rng=rng)
    samples = _sampled(gpu, clock, count * SLOT_S + 1)
    time.set(0.15)
    rows = [{"phase": "idle_loaded", **window.idle(2.1, setup)}]
    for index in range(count):
        time.set(index * SLOT_S + REST_S + 0.05 + rng.uniform(0, 0.9))
        once = functools.partial(_iterate, load, clock, rng, busy)
        window.lead_in(once, WINDOW_S, setup)
        row, _ = window.fill(once, WINDOW_S, setup)
        rows.append(
            {
                "phase": "decode",
                "batch": 1,
                "prompt_tokens": index,
                "tokens": row["iterations"],
                **row,
            }
        )
    attrs = {
        name: cast() for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")
    }
    attrs |= {"status": "ok", "energy_source": gpu.source}
    tree = trace.new("measured", attrs, rows, samples)
    return energy.windows(tree).isel(window=slice(1, None))


def _sampled(gpu: Instrument, clock: Clock, stop_s: float) -> dict:
    rows: list = []

    def stopped(pause: float) -> bool:
        clock.sleep(pause)
        return clock.now() >= stop_s

    sampler.sample(gpu.reader(), lambda *row: rows.append(row), stopped, clock=clock)
    columns = dict(zip(sampler.COLUMNS, np.array(rows).T, strict=True))
    return columns | {"code": columns["code"].astype(int)}


def _iterate(load: Load, clock: Clock, rng: np.random.Generator, busy: list) -> list:
    start, seconds = clock.now(), load.iteration_s * rng.uniform(0.99, 1.01)
    clock.sleep(seconds)
    busy.append((start, clock.now()))
    return [seconds]


def line(name: str, data: xr.Dataset, true: np.ndarray) -> dict:
    """One row of the table: how often the interval held the truth, and how wide it was."""
    known, low, high = (data[key].values for key in ("energy_J", "energy_J_low", "energy_J_high"))
    half = budget.expanded(data)
    return {
        "load": name,
        "says": LOADS[name].says,
        "windows": len(true),
        "coverage_pct": 100 * np.mean((low <= true) & (true <= high)),
        "coverage_without_gain_pct": 100 * np.mean(np.abs(known - true) <= half),
        "half_width_pct": 100 * np.median((high - low) / 2 / known),
        "half_width_without_gain_pct": 100 * np.median(half / known),
        "bias_pct": 100 * np.mean(known / true - 1),
        "scatter_pct": 100 * np.std(known / true - 1),
        **{f"u_{term}_pct": 100 * np.nanmedian(data[f"u_{term}"].values / known) for term in TERMS},
    }


def table(names=tuple(LOADS), count: int = WINDOWS) -> list[dict]:
    """The table over some loads."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        script, time = folder / "script.txt", fake.VirtualTime(folder / "clock")
        fake.install(patch, fake.build(folder), script)
        return [line(load, *simulate(LOADS[load], time, script, count, SEED)) for load in names]


def main() -> None:
    """Write the table."""
    ending = {
        "source": "this project, tests/scripted_loads.py",
        "accessed": date.today().isoformat(),
    }
    ending |= {"status": "derived", "licence": "Apache-2.0"}
    rows = [row | ending for row in table()]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{cell:.3f}" if isinstance(cell, float) else cell for key, cell in row.items()}
            for row in rows
        )


if __name__ == "__main__":
    sys.exit(main())
