"""Models: decoders of the LLaMA family, from the table or a Hugging Face `config.json`."""

import json
from dataclasses import dataclass
from os.path import exists
from pathlib import Path

from footprint import Refused, shown
from footprint.spec.tables import content, nearest, records

DTYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int4": 0.5}
# Values of `model_type` that `Model` describes, and the fields in which they differ from LLaMA.
ARCHITECTURES = {
    "llama": {},
    "mistral": {},
    "phi3": {},
    "gemma": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma2": {"norms_per_layer": 4},
}
# What makes a decoder of such a type another thing: experts, an encoder, images.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
UNLIKE = (*EXPERTS, "is_encoder_decoder", "vision_config")
SIZES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
}
LAYERS = 1000  # the most: each is built by itself, and no known model has 200
OPTIONAL = {
    "max_position": "max_position_embeddings",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}


def bytes_of(dtype: str) -> float:
    """Bytes of one weight in `dtype`."""
    if dtype not in DTYPE_BYTES:
        raise Refused(f"The dtype {dtype!r} is unknown; allowed are {', '.join(DTYPE_BYTES)}.")
    return DTYPE_BYTES[dtype]


@dataclass(frozen=True)
class Model:
    """The sizes of a decoder of the LLaMA family, and the weights, bytes and operations they make.

    RMS norms, rotary positions, grouped-query attention, a gated feed-forward.
    """

    id: str
    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    max_position: int = 2048
    rope_theta: float = 10000.0
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norms_per_layer: int = 2
    package: str = "-"
    hub_id: str = "-"

    @property
    def layer_parameters(self) -> int:
        """Weights in the matrices of one decoder layer (norms and biases left out)."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (2 * query + 2 * key_value) + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """Number of weights, exact: tied embeddings are counted once."""
        small = self.norms_per_layer * self.hidden
        small += (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        small += self.hidden if self.output_bias else 0
        small += 2 * self.intermediate + self.hidden if self.mlp_bias else 0
        small += 2 * self.head_dim if self.qk_norm else 0
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (self.layer_parameters + small) + self.hidden

    @property
    def streamed_parameters(self) -> int:
        """Weights that a decode step reads: all layers and the output head, no input embedding."""
        return self.parameters - (0 if self.tied else self.vocab * self.hidden)

    def weight_bytes(self, dtype: str = "fp16") -> float:
        """Bytes of all weights in `dtype`; the scales of quantised formats are left out."""
        return self.parameters * bytes_of(dtype)

    def kv_bytes_per_token(self, dtype: str = "fp16") -> float:
        """Bytes of keys and values that one token of one sequence adds to the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_of(dtype)

    def flops(self, new_tokens, past_tokens=0, batch=1, logits=1):
        """Floating-point operations of one forward pass (scalars or arrays that broadcast).

        Matrices: 2 x weights x tokens. Attention scores and values: 4 x heads x head_dim for each
        pair of a new token and a token it may look at (causal). Output head: for `logits` positions
        of each sequence.
        """
        pairs = new_tokens * past_tokens + new_tokens * (new_tokens + 1) / 2
        matrices = 2 * self.layers * self.layer_parameters * new_tokens
        attention = 4 * self.layers * self.heads * self.head_dim * pairs
        return batch * (matrices + attention + 2 * self.hidden * self.vocab * logits)

    @classmethod
    def from_config(cls, source) -> "Model":
        """A model from a Hugging Face `config.json`: its path, its folder, or the dictionary.

        Mistral, Qwen2, Qwen3, Yi, Phi-3 and Gemma count exactly, as LLaMA does. Sliding windows are
        read as full attention: beyond the window KV cache and scores are upper bounds; soft caps of
        Gemma-2 cost nothing here. Raises `Refused` for an architecture whose arithmetic this class
        does not describe (MoE, encoders, state spaces, vision, ...).
        """
        return cls(**_fields(source))


def models() -> list[str]:
    """Ids of the models in the table."""
    return list(records(Model, "models"))


def model(name: str) -> Model:
    """The model with this id, or the one that the `config.json` at this path describes."""
    known = records(Model, "models")
    if name in known:
        return known[name]
    if name.endswith(".json") or ("/" in name and exists(name)):
        return Model.from_config(name)
    raise nearest("model", name, list(known))


def _fields(source) -> dict:
    """The fields of a `Model` in a config, which is checked since anybody may have written it."""
    config, folder = (source, "") if isinstance(source, dict) else _read_config(Path(source))
    kind = config.get("model_type", "missing")
    unlike = [f"{key}={shown(config[key], 20)}" for key in UNLIKE if config.get(key)]
    if not isinstance(kind, str) or kind not in ARCHITECTURES or unlike:
        allowed, named = ", ".join(ARCHITECTURES), " with ".join([shown(kind), *unlike[:1]])
        raise Refused(
            f"The architecture {named} is not a dense LLaMA-like decoder; allowed are {allowed}."
        )
    rope = config.get("rope_parameters")
    nested = rope.get("rope_theta") if isinstance(rope, dict) else None
    theta = config.get("rope_theta") or nested or 10000.0
    if not isinstance(theta, int | float) or not 0 < theta < 1e18:
        raise Refused(
            f"The config has rope_theta={shown(theta)}; a finite number above 0 is allowed."
        )
    shape = _shape(config) | ARCHITECTURES[kind] | {"rope_theta": float(theta)}
    if config.get("attention_bias") and kind not in ("mistral", "phi3", "qwen2"):
        shape |= {"qkv_bias": True, "output_bias": True}
    if config.get("mlp_bias") and kind == "llama":
        shape["mlp_bias"] = True
    shape["tied"] = bool(config.get("tie_word_embeddings", kind.startswith("gemma")))
    name = folder or Path(str(config.get("_name_or_path") or kind)).name
    return shape | {"id": name, "name": name}


def _shape(config: dict) -> dict[str, int]:
    """The sizes in a config, checked: each a whole number, heads that divide evenly."""
    missing = [key for key in SIZES.values() if key not in config]
    if missing:
        raise Refused(f"The config has no {missing[0]!r}, which a LLaMA-like model needs.")
    stated = {field: config.get(key) for field, key in (SIZES | OPTIONAL).items()}
    shape = {field: value for field, value in stated.items() if value is not None}
    wrong = [
        f"{field}={shown(value)}"
        for field, value in shape.items()
        if type(value) is not int or not 0 < value < 2**31 or (field == "layers" and value > LAYERS)
    ]
    if wrong:
        allowed = f"whole numbers of 1 or more, and at most {LAYERS:,} layers, are allowed"
        raise Refused(f"The config has {', '.join(wrong)}; {allowed}.")
    shape = {"kv_heads": shape["heads"], "head_dim": shape["hidden"] // shape["heads"]} | shape
    if shape["heads"] % shape["kv_heads"] or shape["head_dim"] < 1:
        names = ("hidden", "heads", "kv_heads", "head_dim")
        sizes = ", ".join(f"{name}={shape[name]}" for name in names)
        raise Refused(f"The config has {sizes}, which do not divide evenly.")
    return shape


def _read_config(path: Path) -> tuple[dict, str]:
    """The dictionary in a config file, or in a folder's `config.json`, and the folder's name."""
    try:
        path = path / "config.json" if path.is_dir() else path
        config = json.loads(content(path))
    except OSError:
        raise Refused(f"There is no readable config file at {path!s:.200}.") from None
    except (ValueError, RecursionError):
        raise Refused(f"The config file {path!s:.200} is not JSON.") from None
    if not isinstance(config, dict):
        raise Refused(f"The config file {path!s:.200} holds no JSON object.")
    return config, path.resolve().parent.name
