"""The kernel that attention runs on, and the memory that it works in."""

import torch
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from footprint import spec


class Witness(TorchFunctionMode):
    """A context that notes in `seen` which kernel torch picks for each scaled dot product."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Ask torch for its choice with the very arguments of the call, then make the call."""
        if func is scaled_dot_product_attention:
            choice = SDPBackend(torch._fused_sdp_choice(*args, **(kwargs or {})))
            name = choice.name.lower().removesuffix("_attention")
            self.seen.add(f"cpu_{name}" if args[0].device.type == "cpu" else name)
        return func(*args, **(kwargs or {}))


def working_bytes(
    shape: spec.Model, dtype: str, backend: str, sequences: int, new: int, past: int
) -> float:
    """Memory of the attention of one layer beside its queries, keys and values.

    new: tokens of a sequence that ask; past: tokens, those among them, that they look at. A fused
    kernel needs none. The unfused one (`math`) works in fp32, repeats keys and values for all heads
    and holds the scores before and after their softmax.
    """
    if not backend.endswith("math"):
        return 0.0
    copies = 2 * shape.kv_heads * (dtype != "fp32") + shape.heads  # keys and values; scaled keys
    if shape.kv_heads < shape.heads:
        copies += 2 * shape.heads
    queries = new * shape.heads * shape.head_dim * (1 + (dtype != "fp32"))
    scores = 2 * shape.heads * new * past
    return 4.0 * sequences * (queries + copies * past * shape.head_dim + scores)
