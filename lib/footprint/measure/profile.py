"""A run: windows at rest, then of prefill, decode and generate in seeded order, as a trace."""

import gc
import math
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import xarray as xr

from footprint import trace, workload
from footprint.measure import engine as engines
from footprint.measure import instrument as instruments
from footprint.measure import journal, provenance, sampler, sensor, window
from footprint.measure.engine import Engine
from footprint.measure.window import Setup

ORDERS = ("prefill", "decode", "generate"), ("generate", "prefill", "decode")
LENGTHS = ("batch", "prompt_tokens", "output_tokens")


def run(request: dict, say: Callable[[str], None] = print) -> tuple[Engine, xr.DataTree]:
    """Measure a request of `workload.request`; returns the engine and the checked trace.

    Out of memory, a lost GPU, an error of the engine and Ctrl-C are statuses in the trace, which
    keeps what was measured until then. say: gets a line of progress before each point.
    """
    engine = engines.opened(request)
    instrument = instruments.opened(request["device"])
    attrs = provenance.attributes(request, instrument)
    rng = np.random.default_rng(request["seed"])
    setup = Setup(instrument, sensor.values(instrument, say), request["quick"], rng=rng)
    with (
        journal.kept(_identity(request, attrs), sampler.ROW.size) as (kept, file),
        sampler.sampling(instrument, into=file) as recording,
    ):
        done = [window for window, _ in kept.rows]
        kept.add(bare := idle("idle_bare", request["window_s"], setup), [])
        held_GiB = attrs.get("memory_used_before_GiB", math.nan)
        if who := instruments.strangers(bare["other_processes"], held_GiB):
            say(who)
        say(f"loading {request['model']} on {attrs['device_name']}")
        others = instrument.state().processes
        attrs |= engine.load()
        rates, reason = _probed(engine)
        attrs |= rates
        status = "oom" if reason else "ok"
        setup = setup._replace(own=instruments.own(others, instrument.state().processes))
        kept.add(idle("idle_loaded", request["window_s"], setup), [])
        gc.collect()
        gc.freeze()  # a collection of all that is loaded would take longer than some windows
        try:
            attrs |= {} if reason else heat(engine, request, setup, say)
            with patient() as between:
                for row, times in () if reason else measured(engine, request, setup, say, done):
                    kept.add(row, times)
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
    if not instrument.present:  # a CPU with another number of threads is another device
        attrs["device"] += f"-{attrs['threads']}t"
    attrs |= {"notebook": "profile", "status": status, "reason": reason}
    attrs["tries"] = len(kept.tries)
    return engine, trace.new("measured", attrs, *kept.joined(recording.columns))


def _identity(request: dict, attrs: dict) -> dict:
    """What must be equal for the windows of an earlier try to count."""
    names = ("device_name", "device_hash", "software", "driver", "git_commit")
    return {"request": provenance.asked(request), **{name: attrs[name] for name in names}}


def _probed(engine: Engine) -> tuple[dict[str, float], str]:
    """What the engine's probe found; where it ran out of memory NaN, and a sentence."""
    try:
        return engine.probe(), ""
    except (RuntimeError, MemoryError) as error:
        if not engine.out_of_memory(error):
            raise
        words = str(error).partition("\n")[0].rstrip(".")
    unknown = dict.fromkeys(("memory_GiB", "read_bandwidth_GBps", "matmul_GFLOPs"), math.nan)
    return unknown, f"The probe beside the weights ran out of memory ({words}); nothing was tried."


