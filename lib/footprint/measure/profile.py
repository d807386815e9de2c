"""A run: idle, then prefill, decode and generate in windows of their own, in seeded order -> a trace."""

import gc
import math
import time
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from footprint import spec, workload
from footprint.measure import eager as engine
from footprint.measure import interrupt, provenance, sampler, sensor, window
from footprint.measure import nvml as meter
from footprint.measure import probe as hardware
from footprint.trace import file as trace

ORDERS = ("prefill", "decode", "generate"), ("generate", "prefill", "decode")


def run(request: dict, say: Callable[[str], None] = print) -> tuple[engine.Subject, xr.DataTree]:
    """Measure what `workload.request` describes; returns the loaded model and the checked trace.

    A window that runs out of memory, a GPU that is lost, an error of torch and Ctrl-C are statuses in the trace: what was
    measured until then is kept. `say` gets one line of progress with the time left before each point.
    """
    device = hardware.find(request["device"])
    instrument = meter.instrument(request["device"])
    card = None if instrument == "cpu" else meter.handle(instrument)
    attrs = provenance.run(request, card)
    bench = window.Bench(
        card,
        sensor.values(instrument, attrs["device_hash"], say),
        request["quick"],
        rng=np.random.default_rng(request["seed"]),
    )
    windows, steps, status, reason = [], [], "ok", ""
    with sampler.sampling(instrument) as recording:
        windows.append(idle("idle_bare", request["window_s"], bench))
        say(f"loading {request['model']} on {attrs['device_name']}")
        strangers = meter.state(card)["processes"] or frozenset()
        subject = engine.load(request)
        attrs |= describe(subject, card) | hardware.probe(subject.device, subject.dtype)
        attrs |= {"memory_GiB": hardware.memory(device)}
        bench = bench._replace(own=(meter.state(card)["processes"] or frozenset()) - strangers)
        windows.append(idle("idle_loaded", request["window_s"], bench))
        bench = bench._replace(rest_C=windows[-1]["temperature_C"])
        gc.collect()
        gc.freeze()  # what is loaded stays: looking through all of it before each window would take longer than some windows
        try:
            with interrupt.patient() as between:
                for row, times in measured(subject, request, bench, say):
                    windows.append(row)
                    steps += [(len(windows) - 1, seconds) for seconds in times]
                    if row["status"] in meter.FATAL:
                        status, reason = "gpu_lost", row["reason"]
                        break
                    recording.revive()
                    between()
        except KeyboardInterrupt:
            status, reason = (
                "interrupted",
                "Stopped by the keyboard; the windows measured until then are kept.",
            )
        except RuntimeError as error:
            status, reason = (
                "failed",
                f"torch gave up ({str(error).splitlines()[0]}); the windows until then are kept.",
            )
        finally:
            gc.unfreeze()
    attrs |= {"status": status, "reason": reason}
    columns = {"window": [index for index, _ in steps], "step_s": [seconds for _, seconds in steps]}
    return subject, trace.new("measured", attrs, windows, recording.columns, columns)


def measured(subject: engine.Subject, request: dict, bench: window.Bench | None, say: Callable):
    """Yield (window, step times) for the three phases of every point of the workload, in its seeded order.

    The whole goes before its parts and after them in turns, so that a drift of the machine falls on both alike; decode goes
    on from the cache that prefill left. `bench` None: bare machine.
    """
    points = workload.windows(request)
    work = [_work(point) for point in points]
    began, warm, full = time.monotonic(), set(), []
    for index, point in enumerate(points):
        shape = (point["batch"], point["prompt_tokens"], point["output_tokens"])
        left = (
            (time.monotonic() - began) / sum(work[:index]) * sum(work[index:])
            if index
            else math.nan
        )
        what = (
            f"batch {shape[0]}, prompt {shape[1]}, output {shape[2]}, repeat {point['repeat'] + 1}"
        )
        say(f"{index + 1}/{len(points)}: {what}" + (f"; about {left:.0f} s left" if index else ""))
        ready = []
        for phase in ORDERS[point["repeat"] % len(ORDERS)]:
            smaller = next(
                (size for size in full if all(a <= b for a, b in zip(size, shape, strict=True))),
                None,
            )
            if smaller:
                yield (
                    lost_memory(
                        point, phase, f"Not tried: the smaller point {smaller} ran out of memory."
                    ),
                    [],
                )
                continue
            row, times = attempt(subject, request, bench, point, phase, warm, ready)
            if row["status"] == "oom":
                full.append(shape)
            yield row, times


