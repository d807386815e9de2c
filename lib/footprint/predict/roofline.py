"""The physics under `predict`: time, power and memory of a pass through a decoder, from bytes, operations and launches.

A pass reads every weight and the KV cache, and multiplies. With read = bytes / (share x published bandwidth) and
multiply = FLOP / (share x published peak), its time is

    matrices = (read^3 + multiply^3)^(1/3)                 the larger of the two, softened where they are alike
    device   = matrices + traffic + attention + waiting    traffic: KV cache, activations; waiting: latency of kernels
    launched = (device^4 + host^4)^(1/4)                   host: launching kernels one by one, only `eager` waits for it
    time     = (launched^4 + limited^4)^(1/4)              limited: joules of the pass / watts that the cap leaves

Joules grow with bytes and FLOP, so a card at its cap takes the time that its energy needs. Power is idle + floor +
joules / time, bent towards the cap. All functions take arrays that broadcast; p holds the parameters by name.
"""

from collections import namedtuple

import numpy as np

from footprint import Refused, spec

ENGINES = ("eager", "graphs", "serving")
DTYPES = tuple(spec.DTYPE_BYTES)
WEIGHT_BYTES = np.array(
    [4.0, 2.0, 2.0, 1.0625, 0.5625]
)  # of DTYPES; quantised: a scale of 16 bits for 32 weights
MEMORIES = ("hbm", "gddr", "gddr_ecc", "probed")
KINDS = ("hbm", "gddr", "gddr", "probed")  # for what error correction does not change
CHUNK = np.array(
    [np.inf, 512.0, np.inf]
)  # tokens of a sequence that an engine prefills at once (llama.cpp: 512)
IN_FLIGHT = np.array(
    [np.inf, 512.0, 2048.0]
)  # tokens of all sequences whose activations are held at once


# Arrays that broadcast, SI units. Cards: node in units of 5 nm, memory as index in MEMORIES, half_rate where fp32 accumulation
# runs at half the rate of fp16, emulates where bf16 has no tensor cores. Rates: what models reach on cards. Work: seconds of a
# phase, its joules above the floor, d ln time / d ln of each cause. Draw: watts, d ln watts / d ln joules and / d ln floor.
Shapes = namedtuple(
    "Shapes", "layers layer_weights head_weights all_weights width query key_value heads norms"
)
Cards = namedtuple("Cards", "bandwidth peak bytes cap idle node memory on_chip half_rate emulates")
Rates = namedtuple(
    "Rates",
    "weight_bytes element_bytes read bandwidth compute byte_J flop_J capped_flop_J floor_W room_W layer_s host_s "
    "sequence_s cache cache_J scores on_chip chunk serial",
)
Work = namedtuple("Work", "time joules shares")
Draw = namedtuple("Draw", "watts joules floor")


def shapes(models: list[spec.Model]) -> Shapes:
    """Arrays (model,) of the sizes of these models."""
    rows = [
        (
            m.layers,
            m.layer_parameters,
            m.hidden * m.vocab,
            m.parameters,
            m.hidden + m.intermediate,
            m.heads * m.head_dim,
            m.kv_heads * m.head_dim,
            m.heads,
            m.norms_per_layer,
        )
        for m in models
    ]
    return Shapes(*np.array(rows, dtype=float).T)


def memory_of(gpu: spec.GPU) -> int:
    """Index in MEMORIES."""
    if gpu.probed:
        return 3
    return 0 if gpu.memory_family == "hbm" else 2 if gpu.inline_ecc else 1


def cards(p: dict[str, float], gpus: list[spec.GPU]) -> Cards:
    """Arrays (gpu,) of the rates of these cards; an idle power that nobody published is modelled."""
    rows = []
    for gpu in gpus:
        memory = memory_of(gpu)
        idle = p["idle_W"] + p["idle_share"] * gpu.tdp_W + (p["idle_hbm_W"] if memory == 0 else 0)
        idle = idle if np.isnan(gpu.idle_W) else gpu.idle_W
        if idle >= gpu.tdp_W:
            raise Refused(
                f"idle_W of {gpu.id} is {idle:g}; less than its tdp_W of {gpu.tdp_W:g} is allowed."
            )
        rows.append(
            (
                gpu.bandwidth_GBps * 1e9,
                gpu.peak_fp16_tflops * 1e12,
                gpu.memory_GiB * 2**30,
                gpu.tdp_W,
                idle,
                gpu.node_class_nm / 5,
                memory,
                gpu.cache_MB * 1e6,
                gpu.half_rate_accumulation,
                not gpu.bf16_tensor_cores,
            )
        )
    return Cards(*np.array(rows, dtype=float).T)


