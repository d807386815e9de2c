"""Points made up for a test."""

import numpy as np
import xarray as xr

from footprint import spec
from footprint.trace import build_points

MODELS = ("llama-1b", "llama-3b", "llama-7b")
GPUS = ("t4", "rtx-6000-ada")
BATCHES = (1, 4, 16)


def points(
    time=lambda model, gpu, batch: 1.0,
    power=lambda model, gpu, batch: 100.0,
    log_sd=0.0,
    evidence="modelled",
    **changes,
) -> xr.Dataset:
    """Made-up points: a prefill takes a tenth of the time that `time` gives for a decode.

    None for a point that runs out of memory. changes: models, gpus, engine, batches, prompt,
    output, dtype, gain_sd, and deviations by name (time_s_low_sd ...), which log_sd sets for all.
    """
    labels = {
        "model": list(changes.get("models", MODELS)),
        "gpu": list(changes.get("gpus", GPUS)),
        "engine": [changes.get("engine", "eager")],
        "batch": list(changes.get("batches", BATCHES)),
        "prompt": [changes.get("prompt", 128)],
        "output": [changes.get("output", 101)],
        "phase": ["prefill", "decode"],
    }
    shape = [len(values) for values in labels.values()]
    seconds, joules = np.full(shape, np.nan), np.full(shape, np.nan)
    status = np.full(shape[:-1], "ok", dtype=object)
    for i, model in enumerate(labels["model"]):
        for j, gpu in enumerate(labels["gpu"]):
            for k, batch in enumerate(labels["batch"]):
                took = time(model, gpu, batch)
                if took is None:
                    status[i, j, 0, k] = "oom"
                    continue
                seconds[i, j, 0, k, 0, 0] = took * np.array([0.1, 1.0])
                joules[i, j, 0, k] = seconds[i, j, 0, k] * power(model, gpu, batch)
    sds = {
        f"{name}_{end}_sd": changes.get(f"{name}_{end}_sd", log_sd)
        for name in ("time_s", "energy_J")
        for end in ("low", "high")
    }
    words = {"dtype": changes.get("dtype", "fp16"), "weights": "trained", "place": "committed"}
    idle = [spec.gpu(name).idle_W if name in spec.gpus() else 20.0 for name in labels["gpu"]]
    found = {"time_s": seconds, "energy_J": joules, "status": status, "evidence": evidence}
    found |= {"idle_W": idle, "gain_sd": changes.get("gain_sd", 0.0)}
    return build_points(labels, found | sds | words)
