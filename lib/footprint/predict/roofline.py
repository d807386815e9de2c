"""The physics: time, power and memory of a pass through a decoder, from bytes and operations.

A pass reads every weight and the KV cache, and multiplies. With read = bytes / (share x published
bandwidth) and multiply = FLOP / (share x published peak), a share that few tokens do not reach
(`half_tokens`), its time is

    matrices = (read^3 + multiply^3)^(1/3)               the larger of the two, softened
    device   = matrices + traffic + attention + waiting  KV cache, activations; latency of kernels
    launched = (device^4 + host^4)^(1/4)                 host: launches, one by one, in `eager`
    time     = (launched^4 + limited^4)^(1/4)            limited: joules / watts the cap leaves

Joules grow with bytes and FLOP, so a GPU at its cap takes the time that its energy needs. Power is
idle + floor + joules / time, bent towards the cap; idle + floor are the watts of a GPU that has a
model in its memory and nothing to do, published or a share of its cap. All functions take arrays
that broadcast; `p` holds the parameters by name.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from footprint import Refused, spec

Engine = IntEnum("Engine", "eager graphs serving", start=0)
Dtype = IntEnum("Dtype", list(spec.DTYPE_BYTES), start=0)
Memory = IntEnum("Memory", "hbm hbm3 gddr gddr_ecc probed", start=0)
# Bytes of a weight by Dtype; a quantised weight has its part of a scale of 16 bits for 32 weights.
WEIGHT_BYTES = np.array([4.0, 2.0, 2.0, 1.0625, 0.5625])
HBM = (Memory.hbm, Memory.hbm3)
GRAPHS_TOKENS = 512  # that llama.cpp has in flight at once


class Models(NamedTuple):
    """Sizes of models as arrays: numbers of weights, widths and heads."""

    layers: np.ndarray
    layer_weights: np.ndarray
    head_weights: np.ndarray
    all_weights: np.ndarray
    width: np.ndarray  # hidden + intermediate
    query: np.ndarray
    key_value: np.ndarray
    heads: np.ndarray
    norms: np.ndarray  # a layer


class GPUs(NamedTuple):
    """GPUs as arrays, in B/s, FLOP/s, B and W."""

    bandwidth: np.ndarray
    peak: np.ndarray
    bytes: np.ndarray
    cap: np.ndarray
    idle: np.ndarray
    node: np.ndarray  # class of the process in units of 5 nm
    memory: np.ndarray  # of Memory
    on_chip: np.ndarray  # B of the last-level cache
    loaded: np.ndarray  # W with a model in memory and nothing to do, NaN where nobody knows
    half_rate: np.ndarray  # whether sums in fp32 run at half the rate
    emulates: np.ndarray  # whether bf16 has no tensor cores


class Rates(NamedTuple):
    """What models reach on GPUs with an engine and a dtype, as arrays in SI units."""

    weight_bytes: float
    element_bytes: np.ndarray
    read: np.ndarray  # B/s of weights
    bandwidth: np.ndarray  # B/s of all else
    compute: np.ndarray
    half_tokens: np.ndarray  # with so many in a pass, products reach half of `compute`
    byte_J: np.ndarray
    flop_J: np.ndarray
    capped_flop_J: np.ndarray  # where the cap on power limits the time
    floor_W: np.ndarray  # above idle, whatever the work
    room_W: np.ndarray  # from the floor to the cap
    layer_s: np.ndarray
    host_s: np.ndarray
    sequence_s: np.ndarray
    cache: np.ndarray  # elements of keys (or values) that a token and a layer read
    cache_J: np.ndarray  # energy of a byte of the cache relative to other bytes
    scores: np.ndarray  # bytes of attention scores written, each
    on_chip: np.ndarray
    chunk: np.ndarray  # tokens of a sequence that are prefilled at once
    serial: np.ndarray  # whether host and device do not overlap


class Pass(NamedTuple):
    """A phase: seconds, joules above the floor, and d ln time / d ln of each cause by name."""

    time: np.ndarray
    joules: np.ndarray
    shares: dict[str, np.ndarray]


class Power(NamedTuple):
    """Watts, and d ln watts / d ln of the joules of the work and of the floor."""

    watts: np.ndarray
    joules: np.ndarray
    floor: np.ndarray


def each(arrays: NamedTuple, function: Callable):
    """The same record with a function applied to each of its arrays."""
    return type(arrays)._make(map(function, arrays))


def choose(index, *values: float) -> np.ndarray:
    """The value at each index, in the order of the enum that it is of."""
    return np.array(values, dtype=float)[index]


def model_arrays(models: list[spec.Model]) -> Models:
    """Arrays (model,) of the sizes of these models."""

    def column(read: Callable) -> np.ndarray:
        return np.array([read(model) for model in models], dtype=float)

    return Models(
        layers=column(lambda model: model.layers),
        layer_weights=column(lambda model: model.layer_parameters),
        head_weights=column(lambda model: model.hidden * model.vocab),
        all_weights=column(lambda model: model.parameters),
        width=column(lambda model: model.hidden + model.intermediate),
        query=column(lambda model: model.heads * model.head_dim),
        key_value=column(lambda model: model.kv_heads * model.head_dim),
        heads=column(lambda model: model.heads),
        norms=column(lambda model: model.norms_per_layer),
    )


def memory_of(gpu: spec.GPU) -> Memory:
    """The kind of a GPU's memory; with error correction GDDR keeps less bandwidth and capacity."""
    if gpu.probed:
        return Memory.probed
    if gpu.memory_family == "hbm":
        return Memory.hbm3 if gpu.memory_type.startswith("HBM3") else Memory.hbm
    return Memory.gddr_ecc if gpu.inline_ecc else Memory.gddr


