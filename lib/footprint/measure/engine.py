"""The engine that loads and runs a model, and how an engine is opened."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pkgutil import resolve_name

from footprint import spec, workload

# What Python, Linux, CUDA (in its allocator, driver and runtime), cuBLAS and cuDNN say.
FULL = "out.?of.?memory|MemoryError|(allocate|enough) memory|MemoryAllocation|ALLOC(ATION)?_FAILED"
FULL = re.compile(FULL, re.IGNORECASE)

LEAD_TOKENS = 9  # eight steps of decode before a window


class Engine(ABC):
    """What runs a model; its constructor only checks that the device exists, `load` does the work.

    library: the name that errors are reported under; weights: trained or random, after `load`;
    compile_s: seconds that the last `iteration` compiled for before it was ready; overdraft: a need
    of up to this many times the free memory is tried, where running out of it is an error that can
    be caught and does not kill the process.
    """

    library = weights = ""
    compile_s, overdraft = 0.0, 1.0

    def __init__(self, request: dict):
        self.request = request
        self._prepared = None  # what one phase left for the next one of the same point

    @abstractmethod
    def load(self) -> dict:
        """Load the model; returns its root attributes for the trace, from engine to threads."""

    @abstractmethod
    def probe(self) -> dict[str, float]:
        """Root attributes memory_GiB, read_bandwidth_GBps and matmul_GFLOPs of the device.

        With them go those of the schema's optional ones that the engine can probe.
        """

    @abstractmethod
    def iteration(self, phase: str, point: dict, seed: int) -> Callable[[], list[float]]:
        """A function that runs a phase of a point once and returns the seconds of its steps.

        phase: prefill, decode or generate; point: one of `workload.windows`. What a phase prepares
        for another one of the same point is kept until `release`.
        """

    def attention_backend(self, phase: str, point: dict) -> str:
        """The kernels of attention that the phase ran on at this point; empty where unknown."""
        return ""

    def lead(self, phase: str, point: dict, seed: int) -> Callable[[], list[float]]:
        """What runs before a window of this phase: the same with few output tokens."""
        few = min(point["output_tokens"], LEAD_TOKENS)
        return self.iteration(phase, point | {"output_tokens": few}, seed)

    @abstractmethod
    def answer(self, prompt: str, tokens: int) -> str:
        """The answer of a trained model to a prompt, in at most `tokens` tokens."""

    def release(self) -> None:
        """Free what was prepared for a point."""
        self._prepared = None

    def needed_bytes(self, phase: str, point: dict) -> float:
        """Memory that a phase of a point needs beside the weights and what is prepared for it."""
        return 0.0

    def free_bytes(self) -> float:
        """Memory that is free on the device now."""
        return math.inf

    def reset_peak(self) -> None:  # noqa: B027 - an engine may not know its memory
        """Start a new measurement of the peak memory."""

    def peak_bytes(self) -> float:
        """Peak memory since `reset_peak`; NaN where it is unknown."""
        return math.nan

    def out_of_memory(self, error: Exception) -> bool:
        """Whether an error means that memory ran out: by its type or by its words."""
        said = f"{type(error).__name__}: {error}"
        return isinstance(error, MemoryError | RuntimeError) and bool(FULL.search(said))


def opened(request: dict) -> Engine:
    """The engine that a request names in `workload.ENGINES`; `Refused` without its device."""
    return resolve_name(workload.ENGINES[request["engine"]])(request)


def choose_dtype(dtype: str, device: str, model: spec.Model, memory_GiB: float) -> str:
    """The dtype that `auto` stands for: fp16 on a GPU, on a CPU fp32 or, for large models, bf16."""
    if dtype != "auto":
        return dtype
    if device != "cpu":
        return "fp16"
    return "fp32" if model.weight_bytes("fp32") < memory_GiB * 2**29 else "bf16"
