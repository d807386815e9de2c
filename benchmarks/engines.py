"""Decode at batch 1 by the eager and the compiled engine in turns: share of the read bandwidth.

The first step of a pair belongs to the warm-up. Tokens are compared in fp32, where they are equal.
"""

import numpy as np

from footprint import spec, workload
from footprint.measure import engine, instrument, probe

MODELS = ("llama-1b", "smollm2-135m", "llama-24m")
PAIRS, POINT = 7, {"batch": 1, "prompt_tokens": 64, "output_tokens": 33}
SLOWER = 1.04  # the compiled step may take this much longer; in small models it must be faster


def rows() -> list[dict]:
    """A row a model: share of the bandwidth that the same run probed, ratio of the step times."""
    return [compare(model) for model in MODELS]


def compare(model: str) -> dict:
    """Seven pairs of decodes in one process, the probe of the bandwidth beside each."""
    named = {
        name: workload.request(
            "profile", model=model, weights="random", dtype="fp32", device="cpu", engine=name
        )
        for name in ("eager", "compiled")
    }
    engines = {name: engine.opened(request) for name, request in named.items()}
    once, compile_s = {}, 0.0
    for name, each in engines.items():
        each.load()
        each.iteration("prefill", POINT, 0)()
        once[name] = each.iteration("decode", POINT, 0)
        compile_s = max(compile_s, each.compile_s)
        once[name]()
    gpu, cpu = instrument.opened("cpu"), probe.find("cpu")
    steps, read = {name: [] for name in once}, []
    for pair in range(PAIRS):
        read.append(probe.rates(cpu, "fp32", gpu)["read_bandwidth_GBps"])
        for name in sorted(once, reverse=bool(pair % 2)):
            steps[name].append(float(np.median(once[name]()[1:])))
    shape = spec.model(model)
    least_s = shape.streamed_parameters * spec.bytes_of("fp32") / (1e9 * np.median(read))
    ratio = np.array(steps["compiled"]) / steps["eager"]
    slower = float(np.median(ratio))
    return {
        "model": model,
        "read_GBps": np.median(read),
        **{f"{name} share": least_s / np.median(each) for name, each in steps.items()},
        "compiled / eager": slower,
        "least": ratio.min(),
        "most": ratio.max(),
        "compile_s": compile_s,
        "ok": slower <= (SLOWER if model == MODELS[0] else 1.0),
    }
