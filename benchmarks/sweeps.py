"""What a sweep costs beside its measurements, and what thousands of traces cost to read.

The grid has two small random models, three batches, two prompts, 32 tokens and ten iterations a
point; the start of processes, imports, loading and warm-up count as loss.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from footprint import sweep, trace, workload

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import light_project as light

ROOT = Path(__file__).parents[1]
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
MODELS = {
    "m50": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 1376,
    },
    "m135": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "intermediate_size": 2048,
    },
}
ITERATIONS, OUTPUT, PAIRS, TRACES = 10, 32, 7, 1000
POINT = {
    "dtype": "fp32",
    "output_tokens": [OUTPUT],
    "repeats": ITERATIONS,
    "window_s": 0.01,
    "warmup_s": 0.0,
}
BARE = """
import json, sys, time
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(**json.load(open(sys.argv[1])))
net = LlamaForCausalLM(config).eval()
ids, times = torch.randint(32000, (1, 64)), []
with torch.inference_mode():
    for repeat in range(11):
        cache = DynamicCache(config=config)
        token = net(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits.argmax(-1)
        began = time.perf_counter()
        for _ in range(31):
            token = net(input_ids=token, past_key_values=cache).logits[:, -1:].argmax(-1)
        times.append(time.perf_counter() - began)
print(sorted(times[1:])[5])
"""
READ = """
import sys, time
import numpy, xarray, pandas, h5py  # the libraries are loaded already where a thousand traces are
from footprint import trace
began = time.perf_counter()
data = trace.gather(sys.argv[1])
took = time.perf_counter() - began
assert data.sizes["window"] and float(data["stop_s"].max()) > 0
print(took)
"""


@contextmanager
def project() -> Iterator[Path]:
    """A checkout with the notebooks and the two models, as the working directory."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "_toc.yml").touch()
        shutil.copytree(
            ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("runs", "local")
        )
        for model, shape in MODELS.items():
            (folder / model).mkdir()
            (folder / model / "config.json").write_text(json.dumps(LLAMA | shape))
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def row(what: str, value: float, unit: str, limit: float, ok: bool) -> dict:
    """A line of the table: `limit` is what the value must reach or stay below."""
    return {"what": what, "value": value, "unit": unit, "limit": limit, "ok": bool(ok)}


def efficiency() -> list[dict]:
    """Share of a sweep's wall time, papermill and kernels included, inside measured windows."""
    with project() as folder:
        requests = [
            workload.request(
                "profile", model=f"./{model}", batches=[1, 2, 4], prompt_tokens=[64, 256], **POINT
            )
            for model in MODELS
        ]
        began = time.perf_counter()
        outcomes = sweep.run(
            [sweep.Run("profile", request) for request in requests], folder / "out"
        )
        wall = time.perf_counter() - began
        assert all(outcome["status"] == "ok" for outcome in outcomes), outcomes
        trees = [trace.load(outcome["file"]) for outcome in outcomes]
    inside, counts = 0.0, set()
    for tree in trees:
        windows, steps = tree["windows"].to_dataset(), tree["steps"].to_dataset()
        busy = windows["batch"] > 0
        inside += float((windows["stop_s"] - windows["start_s"]).where(busy, 0).sum())
        decode = windows.isel(window=steps["window"].values)
        decode = decode.where(decode["phase"] == "decode", drop=True)
        points = (
            decode[["batch", "prompt_tokens"]]
            .to_dataframe()
            .groupby(["batch", "prompt_tokens"])
            .size()
        )
        counts |= set(points) if len(points) == 6 else {0}
    return [
        row("wall time of the sweep of 12 points", wall, "s", np.nan, True),
        row("inside measured windows", inside / wall, "share", 0.75, inside / wall >= 0.75),
        row(
            "decode step times of a point",
            max(counts),
            "1",
            (OUTPUT - 1) * ITERATIONS,
            counts == {(OUTPUT - 1) * ITERATIONS},
        ),
    ]


def pairs() -> list[dict]:
    """Decode time of m135 (batch 1, prompt 64) over that of a bare loop, in turns."""
    ratios = []
    with project() as folder:
        for index in range(PAIRS):
            request = workload.request(
                "profile", model="./m135", batches=[1], prompt_tokens=[64], seed=index, **POINT
            )
            found = {}
            for which in ("bare", "ours") if index % 2 else ("ours", "bare"):
                if which == "ours":
                    (outcome,) = sweep.run([sweep.Run("profile", request)], folder / "out")
                    windows = trace.load(outcome["file"])["windows"].to_dataset()
                    windows = windows.where(windows["phase"] == "decode", drop=True)
                    found["ours"] = float(
                        ((windows["stop_s"] - windows["start_s"]) / windows["iterations"]).median()
                    )
                else:
                    command = [sys.executable, "-c", BARE, str(folder / "m135" / "config.json")]
                    found["bare"] = float(
                        subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    )
            ratios.append(found["ours"] / found["bare"])
    median, low, high = np.median(ratios), min(ratios), max(ratios)
    return [
        row(
            "decode over a bare loop, median of 7 pairs", median, "1", 1.05, abs(median - 1) <= 0.05
        ),
        row("least of the pairs", low, "1", np.nan, True),
        row("most of the pairs", high, "1", np.nan, True),
    ]


def many(folder: Path, count: int) -> None:
    """`count` different traces of 24 windows, 600 samples and 600 steps."""
    first = trace.save(light.seed(points=12, samples=600), folder / "0.nc").read_bytes()
    for index in range(1, count):
        path = folder / f"{index // 1000}" / f"{index}.nc"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(first)
        with h5py.File(path, "r+") as file:
            file.attrs["run_id"], file.attrs["request"] = (
                f"{index:012x}",
                json.dumps({"seed": index}),
            )
            file["windows/stop_s"][:] += index % 7


def gather() -> list[dict]:
    """A thousand traces read, checked and joined, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        many(Path(name), TRACES)
        command = [sys.executable, "-c", READ, name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    rate = TRACES / float(done.stdout)
    return [row("traces gathered a second", rate, "1/s", 30, rate >= 30)]
