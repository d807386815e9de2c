"""The kernel of attention: which one torch picks, and its memory."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

from footprint import spec
from footprint.measure import attention, eager

CUDA = torch.device("cuda", 0)


@pytest.fixture
def made():
    """A function that makes a small model in fp32 with these heads, heads of keys and width."""

    def build(heads: int, kv_heads: int, width: int) -> torch.nn.Module:
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=width,
            intermediate_size=96,
            vocab_size=500,
            initializer_range=0.2,  # tokens differ and attention is sharp
        )
        return LlamaForCausalLM(config).eval()

    return build


@pytest.mark.parametrize(
    ("allowed", "name"), [(SDPBackend.MATH, "cpu_math"), (SDPBackend.FLASH_ATTENTION, "cpu_flash")]
)
def test_the_witness_sees_the_kernel_that_torch_picks_and_changes_nothing(allowed, name):
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    plain = scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True)
    with sdpa_kernel(allowed), attention.Witness() as witness:
        seen = scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True)
        torch.add(query, 1)
    assert witness.seen == {name} and torch.allclose(seen, plain, atol=1e-6)
    scaled_dot_product_attention(query, query, query)
    assert witness.seen == {name}, "it no longer looks"


def test_a_fused_kernel_works_in_no_memory_unless_heads_are_repeated():
    shape = spec.model("llama-1b")
    assert attention.working_bytes(shape, "fp16", "flash", 1, 512, 512) == 0
    scores = 2 * 4 * shape.heads * 512 * 512
    needed = attention.working_bytes(shape, "fp16", "math", 1, 512, 512)
    assert scores < needed < 1.5 * scores
    assert attention.working_bytes(shape, "fp16", "cpu_math", 3, 512, 512) == 3 * needed
    assert attention.working_bytes(shape, "fp32", "math", 1, 512, 512) < needed
    repeated = 2 * 2 * shape.heads * shape.head_dim * 512
    assert attention.working_bytes(shape, "fp16", "efficient, repeated", 1, 1, 512) == repeated
    plain = spec.model("llama-7b")
    assert attention.working_bytes(plain, "fp16", "efficient, repeated", 1, 512, 512) == 0


# -- heads that are repeated and padded ------------------------------------------------------------


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(32, 4, 64), (4, 4, 100), (8, 2, 14)])
@pytest.mark.parametrize("static", [False, True])
def test_repeated_and_padded_heads_give_the_same_numbers(made, heads, kv_heads, width, static):
    net, ids = made(heads, kv_heads, width), torch.randint(500, (3, 17))
    found = []
    for name in ("sdpa", attention.REPEATED):
        net.set_attn_implementation(name)
        cache = StaticCache(net.config, 40) if static else None
        tokens, _ = eager.generate(net, ids, 9, cache=cache)
        found.append((tokens, net(ids).logits))
    (tokens, logits), (ours, close) = found
    assert torch.equal(ours, tokens) and len(tokens.unique()) > 5
    assert torch.allclose(close, logits, rtol=1e-4, atol=1e-4 * logits.abs().max().item())


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(32, 4, 64), (4, 4, 100)])
def test_torch_is_given_what_the_old_fused_kernel_wants(made, heads, kv_heads, width):
    given = []

    class Given(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is scaled_dot_product_attention:
                given.append((args, kwargs))
            return func(*args, **(kwargs or {}))

    net = made(heads, kv_heads, width)
    net.set_attn_implementation(attention.REPEATED)
    with Given():
        eager.generate(net, torch.randint(500, (2, 7)), 3)
    assert len(given) == 2 * 3, "layers times passes"
    for (query, key, value), options in given:
        assert query.shape[1] == key.shape[1] == value.shape[1] == heads
        assert query.shape[-1] % 8 == key.shape[-1] % 8 == value.shape[-1] % 8 == 0
        assert options["attn_mask"] is None and not options.get("enable_gqa")
        assert options["scale"] == width**-0.5, "of the width before it was padded"


@pytest.mark.parametrize(
    ("capability", "own", "chosen"),
    [
        ((7, 5), "sdpa", "repeated"),
        ((7, 0), "sdpa", "repeated"),
        ((8, 0), "sdpa", "sdpa"),
        ((8, 9), "sdpa", "sdpa"),
        ((7, 5), "eager", "eager"),
    ],
)
def test_only_gpus_without_flash_attention_repeat(made, monkeypatch, capability, own, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    net = made(4, 2, 16)
    net.set_attn_implementation(own)
    attention.fuse(net, torch.device("cpu"))
    assert net.config._attn_implementation == own
    attention.fuse(net, CUDA)
    assert net.config._attn_implementation == chosen


def test_the_witness_says_repeated_and_a_model_without_torch_s_kernels_its_own_name(made):
    net, ids = made(4, 2, 16), torch.randint(500, (1, 5))
    for name, said in (
        ("sdpa", "cpu_flash"),
        ("repeated", "cpu_flash, repeated"),
        ("eager", "eager"),
    ):
        net.set_attn_implementation(name)
        with attention.Witness() as witness:
            net(ids)
        assert witness.said(net) == said
