"""The protocol: idle, then prefill, decode and generate in windows of their own, in seeded order -> a trace."""

import math
import time
from collections.abc import Callable

import psutil
import torch
import xarray as xr

from footprint import engine, hardware, meter, provenance, spec, trace, workload

PHASES = ("prefill", "decode", "generate")
DISTURBED = 0.10  # share of all cores that others may use before a window is flagged
THERMAL = 0x08 | 0x20 | 0x40 | 0x80  # NVML throttle bits: hardware, software thermal, hardware thermal, power brake


def run(request: dict, say: Callable[[str], None] = print) -> tuple[engine.Subject, xr.DataTree]:
    """Measure what `workload.request` describes; returns the loaded model and the checked trace.

    A window that runs out of memory, a GPU that is lost and Ctrl-C are statuses in the trace: what was measured until
    then is kept. `say` gets one line of progress with the time left before each point.
    """
    device = hardware.find(request["device"])
    card = None if device.type == "cpu" else meter.handle(request["device"])
    attrs = provenance.run(request, card) | {"memory_GiB": hardware.memory(device)}
    windows, steps, status, reason = [], [], "ok", ""
    with meter.sampling(request["device"]) as samples:
        windows.append(idle("idle_bare", request["window_s"], card))
        say(f"loading {request['model']} on {attrs['device_name']}")
        subject = engine.load(request)
        attrs |= describe(subject) | hardware.probe(subject.device, subject.dtype)
        windows.append(idle("idle_loaded", request["window_s"], card))
        try:
            for window, times in measured(subject, request, card, say):
                windows.append(window)
                steps += [(len(windows) - 1, seconds) for seconds in times]
                if window["status"] in ("gpu_lost", "driver_mismatch"):
                    status, reason = "gpu_lost", window["reason"]
                    break
        except KeyboardInterrupt:
            status, reason = "interrupted", "Stopped by the keyboard; the windows measured until then are kept."
    attrs |= {"status": status, "reason": reason}
    columns = {"window": [index for index, _ in steps], "step_s": [seconds for _, seconds in steps]}
    kept = {"time_s": samples["time_s"], "power_W": samples["power_W"]}
    return subject, trace.new("measured", attrs, windows, kept, columns)


def measured(subject: engine.Subject, request: dict, card, say: Callable):
    """Yield (window, step times) for the three phases of every point of the workload, in its seeded order."""
    points = workload.windows(request)
    work = [_work(point) for point in points]
    began, warm, full = time.monotonic(), set(), []
    for index, point in enumerate(points):
        shape = (point["batch"], point["prompt_tokens"], point["output_tokens"])
        left = (time.monotonic() - began) / sum(work[:index]) * sum(work[index:]) if index else math.nan
        what = f"batch {shape[0]}, prompt {shape[1]}, output {shape[2]}, repeat {point['repeat'] + 1}"
        say(f"{index + 1}/{len(points)}: {what}" + (f"; about {left:.0f} s left" if index else ""))
        for phase in PHASES:
            smaller = next((size for size in full if all(a <= b for a, b in zip(size, shape, strict=True))), None)
            if smaller:
                yield lost_memory(point, phase, f"Not tried: the smaller point {smaller} ran out of memory."), []
                continue
            window, times = attempt(subject, request, card, point, phase, warm)
            if window["status"] == "oom":
                full.append(shape)
            yield window, times


def _work(point: dict) -> float:
    """Rough relative time of a point, for the time left: passes over the weights, twice at its first, warm-up visit."""
    passes = point["output_tokens"] + point["batch"] * point["prompt_tokens"] / 64
    return passes * (1 if point["repeat"] else 2)


def lost_memory(point: dict, phase: str, reason: str) -> dict:
    """The window of a point that does not fit."""
    return _row(point, phase) | {"status": "oom", "reason": reason}


def _row(point: dict, phase: str) -> dict:
    names = ("batch", "prompt_tokens", "output_tokens", "repeat")
    return {"phase": phase, "lengths": point["source"], **{name: point[name] for name in names}}


def attempt(subject: engine.Subject, request: dict, card, point: dict, phase: str, warm: set) -> tuple[dict, list]:
    """One window of `phase` at a point: warmed up at its own shape the first time, out of memory caught and freed."""
    batch, prompt, output = (point[name] for name in ("batch", "prompt_tokens", "output_tokens"))
    need = needed_bytes(subject, batch, prompt + output)
    free = hardware.free_memory(subject.device)
    if need > free:
        return lost_memory(point, phase, f"Needs about {need / 2**30:.2f} GiB more; {free / 2**30:.2f} GiB are free."), []
    try:
        ids = engine.prompt_ids(subject, batch, prompt, request["seed"] + point["repeat"])
        once = engine.runner(subject.net, ids, phase, output)
        if (phase, batch, prompt, output) not in warm:
            warm_up(once, request["warmup_s"])
            warm.add((phase, batch, prompt, output))
        tokens = batch * {"prefill": prompt, "decode": output - 1, "generate": output}[phase]
        window, times = fill(once, request["window_s"], subject.device, card)
        return _row(point, phase) | window | {"tokens": tokens * window["iterations"]}, times
    except (RuntimeError, MemoryError) as error:
        if not hardware.out_of_memory(error):
            raise
        once = ids = None
        hardware.free_memory(subject.device)
        return lost_memory(point, phase, f"Ran out of memory; about {need / 2**30:.2f} GiB were predicted."), []


