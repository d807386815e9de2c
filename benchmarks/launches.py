"""How many operations one decoder layer launches in one decode step of Hugging Face eager.

They are counted on a CPU as torch dispatches them, on models of two and of four tiny layers: sizes
do not change the number. A kernel of a GPU that works in two parts counts once. In fp16 torch's GPU
softmax converts its scores itself, which here is an operation of its own in eager attention.
"""

import inspect
import itertools
from collections import Counter
from collections.abc import Callable

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from footprint import spec
from footprint.measure import eager, probe
from footprint.measure.attention import REPEATED

DECODERS = {
    "llama": (LlamaConfig, ("eager", "sdpa", REPEATED)),
    "gemma-2": (Gemma2Config, ("eager",)),  # its capped scores are beyond sdpa
}
DTYPES, HEADS, FEW, MANY = ("fp32", "bf16"), 4, 2, 4
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": HEADS,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 32,
}
PROMPT = torch.zeros((1, 8), dtype=torch.int64)
NO_WORK = ("empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view")  # and all views
KEYS = ("version", "model", "dtype", "grouped", "attention")
COUNTS = ("launches_a_layer", "launches_outside", "launches_a_norm")


class Launches(TorchDispatchMode):
    """A context that counts in `seen`, by name, the operations that a GPU would launch."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Make the call; it counts if it made values: no view, nothing unset, no plain number."""
        answer = func(*args, **(kwargs or {}))
        made = any(isinstance(leaf, torch.Tensor) and leaf.numel() for leaf in tree_leaves(answer))
        name = func.overloadpacket.__name__
        if made and not func.is_view and name not in NO_WORK:
            self.seen[name] += 1
        return answer


def launches(work: Callable, *arguments) -> Counter:
    """Launches of one call of a function, by the name of the operation.

    In inference mode a counter would see what torch composes of other operations as one.
    """
    with torch.no_grad(), Launches() as counted:
        work(*arguments)
    return counted.seen


def decoder(model: str, dtype: str, grouped: bool, attention: str, layers: int) -> torch.nn.Module:
    """A tiny decoder with random weights; grouped: two query heads share their keys and values."""
    config = DECODERS[model][0](
        **SIZES, num_key_value_heads=HEADS // (1 + grouped), num_hidden_layers=layers
    )
    options = {"dtype": probe.torch_dtype(dtype), "attn_implementation": attention}
    return AutoModelForCausalLM.from_config(config, **options).eval()


def step(net: torch.nn.Module) -> Counter:
    """Launches of one more decode step of the engine."""
    cache, token, _ = eager.prefill(net, PROMPT)
    decode = inspect.unwrap(eager.decode)  # out of inference mode
    return launches(decode, net, cache, token, 2) - launches(decode, net, cache, token, 1)


def count(model: str, dtype: str, grouped: bool, attention: str) -> dict:
    """Launches of a layer, of the rest of the step, and of one norm."""
    few, many = (decoder(model, dtype, grouped, attention, layers) for layers in (FEW, MANY))
    whole = step(few).total()
    layer = (step(many).total() - whole) / (MANY - FEW)
    hidden = torch.zeros((1, 1, SIZES["hidden_size"]), dtype=few.dtype)
    norm = launches(few.model.norm, hidden).total()
    return dict(zip(COUNTS, (layer, whole - FEW * layer, norm), strict=True))


def known() -> dict[tuple, tuple]:
    """The counts of the table launches.csv by version, model, dtype, grouped and attention."""
    return {
        tuple(row[key] for key in KEYS): tuple(row[key] for key in COUNTS)
        for row in spec.rows("launches")
    }


def rows() -> list[dict]:
    """A row a decoder, dtype, grouping and attention; ok: it is what the table says."""
    table, found = known(), []
    for model, (_, attentions) in DECODERS.items():
        for case in itertools.product(DTYPES, (0, 1), attentions):
            counts = count(model, *case)
            keys = (transformers.__version__, model, *case)
            ok = table.get(keys) == tuple(counts.values())
            found.append(dict(zip(KEYS, keys, strict=True)) | counts | {"ok": ok})
    return found
