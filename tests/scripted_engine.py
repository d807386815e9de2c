"""An engine without torch that stands for the next one that somebody writes."""

import time

from footprint import spec, workload
from footprint.measure.engine import Engine

PLACE = "scripted_engine:Scripted"
STEP_S = 0.004


class Scripted(Engine):
    """An engine with fixed step times and memory for 64 prompts."""

    library, weights = "scripted", "random"

    def load(self) -> dict:
        """Nothing to load."""
        shape = spec.model(self.request["model"])
        return {
            "engine": "scripted",
            "model": workload.slug(shape.id),
            "revision": "random weights",
            "weights": self.weights,
            "parameters": shape.parameters,
            "dtype": "fp16",
            "attention": "scripted",
            "threads": 1,
        }

    def probe(self) -> dict[str, float]:
        """The rates of a GPU that no table knows."""
        return {"memory_GiB": 24.0, "read_bandwidth_GBps": 700.0, "matmul_GFLOPs": 90e3}

    def needed_bytes(self, phase: str, point: dict) -> float:
        """A GiB for each prompt."""
        return point["batch"] * 2.0**30

    def free_bytes(self) -> float:
        """64 GiB."""
        return 64 * 2.0**30

    def iteration(self, phase: str, point: dict, seed: int):
        """Sleep for each step."""
        prefill = [STEP_S * (1 + point["prompt_tokens"] // 64)]
        decode = [STEP_S] * (point["output_tokens"] - 1)
        steps = {"prefill": prefill, "decode": decode, "generate": prefill + decode}[phase]

        def once() -> list[float]:
            time.sleep(sum(steps))
            return list(steps)

        return once

    def answer(self, prompt: str, tokens: int) -> str:
        """Random weights answer nothing."""
        return ""