def needed_bytes(subject: engine.Subject, batch: int, tokens: int) -> float:
    """Bytes that a point needs beside the weights: the KV cache twice (it grows by copying), a layer's activations."""
    shape, width = subject.shape, spec.bytes_of(subject.dtype)
    activations = batch * tokens * (2 * shape.hidden + 3 * shape.intermediate) * width
    return 2 * batch * tokens * shape.kv_bytes_per_token(subject.dtype) + activations


def warm_up(once: Callable[[], list], seconds: float) -> None:
    """Run at the same shape for `seconds`, at least once."""
    stop = time.monotonic() + seconds
    once()
    while time.monotonic() < stop:
        once()


def fill(once: Callable[[], list], seconds: float, device: torch.device, card) -> tuple[dict, list]:
    """Repeat `once` until the window is at least `seconds` long; returns the window and all step times."""
    times, iterations = [], 0
    hardware.reset_peak(device)
    before, others = meter.read(card), _cpu_clock()
    start = time.monotonic()
    while not iterations or time.monotonic() - start < seconds:
        times += once()
        iterations += 1
    stop = time.monotonic()
    after, share = meter.read(card), _foreign(others, stop - start)
    return _window(before, after, start, stop, share) | {
        "iterations": iterations, "peak_memory_B": hardware.peak_memory(device),
    }, times  # fmt: skip


def describe(subject: engine.Subject) -> dict:
    """Root attributes of the loaded model, and a CPU's id, which holds the number of threads."""
    threads = torch.get_num_threads()
    cpu = {"device": f"{workload.slug(provenance.processor())}-{threads}t"} if subject.device.type == "cpu" else {}
    return cpu | {
        "model": workload.slug(subject.shape.id), "revision": subject.revision, "weights": subject.weights,
        "parameters": subject.shape.parameters, "dtype": subject.dtype, "threads": threads,
        "attention": subject.net.config._attn_implementation or "eager",
    }  # fmt: skip


def idle(phase: str, seconds: float, card) -> dict:
    """A window in which nothing runs."""
    before, others, start = meter.read(card), _cpu_clock(), time.monotonic()
    time.sleep(seconds)
    stop = time.monotonic()
    share = _foreign(others, stop - start)
    return {"phase": phase, "lengths": "idle"} | _window(before, meter.read(card), start, stop, share)


def _window(before: dict, after: dict, start: float, stop: float, share: float) -> dict:
    status, reason = "ok", ""
    if after["status"] in ("gpu_lost", "driver_mismatch"):
        status, reason = after["status"], f"The driver reported {after['status']} at the end of the window."
    elif after["throttle"] & THERMAL:
        status, reason = "throttled", f"Throttle reasons {after['throttle']:#x} at the end of the window."
    elif share > DISTURBED:
        status, reason = "disturbed", f"Other processes used {share:.0%} of all cores."
    kept = {name: after[name] for name in ("temperature_C", "sm_clock_MHz", "power_limit_W", "throttle")}
    counters = {"counter_start_J": before["counter_J"], "counter_stop_J": after["counter_J"]}
    ends = {"start_s": start, "stop_s": stop, "foreign_cpu_share": share, "status": status, "reason": reason}
    return {**kept, **counters, **ends}


def _cpu_clock() -> tuple[float, float]:
    """Seconds that all processes, and this one, have spent on the cores."""
    total, own = psutil.cpu_times(), psutil.Process().cpu_times()
    idle_s = total.idle + getattr(total, "iowait", 0.0)
    return sum(total[:8]) - idle_s, own.user + own.system


def _foreign(before: tuple[float, float], seconds: float) -> float:
    """Share of all cores that other processes used since `before`."""
    after = _cpu_clock()
    busy, own = after[0] - before[0], after[1] - before[1]
    return max(0.0, busy - own) / (seconds * psutil.cpu_count())


def answers(subject: engine.Subject, request: dict, output_tokens: int = 48) -> list[dict]:
    """What a trained model says to the first `answers` prompts: task, prompt, answer. Random weights say nothing."""
    if subject.tokenizer is None:
        return []
    return [
        {"task": row["task"], "prompt": row["text"], "answer": engine.answer(subject, row["text"], output_tokens)}
        for row in workload.prompts(request["answers"])
    ]
