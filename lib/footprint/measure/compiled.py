"""The compiled engine: a static KV cache and a decode step that torch compiles for each shape."""

import os
import shutil
import time
from collections.abc import Callable

import torch
from transformers import Cache, StaticCache

from footprint import Refused
from footprint.measure.eager import Eager, cache_bytes, decode, peak_bytes, prefill

CALLS = 3  # a CUDA graph is warmed up by the first call, recorded by the second, replayed by others
SHAPES = 2**20  # torch gives up compiling after a few shapes unless told otherwise


class Compiled(Eager):
    """The eager model whose decode step is one compiled graph, on a GPU a CUDA graph.

    Prefill stays eager. Greedy tokens are those of `Eager` in fp32; in fp16 and bf16 a compiled
    step rounds in another order and may choose another token where two are nearly as likely.
    """

    def __init__(self, request: dict):
        super().__init__(request)
        compiler = os.environ.get("CXX", "g++")
        if not self.on_gpu and not shutil.which(compiler):
            remedy = "install g++ or name a compiler in CXX"
            raise Refused(f"The engine compiled needs a C++ compiler on a CPU: {remedy}.")
        self._cache, self._shape, self._ready = None, None, set()

    def load(self) -> dict:
        attrs = super().load()
        config = torch._dynamo.config
        config.recompile_limit = config.accumulated_recompile_limit = SHAPES
        config.fail_on_recompile_limit_hit = True  # else it would go on eagerly, and say nothing
        mode = "reduce-overhead" if self.on_gpu else "default"
        self.step = torch.compile(self.net, mode=mode, dynamic=False)
        return attrs

    def iteration(self, phase: str, point: dict, seed: int) -> Callable[[], list[float]]:
        batch, prompt = point["batch"], point["prompt_tokens"]
        shape, self.compile_s = (batch, prompt + point["output_tokens"]), 0.0
        if phase != "prefill" and shape not in self._ready:
            ids = self.prompt_ids(batch, prompt, seed)
            cache, token, _ = prefill(self.net, ids, self.cache(*shape))
            begin = time.perf_counter()
            for _ in range(CALLS):
                decode(self.step, cache, token, 1)
                self.rewind(cache, prompt)
            self.compile_s = time.perf_counter() - begin
            self._ready.add(shape)
            self._prepared = cache, token
        return super().iteration(phase, point, seed)

    def needed_bytes(self, phase: str, point: dict) -> float:
        kept = cache_bytes(self._cache) if self._cache else 0
        return peak_bytes(self.shape, self.dtype, phase, point, self.backends, static=True) - kept

    def lead(self, phase: str, point: dict, seed: int) -> Callable[[], list[float]]:
        """The same as the window: fewer tokens would be another shape, compiled anew."""
        return self.iteration(phase, point, seed)

    def cache(self, batch: int, tokens: int) -> Cache:
        """The empty cache of this shape: always the same, since a CUDA graph knows its address."""
        if self._shape != (batch, tokens):
            self._cache = None  # before the next one: both may not fit
            self._cache, self._shape = StaticCache(self.net.config, tokens), (batch, tokens)
        self.rewind(self._cache, 0)
        return self._cache

    @torch.inference_mode()
    def rewind(self, cache: Cache, tokens: int) -> None:
        for layer in cache.layers:
            layer.cumulative_length.fill_(tokens)

    def release(self) -> None:
        super().release()
        self._cache, self._shape, self._ready = None, None, set()
