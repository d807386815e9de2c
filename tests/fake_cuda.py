"""A CUDA device without CUDA: tensors of the CPU that say cuda:0, and a `torch.cuda` to match.

Import what is tested before entering it: a module that binds functions of torch keeps the real
ones. Operations run on the CPU, so results are real and times are not those of a GPU.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode

PEAK_B = 3 * 2**30
CPU = torch.device("cpu")


def _to_cpu(value: object) -> object:
    """A device argument as the CPU understands it; any other value as it is."""
    named = isinstance(value, str) and value.startswith("cuda")
    return CPU if named or (isinstance(value, torch.device) and value.type == "cuda") else value


class Cuda(TorchFunctionMode):
    """Tensors of the CPU say cuda:0, and devices given to a function are mapped back."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call a function of torch with devices of the CPU."""
        kwargs = kwargs or {}
        if function == torch.Tensor.device.__get__:  # each access makes a new wrapper
            real = function(*args)
            return torch.device("cuda", 0) if real.type == "cpu" else real
        if getattr(function, "__name__", "") == "device":  # torch.device itself stays
            return function(*args, **kwargs)
        kwargs = {name: _to_cpu(value) for name, value in kwargs.items()}
        return function(*map(_to_cpu, args), **kwargs)


class Generator(torch.Generator):
    """A generator of random numbers for the CPU, whatever device was named."""

    def __new__(cls, device="cpu"):
        """The generator of the CPU."""
        return super().__new__(cls, device="cpu")


@contextmanager
def entered(
    *,
    memory_GiB: float = 16.0,
    free_GiB: float = 15.0,
    capability: tuple[int, int] = (7, 5),
    built: str | None = "12.6",
    archs: tuple[str, ...] = ("sm_50", "sm_75", "sm_80", "sm_90"),
    available: bool = True,
) -> Iterator[Counter]:
    """Be on a CUDA device within the block; yields how often each function was called.

    The GPUs are those of CUDA_VISIBLE_DEVICES, which the instrument sets; built and archs are
    torch's own CUDA version and the architectures that its kernels were compiled for.
    """
    calls = Counter()

    def uuids() -> list[str]:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if available else []

    def properties(device) -> SimpleNamespace:
        number = device if isinstance(device, int) else torch.device(device).index or 0
        return SimpleNamespace(
            total_memory=int(memory_GiB * 2**30),
            uuid=uuids()[number].removeprefix("GPU-"),
            major=capability[0],
            minor=capability[1],
        )

    answers = {
        "is_available": lambda: available,
        "device_count": lambda: len(uuids()),
        "get_device_properties": properties,
        "get_device_capability": lambda device=None: capability,
        "get_arch_list": lambda: list(archs),
        "synchronize": lambda device=None: None,
        "mem_get_info": lambda device=None: (int(free_GiB * 2**30), int(memory_GiB * 2**30)),
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device=None: None,
        "max_memory_reserved": lambda device=None: PEAK_B,
        "max_memory_allocated": lambda device=None: PEAK_B,
    }

    def counted(name: str):
        def call(*arguments, **named):
            calls[name] += 1
            return answers[name](*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch, Cuda():
        for name in answers:
            patch.setattr(torch.cuda, name, counted(name))
        patch.setattr(torch.version, "cuda", built)
        patch.setattr(torch, "Generator", Generator)
        yield calls
