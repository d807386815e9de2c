"""Prefill on one GPU and decode on another: the carbon of a token, moving its KV cache included.

Each phase has its own batch, as in continuous batching; one GPU moves nothing. All is modelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, carbon, spec
from footprint.carbon.equation import checked
from footprint.decide.breakeven import ALONE
from footprint.decide.search import Request, decode_steps, keep
from footprint.decide.world import tokens, total

PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class Link:
    """The network between two GPUs, a scenario: 100 Gbit/s, two adapters and a busy switch port."""

    GBps: float = 12.5
    W: float = 50.0


def disaggregate(
    model: str,
    request: Request,
    world: xr.Dataset,
    use: carbon.Use = ALONE,
    *,
    gpus: Sequence[str] | None = None,
    link: Link | None = None,
    method: str = carbon.MAIN,
) -> xr.Dataset:
    """Grams of a generated token by phase, each phase on any GPU; NaN where it cannot be served.

    Variables: total_g (zone, phase, gpu, batch, sample); held_g (zone, gpu, sample): what each of
    two GPUs adds while the cache is on its way, at idle power and with its embodied carbon; link_g
    (zone, sample): the network's; move_s: seconds for the cache of one request. Limits at the
    medians: ttft_s on a batch's prefill and the move of its cache, tpot_s on a decode step. A phase
    that no GPU serves is `Refused` by the limit that binds. The grid's year is sampled.
    """
    link = link or Link()
    speed = checked("link_GBps", link.GBps, "GB/s", above=True)
    watts = checked("link_W", link.W, "W")
    move_s = spec.model(model).kv_bytes_per_token(request.dtype) * request.prompt / (speed * 1e9)
    names = spec.gpus() if gpus is None else list(gpus)
    parts = [_served(model, names, request, phase, move_s) for phase in PHASES]
    points = xr.concat(parts, "phase", data_vars="minimal", coords="minimal", compat="override")
    points = points.assign(generated=points["batch"] * request.output)
    taken = tokens(points, world, use, methods=[method], by_phase=True)
    kg = world["embodied_kg"].sel(gpu=names, embodied_method=method, drop=True)
    idle, grid = points["idle_W"], world["g_per_kwh"]
    held = carbon.token(move_s, idle.drop_attrs() * move_s, request.output, idle, kg, grid, use)
    data = {
        "total_g": total(taken).squeeze("embodied_method", drop=True),
        "held_g": (held["operational_g"] + held["embodied_g"]).assign_attrs(units="g"),
        "link_g": carbon.operational(watts * move_s / request.output, grid, use.pue),
    }
    return xr.Dataset(data).assign(move_s=move_s).reset_coords(drop=True)


def _served(model: str, gpus: list[str], request: Request, phase: str, move_s: float) -> xr.Dataset:
    """The points of a phase that fit and are fast enough, or `Refused` if none is."""
    # A GPU for prefill keeps no room for answers: two tokens are the shortest with a decode step.
    points = request.points(model, gpus, output=2 if phase == "prefill" else request.output)
    points = points.isel(model=0, engine=0, prompt=0).sel(phase=[phase])
    time = points["time_s"].squeeze("phase", drop=True)
    fits = points["status"] == "ok"
    if phase == "prefill":
        slow = time + move_s * points["batch"] > request.ttft_s
    else:
        slow = time / decode_steps(points) > request.tpot_s
    for served, limit in ((fits, "memory"), (fits & ~slow, "the limit on its time")):
        if not served.any():
            raise Refused(f"No GPU serves the {phase} of {model}: {limit} binds.")
    kept = keep(points, fits & ~slow).isel(output=0).drop_vars(["output", "status"])
    return kept.reset_coords(["dtype", "weights", "place"], drop=True)


def gpu_pairs(parts: xr.Dataset, hidden: bool = False) -> pd.DataFrame:
    """All pairs of GPUs, for each zone the pair of least mean grams a token first.

    Exhaustive and exact: a phase emits the same whatever the other phase's GPU, so each takes its
    best batch. hidden: the move overlaps with other work, so only the network is charged. Columns:
    zone, prefill and decode (GPUs), prefill_batch, decode_batch, mean_g, low_g and high_g (90 %),
    prefill_g and decode_g (means without the move); against the better of the two GPUs alone:
    `saving`, a share of its mean, and `probability` that the pair emits less, both NaN where
    neither GPU can do alone.
    """
    grams = parts["total_g"].transpose("zone", "phase", "gpu", "batch", "sample")
    least = grams.mean("sample", skipna=False).fillna(np.inf).argmin("batch")
    best = grams.isel(batch=least).drop_vars("batch")
    batch = least.copy(data=grams["batch"].values[least.values])
    way = {phase: best.sel(phase=phase, drop=True).rename(gpu=phase) for phase in PHASES}
    held = sum(parts["held_g"].rename(gpu=phase) for phase in PHASES)
    move = parts["link_g"] + (0 if hidden else held)
    together = way["prefill"]["prefill"] == way["decode"]["decode"]
    pair = way["prefill"] + way["decode"] + xr.where(together, 0.0, move)
    pair = pair.transpose("zone", "prefill", "decode", "sample")
    alone = {phase: best.sum("phase", skipna=False).rename(gpu=phase) for phase in PHASES}
    mean = {phase: one.mean("sample", skipna=False).fillna(np.inf) for phase, one in alone.items()}
    better = xr.where(mean["prefill"] <= mean["decode"], alone["prefill"], alone["decode"])
    known = better.notnull().all("sample")
    columns = {
        "mean_g": pair.mean("sample", skipna=False),
        "low_g": pair.quantile(0.05, "sample", skipna=False).drop_vars("quantile"),
        "high_g": pair.quantile(0.95, "sample", skipna=False).drop_vars("quantile"),
    }
    columns["saving"] = 1 - columns["mean_g"] / better.mean("sample", skipna=False)
    columns["probability"] = (pair < better).mean("sample").where(known)
    for phase in PHASES:
        columns[f"{phase}_g"] = way[phase].mean("sample", skipna=False)
        columns[f"{phase}_batch"] = batch.sel(phase=phase, drop=True).rename(gpu=phase)
    table = xr.Dataset(columns).reset_coords(drop=True).to_dataframe().reset_index()
    table = table.dropna(subset="mean_g")
    order = table["zone"].map(list(grams["zone"].values).index)
    table = table.assign(order=order).sort_values(["order", "mean_g"], ignore_index=True)
    return table.drop(columns="order")