@contextmanager
def signals(handler: Callable | signal.Handlers, *numbers: signal.Signals) -> Iterator[None]:
    """Handle these signals so within the block; nothing changes in a thread, which gets none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def patient() -> Iterator[Callable[[], None]]:
    """Hold the first SIGINT back until the yielded function is called, between windows.

    The second one raises KeyboardInterrupt at once.
    """
    interrupts = 0

    def note(*_) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            raise KeyboardInterrupt

    def between() -> None:
        if interrupts:
            raise KeyboardInterrupt

    with signals(note, signal.SIGINT):
        yield between


def idle(phase: str, seconds: float, setup: Setup) -> dict:
    """A window in which nothing runs, once the power is flat."""
    window.rest(setup)
    return {"phase": phase, "lengths": "idle", **window.idle(window.length(seconds, setup), setup)}


def heat(
    engine: Engine, request: dict, setup: Setup, say: Callable[[str], None]
) -> dict[str, float]:
    """Bring a GPU to its working temperature by decoding at a middle batch, or a smaller one.

    Returns root attributes (see `window.soak`), none where nothing fits or nothing needs heat.
    """
    batches, prompts = sorted(request["batches"]), sorted(request["prompt_tokens"])
    point = {"prompt_tokens": prompts[len(prompts) // 2], "source": "grid", "repeat": 0}
    point |= {"output_tokens": max(request["output_tokens"])}
    if request["quick"] or not setup.instrument.present:
        return {}
    say(f"heating the GPU until it is steady, at most {window.SOAK_S:.0f} s")
    for batch in batches[len(batches) // 2 :: -1]:
        there = point | {"batch": batch}
        try:
            if engine.needed_bytes("decode", there) <= engine.overdraft * engine.free_bytes():
                return window.soak(engine.iteration("decode", there, request["seed"]), setup)
        except (RuntimeError, MemoryError) as error:
            if setup.instrument.state().status in instruments.FATAL:
                return {}  # the first window says so
            if not engine.out_of_memory(error):
                raise
        finally:
            engine.release()
    return {}


def measured(
    engine: Engine,
    request: dict,
    setup: Setup,
    say: Callable[[str], None],
    done: Iterable[dict] = (),
) -> Iterator[tuple[dict, list[float]]]:
    """Yield window and step times of the three phases of every point, in seeded order.

    `generate` comes after its parts and before them in turns, so that drift affects both alike.
    done: windows of an earlier try, which are not measured again.
    """
    left = Counter(map(_place, done))
    points, now = workload.windows(request), setup.clock.now
    took_s, warm, told = {}, set(), set()
    full = [(row["phase"], _lengths(row)) for row in done if row["status"] == "oom"]
    for index, point in enumerate(points):
        lengths = _lengths(point)
        what = "batch {}, prompt {}, output {}".format(*lengths) + f", repeat {point['repeat'] + 1}"
        if took_s:
            mean_s = sum(took_s.values()) / len(took_s)
            left_s = sum(took_s.get(_lengths(point), mean_s) for point in points[index:])
            what += f"; about {left_s:.0f} s left"
        places = {
            phase: _place(_row(point, phase)) for phase in ORDERS[point["repeat"] % len(ORDERS)]
        }
        due = [phase for phase, place in places.items() if not left[place]]
        left -= Counter(places.values())
        if not due:
            continue
        began = now()
        say(f"{index + 1}/{len(points)}: {what}")
        engine.release()
        for phase in due:
            if reason := _hopeless(phase, lengths, full):
                yield _row(point, phase, status="skipped", reason=reason), []
                continue
            row, times = attempt(engine, request, setup, point, phase, warm)
            if row["status"] == "oom":
                full.append((phase, lengths))
            if warning := _unfused(row, setup, told):
                say(warning)
            yield row, times
        took_s[lengths] = now() - began


def _lengths(point: dict) -> tuple[int, ...]:
    return tuple(point[name] for name in LENGTHS)


def _place(row: dict) -> tuple:
    """What tells a window of a run from the others, but for points that were drawn twice."""
    return tuple(row.get(name) for name in ("phase", "lengths", *LENGTHS, "repeat"))


def _hopeless(phase: str, lengths: tuple, full: list[tuple[str, tuple]]) -> str:
    """Why a phase is not worth trying, or nothing; full: phases and lengths out of memory.

    A prefill may fit where what follows it does not.
    """
    for other, least in full:
        if np.less_equal(least, lengths).all() and (phase != "prefill" or other == "prefill"):
            there = "here" if least == lengths else "at batch {}, prompt {}, output {}"
            return f"Not tried: {other} ran out of memory {there.format(*least)}."
    return ""


def _unfused(row: dict, setup: Setup, told: set[str]) -> str:
    """A sentence, once a phase, for a GPU that computes attention without a fused kernel."""
    phase = row["phase"]
    if not setup.instrument.present or "math" not in row.get("attention_backend", ""):
        return ""
    if phase in told:
        return ""
    told.add(phase)
    slower = "this is slower, and no property of the GPU"
    return f"In {phase}, attention runs on torch's unfused kernel (math): {slower}."


def _row(point: dict, phase: str, **values) -> dict:
    """A window of a point as a row of the trace."""
    unknown = {"throttle_start": -1, "throttle": -1, "other_processes": -1}
    lengths = {name: point[name] for name in (*LENGTHS, "repeat")}
    return {"phase": phase, "lengths": point["source"], **unknown, **lengths, **values}


def attempt(
    engine: Engine, request: dict, setup: Setup, point: dict, phase: str, warm: set
) -> tuple[dict, list[float]]:
    """One window of a phase at a point, after a warm-up if it is the first, and its step times.

    warm: shapes that were warmed up; this one is added. Out of memory, a lost GPU and a need far
    above the free memory (`skipped`) are statuses of the window; other errors are raised.
    """
    batch, prompt, output = lengths = tuple(point[name] for name in LENGTHS)
    need, free = engine.needed_bytes(phase, point), engine.free_bytes()
    if need > engine.overdraft * free:
        there = f"{free / 2**30:.2f} GiB are free"
        reason = f"Not tried: it needs about {need / 2**30:.2f} GiB more; {there}."
        return _row(point, phase, status="skipped", reason=reason), []
    try:
        seed, shape, warmup_s = request["seed"] + point["repeat"], (phase, *lengths), 0.0
        short = engine.lead(phase, point, seed) if setup.instrument.present else None
        once = engine.iteration(phase, point, seed)
        if shape not in warm:
            warmup_s = window.warm_up(short or once, request["warmup_s"], setup)
            warm.add(shape)
        length_s = window.length(request["window_s"], setup)
        if short and warmup_s < window.LEAD_S:
            window.lead_in(short, length_s, setup)
        engine.reset_peak()
        row, times = window.fill(once, length_s, setup)
        row |= {"warmup_s": warmup_s, "compile_s": engine.compile_s}
        row |= {"peak_memory_B": engine.peak_bytes()}
        row |= {"attention_backend": engine.attention_backend(phase, point)}
        tokens = batch * {"prefill": prompt, "decode": output - 1, "generate": output}[phase]
        return _row(point, phase, tokens=tokens * row["iterations"], **row), times
    except (RuntimeError, MemoryError) as error:
        if (lost := setup.instrument.state().status) in instruments.FATAL:
            reason = f"The driver reported {lost} in the middle."
            return _row(point, phase, status=lost, reason=reason), []
        if not engine.out_of_memory(error):
            raise
    once = short = None  # they hold what the engine prepared
    engine.release()
    engine.free_bytes()
    reason = f"Ran out of memory; about {need / 2**30:.2f} GiB were predicted."
    return _row(point, phase, status="oom", reason=reason), []


def answers(engine: Engine, request: dict, tokens: int = 48) -> list[dict]:
    """Task, prompt and answer for the first `answers` prompts; empty for random weights."""
    if engine.weights == "random":
        return []
    return [
        {"task": row["task"], "prompt": row["text"], "answer": engine.answer(row["text"], tokens)}
        for row in workload.prompts(request["answers"])
    ]
