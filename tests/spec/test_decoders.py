"""decoders: published totals from configs written by hand, and files that are no config of ours."""

import json
import os

import pytest

from footprint import Refused, predict, spec

# With each config the total that its maker publishes with the weights.
CONFIGS = {
    "mistral-7b": (
        7_241_732_096,
        {
            "model_type": "mistral",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "vocab_size": 32000,
            "rope_theta": 10000.0,
        },
    ),
    "mistral-nemo-12b": (
        12_247_782_400,
        {
            "model_type": "mistral",
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 14336,
            "vocab_size": 131072,
        },
    ),
    "qwen2-7b": (
        7_615_616_512,
        {
            "model_type": "qwen2",
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "sliding_window": 131072,
            "max_window_layers": 28,
        },
    ),
    "qwen2.5-1.5b": (
        1_543_714_304,
        {
            "model_type": "qwen2",
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2.5-0.5b": (
        494_032_768,
        {
            "model_type": "qwen2",
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        596_049_920,
        {
            "model_type": "qwen3",
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
            "attention_bias": False,
        },
    ),
    "phi-3-mini": (
        3_821_079_552,
        {
            "model_type": "phi3",
            "hidden_size": 3072,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "intermediate_size": 8192,
            "vocab_size": 32064,
            "attention_bias": False,
        },
    ),
    "phi-3-medium": (
        13_960_238_080,
        {
            "model_type": "phi3",
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 10,
            "intermediate_size": 17920,
            "vocab_size": 32064,
            "sliding_window": 2047,
        },
    ),
    "gemma-2b": (
        2_506_172_416,
        {
            "model_type": "gemma",
            "hidden_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "intermediate_size": 16384,
            "vocab_size": 256000,
        },
    ),
    "gemma-2-2b": (
        2_614_341_888,
        {
            "model_type": "gemma2",
            "hidden_size": 2304,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "intermediate_size": 9216,
            "vocab_size": 256000,
        },
    ),
    "gemma-2-9b": (
        9_241_705_984,
        {
            "model_type": "gemma2",
            "hidden_size": 3584,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 256,
            "intermediate_size": 14336,
            "vocab_size": 256000,
            "sliding_window": 4096,
            "final_logit_softcapping": 30.0,
        },
    ),
    "yi-6b": (
        6_061_035_520,
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 11008,
            "vocab_size": 64000,
            "rope_theta": 5000000.0,
            "tie_word_embeddings": False,
            "max_position_embeddings": 4096,
        },
    ),
    "llama-3.2-3b": (
        3_212_749_824,
        {
            "model_type": "llama",
            "hidden_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 8192,
            "vocab_size": 128256,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "rope_theta": 500000.0,
            "max_position_embeddings": 131072,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "rope_type": "llama3",
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "llama-3.1-70b": (
        70_553_706_496,
        {
            "model_type": "llama",
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "intermediate_size": 28672,
            "vocab_size": 128256,
            "rope_theta": 500000.0,
        },
    ),
    "llama-7b": (
        6_738_415_616,
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 11008,
            "vocab_size": 32000,
            "_name_or_path": "/somewhere/private/Llama-2-7b",
        },
    ),
}
TINY = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 20,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_published_totals_from_configs(name):
    total, config = CONFIGS[name]
    assert spec.Model.from_config(config).parameters == total


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_builds_as_many_parameters(name):
    """Its own class of the architecture, on the device that holds shapes and no numbers."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    total, config = CONFIGS[name]
    with torch.device("meta"):
        net = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config)
        )
    assert net.num_parameters() == total
    shape = spec.Model.from_config(config)
    assert net.config.num_key_value_heads == shape.kv_heads
    assert net.model.layers[0].self_attn.head_dim == shape.head_dim


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_can_be_predicted(name):
    found = predict.windows(
        spec.Model.from_config(CONFIGS[name][1]), "h200-sxm", batch=1, prompt=128, output=64
    )
    weights = spec.Model.from_config(CONFIGS[name][1]).streamed_parameters * 2
    assert found["tpot_s"].item() > weights / (spec.gpu("h200-sxm").bandwidth_GBps * 1e9)


def test_biases_are_counted():
    plain = spec.Model.from_config(TINY).parameters
    attention = spec.Model.from_config({**TINY, "attention_bias": True}).parameters
    both = spec.Model.from_config({**TINY, "attention_bias": True, "mlp_bias": True}).parameters
    assert attention - plain == 2 * (4 * 2 + 2 * 2 * 2 + 8)
    assert both - attention == 2 * (12 + 12 + 8)


def test_a_config_from_a_file_or_a_folder_takes_the_name_of_its_folder(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({**TINY, "rope_parameters": {"rope_theta": 5e5}})
    )
    for source in (folder, folder / "config.json"):
        model = spec.Model.from_config(source)
        assert (model.id, model.rope_theta) == ("my-llama", 5e5)
        assert spec.model(str(source)) == model
    assert spec.Model.from_config(CONFIGS["llama-7b"][1]).name == "Llama-2-7b"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mixtral", "num_local_experts": 8}, "'mixtral'"),
        ({"num_experts": 64}, "dense"),
        ({"model_type": "qwen2_moe", "num_experts": 60}, "'qwen2_moe'"),
        ({"model_type": "deepseek_v3", "n_routed_experts": 256}, "'deepseek_v3'"),
        ({"model_type": "bert"}, "'bert'"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "'t5'"),
        ({"model_type": "mamba"}, "'mamba'"),
        ({"model_type": "vit"}, "'vit'"),
        ({"model_type": "llava", "vision_config": {"hidden_size": 8}}, "'llava'"),
        ({"vision_config": {"hidden_size": 8}}, "'llama' with vision_config="),
        ({"is_encoder_decoder": True}, "'llama' with is_encoder_decoder=True"),
        (
            {"n_routed_experts": 8},
            "'llama' with n_routed_experts=8 is not a dense LLaMA-like decoder; allowed are llama",
        ),
        ({"model_type": ["llama"]}, "allowed are llama"),
        ({"hidden_size": -8}, "hidden=-8"),
        ({"hidden_size": 8.0}, "hidden=8.0"),
        ({"num_hidden_layers": True}, "layers=True"),
        ({"num_attention_heads": 0}, "heads=0"),
        ({"num_attention_heads": "4"}, "heads='4'"),
        ({"num_key_value_heads": 0}, "kv_heads=0"),
        ({"num_key_value_heads": 3}, "kv_heads=3"),
        ({"num_attention_heads": 16, "num_key_value_heads": 16}, "head_dim=0"),
        ({"vocab_size": 10**30}, "vocab="),
        ({"rope_theta": -1}, "rope_theta=-1"),
        ({"rope_theta": "big"}, "rope_theta='big'"),
        ({"rope_parameters": 7, "rope_theta": 10**400}, "rope_theta=1000"),
    ],
)
def test_what_the_arithmetic_does_not_describe_is_refused(change, said):
    with pytest.raises(Refused, match=r"^The [^\n]*\.$") as error:
        spec.Model.from_config({**TINY, **change})
    assert said in str(error.value)


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
def test_a_missing_key_is_named(key):
    with pytest.raises(Refused, match=f"no '{key}'"):
        spec.Model.from_config({name: value for name, value in TINY.items() if name != key})


@pytest.mark.parametrize(
    "text", ["[1, 2]", "{", "[" * 100_000, "\xff", '{"hidden_size": ' + "9" * 5000 + "}"]
)
def test_a_file_that_is_no_config_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(Refused, match=r"^The config file [^\n]*\.$"):
        spec.model(str(path))


@pytest.mark.parametrize("name", ["nowhere/config.json", "x" * 5000 + ".json", "a\0b.json"])
def test_a_config_that_is_not_there_is_refused(name):
    with pytest.raises(Refused, match=r"^The(re)? [^\n]*\.$"):
        spec.model(name)


def test_a_config_is_a_regular_file_of_some_megabytes(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_bytes(b" " * (2**24 + 1))
    for name in (tmp_path / "pipe.json", tmp_path / "large.json", "/dev/zero"):
        with pytest.raises(Refused, match="no readable config file"):
            spec.model(str(name))
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["mistral-7b"][1]))
    (tmp_path / "link.json").symlink_to(tmp_path / "config.json")  # as the hub's cache does
    assert spec.model(str(tmp_path / "link.json")).layers == 32


@pytest.mark.parametrize("value", [10**8, 1001])
def test_a_config_of_very_many_layers_is_refused(value):
    with pytest.raises(Refused, match=f"layers={value}; .* at most 1,000 layers"):
        spec.Model.from_config(CONFIGS["mistral-7b"][1] | {"num_hidden_layers": value})


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "rope_theta", "num_experts"])
def test_a_value_too_large_to_show_is_refused_by_its_type(key):
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in (deep, 10**5000):
        config = CONFIGS["mistral-7b"][1] | {key: value}
        with pytest.raises(Refused, match=r"a (list|int) too large to show"):
            spec.Model.from_config(config)
