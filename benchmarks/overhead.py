"""What the sampler costs: its share of a core, and the wall time of work with and without it.

An A/A row (nothing against nothing) shows the noise of the wall ratios, some percent on a small
machine; the share of a core is precise. A fake NVML spins for 0.17 or 2.4 ms a call.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from footprint import workload
from footprint.measure import instrument, sampler
from footprint.measure.eager import Eager

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import fake_nvml as fake

ROUNDS, WORK_S, SHARE_S = 21, 1.5, 10.0
CALLS = {
    "0.17 ms calls": (0.00017, 0.01),
    "2.4 ms calls": (0.0024, 0.05),
}  # seconds, largest share of a core


def rows() -> list[dict]:
    """A row for A/A and for each cost of a call: wall ratio (quartiles), share of a core, rate."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        script = fake.install(patch, fake.build(Path(folder)), Path(folder) / "script")

        def sampling(seconds: float) -> AbstractContextManager:
            script(fake.square(60, 300, 0.5), latency=seconds, spin=1)
            return sampler.sampling(instrument.opened("cuda:0"))

        beside = {"A/A": nullcontext} | {
            name: partial(sampling, seconds) for name, (seconds, _) in CALLS.items()
        }
        measured = ratios(decode(), beside)
        base = measured.pop("A/A")
        low, high = np.quantile(base, (0.25, 0.75))
        found = [row("A/A", base)]
        for name, values in measured.items():
            used, rate = share(beside[name])
            limit, inside = CALLS[name][1], low <= np.median(values) <= high
            found.append(
                row(f"sampler, {name}", values)
                | {
                    "core_share_pct": 100 * used,
                    "limit_pct": 100 * limit,
                    "rate_hz": rate,
                    "inside_AA_quartiles": inside,
                    "ok": used <= limit,
                }
            )
    return [{"ok": True} | line for line in found]


def row(name: str, measured: np.ndarray) -> dict:
    """Median and quartiles of wall ratios."""
    low, median, high = np.quantile(measured, (0.25, 0.5, 0.75))
    return {"what": name, "pairs": len(measured), "ratio": median, "q25": low, "q75": high}


def ratios(work: Callable, beside: dict[str, Callable]) -> dict[str, np.ndarray]:
    """Wall time of `work` beside each over that beside nothing, in rounds of random order.

    All share the rounds, since the speed of a machine changes within minutes.
    """
    order, every = np.random.default_rng(0), {"nothing": nullcontext, **beside}
    found = {name: [] for name in beside}
    for _ in range(ROUNDS):
        seconds = {name: timed(work, every[name]()) for name in order.permutation(list(every))}
        for name, values in found.items():
            values.append(seconds[name] / seconds["nothing"])
    return {name: np.array(values) for name, values in found.items()}


def timed(work: Callable, context: AbstractContextManager) -> float:
    """Seconds of `work` alone: what the context needs to begin and end is not counted."""
    with context:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def decode() -> Callable:
    """Greedy decoding with a small random model, as often as fills `WORK_S`."""
    engine = Eager(workload.request("profile", model="llama-24m"))
    engine.load()
    point = {"batch": 1, "prompt_tokens": 64, "output_tokens": 33}
    once = engine.iteration("decode", point, seed=0)
    once()
    count = max(1, round(WORK_S / sum(once())))

    def work() -> None:
        for _ in range(count):
            once()

    return work


def share(sampling: Callable) -> tuple[float, float]:
    """Share of a core that the sampler uses alone (median of ten seconds), and its rate in Hz."""
    with sampling() as recording:
        time.sleep(SHARE_S)
    at, used = recording.columns["time_s"], recording.columns["cpu_s"]
    seconds = np.interp(np.arange(at[0], at[-1], 1.0), at, used)
    return float(np.median(np.diff(seconds))), (len(at) - 1) / (at[-1] - at[0])