def _work(point: dict) -> float:
    """Rough relative time of a point, for the time left: passes over the weights, twice at its first, warm-up visit."""
    passes = point["output_tokens"] + point["batch"] * point["prompt_tokens"] / 64
    return passes * (1 if point["repeat"] else 2)


def lost_memory(point: dict, phase: str, reason: str) -> dict:
    """The window of a point that does not fit."""
    return _row(point, phase) | {"status": "oom", "reason": reason}


def _row(point: dict, phase: str) -> dict:
    names = ("batch", "prompt_tokens", "output_tokens", "repeat")
    unseen = {"throttle_start": -1, "throttle": -1, "other_processes": -1}
    return {
        "phase": phase,
        "lengths": point["source"],
        **unseen,
        **{name: point[name] for name in names},
    }


def attempt(
    subject: engine.Subject,
    request: dict,
    bench: window.Bench | None,
    point: dict,
    phase: str,
    warm: set,
    ready: list,
) -> tuple[dict, list]:
    """One window of `phase` at a point: warmed up at its own shape the first time, out of memory caught and freed.

    An error of torch that comes with a lost card is that card's status; any other is raised.
    """
    bench = bench or window.Bench()
    batch, prompt, output = (point[name] for name in ("batch", "prompt_tokens", "output_tokens"))
    need = needed_bytes(subject, batch, prompt + output)
    free = hardware.free_memory(subject.device)
    if need > free:
        return lost_memory(
            point,
            phase,
            f"Needs about {need / 2**30:.2f} GiB more; {free / 2**30:.2f} GiB are free.",
        ), []
    try:
        ids = engine.prompt_ids(subject, batch, prompt, request["seed"] + point["repeat"])
        once = engine.runner(subject.net, ids, phase, output, ready)
        shape = (phase, batch, prompt, output)
        ready = {"cooled_s": window.cool(bench), "warmup_s": 0.0}
        if shape not in warm:
            ready["warmup_s"] = window.warm_up(once, request["warmup_s"], bench)
            warm.add(shape)
        hardware.reset_peak(subject.device)
        row, times = window.fill(once, window.length(request["window_s"], bench), bench)
        peak = {"peak_memory_B": hardware.peak_memory(subject.device)}
        tokens = batch * {"prefill": prompt, "decode": output - 1, "generate": output}[phase]
        return _row(point, phase) | row | ready | peak | {
            "tokens": tokens * row["iterations"]
        }, times
    except (RuntimeError, MemoryError) as error:
        if (lost := meter.state(bench.card)["status"]) in meter.FATAL:
            return _row(point, phase) | {
                "status": lost,
                "reason": f"The driver reported {lost} in the middle.",
            }, []
        if not hardware.out_of_memory(error):
            raise
        once = ids = None
        ready.clear()
        hardware.free_memory(subject.device)
        return lost_memory(
            point, phase, f"Ran out of memory; about {need / 2**30:.2f} GiB were predicted."
        ), []


def needed_bytes(subject: engine.Subject, batch: int, tokens: int) -> float:
    """Bytes that a point needs beside the weights: the KV cache twice (it grows by copying), a layer's activations."""
    shape, width = subject.shape, spec.bytes_of(subject.dtype)
    activations = batch * tokens * (2 * shape.hidden + 3 * shape.intermediate) * width
    return 2 * batch * tokens * shape.kv_bytes_per_token(subject.dtype) + activations


def describe(subject: engine.Subject, card) -> dict:
    """Root attributes of the loaded model, and a CPU's id, which holds the number of threads."""
    threads = torch.get_num_threads()
    cpu = {"device": f"{workload.slug(provenance.processor())}-{threads}t"} if card is None else {}
    return cpu | {
        "model": workload.slug(subject.shape.id),
        "revision": subject.revision,
        "weights": subject.weights,
        "parameters": subject.shape.parameters,
        "dtype": subject.dtype,
        "threads": threads,
        "attention": subject.net.config._attn_implementation or "eager",
    }


def idle(phase: str, seconds: float, bench: window.Bench) -> dict:
    """A window in which nothing runs."""
    return {"phase": phase, "lengths": "idle"} | window.idle(window.length(seconds, bench), bench)


def answers(subject: engine.Subject, request: dict, output_tokens: int = 48) -> list[dict]:
    """What a trained model says to the first `answers` prompts: task, prompt, answer. Random weights say nothing."""
    if subject.tokenizer is None:
        return []
    return [
        {
            "task": row["task"],
            "prompt": row["text"],
            "answer": engine.answer(subject, row["text"], output_tokens),
        }
        for row in workload.prompts(request["answers"])
    ]
