"""Made-up traces of GPUs: the times and watts that the model expects, times a factor."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

import scripted_loads as loads
from footprint import predict, spec
from footprint.trace import file
from footprint.trace.schema import ATTRS

WINDOW_S, SLOT_S, RATE_HZ = 5.0, 6.0, 10
TIMES, WATTS, IDLE_W = 1.1, 0.95, 20.0  # what is measured over what is expected
PAPER = {"batches": (1, 2, 4, 8, 16, 32, 64), "prompts": (128, 512), "output": 128}
README = {"batches": (1, 4), "prompts": (64,), "output": 32}


def run(
    folder: Path,
    model: str,
    gpu: str,
    *,
    like: str = "",
    workload: dict = PAPER,
    repeats: int = 2,
    **attrs,
) -> Path:
    """A measured trace in `folder`/<gpu>; `like`: the GPU of the tables whose times it has.

    workload: as `PAPER`. attrs: what differs from an eager run in fp16 with random weights.
    """
    known = {name: cast() for name, (cast, _) in ATTRS.items()}
    known |= {"status": "ok", "model": model, "device": gpu, "device_name": gpu}
    known |= {"device_hash": f"board-{gpu}", "engine": "eager", "dtype": "fp16"}
    known |= {"weights": "random", "energy_source": "nvml_instant", "request": "{}"}
    known |= {
        "memory_GiB": spec.gpu(like or gpu).memory_GiB,
        **attrs,
        "run_id": f"{model} {gpu} {attrs}",
    }
    windows = [dict(loads.SENSOR, phase="idle_loaded", lengths="idle", status="ok", watts=IDLE_W)]
    engine = spec.ENGINES[known["engine"]]
    for prompt in workload["prompts"]:
        sizes = {"batch": list(workload["batches"]), "prompt": prompt, "output": workload["output"]}
        expected = predict.windows(model, like or gpu, engine=engine, dtype=known["dtype"], **sizes)
        for batch in workload["batches"]:
            at = expected.sel(batch=batch).squeeze()
            windows += _windows(at, batch, prompt, workload["output"], repeats)
    path = Path(folder) / gpu / f"{model}-{known['engine']}-{known['dtype']}.nc"
    known = {name: value for name, value in known.items() if name not in ("schema_version", "kind")}
    return file.save(file.new("measured", known, *_placed(windows)), path)


def _windows(at, batch: int, prompt: int, output: int, repeats: int) -> Iterable[dict]:
    """The windows of a point; one that says so where it does not fit."""
    shape = {"batch": batch, "prompt_tokens": prompt, "output_tokens": output, "lengths": "grid"}
    if not bool(at["fits"]):
        return [{**loads.SENSOR, **shape, "phase": "prefill", "status": "oom", "watts": IDLE_W}]
    times = {"prefill": float(at["ttft_s"]), "decode": float(at["tpot_s"]) * (output - 1)}
    watts = {phase: float(at[f"{phase}_power_W"]) * WATTS for phase in times}
    times["generate"] = sum(times.values())
    watts["generate"] = (watts["prefill"] + watts["decode"]) / 2
    each = {"prefill": prompt, "decode": output - 1, "generate": output}
    found = []
    for phase, once in times.items():
        iterations = int(np.ceil(WINDOW_S / (once * TIMES)))
        for repeat in range(repeats):
            length = iterations * once * TIMES * (1 + 0.004 * repeat)
            window = {"phase": phase, "repeat": repeat, "iterations": iterations, "status": "ok"}
            window |= {"tokens": iterations * batch * each[phase], "length_s": length}
            window |= {"peak_memory_B": float(at["memory_B"]), "watts": watts[phase]}
            found.append({**loads.SENSOR, **shape, **window})
    return found


def _placed(windows: list[dict]) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The windows one after the other, and samples of their power."""
    start, placed, time_s, power_W = 1.0, [], [], []
    for window in windows:
        length, watts = window.pop("length_s", WINDOW_S), window.pop("watts")
        stop = start + length
        placed.append({**window, "start_s": start, "stop_s": stop, "boot_s": length})
        samples = np.linspace(start - 0.5, stop + 0.5, max(int((length + 1) * RATE_HZ), 2), False)
        time_s.append(samples)
        power_W.append(np.full(len(samples), watts))
        start = stop + 1
    return placed, {"time_s": np.concatenate(time_s), "power_W": np.concatenate(power_W)}
