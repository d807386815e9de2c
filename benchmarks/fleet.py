"""How long the plan of a day takes: HiGHS on one core, the matrices and the labels included."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from footprint import decide, spec

MODELS = ("llama-1b", "llama-3b", "llama-7b", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b")
LIMIT_S, TIMES = 10.0, 3


@contextmanager
def one_core() -> Iterator[None]:
    """This process on one of its cores, where the system can do that."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before:
        os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


def rows() -> list[dict]:
    """Size and solve time of a day in 3 regions, with all GPUs, 6 models and 9 batches."""
    points, world = (
        decide.configurations(MODELS, decide.mean_request()),
        decide.draw_world(spec.gpus()),
    )
    asked, grid = decide.demand(1e9, MODELS), decide.grid_hours().groupby("time.hour").mean()
    found = []
    for name, freedom in (
        ("each region by itself", {}),
        ("half of the requests may move", {"moves": 0.5}),
        ("and all may wait 6 h", {"moves": 0.5, "waits": 1.0, "wait_h": 6}),
    ):
        took = []
        with one_core():
            for _ in range(TIMES):
                began = time.perf_counter()
                plan = decide.plan(asked, points, grid, world, freedom=decide.Freedom(**freedom))
                took.append(time.perf_counter() - began)
        size = {key: plan.attrs[key] for key in ("columns", "rows", "nonzeros")}
        median = float(np.median(took))
        found.append(
            {
                "what": name,
                **size,
                "value": median,
                "unit": "s",
                "limit": LIMIT_S,
                "ok": max(took) < LIMIT_S,
            }
        )
    return found
