"""Points of the six pairs made up for a test, in the columns of `findings.points`."""

import itertools

import numpy as np
import pandas as pd

from footprint.energy import findings

BATCHES = (1, 4, 16)


def pairs(
    time=lambda model, gpu, batch: 1.0,
    power=lambda model, gpu, batch: 100.0,
    log_sd=0.0,
    kind="modelled",
    **columns,
):
    """Prefill takes a tenth of the time that `time` gives for a decode; None for a point that runs out of memory."""
    rows = []
    half = {"modelled": 1.6448536269514722, "measured": 1.959963984540054}[kind]
    for (model, gpu), batch, phase in itertools.product(
        findings.PAIRS, BATCHES, ("prefill", "decode")
    ):
        took = time(model, gpu, batch)
        share = 0.1 if phase == "prefill" else 1.0
        seconds = np.nan if took is None else took * share
        row = {
            "model": model,
            "device": gpu,
            "engine": "eager",
            "phase": phase,
            "batch": batch,
            "prompt_tokens": 128,
            "output_tokens": 101,
            "kind": kind,
            "place": "committed",
            "lengths": "grid",
            "weights": "trained",
            "status": "oom" if took is None else "ok",
            "tokens": batch * (128 if phase == "prefill" else 100),
        }
        for name, value in (("time_s", seconds), ("energy_J", seconds * power(model, gpu, batch))):
            row |= {
                name: value,
                f"{name}_low": value * np.exp(-half * log_sd),
                f"{name}_high": value * np.exp(half * log_sd),
            }
        rows.append(row | columns)
    table = pd.DataFrame(rows)
    for end in ("", "_low", "_high"):
        table[f"energy_per_token_J{end}"] = table[f"energy_J{end}"] / table["tokens"]
    return table
