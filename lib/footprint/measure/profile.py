"""A run: idle, then prefill, decode and generate in windows of their own, in seeded order -> a trace."""

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import xarray as xr

from footprint import trace, workload
from footprint.measure import engine as engines
from footprint.measure import instrument as instruments
from footprint.measure import provenance, sampler, sensor, window
from footprint.measure.engine import Engine
from footprint.measure.window import Setup

ORDERS = ("prefill", "decode", "generate"), ("generate", "prefill", "decode")
LENGTHS = ("batch", "prompt_tokens", "output_tokens")


def run(request: dict, say: Callable[[str], None] = print) -> tuple[Engine, xr.DataTree]:
    """Measure what `workload.request` describes; returns the engine with its model, and the checked trace.

    A window that runs out of memory, a GPU that is lost, an error of the engine and Ctrl-C are statuses in the trace:
    what was measured until then is kept. `say` gets one line of progress with the time left before each point.
    """
    engine = engines.opened(request)
    instrument = instruments.opened(request["device"])
    attrs = provenance.attributes(request, instrument)
    rng = np.random.default_rng(request["seed"])
    setup = Setup(instrument, sensor.values(instrument, say), request["quick"], rng=rng)
    windows, step_windows, step_s = [], [], []
    status, reason = "ok", ""
    with sampler.sampling(instrument) as recording:
        windows.append(idle("idle_bare", request["window_s"], setup))
        say(f"loading {request['model']} on {attrs['device_name']}")
        strangers = instrument.state().processes or frozenset()
        attrs |= engine.load() | engine.probe()
        own = (instrument.state().processes or frozenset()) - strangers
        setup = setup._replace(own=own)
        windows.append(idle("idle_loaded", request["window_s"], setup))
        setup = setup._replace(rest_C=windows[-1]["temperature_C"])
        gc.collect()
        gc.freeze()  # looking through all that is loaded before each window would take longer than some windows
        try:
            with patient() as between:
                for row, times in measured(engine, request, setup, say):
                    step_windows += [len(windows)] * len(times)
                    step_s += times
                    windows.append(row)
                    if row["status"] in instruments.FATAL:
                        status, reason = "gpu_lost", row["reason"]
                        break
                    recording.revive()
                    between()
        except KeyboardInterrupt:
            status = "interrupted"
            reason = "Stopped by the keyboard; the windows measured until then are kept."
        except RuntimeError as error:
            status, words = "failed", str(error).partition("\n")[0]
            reason = f"{engine.library} gave up ({words}); the windows until then are kept."
        finally:
            gc.unfreeze()
    if not instrument.present:  # the number of threads makes another device of a processor
        attrs["device"] += f"-{attrs['threads']}t"
    attrs |= {"notebook": "profile", "status": status, "reason": reason}
    steps = {"window": step_windows, "step_s": step_s}
    return engine, trace.new("measured", attrs, windows, recording.columns, steps)


@contextmanager
def patient() -> Iterator[Callable[[], None]]:
    """Within the block the first SIGINT is only noted; yields a function that raises it, to be called between windows.

    The second SIGINT raises KeyboardInterrupt at once. In a thread, where no signal arrives, nothing changes.
    """
    pressed = []

    def note(*_) -> None:
        pressed.append(True)
        if len(pressed) > 1:
            raise KeyboardInterrupt

    def between() -> None:
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield between
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield between
    finally:
        signal.signal(signal.SIGINT, before)


def idle(phase: str, seconds: float, setup: Setup) -> dict:
    """A window in which nothing runs."""
    nothing = window.idle(window.length(seconds, setup), setup)
    return {"phase": phase, "lengths": "idle"} | nothing