def idle_W(p: dict[str, float], gpu: spec.GPU) -> float:
    """Idle power as published or else as modelled; `Refused` unless it is less than the cap."""
    stacks = p["idle_hbm_W"] if memory_of(gpu) in HBM else 0
    modelled = p["idle_W"] + p["idle_share"] * gpu.tdp_W + stacks
    idle = np.fmin(modelled, gpu.loaded_W) if np.isnan(gpu.idle_W) else gpu.idle_W
    if idle >= gpu.tdp_W:
        raise Refused(
            f"idle_W of {gpu.id} is {idle:g}; less than its tdp_W of {gpu.tdp_W:g} is allowed."
        )
    return idle


def gpu_arrays(p: dict[str, float], gpus: list[spec.GPU]) -> GPUs:
    """Arrays (gpu,) of the rates, powers and features of these GPUs."""

    def column(read: Callable, dtype: type = float) -> np.ndarray:
        return np.array([read(gpu) for gpu in gpus], dtype=dtype)

    return GPUs(
        bandwidth=column(lambda gpu: gpu.bandwidth_GBps * 1e9),
        peak=column(lambda gpu: gpu.peak_fp16_tflops * 1e12),
        bytes=column(lambda gpu: gpu.memory_GiB * 2**30),
        cap=column(lambda gpu: gpu.tdp_W),
        idle=column(lambda gpu: idle_W(p, gpu)),
        node=column(lambda gpu: gpu.node_class_nm / 5),
        memory=column(memory_of, int),
        on_chip=column(lambda gpu: gpu.cache_MB * 1e6),
        loaded=column(lambda gpu: gpu.loaded_W),
        half_rate=column(lambda gpu: gpu.half_rate_accumulation, bool),
        emulates=column(lambda gpu: not gpu.bf16_tensor_cores, bool),
    )


def without_tensor_cores(g: GPUs, dtype):
    """Whether a dtype does without tensor cores: fp32, and bf16 where it is emulated."""
    return (dtype == Dtype.fp32) | ((dtype == Dtype.bf16) & g.emulates)


