"""The physics under `predict`: time, power and memory of passes through a decoder, from bytes, operations and launches.

A pass reads every weight and the KV cache, and multiplies. Its time on the card is

    matrices = (t_read^p + t_multiply^p)^(1/p)      the larger of the two, softened where they are alike
    device   = matrices + attention + activations + layers x latency of the kernels + batch x cost of a sequence
    time     = (device^q + host^q)^(1/q)            host: launching the kernels one by one, which only `eager` waits for

with t_read = bytes / (share x published bandwidth) and t_multiply = FLOP / rate. The rate is limited by the tensor cores
(share x published peak) and by the power cap: each FLOP costs energy, so no card multiplies faster than
(cap - idle) / (joules per FLOP), which grows with the size of the process node. Power is idle + floor + joules per byte x
bytes/s + joules per FLOP x FLOP/s, bent towards the cap. All functions take arrays that broadcast.
"""

from typing import NamedTuple

import numpy as np

from footprint import Refused, spec

ENGINES = ("eager", "graphs", "serving")
WEIGHT_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0625, "int4": 0.5625}  # with scales of 32 weights
NODE_NM = {"12nm": 12.0, "8nm": 10.0, "7nm": 7.0, "5nm": 5.0, "4N": 5.0}  # Samsung's 8 nm belongs to the 10 nm class


class Shapes(NamedTuple):
    """Sizes of models, one array each."""

    layers: np.ndarray
    layer_weights: np.ndarray
    head_weights: np.ndarray
    all_weights: np.ndarray
    width: np.ndarray
    query: np.ndarray
    key_value: np.ndarray
    heads: np.ndarray
    norms: np.ndarray


class Cards(NamedTuple):
    """Published (or probed) rates of cards, one array each, SI units."""

    bandwidth: np.ndarray
    peak: np.ndarray
    memory: np.ndarray
    cap: np.ndarray
    idle: np.ndarray
    node: np.ndarray
    kind: np.ndarray  # 0 HBM, 1 GDDR, 2 GDDR that spends bandwidth on error correction, 3 probed
    geforce: np.ndarray


class Rates(NamedTuple):
    """What a model reaches on a card with an engine and a dtype."""

    weight_bytes: np.ndarray
    element_bytes: float
    bandwidth: np.ndarray
    compute: np.ndarray
    joule_per_flop: np.ndarray
    joule_per_byte: np.ndarray
    floor: np.ndarray
    layer_s: np.ndarray
    host_s: np.ndarray
    sequence_s: np.ndarray
    request_s: np.ndarray
    activations: np.ndarray
    scores: np.ndarray
    cache: np.ndarray
    chunk: np.ndarray
    host_power: np.ndarray


class Work(NamedTuple):
    """One phase: seconds, bytes and operations, and the seconds of its causes."""

    time: np.ndarray
    bytes: np.ndarray
    flops: np.ndarray
    reading: np.ndarray
    multiplying: np.ndarray
    waiting: np.ndarray


def shapes(models: list[spec.Model]) -> Shapes:
    """Arrays (model,) of the sizes of these models."""
    rows = [
        (m.layers, m.layer_parameters, m.hidden * m.vocab, m.parameters, m.hidden + m.intermediate, m.heads * m.head_dim,
         m.kv_heads * m.head_dim, m.heads, m.norms_per_layer)
        for m in models
    ]  # fmt: skip
    return Shapes(*np.array(rows, dtype=float).T)


def memory_kind(gpu: spec.GPU) -> int:
    """HBM 0; GDDR 1; GDDR of a server card, where error correction shares the bandwidth, 2; probed 3."""
    if gpu.memory_type == "probed":
        return 3
    if gpu.memory_type.startswith("HBM"):
        return 0
    return 1 if gpu.name.startswith("RTX") else 2


def cards(gpus: list[spec.GPU], p: dict[str, float]) -> Cards:
    """Arrays (gpu,) of the rates of these cards; an unknown idle power is modelled as a share of the cap."""
    for gpu in gpus:
        if gpu.node not in NODE_NM and gpu.memory_type != "probed":
            raise Refused(f"The node {gpu.node!r} of {gpu.id} is unknown; allowed are {', '.join(NODE_NM)}.")
    rows = []
    for gpu in gpus:
        kind = memory_kind(gpu)
        share = p["idle_hbm"] if kind == 0 else p["idle_gddr"]
        idle = gpu.idle_W if gpu.idle_W == gpu.idle_W or kind == 3 else share * gpu.tdp_W
        cap = np.nan if kind == 3 else gpu.tdp_W
        geforce = gpu.name.startswith("RTX") and (gpu.memory_type == "GDDR6X" or gpu.name[4:].startswith("30"))
        rows.append((gpu.bandwidth_GBps * 1e9, gpu.peak_fp16_tflops * 1e12, gpu.memory_GiB * 2**30, cap, idle,
                     NODE_NM.get(gpu.node, np.nan), kind, geforce))  # fmt: skip
    return Cards(*np.array(rows, dtype=float).T)


