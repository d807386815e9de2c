"""The published measurements that the GPU model is fitted to and judged by, and what the model expects of each."""

from functools import cache

import numpy as np
import pandas as pd

from footprint import spec
from footprint.predict import roofline

NUMBERS = ("batch", "chunk_tokens", "prompt_tokens", "output_tokens", "value")


@cache
def measurements() -> pd.DataFrame:
    """The rows of data/measurements.csv, numbers as floats."""
    rows = pd.DataFrame(spec.table("measurements"))
    return rows.astype({name: float for name in NUMBERS})


@cache
def known() -> dict[str, spec.Model | spec.GPU]:
    """Every model and card by id: those of the book and those that only the measurements name."""
    extra = [spec.record(spec.Model, row) for row in spec.table("measured_models")]
    extra += [spec.record(spec.GPU, row) for row in spec.table("measured_gpus")]
    return (
        {item.id: item for item in extra}
        | {i: spec.model(i) for i in spec.models()}
        | {i: spec.gpu(i) for i in spec.gpus()}
    )


def setting(p: dict[str, float], rows: pd.DataFrame):
    """Shapes and cards of each row, arrays (row,), and its numbers of engine and dtype."""
    model = rows["model"].replace("-", "llama-7b").to_numpy()  # bare kernels: any model does
    models, which = np.unique(model, return_inverse=True)
    m = roofline.Shapes(
        *(array[which] for array in roofline.shapes([known()[name] for name in models]))
    )
    gpus, which = np.unique(rows["gpu"].to_numpy(), return_inverse=True)
    g = roofline.Cards(
        *(array[which] for array in roofline.cards(p, [known()[name] for name in gpus]))
    )
    engine = rows["engine"].replace("kernels", "serving").map(roofline.ENGINES.index).to_numpy()
    return m, g, engine, rows["dtype"].map(roofline.DTYPES.index).to_numpy()


def expected(p: dict[str, float], rows: pd.DataFrame, ready=None) -> pd.DataFrame:
    """What the model expects of each row: `value`, and columns with the shares of the causes in its time and power."""
    m, g, engine, dtype = ready or setting(p, rows)
    r = roofline.rates(p, m, g, engine, dtype)
    batch, prompt, output = (
        rows[name].to_numpy() for name in ("batch", "prompt_tokens", "output_tokens")
    )
    chunk = np.where(rows["chunk_tokens"] > 0, rows["chunk_tokens"], np.inf)
    closed, cold = (
        (rows["load"] == "closed").to_numpy(),
        (rows["software"] == "llama.cpp main").to_numpy(),
    )
    context = np.maximum(prompt + output, 1)
    memory = roofline.memory(p, m, r, engine, batch, prompt, context)
    room = np.maximum(roofline.largest_batch(p, m, r, engine, prompt, context, 0.9 * g.bytes), 1)
    side = np.where(
        engine == 2, np.minimum(batch, room), batch
    )  # a serving engine queues what does not fit
    prefill = roofline.run(p, m, r, side, np.maximum(prompt, 1), 0.0, chunk)
    decode = roofline.run(p, m, r, side, 1.0, prompt + np.maximum(output - 2, 0) / 2)
    steps = np.maximum(output - 1, 0)
    once = prefill.time + steps * decode.time
    joules = prefill.joules + steps * decode.joules
    draw = roofline.power(g, r, joules, once)
    watts = np.minimum(draw.watts * np.where(closed, p["closed_power"], 1), g.cap)
    whole = batch / side * once * np.where(closed, p["closed_time"], 1)
    layer = _layer(p, m, r, batch * prompt)
    values = {
        "ttft_s": batch / side * prefill.time + cold * p["cold_s"],
        "tpot_s": decode.time,
        "e2e_s": whole,
        "power_W": watts,
        "energy_J": watts * whole,
        "layer_matrices_s": layer,
        "memory_GiB": memory / 2**30,
        "matmul_TFLOPs": 1e-12
        / roofline.soft4(1 / r.compute, p["cap_relief"] * r.capped_flop_J / r.room_W),
        "copy_GBps": r.bandwidth / 1e9,
    }
    quantity = rows["quantity"].to_numpy()
    value = np.select([quantity == name for name in values], list(values.values()), np.nan)
    part = np.select([quantity == "ttft_s", quantity == "tpot_s"], [1.0, 0.0], prefill.time / once)
    shares = {
        name: part * prefill.shares[name] + (1 - part) * decode.shares[name]
        for name in prefill.shares
    }
    shares |= {"joules": draw.joules, "floor": draw.floor}
    shares |= {"memory_index": g.memory.astype(int), "engine_index": engine}
    return pd.DataFrame({"value": value, **shares}, index=rows.index)


def _layer(p: dict[str, float], m: roofline.Shapes, r: roofline.Rates, tokens):
    """Seconds of the four matrix products of one decoder layer."""
    moved, flops = 2 * m.layer_weights, 2 * m.layer_weights * tokens
    needed = p["cap_relief"] * (moved * r.byte_J + flops * r.capped_flop_J) / r.room_W
    return roofline.soft4(roofline.soft3(moved / r.read, flops / r.compute) + r.layer_s / 4, needed)