def measured(
    engine: Engine, request: dict, setup: Setup, say: Callable[[str], None]
) -> Iterator[tuple[dict, list[float]]]:
    """Yield (window, step times) for the three phases of every point of the workload, in its seeded order.

    The whole goes before its parts and after them in turns, so that a drift of the machine falls on both alike; decode goes
    on from the cache that prefill left.
    """
    points = workload.windows(request)
    work = [_work(point) for point in points]
    began, warm, full = time.monotonic(), set(), []
    for index, point in enumerate(points):
        lengths = tuple(point[name] for name in LENGTHS)
        what = "batch {}, prompt {}, output {}".format(*lengths) + f", repeat {point['repeat'] + 1}"
        if index:
            left = (time.monotonic() - began) / sum(work[:index]) * sum(work[index:])
            what += f"; about {left:.0f} s left"
        say(f"{index + 1}/{len(points)}: {what}")
        engine.release()
        for phase in ORDERS[point["repeat"] % len(ORDERS)]:
            smaller = next((one for one in full if np.less_equal(one, lengths).all()), None)
            if smaller:
                reason = f"Not tried: the smaller point {smaller} ran out of memory."
                yield _row(point, phase, status="oom", reason=reason), []
                continue
            row, times = attempt(engine, request, setup, point, phase, warm)
            if row["status"] == "oom":
                full.append(lengths)
            yield row, times


def _work(point: dict) -> float:
    """Rough relative time of a point, for the time left: passes over the weights, twice at its first, warm-up visit."""
    passes = point["output_tokens"] + point["batch"] * point["prompt_tokens"] / 64
    return passes * (1 if point["repeat"] else 2)


def _row(point: dict, phase: str, **known) -> dict:
    """A window of a point, of which so much is known."""
    unseen = {"throttle_start": -1, "throttle": -1, "other_processes": -1}
    asked = {name: point[name] for name in (*LENGTHS, "repeat")}
    return {"phase": phase, "lengths": point["source"], **unseen, **asked, **known}


def attempt(
    engine: Engine, request: dict, setup: Setup, point: dict, phase: str, warm: set
) -> tuple[dict, list[float]]:
    """One window of `phase` at a point: warmed up at its own shape the first time, out of memory caught and freed.

    warm: shapes that were warmed up; the point is added. An error of the engine that comes with a lost GPU is that GPU's
    status; any other is raised.
    """
    batch, prompt, output = (point[name] for name in LENGTHS)
    need, free = engine.needed_bytes(batch, prompt + output), engine.free_bytes()
    if need > free:
        reason = f"Needs about {need / 2**30:.2f} GiB more; {free / 2**30:.2f} GiB are free."
        return _row(point, phase, status="oom", reason=reason), []
    try:
        once = engine.iteration(phase, point, request["seed"] + point["repeat"])
        shape, warmup_s, cooled_s = (phase, batch, prompt, output), 0.0, window.cool(setup)
        if shape not in warm:
            warmup_s = window.warm_up(once, request["warmup_s"], setup)
            warm.add(shape)
        engine.reset_peak()
        row, times = window.fill(once, window.length(request["window_s"], setup), setup)
        row |= {"cooled_s": cooled_s, "warmup_s": warmup_s, "peak_memory_B": engine.peak_bytes()}
        tokens = batch * {"prefill": prompt, "decode": output - 1, "generate": output}[phase]
        return _row(point, phase, tokens=tokens * row["iterations"], **row), times
    except (RuntimeError, MemoryError) as error:
        if (lost := setup.instrument.state().status) in instruments.FATAL:
            reason = f"The driver reported {lost} in the middle."
            return _row(point, phase, status=lost, reason=reason), []
        if not engine.out_of_memory(error):
            raise
    once = None  # it holds what the engine prepared
    engine.release()
    engine.free_bytes()
    reason = f"Ran out of memory; about {need / 2**30:.2f} GiB were predicted."
    return _row(point, phase, status="oom", reason=reason), []


def answers(engine: Engine, request: dict, tokens: int = 48) -> list[dict]:
    """What a trained model says to the first `answers` prompts: task, prompt, answer. Random weights say nothing."""
    if engine.weights == "random":
        return []
    return [
        {"task": row["task"], "prompt": row["text"], "answer": engine.answer(row["text"], tokens)}
        for row in workload.prompts(request["answers"])
    ]