def by(p: dict[str, float], name: str, words: tuple[str, ...], index, default: float = 0.0):
    """Parameter `<name>_<word>` for an array of indices of `words`."""
    return np.array([p.get(f"{name}_{word}", default) for word in words])[index]


def without_tensor_cores(g: Cards, dtype):
    """Whether a dtype (array of indices) runs beside the tensor cores: fp32, and bf16 on Turing and Volta."""
    return (dtype == 0) | ((dtype == 2) & (g.emulates > 0))


def rates(p: dict[str, float], m: Shapes, g: Cards, engine, dtype, host: float = 1.0) -> Rates:
    """Reached rates; engine and dtype: arrays of indices; host: launch time relative to the calibration's hosts."""
    kind, probed, eager, graphs = g.memory.astype(int), g.memory == 3, engine == 0, engine == 1
    quantised, fp32 = dtype >= 3, without_tensor_cores(g, dtype)
    # llama.cpp accumulates in fp16: GeForce cards do that at twice the published rate, which is of fp32 accumulation
    compute = (
        by(p, "compute", ENGINES, engine) * g.peak * np.where(graphs & (g.half_rate > 0), 2, 1)
    )
    slower = np.where(
        quantised,
        by(p, "quantised_compute", ENGINES, engine, 1.0),
        np.where(fp32, p["fp32_compute"], 1),
    )
    room = g.cap - g.idle
    floor = by(p, "floor", KINDS, kind) * room
    flop_J = p["flop_pJ"] * 1e-12 * g.node ** p["flop_node"]
    slow = np.where(kind == 0, p["layer_graphs_hbm"], 1)
    layer = np.where(graphs, p["layer_s_graphs"] * slow, p["layer_s"]) * g.node ** p["layer_node"]
    launch = (
        p["host_s"]
        * (1 + p["host_norm"] * (m.norms - 2))
        * by(p, "host", DTYPES, dtype, 1.0)
        * eager
    )
    shared = np.array([1.0, 0.0, p["cache_group_serving"]])[engine]
    share = by(p, "bandwidth", MEMORIES, kind, 1.0)
    return Rates(
        weight_bytes=WEIGHT_BYTES[dtype],
        element_bytes=np.where(dtype == 0, 4.0, 2.0),
        read=share * g.bandwidth / np.where(graphs & quantised, p["quantised_read_graphs"], 1),
        bandwidth=share * g.bandwidth,
        compute=np.where(probed, g.peak, compute / slower),
        byte_J=by(p, "byte_nJ", KINDS, kind) * 1e-9,
        flop_J=flop_J,
        capped_flop_J=flop_J * np.where(graphs, p["flop_graphs"], 1),
        floor_W=floor,
        room_W=room - floor,
        layer_s=np.where(probed, 0, layer),
        host_s=host * m.layers * np.where(probed, p["host_cpu_s"], launch),
        sequence_s=by(p, "sequence_s", ENGINES, engine),
        cache=np.where(eager, p["cache_eager"], 1)
        * m.key_value
        * (m.query / m.key_value) ** shared,
        cache_J=np.where(engine == 2, p["cache_energy_serving"], 1),
        scores=np.where(graphs, p["scores_graphs"], 0),
        on_chip=g.on_chip * eager,
        chunk=CHUNK[engine],
        serial=probed,
    )


def soft3(a, b):
    """(a^3 + b^3)^(1/3)."""
    return np.cbrt(a * a * a + b * b * b)


def soft4(a, b):
    """(a^4 + b^4)^(1/4)."""
    a, b = a * a, b * b
    return np.sqrt(np.sqrt(a * a + b * b))