def soft_max(a, b, power: float):
    """(a^power + b^power)^(1/power) for a, b >= 0, without overflow."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    return high * (1 + (low / np.maximum(high, 1e-300)) ** power) ** (1 / power)


def by_engine(p: dict[str, float], name: str, engine):
    """Parameter `<name>_<engine>` for an array of engine numbers; 0 where an engine has none."""
    return np.array([p.get(f"{name}_{word}", 0.0) for word in ENGINES])[engine]


def by_memory(p: dict[str, float], name: str, kind, probed: float):
    """Parameter `<name>_<memory>` for an array of memory kinds."""
    values = [p.get(f"{name}_{word}", p.get(f"{name}_gddr")) for word in ("hbm", "gddr", "gddr_ecc")]
    return np.array([*values, probed])[np.asarray(kind, dtype=int)]


def rates(p: dict[str, float], m: Shapes, g: Cards, engine, dtype: str = "fp16") -> Rates:
    """Reached rates for models, cards and engine numbers that broadcast; p: the parameters by name."""
    probed, eager = g.kind == 3, engine == 0
    joule_per_flop = p["flop_pJ"] * 1e-12 * (g.node / 5) ** p["flop_node"]
    # llama.cpp accumulates in fp16, which GeForce cards do at twice the published rate of fp32 accumulation
    peak = by_engine(p, "compute", engine) * g.peak * np.where((engine == 1) & (g.geforce > 0), 2, 1)
    capped = (g.cap - g.idle) / joule_per_flop
    compute = np.where(probed, g.peak, peak * capped / np.hypot(peak, capped))
    slower = {"int4": p["int4_compute"], "int8": p["int4_compute"]}.get(dtype, 1.0)
    if dtype == "fp32":
        slower = np.where(probed, 1.0, 8.0)  # without tensor cores
    host = p["host_s"] * (1 + p["host_norm"] * (m.norms - 2)) * p.get(f"host_{dtype}", 1.0)
    layer = by_engine(p, "layer_s", engine) * np.where((engine == 1) & (g.kind == 0), p["layer_hbm"], 1)
    return Rates(
        weight_bytes=WEIGHT_BYTES[dtype], element_bytes=4.0 if dtype == "fp32" else 2.0,
        bandwidth=by_memory(p, "bandwidth", g.kind, 1.0) * g.bandwidth,
        compute=compute / slower,
        joule_per_flop=joule_per_flop, joule_per_byte=by_memory(p, "byte_J", g.kind, np.nan),
        floor=by_memory(p, "floor", g.kind, np.nan) * (g.cap - g.idle),
        layer_s=np.where(probed, 0, layer), host_s=np.where(probed, p["host_cpu_s"], host * eager) * m.layers,
        sequence_s=by_engine(p, "sequence_s", engine), request_s=by_engine(p, "request_s", engine),
        activations=by_engine(p, "activations", engine), scores=by_engine(p, "scores", engine),
        cache=by_engine(p, "cache", engine) * np.where(eager, m.query, m.key_value),
        chunk=np.array([np.inf, 512.0, np.inf])[engine], host_power=np.where(probed, 1.0, p["host_power"]),
    )  # fmt: skip


def run(p: dict[str, float], m: Shapes, r: Rates, batch, new, past, chunk=np.inf) -> Work:
    """One pass of `batch` sequences that adds `new` tokens to `past` ones each, in chunks of at most `chunk` tokens."""
    passes = np.maximum(1, new / np.minimum(r.chunk, chunk))
    tokens = batch * new / passes
    past = past + (new - new / passes) / 2
    new = new / passes
    weights = (m.layers * m.layer_weights + m.head_weights) * r.weight_bytes
    multiply = 2 * (m.layers * m.layer_weights * tokens + m.head_weights * batch)
    attend = 4 * m.layers * m.query * batch * new * (past + (new + 1) / 2)
    cache = 2 * m.layers * r.cache * r.element_bytes * batch * (past + new)
    cache = cache + r.scores * m.layers * m.heads * tokens * (past + new)
    cache = cache + r.activations * m.layers * m.width * r.element_bytes * tokens
    matrices = soft_max(weights / r.bandwidth, multiply / r.compute, p["matrix_power"])
    waiting = m.layers * r.layer_s + r.sequence_s * batch
    device = matrices + cache / r.bandwidth + attend / r.compute + waiting
    time = soft_max(device, r.host_s, r.host_power)
    return Work(passes * time, passes * (weights + cache), passes * (multiply + attend), device, time - device, waiting)


def usable(g: Cards):
    """Bytes that programs can use: the driver keeps 1.5 %, error correction in GDDR a sixteenth."""
    return np.where(g.kind == 2, 15 / 16, 0.985) * g.memory


def power(p: dict[str, float], g: Cards, r: Rates, work: Work):
    """Mean watts of a card while it does `work`: between idle and cap, bent smoothly towards the cap."""
    rise = r.floor + r.joule_per_byte * work.bytes / work.time + r.joule_per_flop * work.flops / work.time
    room = p["cap_share"] * g.cap - g.idle
    return g.idle + rise * room / soft_max(rise, room, 8.0)


def memory(p: dict[str, float], m: Shapes, r: Rates, batch, prompt, context):
    """Bytes: weights, KV cache of `context` tokens a sequence, activations of the prompt, and the engine's own."""
    cache = 2 * m.layers * m.key_value * r.element_bytes * batch * context
    activations = r.element_bytes * batch * prompt * m.width * p["memory_activations"]
    return m.all_weights * r.weight_bytes + cache + activations + p["memory_context_B"]
