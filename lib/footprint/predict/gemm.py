"""Single matrix products: public times, and what the physics alone expects of them.

A product of a layer in 16 bits multiplies m tokens by a matrix of n x k weights. No host, engine or
protocol has a part in its time (`fit.products_us`):

    time = (read^3 + multiply^3)^(1/3) + latency

The cap on power is left out: most products were measured for some milliseconds.
"""

import pandas as pd

from footprint import spec
from footprint.predict import fit


def errors(p: dict[str, float]) -> pd.Series:
    """Median size of (expected / measured - 1) of the products in data/gemm.csv, by GPU."""
    rows = spec.frame("gemm")
    return (fit.products_us(p, rows) / rows["us"] - 1).abs().groupby(rows["gpu"]).median()
