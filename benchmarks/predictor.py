"""Configurations a second of the GPU model on one core, and the memory that each takes.

A plain roofline in numpy (times alone, the larger of bytes over bandwidth and arithmetic over peak)
is timed beside it on the same grid: the ratio is what power, energy, memory and intervals cost. A
configuration is one cell of the grid.
"""

import json
import time
import tracemalloc

import numpy as np

from benchmarks import alone
from footprint import predict, spec

BATCHES, PROMPTS, OUTPUTS = 2 ** np.arange(8), np.arange(64, 4097, 64), np.arange(16, 2049, 16)
LEAST = 1_000_000  # configurations, and configurations a second
PARTS = (0.25, 1.0)  # of the models, for the memory at two sizes
GPUS = 4
REPEATS = 3


def rows() -> list[dict]:
    """A row for speed and one for memory.

    Speed is `ok` from a million configurations a second, memory if it grows at most linearly.
    """
    found = alone.run("benchmarks.predictor")
    small, large = found["bytes_each"]
    size = found["configurations"]
    return [
        {
            "what": "predict.windows",
            "configurations": size,
            "per_s": found["model_per_s"],
            "roofline_per_s": found["roofline_per_s"],
            "ratio": found["roofline_per_s"] / found["model_per_s"],
            "peak_GiB": found["peak_GiB"],
            "ok": size >= LEAST and found["model_per_s"] >= LEAST,
        },
        {
            "what": "bytes a configuration",
            "configurations": size,
            "at_a_quarter": small,
            "at_all": large,
            "ratio": large / small,
            "ok": large <= 1.1 * small,
        },
    ]


def grid(part: float = 1.0) -> tuple[list[str], list[str], dict]:
    """Models, GPUs and lengths; a part of the models."""
    models = spec.models()[:4]
    return (
        models[: round(part * len(models))],
        spec.gpus()[:GPUS],
        {"batch": BATCHES, "prompt": PROMPTS, "output": OUTPUTS},
    )


def roofline(
    models: list[str], gpus: list[str], batch, prompt, output
) -> tuple[np.ndarray, np.ndarray]:
    """TTFT and TPOT of a plain roofline of published peaks, (model, gpu, batch, prompt, output)."""
    shape = [spec.model(name) for name in models]
    per_model = [
        (
            m.weight_bytes("fp16"),
            2 * m.layers * m.layer_parameters,
            2 * m.hidden * m.vocab,
            m.kv_bytes_per_token("fp16"),
            4 * m.layers * m.heads * m.head_dim,
        )
        for m in shape
    ]
    weights, each, head, cache, pair = np.array(per_model, dtype=float).T[
        :, :, None, None, None, None
    ]
    card = [spec.gpu(name) for name in gpus]
    peak, bandwidth = np.array(
        [(g.peak_fp16_tflops * 1e12, g.bandwidth_GBps * 1e9) for g in card]
    ).T[..., None, None, None]
    b, p, o = batch[:, None, None], prompt[:, None], output
    past = p + o / 2
    prefill = b * (p * each + pair * p * (p + 1) / 2 + head)
    decode = b * (each + pair * (past + 1) + head)
    ttft = np.maximum(prefill / peak, weights / bandwidth) + 0 * o
    return ttft, np.maximum(decode / peak, (weights + b * past * cache) / bandwidth)


def rate(function, *arguments, **sizes) -> tuple[int, float]:
    """Configurations of one call and how many of them a second, best of some repeats."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = function(*arguments, **sizes)
        seconds.append(time.perf_counter() - began)
    count = (found["tpot_s"] if hasattr(found, "data_vars") else found[1]).size
    return count, count / min(seconds)


def bytes_each(part: float) -> float:
    """Bytes that a configuration takes at the peak of one call."""
    models, gpus, sizes = grid(part)
    tracemalloc.start()
    found = predict.windows(models, gpus, **sizes)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / found["tpot_s"].size


def measure() -> dict:
    """All readings of this process."""
    models, gpus, sizes = grid()
    predict.windows(models[:1], gpus[:1], batch=1, prompt=64, output=16)  # tables are read once
    count, model_per_s = rate(predict.windows, models, gpus, **sizes)
    _, roofline_per_s = rate(roofline, models, gpus, **sizes)
    peak = alone.peak_GiB()  # before tracing, which takes memory of its own
    return {
        "configurations": count,
        "model_per_s": model_per_s,
        "roofline_per_s": roofline_per_s,
        "peak_GiB": peak,
        "bytes_each": [bytes_each(part) for part in PARTS],
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