def rates(
    p: dict[str, float], m: Models, g: GPUs, engine, dtype, host: float = 1.0, recent=True
) -> Rates:
    """The rates that models reach on GPUs.

    engine, dtype: arrays of Engine and Dtype. host: launch time relative to the hosts of the fit.
    recent: whether a serving engine is of today, and not of 2024 or before.
    """
    later = np.where((engine == Engine.serving) & recent, p["waiting_recent"], 1)
    probed = g.memory == Memory.probed
    eager, graphs = engine == Engine.eager, engine == Engine.graphs
    quantised = dtype >= Dtype.int8
    # llama.cpp sums in fp16; the published peak is of sums in fp32.
    doubled = np.where(graphs & g.half_rate, 2, 1)
    compute = choose(engine, p["compute_eager"], p["compute_graphs"], p["compute_serving"])
    compute = compute * g.peak * doubled
    unpacking = choose(engine, p["quantised_compute_eager"], p["quantised_compute_graphs"], 1)
    emulated = np.where(without_tensor_cores(g, dtype), p["fp32_compute"], 1)
    slower = np.where(quantised, unpacking, emulated)
    share = choose(g.memory, *[p[f"bandwidth_{kind}"] for kind in Memory.__members__])
    gddr_nJ = p["byte_nJ_gddr"]
    byte_nJ = choose(g.memory, p["byte_nJ_hbm"], p["byte_nJ_hbm3"], gddr_nJ, gddr_nJ, 0)
    flop_J = p["flop_pJ"] * 1e-12 * g.node ** p["flop_node"]
    room = g.cap - g.idle
    hbm, gddr = p["floor_hbm"], p["floor_gddr"]
    modelled = choose(g.memory, hbm, hbm, gddr, gddr, 0) * room
    floor = np.where(np.isnan(g.loaded), modelled, g.loaded - g.idle)
    slow = np.where(np.isin(g.memory, HBM), p["layer_graphs_hbm"], 1)
    layer = np.where(graphs, p["layer_s_graphs"] * slow, later * p["layer_s"])
    layer = layer * g.node ** p["layer_node"]
    launch = p["host_s"] * (1 + p["host_norm"] * (m.norms - 2))
    launch = launch * choose(dtype, 1, 1, 1, p["host_int8"], p["host_int4"]) * eager
    grouped = choose(engine, 1, 0, p["cache_group_serving"])
    copies = np.where(eager, p["cache_eager"], 1)
    return Rates(
        weight_bytes=WEIGHT_BYTES[dtype],
        element_bytes=np.where(dtype == Dtype.fp32, 4.0, 2.0),
        read=share * g.bandwidth / np.where(graphs & quantised, p["quantised_read_graphs"], 1),
        bandwidth=share * g.bandwidth,
        compute=np.where(probed, g.peak, compute / slower),
        half_tokens=np.where(probed, 0, choose(engine, 0, 0, p["half_tokens"])),
        byte_J=byte_nJ * 1e-9,
        flop_J=flop_J,
        capped_flop_J=flop_J * np.where(graphs, p["flop_graphs"], 1),
        floor_W=floor,
        room_W=room - floor,
        layer_s=np.where(probed, 0, layer),
        host_s=host * m.layers * np.where(probed, p["host_cpu_s"], launch),
        sequence_s=choose(engine, 0, 0, p["sequence_s_serving"]) * later,
        cache=copies * m.key_value * (m.query / m.key_value) ** grouped,
        cache_J=choose(engine, 1, 1, p["cache_energy_serving"]),
        scores=choose(engine, 0, p["scores_graphs"], 0),
        on_chip=g.on_chip * eager,
        chunk=choose(engine, np.inf, GRAPHS_TOKENS, np.inf),
        serial=probed,
    )


def soft3(a, b):
    """(a^3 + b^3)^(1/3)."""
    return np.cbrt(a * a * a + b * b * b)


def soft4(a, b):
    """(a^4 + b^4)^(1/4)."""
    a, b = a * a, b * b
    return np.sqrt(np.sqrt(a * a + b * b))


