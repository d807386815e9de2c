"""benchmarks/launches.py: what counts as a launch, and the table launches.csv."""

from collections import Counter

import pytest
import torch
import transformers

from benchmarks import launches
from footprint.measure.attention import REPEATED

NORM = {"fp32": 6, "bf16": 8}  # square, mean, add, root, 2 products; to fp32 and back
GEMMA_NORM = {"fp32": 7, "bf16": 10}  # and 1 + weight; the weight to fp32
CAPPED = 3  # scores: divided, tanh, multiplied


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only wait for each other where nothing is large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Three(torch.nn.Module):
    """A product, an activation and a sum, with views between them."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4, bias=False)

    def forward(self, x):
        y = torch.nn.functional.silu(self.inner(x.unsqueeze(0)).transpose(1, 2))
        return y.squeeze(0)[:2].detach() + 1


def test_a_module_of_three_operations_launches_three():
    seen = launches.launches(Three(), torch.zeros(3, 4))
    assert seen == Counter({"mm": 1, "silu": 1, "add": 1})


@pytest.mark.parametrize(
    ("work", "names"),
    [
        (lambda x: x.view(2, 2).t().expand(3, 2, 2).to(torch.float32).contiguous, []),
        (lambda x: (torch.empty(3), torch.empty_like(x), x.new_empty(2)), []),
        (lambda x: (torch.zeros(0), x[:0].clone()), []),
        (lambda x: x.sum().item(), ["sum"]),
        (lambda x: x.to(torch.bfloat16).to(torch.bfloat16), ["_to_copy"]),
        (lambda x: x.expand(3, 4).reshape(12), ["clone"]),
        (lambda x: torch.nn.functional.dropout(x, 0.5, training=False), []),
        (lambda x: x.add_(1), ["add_"]),
    ],
    ids=["views", "unset", "empty", "number", "conversion", "copy", "no dropout", "in place"],
)
def test_only_what_makes_values_counts(work, names):
    assert launches.launches(work, torch.zeros(4)) == Counter(names)


@pytest.mark.parametrize("dtype", launches.DTYPES)
def test_the_sum_of_a_layer(dtype):
    """By hand: a layer with sdpa, with repeated heads, eager, and one of Gemma 2."""
    matrices, rotation, cache, activation, residuals = 7, 2 * 5, 2, 2, 2
    rest = matrices + rotation + cache + activation + residuals
    sdpa = rest + 2 * NORM[dtype] + 1
    softmax = 1 if dtype == "fp32" else 3  # to fp32 and back
    scores = 3  # product, scale, mask
    unfused = rest + scores + softmax + 1
    expected = {
        ("llama", 0, "sdpa"): sdpa,
        ("llama", 1, "sdpa"): sdpa,
        ("llama", 1, REPEATED): sdpa + 2,
        ("llama", 0, "eager"): unfused + 2 * NORM[dtype],
        ("llama", 1, "eager"): unfused + 2 + 2 * NORM[dtype],
        ("gemma-2", 0, "eager"): unfused + CAPPED + 4 * GEMMA_NORM[dtype],
    }
    table, version = launches.known(), transformers.__version__
    found = {key: table[version, key[0], dtype, *key[1:]][0] for key in expected}
    assert found == expected


def test_the_table_says_what_is_counted_here():
    found = launches.rows()
    assert [row for row in found if not row["ok"]] == [], "put these rows into data/launches.csv"
    norms = {(row["model"], row["dtype"]): row["launches_a_norm"] for row in found}
    assert norms == {("llama", dtype): NORM[dtype] for dtype in NORM} | {
        ("gemma-2", dtype): GEMMA_NORM[dtype] for dtype in NORM
    }