def run(p: dict[str, float], m: Shapes, r: Rates, batch, new, past, chunk=np.inf) -> Work:
    """A pass of `batch` sequences that adds `new` tokens to `past` ones each, in chunks of at most `chunk` tokens."""
    passes = np.maximum(1, new / np.minimum(r.chunk, chunk))
    past, new = past + (new - new / passes) / 2, new / passes
    weights = (m.layers * m.layer_weights + m.head_weights) * r.weight_bytes
    multiply = 2 * (m.layers * m.layer_weights * new + m.head_weights) * batch
    attend = 4 * m.layers * m.query * batch * new * (past + (new + 1) / 2)
    layer_cache = 2 * r.cache * r.element_bytes * batch * (past + new)
    cache = m.layers * layer_cache / (1 + r.on_chip * p["cache_eager"] / layer_cache)
    rest = (
        m.layers
        * batch
        * new
        * (r.scores * m.heads * (past + new) + p["activations"] * m.width * r.element_bytes)
    )
    read, compute = weights / r.read, multiply / r.compute
    matrices, traffic, attention = (
        soft3(read, compute),
        (cache + rest) / r.bandwidth,
        attend / r.compute,
    )
    device = matrices + traffic + attention + m.layers * r.layer_s + r.sequence_s * batch
    moved, flops = weights + r.cache_J * cache + rest, multiply + attend
    needed = p["cap_relief"] * (r.byte_J * moved + r.capped_flop_J * flops) / r.room_W
    launched = np.where(r.serial, device + r.host_s, soft4(device, r.host_s))
    time = soft4(launched, np.where(r.serial, 0, needed))
    joules = passes * (r.byte_J * moved + r.flop_J * flops)
    return Work(
        passes * time,
        joules,
        _shares(r, time, launched, device, matrices, read, traffic, attention),
    )


def _shares(r: Rates, time, launched, device, matrices, read, traffic, attention) -> dict:
    """d ln time / d ln of each cause."""
    free = (launched / time) ** 2
    free = free * free
    busy = device / launched
    busy = free * np.where(r.serial, busy, (busy * busy) ** 2) / device
    reading = busy * matrices * (read / matrices) ** 3
    multiplying = busy * (matrices + attention) - reading
    moving = busy * traffic
    waiting = busy * device - reading - multiplying - moving
    host, cap = free - busy * device, 1 - free
    return {
        "reading": reading,
        "multiplying": multiplying,
        "traffic": moving,
        "waiting": waiting,
        "host": host,
        "cap": cap,
    }


def power(g: Cards, r: Rates, joules, time) -> Draw:
    """Draw of a card that spends `joules` above its floor in `time`: idle + floor + joules / time, bent below the cap."""
    above = joules / time
    ratio = above / r.room_W
    ratio = ratio * ratio
    bend = 1 + (ratio * ratio) ** 2
    watts = g.idle + r.floor_W + above / np.sqrt(np.sqrt(np.sqrt(bend)))
    return Draw(watts, (1 - (g.idle + r.floor_W) / watts) / bend, r.floor_W / watts)


def memory(p: dict[str, float], m: Shapes, r: Rates, engine, batch, prompt, context):
    """Bytes: weights, KV cache of `context` tokens a sequence, activations of the tokens at once, the engine's own."""
    fixed, sequence, token, most = _memory(p, m, r, engine, context)
    return fixed + batch * sequence + token * np.minimum(batch * prompt, most)


def largest_batch(p: dict[str, float], m: Shapes, r: Rates, engine, prompt, context, available):
    """Most sequences whose `memory` is at most `available` bytes, not rounded; below 1 where not even one fits."""
    fixed, sequence, token, most = _memory(p, m, r, engine, context)
    room = available - fixed
    all_at_once = room / (sequence + token * prompt)
    in_chunks = np.where(np.isinf(most), 0, room - token * np.minimum(most, 1e9)) / sequence
    return np.maximum(all_at_once, in_chunks)


def _memory(p: dict[str, float], m: Shapes, r: Rates, engine, context):
    """Bytes that are fixed, of each sequence, of each token in flight, and how many tokens an engine has in flight."""
    copies = np.array([p["memory_copies_eager"], 1, 1])[engine]
    sequence = copies * 2 * m.layers * m.key_value * r.element_bytes * context
    token = p["memory_activations"] * m.width * r.element_bytes
    return (
        m.all_weights * r.weight_bytes + p["memory_context_GB"] * 1e9,
        sequence,
        token,
        IN_FLIGHT[engine],
    )


def usable(g: Cards):
    """Bytes that programs can use: drivers keep 1.5 %, error correction in GDDR a sixteenth, other programs on a CPU."""
    return np.array([0.985, 0.985, 15 / 16, 0.95])[g.memory.astype(int)] * g.bytes
