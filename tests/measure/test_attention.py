"""The kernel of attention: which one torch picks, and its memory."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from footprint import spec
from footprint.measure import attention


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


def test_only_the_unfused_kernel_works_in_memory():
    shape = spec.model("llama-1b")
    assert attention.working_bytes(shape, "fp16", "flash", 1, 512, 512) == 0
    scores = 2 * 4 * shape.heads * 512 * 512
    needed = attention.working_bytes(shape, "fp16", "math", 1, 512, 512)
    assert scores < needed < 1.5 * scores
    assert attention.working_bytes(shape, "fp16", "cpu_math", 3, 512, 512) == 3 * needed
    assert attention.working_bytes(shape, "fp32", "math", 1, 512, 512) < needed
