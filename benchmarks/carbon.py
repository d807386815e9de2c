"""Seconds on one core and peak memory of a million samples of every GPU."""

import json
import sys
import time

from benchmarks import alone
from footprint import spec
from footprint.carbon import uncertainty as draws

DRAWS, MOST_S, MOST_GIB = 1_000_000, 10.0, 2.0
METHODS = ("act", "teardown")


def rows() -> list[dict]:
    """One row a method, each in a process of its own."""
    found = []
    for method in METHODS:
        row = alone.run("benchmarks.carbon", method)
        found.append(
            {
                "what": f"{method} draws",
                **row,
                "ok": row["seconds"] < MOST_S and row["peak_GiB"] < MOST_GIB,
            }
        )
    return found


def measure(method: str) -> dict:
    """Draws for all cards of the table, timed in this process."""
    cards = spec.gpus()
    began = time.perf_counter()
    kg = draws.embodied_draws(cards, DRAWS, seed=0, method=method)
    seconds = time.perf_counter() - began
    return {
        "cards": len(cards),
        "draws": kg.sizes["sample"],
        "seconds": seconds,
        "peak_GiB": alone.peak_GiB(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
