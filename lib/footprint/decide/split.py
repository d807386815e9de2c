"""Prefill on one card and decode on another: what a token then emits, the move of the KV cache charged.

Each phase has its own batch, as continuous batching has it too; on one card nothing is moved. Everything is modelled.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, carbon, spec
from footprint.carbon import served, totals
from footprint.carbon.equation import checked
from footprint.decide.compare import BATCHES
from footprint.predict import model as predict

LINK_GBps, LINK_W = (
    12.5,
    50.0,
)  # scenario: 100 Gbit/s, and the power of two adapters and a switch port busy with it


def phases(
    model: str,
    zones: Sequence[str] = totals.ZONES,
    gpu: Sequence[str] | None = None,
    *,
    prompt: int,
    output: int,
    batch: Sequence[int] = BATCHES,
    ttft_s: float = np.inf,
    tpot_s: float = np.inf,
    link_GBps: float = LINK_GBps,
    link_W: float = LINK_W,
    engine: str = "serving",
    dtype: str = "fp16",
    approach: str = totals.MAIN,
    lifetime_years: float = totals.YEARS,
    pue: float = 1.0,
    n: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """Grams of a generated token by phase: total_g (zone, phase, gpu, batch, draw), NaN where a phase cannot be served.

    Limits at the medians: ttft_s on a batch's prefill and the move of its cache, tpot_s on a decode step. held_g (zone, gpu,
    draw): what each of two cards adds while the cache is on its way, at idle power and with its making; link_g (zone,
    draw): the network's. move_s: seconds for the cache of one request. A phase that no card serves is `Refused` by the
    limit that binds. The grid is drawn (`totals.drawn_grids`).
    """
    cards = spec.gpus() if gpu is None else list(gpu)
    speed, watts = (
        checked("link_GBps", link_GBps, "GB/s", above=True),
        checked("link_W", link_W, "W"),
    )
    move_s = spec.model(model).kv_bytes_per_token(dtype) * prompt / (speed * 1e9)
    asked = {"batch": list(batch), "prompt": [prompt], "engine": [engine], "dtype": dtype}
    found = []
    # A card for prefill alone keeps no room for answers: two tokens are the shortest output that has a decode step.
    for phase, length in (("prefill", 2), ("decode", output)):
        windows = predict.windows(model, cards, output=[length], **asked).isel(
            model=0, engine=0, prompt=0, output=0
        )
        slow = {
            "prefill": windows["ttft_s"] + move_s * windows.batch > ttft_s,
            "decode": windows["tpot_s"] > tpot_s,
        }[phase]
        for kept, limit in (
            (windows["fits"], "memory"),
            (windows["fits"] & ~slow, "the limit on its time"),
        ):
            if not kept.any():
                raise Refused(f"No card serves the {phase} of {model}: {limit} binds.")
        points = served.predicted(windows).sel(phase=[phase])
        times = {name: points[name].where(windows["fits"] & ~slow) for name in served.QUANTITIES}
        found.append(points.assign(times).drop_vars(["output", "status"]))
    points = xr.concat(found, "phase", data_vars="minimal", coords="minimal", compat="override")
    points = points.assign(generated=points.batch * output)
    use = {"lifetime_years": lifetime_years, "pue": pue, "n": n, "seed": seed, "by_phase": True}
    grids = totals.drawn_grids(zones, n, seed)
    total = totals.total(totals.per_token(points, grids, [approach], **use)).sel(
        approach=approach, drop=True
    )
    made = carbon.amortised(
        totals.card_kg(points.gpu.values, [approach], n, seed)[0], move_s / output, lifetime_years
    )
    held = carbon.operational(points["idle_W"].drop_attrs() * move_s / output, grids, pue) + made
    link = carbon.operational(watts * move_s / output, grids, pue)
    data = {"total_g": total, "held_g": held.drop_attrs().assign_attrs(units="g"), "link_g": link}
    return xr.Dataset(data).assign(move_s=move_s).reset_coords(drop=True)


def pairs(parts: xr.Dataset, hidden: bool = False) -> pd.DataFrame:
    """All pairs of cards, for each zone the one of least mean grams a token first: exhaustive, each phase in its best batch.

    What a phase emits does not depend on the other's card, so its best batch is found card by card, exactly. hidden: the
    move overlaps with other work, so that no card is held for it and only the network is charged. Columns: zone, prefill
    and decode (cards), prefill_batch, decode_batch, mean_g, low_g and high_g (90 %), prefill_g and decode_g (means without
    the move); against the better of the two cards alone: `saving`, a share of its mean, and `odds`, the share of draws in
    which the pair emits less. Both are NaN where neither card can do alone.
    """
    total = parts["total_g"].transpose("zone", "phase", "gpu", "batch", "draw")
    place = total.mean("draw", skipna=False).fillna(np.inf).argmin("batch")
    best, chosen = (
        total.isel(batch=place).drop_vars("batch"),
        place.copy(data=total.batch.values[place.values]),
    )
    ways = [best.sel(phase=phase, drop=True).rename(gpu=phase) for phase in served.PHASES]
    held = [parts["held_g"].rename(gpu=phase) * (not hidden) for phase in served.PHASES]
    moved = xr.where(ways[0].prefill == ways[1].decode, 0.0, sum(held) + parts["link_g"])
    whole = (sum(ways) + moved).transpose("zone", "prefill", "decode", "draw")
    alone = [best.sum("phase", skipna=False).rename(gpu=phase) for phase in served.PHASES]
    means = [values.mean("draw", skipna=False).fillna(np.inf) for values in alone]
    better = xr.where(means[0] <= means[1], *alone)
    low, high = whole.quantile([0.05, 0.95], "draw", skipna=False).drop_vars("quantile")
    mean, known = whole.mean("draw", skipna=False), better.notnull().all("draw")
    columns = {
        "mean_g": mean,
        "low_g": low,
        "high_g": high,
        "saving": 1 - mean / better.mean("draw", skipna=False),
    }
    columns["odds"] = (whole < better).mean("draw").where(known)
    for way, phase in zip(ways, served.PHASES, strict=True):
        columns[f"{phase}_g"] = way.mean("draw", skipna=False)
        columns[f"{phase}_batch"] = chosen.sel(phase=phase, drop=True).rename(gpu=phase)
    rows = (
        xr.Dataset(columns)
        .reset_coords(drop=True)
        .to_dataframe()
        .reset_index()
        .dropna(subset="mean_g")
    )
    rows["place"] = rows["zone"].map(list(total.zone.values).index)
    return rows.sort_values(["place", "mean_g"], ignore_index=True).drop(columns="place")
