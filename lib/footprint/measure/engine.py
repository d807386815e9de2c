"""The engine of a run: what loads a model and runs it; one registry opens it by its name."""

import math
from collections.abc import Callable
from pkgutil import resolve_name

from footprint import spec, workload


class Engine:
    """What runs a model. Made from a request, it only checks that the device is here; `load` does the work.

    library: what errors are blamed on; weights: trained or random, once the model is loaded.
    """

    library = weights = ""

    def __init__(self, request: dict):
        self.request = request

    def load(self) -> dict:
        """Load the model; root attributes: engine, model, revision, weights, parameters, dtype, attention, threads."""
        raise NotImplementedError

    def probe(self) -> dict[str, float]:
        """What the device can do in this dtype; root attributes: memory_GiB, read_bandwidth_GBps, matmul_GFLOPs."""
        raise NotImplementedError

    def iteration(self, phase: str, point: dict, seed: int) -> Callable[[], list[float]]:
        """A function that runs prefill, decode or generate of a point once and gives the seconds of its steps.

        point: `batch`, `prompt_tokens` and `output_tokens`, as in `workload.windows`. What one phase prepares for another
        of the same point is kept until `release`.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Free what was prepared for a point."""

    def needed_bytes(self, batch: int, tokens: int) -> float:
        """Memory that sequences of so many tokens need beside the weights."""
        return 0.0

    def free_bytes(self) -> float:
        """Memory that is free on the device now."""
        return math.inf

    def reset_peak(self) -> None:
        """Begin to look for the peak of the memory."""

    def peak_bytes(self) -> float:
        """Memory at its peak since `reset_peak`; NaN where nobody tells."""
        return math.nan

    def out_of_memory(self, error: Exception) -> bool:
        """Whether this error says that memory ran out."""
        return isinstance(error, MemoryError)

    def answer(self, prompt: str, tokens: int) -> str:
        """What a model with trained weights says to a prompt, in at most so many tokens."""
        raise NotImplementedError


def opened(request: dict) -> Engine:
    """The engine that a request names, as `workload.ENGINES` registers it. Raises `Refused` without its device."""
    return resolve_name(workload.ENGINES[request["engine"]])(request)


def choose_dtype(dtype: str, device: str, model: spec.Model, memory_GiB: float) -> str:
    """The dtype that `auto` means: fp16 on a GPU; on a CPU fp32, or bf16 where the weights in fp32 need half of the memory."""
    if dtype != "auto":
        return dtype
    if device != "cpu":
        return "fp16"
    return "fp32" if model.weight_bytes("fp32") < memory_GiB * 2**29 else "bf16"