def forward_pass(p: dict[str, float], m: Models, r: Rates, batch, new, past, chunk=np.inf) -> Pass:
    """A pass that adds `new` tokens to `past` ones of each of `batch` sequences, in chunks."""
    passes = np.maximum(1, new / np.minimum(r.chunk, chunk))
    past, new = past + (new - new / passes) / 2, new / passes
    weights = (m.layers * m.layer_weights + m.head_weights) * r.weight_bytes
    multiply = 2 * (m.layers * m.layer_weights * new + m.head_weights) * batch
    attend = 4 * m.layers * m.query * batch * new * (past + (new + 1) / 2)
    layer_cache = 2 * r.cache * r.element_bytes * batch * (past + new)
    cache = m.layers * layer_cache / (1 + r.on_chip * p["cache_eager"] / layer_cache)
    activations = p["activations"] * m.width * r.element_bytes
    rest = m.layers * batch * new * (r.scores * m.heads * (past + new) + activations)
    started = 2 * r.half_tokens * (m.layers * m.layer_weights + m.head_weights)
    read, compute = weights / r.read, (multiply + started) / r.compute
    matrices, traffic = soft3(read, compute), (cache + rest) / r.bandwidth
    attention = attend / r.compute
    device = matrices + traffic + attention + m.layers * r.layer_s + r.sequence_s * batch
    moved, flops = weights + r.cache_J * cache + rest, multiply + attend
    needed = p["cap_relief"] * (r.byte_J * moved + r.capped_flop_J * flops) / r.room_W
    launched = np.where(r.serial, device + r.host_s, soft4(device, r.host_s))
    time = soft4(launched, np.where(r.serial, 0, needed))
    joules = passes * (r.byte_J * moved + r.flop_J * flops)
    # d ln time / d ln of each cause, from d ln time / d ln launched and d ln time / d device
    free = (launched / time) ** 2
    free = free * free
    busy = device / launched
    busy = free * np.where(r.serial, busy, (busy * busy) ** 2) / device
    reading = busy * matrices * (read / matrices) ** 3
    multiplying = busy * (matrices + attention) - reading
    moving = busy * traffic
    shares = {
        "reading": reading,
        "multiplying": multiplying,
        "traffic": moving,
        "waiting": busy * device - reading - multiplying - moving,
        "host": free - busy * device,
        "cap": 1 - free,
    }
    return Pass(passes * time, joules, shares)


def power(g: GPUs, r: Rates, joules, time) -> Power:
    """Power of a GPU that spends `joules` above its floor in `time`.

    Idle + floor + joules / time, bent so that it stays below the cap.
    """
    above = joules / time
    ratio = above / r.room_W
    ratio = ratio * ratio
    bend = 1 + (ratio * ratio) ** 2
    watts = g.idle + r.floor_W + above / np.sqrt(np.sqrt(np.sqrt(bend)))
    return Power(watts, (1 - (g.idle + r.floor_W) / watts) / bend, r.floor_W / watts)


def memory(p: dict[str, float], m: Models, r: Rates, engine, batch, prompt, context):
    """Bytes of weights, KV cache of `context` tokens a sequence, activations and the engine."""
    need = _memory(p, m, r, engine, context)
    in_flight = np.minimum(batch * prompt, need.in_flight)
    return need.fixed + batch * need.sequence + need.token * in_flight


def largest_batch(p: dict[str, float], m: Models, r: Rates, engine, prompt, context, available):
    """Most sequences that need at most `available` bytes, not rounded; below 1 where none fits."""
    need = _memory(p, m, r, engine, context)
    room = available - need.fixed
    all_at_once = room / (need.sequence + need.token * prompt)
    held = need.token * np.minimum(need.in_flight, 1e9)
    in_chunks = np.where(np.isinf(need.in_flight), 0, room - held) / need.sequence
    return np.maximum(all_at_once, in_chunks)


class _Memory(NamedTuple):
    """Bytes: fixed, of a sequence, and of a token in flight; and tokens in flight at once."""

    fixed: np.ndarray
    sequence: np.ndarray
    token: np.ndarray
    in_flight: np.ndarray


def _memory(p: dict[str, float], m: Models, r: Rates, engine, context) -> _Memory:
    copies = choose(engine, p["memory_copies_eager"], 1, 1)
    return _Memory(
        fixed=m.all_weights * r.weight_bytes + p["memory_context_GB"] * 1e9,
        sequence=copies * 2 * m.layers * m.key_value * r.element_bytes * context,
        token=p["memory_activations"] * m.width * r.element_bytes,
        in_flight=choose(engine, np.inf, GRAPHS_TOKENS, 2048),
    )


def usable(g: GPUs):
    """Bytes that programs can use: drivers keep 1.5 %, inline error correction a sixteenth."""
    return choose(g.memory, 0.985, 0.985, 0.985, 15 / 16, 0.95) * g.bytes
