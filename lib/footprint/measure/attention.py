"""The kernel that attention runs on, and the memory that it works in.

GPUs before compute capability 8.0 have no flash attention, and the fused kernel that they have
(`efficient`) wants as many heads of keys as of queries and a head width that is a multiple of 8.
What is unlike that falls back to unfused steps in fp32 (`math`), several times slower. So on them
attention is `repeated`: keys and values are repeated for all heads, and heads are padded.
"""

from types import SimpleNamespace

import torch
from torch.nn.attention import SDPBackend
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations import sdpa_attention
from transformers.masking_utils import sdpa_mask

from footprint import spec

REPEATED, ALIGNED = "repeated", 8
FLASH = (8, 0)  # compute capability from which on torch has flash attention
ALL_HEADS = SimpleNamespace(is_causal=True)  # a module without groups of heads


def repeated(module, query, key, value, attention_mask, scaling=None, **options) -> tuple:
    """Transformers' attention over keys and values for all heads, of an aligned width."""
    width, groups = query.shape[-1], query.shape[1] // key.shape[1]
    scaling = width**-0.5 if scaling is None else scaling
    if missing := -width % ALIGNED:
        query, key, value = (pad(part, (0, missing)) for part in (query, key, value))
    key = sdpa_attention.repeat_kv(key, groups)
    value = sdpa_attention.repeat_kv(value, groups)
    states = (query, key, value, attention_mask)
    forward = sdpa_attention.sdpa_attention_forward
    answer, _ = forward(ALL_HEADS, *states, scaling=scaling, **options)
    return answer[..., :width], None


AttentionInterface.register(REPEATED, repeated)
AttentionMaskInterface.register(REPEATED, sdpa_mask)


def fuse(net: torch.nn.Module, device: torch.device) -> None:
    """Let a model that uses torch's attention repeat its heads where flash attention is missing."""
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < FLASH
    if old and net.config._attn_implementation == "sdpa":
        net.set_attn_implementation(REPEATED)


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

    def said(self, net: torch.nn.Module) -> str:
        """The kernels that were seen, in words; a model that asks torch for none has its own."""
        own = net.config._attn_implementation or "eager"
        kernels = sorted(self.seen) or [own]
        return ", ".join([*kernels, own] if self.seen and own == REPEATED else kernels)


def working_bytes(
    shape: spec.Model, dtype: str, backend: str, sequences: int, new: int, past: int
) -> float:
    """Memory of the attention of one layer beside its queries, keys and values.

    new: tokens of a sequence that ask; past: tokens, those among them, that they look at. A fused
    kernel needs none, but what it is given may be `repeated`. The unfused one (`math`) works in
    fp32, repeats keys and values for all heads and holds the scores before and after their softmax.
    """
    grouped, width = shape.kv_heads < shape.heads, shape.head_dim
    copied = 0.0
    if REPEATED in backend:
        wide = width + -width % ALIGNED
        copied = 2 * shape.heads * past * wide * grouped
        if wide > width:
            copied += 2 * shape.heads * new * wide + 2 * shape.kv_heads * past * wide
    needed = copied * spec.bytes_of(dtype)
    if "math" in backend:
        parts = 2 * shape.kv_heads * (dtype != "fp32") + shape.heads  # and scaled keys
        parts += 2 * shape.heads * (grouped and REPEATED not in backend)
        queries = new * shape.heads * width * (1 + (dtype != "fp32"))
        needed += 4 * (queries + parts * past * width + 2 * shape.heads * new * past)
    return sequences * needed
