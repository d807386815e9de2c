"""The sizes of a decoder as a Hugging Face `config.json` gives them; a stranger's file is data, and is checked."""

import json
from pathlib import Path

from footprint import Refused

ARCHITECTURES = {
    "llama": {},
    "mistral": {},
    "phi3": {},
    "gemma": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma2": {"norms_per_layer": 4},
}
# What makes a decoder of an allowed name another thing: experts, an encoder, an eye.
UNLIKE = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "is_encoder_decoder",
    "vision_config",
)
CONFIG_KEYS = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
}


def read(source) -> dict:
    """The fields of a `spec.Model` in a config: its path, its folder, or the dictionary itself.

    Raises `Refused` for a file that is none, and for an architecture whose arithmetic `spec.Model` does not describe.
    """
    config, folder = (source, "") if isinstance(source, dict) else _read_config(Path(source))
    kind = config.get("model_type", "missing")
    unlike = [f"{key}={config[key]!r:.20}" for key in UNLIKE if config.get(key)]
    if not isinstance(kind, str) or kind not in ARCHITECTURES or unlike:
        allowed, named = ", ".join(ARCHITECTURES), " with ".join([f"{kind!r:.80}", *unlike[:1]])
        raise Refused(
            f"The architecture {named} is not a dense LLaMA-like decoder; allowed are {allowed}."
        )
    rope = config.get("rope_parameters")
    theta = (
        config.get("rope_theta")
        or (rope.get("rope_theta") if isinstance(rope, dict) else None)
        or 10000.0
    )
    if not isinstance(theta, int | float) or not 0 < theta < 1e18:
        raise Refused(
            f"The config has rope_theta={theta!r:.80}; a finite number above 0 is allowed."
        )
    name = folder or Path(str(config.get("_name_or_path") or kind)).name
    tied = bool(config.get("tie_word_embeddings", kind.startswith("gemma")))
    extra = dict(ARCHITECTURES[kind])
    if config.get("attention_bias") and kind not in ("mistral", "phi3", "qwen2"):
        extra |= {"qkv_bias": True, "output_bias": True}
    if config.get("mlp_bias") and kind == "llama":
        extra["mlp_bias"] = True
    return {
        "id": name,
        "name": name,
        "tied": tied,
        "rope_theta": float(theta),
        **_shape(config),
        **extra,
    }


def _shape(config: dict) -> dict[str, int]:
    """The sizes in a config, checked: each a whole number, heads that divide evenly."""
    missing = [key for key in CONFIG_KEYS.values() if key not in config]
    if missing:
        raise Refused(f"The config has no {missing[0]!r}, which a LLaMA-like model needs.")
    shape = {field: config[key] for field, key in CONFIG_KEYS.items()}
    shape["max_position"] = config.get("max_position_embeddings", 2048)
    for field, key in (("kv_heads", "num_key_value_heads"), ("head_dim", "head_dim")):
        if config.get(key) is not None:
            shape[field] = config[key]
    wrong = [
        f"{key}={value!r:.80}"
        for key, value in shape.items()
        if type(value) is not int or not 0 < value < 2**31
    ]
    if wrong:
        raise Refused(f"The config has {', '.join(wrong)}; whole numbers of 1 or more are allowed.")
    shape = {"kv_heads": shape["heads"], "head_dim": shape["hidden"] // shape["heads"]} | shape
    if shape["heads"] % shape["kv_heads"] or shape["head_dim"] < 1:
        sizes = ", ".join(
            f"{field}={shape[field]}" for field in ("hidden", "heads", "kv_heads", "head_dim")
        )
        raise Refused(f"The config has {sizes}, which do not divide evenly.")
    return shape


def _read_config(path: Path) -> tuple[dict, str]:
    """The dictionary in a config file (or in the `config.json` of a folder) and the name of its folder."""
    try:
        path = path / "config.json" if path.is_dir() else path
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise Refused(f"There is no readable config file at {path!s:.200}.") from None
    except (ValueError, RecursionError):
        raise Refused(f"The config file {path!s:.200} is not JSON.") from None
    if not isinstance(config, dict):
        raise Refused(f"The config file {path!s:.200} holds no JSON object.")
    return config, path.resolve().parent.name
