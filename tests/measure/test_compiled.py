"""The compiled engine: the tokens of the eager one, compilation apart, and refusals."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from footprint import Refused, workload
from footprint.measure import compiled, eager, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler: install g++"),
]
ASKED = {"model": "llama-24m", "seed": 1}


@pytest.fixture(scope="module")
def engine():
    """A small model with random weights, loaded."""
    loaded = compiled.Compiled(workload.request("profile", engine="compiled", **ASKED))
    assert loaded.load()["engine"] == "compiled"
    return loaded


def point(batch: int, prompt: int, output: int) -> dict:
    return {"batch": batch, "prompt_tokens": prompt, "output_tokens": output}


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "prompt", "output"), [(3, 17, 12), (1, 5, 2)])
def test_its_tokens_are_those_of_the_eager_engine(engine, batch, prompt, output):
    ids = engine.prompt_ids(batch, prompt, seed=5)
    eagerly, _ = eager.generate(engine.net, ids, output)
    for _ in range(2):  # the second time from a cache that was used before
        ours, times = engine._whole(ids, output)
        assert torch.equal(ours, eagerly) and len(times) == output
    engine.release()


def graphs() -> int:
    """How many graphs torch has compiled so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.slow
def test_it_compiles_once_a_shape_and_before_the_windows(engine):
    at, before = point(2, 6, 4), graphs()
    assert len(engine.iteration("prefill", at, seed=0)()) == 1 and engine.compile_s == 0
    once = engine.iteration("decode", at, seed=0)
    assert engine.compile_s > 0 and graphs() == before + 1
    assert len(once()) == len(once()) == 3
    assert len(engine.iteration("generate", at, seed=0)()) == 4 and engine.compile_s == 0
    engine.release()
    engine.iteration("decode", at, seed=0)
    assert engine.compile_s > 0, "the graph is known, its cache is new"
    assert graphs() == before + 1


@pytest.mark.slow
def test_a_shape_that_torch_will_not_compile_is_an_error_and_never_eager(monkeypatch):
    config = torch._dynamo.config
    for name in ("recompile_limit", "accumulated_recompile_limit", "fail_on_recompile_limit_hit"):
        monkeypatch.setattr(config, name, getattr(config, name))  # restored at the end
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "SHAPES", 1)
    few = compiled.Compiled(workload.request("profile", engine="compiled", **ASKED))
    few.load()
    few.iteration("decode", point(1, 3, 2), seed=0)
    few.release()
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        few.iteration("decode", point(1, 3, 3), seed=0)


def test_a_cache_is_the_same_until_it_is_released():
    idle = compiled.Compiled(workload.request("profile", engine="compiled", **ASKED))
    idle.net = SimpleNamespace(config=weights.LlamaConfig(num_hidden_layers=1))
    first = idle.cache(1, 8)
    assert idle.cache(1, 8) is first and idle.cache(1, 9) is not first
    idle.release()
    assert idle._cache is None


def test_a_static_cache_is_there_from_the_start(engine):
    at = point(2, 64, 9)
    before = {phase: engine.needed_bytes(phase, at) for phase in ("prefill", "decode")}
    cache_B = 2 * (64 + 9) * engine.shape.kv_bytes_per_token("fp32")
    assert before["prefill"] > before["decode"] > cache_B
    engine.iteration("prefill", at, seed=0)()
    for phase, needed in before.items():
        assert engine.needed_bytes(phase, at) == needed - cache_B
    engine.release()
    assert engine.needed_bytes("decode", at) == before["decode"]


def test_without_a_compiler_it_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Refused, match=r"needs a C\+\+ compiler on a CPU: install g\+\+"):
        compiled.Compiled(workload.request("profile", engine="compiled", **ASKED))
