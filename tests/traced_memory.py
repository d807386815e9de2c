"""The memory that real code of torch needs: it runs on meta tensors and every storage is followed.

Meta tensors have shapes and no bytes, so points of any size are traced on any machine.
"""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from footprint import spec
from footprint.measure import eager, weights

MATH = torch.ops.aten._scaled_dot_product_attention_math.default
META = torch.device("meta")


class Traced(TorchDispatchMode):
    """A context that follows `live` and `peak` bytes of what is made and freed within it."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Make the call and add the storages that are new."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return made

    def add(self, storage) -> None:
        """Count a storage until it is freed."""
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def freed() -> None:
            self.known.discard(key)
            self.live -= size

        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, freed)


def fused(query, key, value, is_causal=False, **_):
    """What a fused kernel makes: its output and one number a query."""
    torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)


def unfused(query, key, value, is_causal=False, scale=None, enable_gqa=False, **_):
    """Torch's own steps of the unfused kernel."""
    options = {"scale": scale, "enable_gqa": enable_gqa}
    return MATH.decompose(query, key, value, None, 0.0, is_causal, None, **options)[0]


KERNELS = {"fused": fused, "math": unfused, "efficient, repeated": fused}


class Kernel(torch.overrides.TorchFunctionMode):
    """A context in which attention runs this function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Take the place of torch's dispatcher, which chooses by a real device."""
        if func is torch.nn.functional.scaled_dot_product_attention:
            options = {name: value for name, value in kwargs.items() if name != "attn_mask"}
            return self.function(*args, **options)
        return func(*args, **(kwargs or {}))


def model(name: str) -> torch.nn.Module:
    """The model on the meta device, in fp16."""
    return weights.unset_model(spec.model(name), torch.float16, META)


def peaks(net: torch.nn.Module, point: dict, kernel: str) -> dict[str, float]:
    """Bytes beside the weights and beside what the phase before left, by phase."""
    batch, prompt = point["batch"], point["prompt_tokens"]
    last = prompt + point["output_tokens"] - 3  # two steps before the end of decode
    found = {}
    net.set_attn_implementation("repeated" if "repeated" in kernel else "sdpa")
    with Kernel(KERNELS[kernel]):
        with Traced() as prefill:
            kept = eager.prefill(net, torch.zeros(batch, prompt, dtype=int, device=META))
        found["prefill"], left = prefill.peak, prefill.live
        kept = eager.prefill(net, torch.zeros(batch, last, dtype=int, device=META))
        with Traced() as decode:
            for layer in kept[0].layers:
                decode.add(layer.keys.untyped_storage())
                decode.add(layer.values.untyped_storage())
            eager.decode(net, *kept[:2], 2)
    found["decode"] = decode.peak - left
    found["generate"] = max(prefill.peak, decode.peak)
    return found
