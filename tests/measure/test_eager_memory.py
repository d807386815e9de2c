"""`needed_bytes` beside the memory that the same code is seen to need on meta tensors."""

from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch

import traced_memory
from footprint import spec, workload
from footprint.measure import eager, probe
from footprint.sweep import matrix

SWEEP = Path(__file__).parents[2] / "notebooks" / "sweep.toml"
PAPER = [
    (run.request["model"], point)
    for run in matrix.runs(SWEEP, "paper", repeats=1)
    for point in workload.windows(run.request)
]
FEW = [
    ("llama-1b", {"batch": 64, "prompt_tokens": 512, "output_tokens": 128}),
    ("llama-3b", {"batch": 1, "prompt_tokens": 128, "output_tokens": 128}),
    ("llama-7b", {"batch": 8, "prompt_tokens": 128, "output_tokens": 128}),
]
T4_B, ADA_B = (14.74 - 0.35) * 2**30, (34.3 + 12.55) * 2**30  # free before the weights


@cache
def net(name: str) -> torch.nn.Module:
    return traced_memory.model(name)


def predicted(name: str, point: dict, phase: str, kernel: str) -> float:
    """Bytes by the closed form, less the cache of the prompt where decode goes on from it."""
    backends = {"prefill": kernel, "decode": kernel}
    needed = eager.peak_bytes(spec.model(name), "fp16", phase, point, backends)
    if phase == "decode":
        tokens = point["batch"] * point["prompt_tokens"]
        needed -= tokens * spec.model(name).kv_bytes_per_token("fp16")
    return needed


def ratios(name: str, point: dict, kernel: str) -> dict[str, float]:
    """Predicted over traced memory by phase."""
    traced = traced_memory.peaks(net(name), point, kernel)
    return {phase: predicted(name, point, phase, kernel) / traced[phase] for phase in traced}


@pytest.mark.parametrize("kernel", traced_memory.KERNELS)
@pytest.mark.parametrize(("name", "point"), FEW)
def test_the_closed_form_is_what_the_code_needs(name, point, kernel):
    found = ratios(name, point, kernel)
    assert all(0.9 <= ratio <= 1.3 for ratio in found.values()), found


@pytest.mark.slow
def test_it_holds_at_every_point_of_the_paper():
    assert len(PAPER) == 42
    for kernel, (name, point) in product(traced_memory.KERNELS, PAPER):
        found = ratios(name, point, kernel)
        assert all(0.9 <= ratio <= 1.3 for ratio in found.values()), (name, point, kernel, found)


@pytest.mark.parametrize(
    ("free_B", "name", "batch", "prompt"),
    [
        (T4_B, "llama-3b", 64, 128),
        (T4_B, "llama-3b", 16, 512),
        (T4_B, "llama-7b", 8, 128),
        (T4_B, "llama-7b", 2, 512),
        (ADA_B, "llama-7b", 64, 512),
    ],
)
def test_a_point_that_fits_is_tried(free_B, name, batch, prompt):
    point = {"batch": batch, "prompt_tokens": prompt, "output_tokens": 128}
    free_B -= spec.model(name).weight_bytes("fp16")
    for phase in ("prefill", "generate"):
        assert predicted(name, point, phase, "fused") < probe.OVERDRAFT * free_B
    cache_B = batch * prompt * spec.model(name).kv_bytes_per_token("fp16")
    assert predicted(name, point, "decode", "fused") < probe.OVERDRAFT * (free_B - cache_B)


def test_what_is_prepared_is_not_needed_again():
    engine = eager.Eager(workload.request("profile", model="llama-24m", dtype="fp32"))
    engine.load()
    assert engine.backends == {"prefill": "cpu_flash", "decode": "cpu_flash"}
    point = {"batch": 2, "prompt_tokens": 64, "output_tokens": 9}
    before = engine.needed_bytes("decode", point)
    assert before == eager.peak_bytes(engine.shape, "fp32", "decode", point, engine.backends)
    engine.iteration("prefill", point, seed=0)()
    cache_B = 2 * 64 * engine.shape.kv_bytes_per_token("fp32")
    assert engine.needed_bytes("decode", point) == before - cache_B
    engine.release()
    assert engine.needed_bytes("decode", point) == before
