"""Models and GPUs: exact counts, arithmetic against loops, records that are never wrong."""

import dataclasses
import math

import pytest

from footprint import Refused, spec

# Totals that the makers publish (safetensors metadata of each model), and one computed by hand.
PUBLISHED = {
    "llama-1b": 1_100_048_384,
    "llama-3b": 3_426_473_600,
    "llama-7b": 6_738_415_616,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "smollm2-135m": 134_515_008,
    "llama-24m": 2 * 32000 * 288 + 6 * (4 * 288 * 288 + 3 * 288 * 768 + 2 * 288) + 288,
}
# Watts with a model in memory and nothing to do, as published (A40: the middle of 90 to 110).
LOADED_W = {
    "t4": 26.5,
    "l4": 31,
    "a30": 29.5,
    "a40": 100,
    "l40s": 110,
    "v100-32gb": 60,
    "a100-40gb-sxm": 63,
    "h100-nvl": 87.5,
    "h200-sxm": 119,
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


def tensors(model: spec.Model) -> dict[str, tuple[int, ...]]:
    """The shapes in a checkpoint of a plain LLaMA model, by name."""
    shapes = {"embed_tokens": (model.vocab, model.hidden), "norm": (model.hidden,)}
    if not model.tied:
        shapes["lm_head"] = (model.vocab, model.hidden)
    for layer in range(model.layers):
        shapes |= {
            f"{layer}.q_proj": (model.heads * model.head_dim, model.hidden),
            f"{layer}.k_proj": (model.kv_heads * model.head_dim, model.hidden),
            f"{layer}.v_proj": (model.kv_heads * model.head_dim, model.hidden),
            f"{layer}.o_proj": (model.hidden, model.heads * model.head_dim),
            f"{layer}.gate_proj": (model.intermediate, model.hidden),
            f"{layer}.up_proj": (model.intermediate, model.hidden),
            f"{layer}.down_proj": (model.hidden, model.intermediate),
            f"{layer}.input_layernorm": (model.hidden,),
            f"{layer}.post_attention_layernorm": (model.hidden,),
        }
    return shapes


def test_the_table_holds_the_models_that_are_counted_here():
    assert set(spec.models()) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_to_the_last_digit(name):
    model, row = spec.model(name), next(row for row in spec.table("models") if row["id"] == name)
    shapes = tensors(model)
    assert model.parameters == PUBLISHED[name] == sum(math.prod(shape) for shape in shapes.values())
    assert int(row["parameters"]) == PUBLISHED[name]
    assert (
        model.weight_bytes("fp32")
        == 2 * model.weight_bytes("bf16")
        == 8 * model.weight_bytes("int4")
    )
    if not model.tied:
        del shapes["embed_tokens"]
    assert model.streamed_parameters == sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize(
    ("name", "kib"), [("llama-7b", 512), ("llama-3.1-8b", 128), ("llama-1b", 22), ("llama-3b", 325)]
)
def test_kv_cache_bytes_a_token(name, kib):
    assert spec.model(name).kv_bytes_per_token("fp16") == kib * 1024
    assert spec.model(name).kv_bytes_per_token("fp32") == 2 * kib * 1024


def brute_flops(model: spec.Model, new: int, past: int, logits: int) -> int:
    total = 0
    for name, shape in tensors(model).items():
        if name.endswith("_proj"):
            total += sum(2 * math.prod(shape) for _ in range(new))
    for position in range(past, past + new):
        for _seen in range(position + 1):
            for _head in range(model.layers * model.heads):
                total += 2 * model.head_dim + 2 * model.head_dim
    return total + logits * 2 * model.vocab * model.hidden


@pytest.mark.parametrize(
    ("new", "past", "logits"), [(1, 0, 1), (5, 0, 1), (5, 0, 5), (1, 7, 1), (3, 4, 1)]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_flops_against_a_loop(new, past, logits, batch):
    model = spec.Model.from_config(TINY)
    assert model.flops(new, past, batch, logits) == batch * brute_flops(model, new, past, logits)


def test_a_prefill_costs_what_its_tokens_cost_one_by_one():
    model = spec.model("llama-1b")
    one_by_one = sum(model.flops(1, past, logits=0) for past in range(64))
    assert model.flops(64, logits=0) == one_by_one


@pytest.mark.parametrize(
    ("find", "wrong", "near"),
    [
        (spec.model, "lama-7b", "llama-7b"),
        (spec.gpu, "T4", "t4"),
        (spec.gpu, "a100-80gb", "a100-80gb-sxm"),
        (spec.grid, "CA-QX", "ca-qc"),
        (spec.model, "x/" + "y" * 5000, "llama-1b"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(find, wrong, near):
    with pytest.raises(KeyError) as error:
        find(wrong)
    assert near in error.value.args[0] and len(error.value.args[0]) < 250


def test_gpus_of_the_table():
    assert len(spec.gpus()) == len(set(spec.gpus())) >= 17
    assert {"t4", "rtx-6000-ada", "h100-80gb-sxm", "v100-16gb", "l40s"} <= set(spec.gpus())
    t4, ada = spec.gpu("t4"), spec.gpu("rtx-6000-ada")
    assert (t4.memory_GiB, t4.tdp_W, t4.bandwidth_GBps, t4.die_mm2) == (16, 70, 320, 545)
    assert (ada.memory_GiB, ada.tdp_W, ada.bandwidth_GBps, ada.die_mm2) == (48, 300, 960, 608.5)
    assert ada.release_year > t4.release_year


def test_gpus_that_only_measurements_name_are_known_but_not_of_the_book():
    assert "a30" not in spec.gpus()
    a30, a100 = spec.known()["a30"], spec.gpu("a100-40gb-sxm")
    assert (a30.memory_GiB, a30.tdp_W, a30.bandwidth_GBps, a30.cache_MB) == (24, 165, 933.1, 24)
    assert a30.peak_fp16_tflops == 165 and math.isnan(a30.idle_W)
    same = ("die_mm2", "node_class_nm", "memory_family", "inline_ecc", "bf16_tensor_cores")
    assert all(getattr(a30, name) == getattr(a100, name) for name in same)


CARD = dict(
    id="mine",
    name="My card",
    peak_fp16_tflops=100.0,
    bandwidth_GBps=1000.0,
    memory_GiB=24.0,
    memory_type="GDDR6",
    tdp_W=200.0,
    die_mm2=400.0,
    node="5nm",
)


def test_a_gpu_of_ones_own():
    gpu = spec.GPU(**CARD)
    assert math.isnan(gpu.idle_W) and math.isnan(gpu.loaded_W)


def test_a_loaded_gpu_draws_more_than_a_resting_one_and_less_than_its_limit():
    gpus = {name: one for name, one in spec.known().items() if isinstance(one, spec.GPU)}
    loaded = {name: gpu for name, gpu in gpus.items() if not math.isnan(gpu.loaded_W)}
    assert {name: gpu.loaded_W for name, gpu in loaded.items()} == LOADED_W
    for gpu in loaded.values():
        assert gpu.loaded_W < gpu.tdp_W and not gpu.loaded_W < gpu.idle_W
    for table in ("gpus", "measured_gpus"):
        for row in spec.table(table):
            assert (row["source_loaded"] == "not found") == (row["id"] not in LOADED_W)


@pytest.mark.parametrize(
    "field", ["peak_fp16_tflops", "bandwidth_GBps", "memory_GiB", "tdp_W", "die_mm2"]
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_gpu_that_cannot_be_is_refused(field, value):
    with pytest.raises(Refused, match=f"^{field} of mine is {value};"):
        spec.GPU(**{**CARD, field: value})


@pytest.mark.parametrize("field", ["idle_W", "loaded_W", "cache_MB"])
@pytest.mark.parametrize("value", [-1.0, math.inf])
def test_an_optional_value_may_be_unknown_but_not_impossible(field, value):
    with pytest.raises(Refused, match=f"^{field} of mine is {value};"):
        spec.GPU(**{**CARD, field: value})


def test_a_row_needs_no_more_than_what_a_data_sheet_says():
    row = {name: str(value) for name, value in CARD.items()}
    optional = ("idle_W", "release_year", "node_class_nm", "memory_family", "inline_ecc")
    optional += ("half_rate_accumulation", "cache_MB", "bf16_tensor_cores", "architecture")
    optional += ("loaded_W",)
    gpu = spec.record(spec.GPU, row | dict.fromkeys(optional, "-"))
    assert gpu == spec.GPU(**CARD)
    assert (gpu.node_class_nm, gpu.memory_family, gpu.cache_MB) == (5, "gddr", 6)
    assert gpu.bf16_tensor_cores and not (gpu.inline_ecc or gpu.half_rate_accumulation)
    for node, nm in (("12nm", 12), ("4NP", 5), ("6 nm", 6), ("secret", 5)):
        assert spec.GPU(**{**CARD, "node": node}).node_class_nm == nm
    assert spec.GPU(**{**CARD, "memory_type": "HBM4"}).memory_family == "hbm"
    with pytest.raises(Refused, match="memory_family of mine is 'tape'; hbm or gddr is allowed"):
        spec.GPU(**CARD, memory_family="tape")


def test_a_grid_by_code_name_country_and_region():
    assert spec.grid("CA-QC") is spec.grid("ca-qc") is spec.grid("Québec") is spec.grid("quebec")
    assert spec.grid("France").zone == "FR"
    assert spec.grid("California") is spec.grid("CISO") and spec.grid("PACE").zone == "US-NW-PACE"
    assert (
        spec.grid("CA-QC").g_per_kwh
        < spec.grid("California").g_per_kwh
        < spec.grid("PACE").g_per_kwh
    )
    assert spec.grid("PACE", kind="direct").g_per_kwh < spec.grid("PACE").g_per_kwh
    assert spec.grid("CA-QC", year=2021).year == 2021


def test_a_grid_that_is_not_known_says_what_is():
    with pytest.raises(KeyError, match=r"no lifecycle value for 1990; there is .*lifecycle 2023"):
        spec.grid("CA-QC", year=1990)
    with pytest.raises(KeyError, match=r"names \d+ zones; choose one of .*US-CAL-CISO"):
        spec.grid("USA")


def test_records_are_frozen():
    for record in (spec.model("llama-7b"), spec.gpu("t4"), spec.grid("FR")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.name = "other"


def test_an_unknown_dtype_is_refused():
    with pytest.raises(Refused, match="'fp8' is unknown; allowed are fp32"):
        spec.model("llama-7b").weight_bytes("fp8")


def test_printed_names_are_those_of_the_tables():
    assert (spec.label("t4"), spec.label("llama-7b"), spec.label("xeon")) == (
        "T4",
        "Llama 2 7B",
        "xeon",
    )
    assert [spec.zone_name(zone) for zone in ("US-CAL-CISO", "FR", "XX")] == [
        "California",
        "France",
        "XX",
    ]
    assert spec.utc_offset_h("US-CAL-CISO") == -8
    with pytest.raises(Refused, match="local time of 'FR' is unknown; known zones are CA-QC"):
        spec.utc_offset_h("FR")
