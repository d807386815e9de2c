"""Single matrix products: public times, and what the physics alone expects of them.

A product of a layer in 16 bits multiplies m tokens by a matrix of n x k weights. No host, engine or
protocol has a part in its time, and nothing is fitted to data/gemm.csv: it tests the part of the
model that reads weights and multiplies,

    time = (read^3 + multiply^3)^(1/3) + latency

The cap on power is left out: most products were measured for some milliseconds.
"""

import numpy as np
import pandas as pd

from footprint import spec
from footprint.predict import fit, roofline

# `layer_s` is the latency of a layer; its four products have a quarter of it (`fit`).
LATENCIES = 16


def expected_us(p: dict[str, float], rows: pd.DataFrame) -> np.ndarray:
    """Microseconds that the physics expects of products, rows with gpu, dtype, m, n and k."""
    m, g, engine, dtype = fit.cases(p, rows.assign(model="-", engine="kernels"))
    r = roofline.rates(p, m, g, engine, dtype)
    weights = (rows["n"] * rows["k"]).to_numpy(dtype=float)
    flops = 2 * weights * rows["m"].to_numpy()
    busy = roofline.soft3(weights * r.weight_bytes / r.read, flops / r.compute)
    return 1e6 * (busy + r.layer_s / LATENCIES)


def errors(p: dict[str, float]) -> pd.Series:
    """Median size of (expected / measured - 1) of the products in data/gemm.csv, by GPU."""
    rows = spec.frame("gemm")
    return (expected_us(p, rows) / rows["us"] - 1).abs().groupby(rows["gpu"]).median()
