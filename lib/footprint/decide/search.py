"""Which GPU, engine and batch: all configurations that meet a request, least carbon first."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, carbon, predict, spec
from footprint.carbon.equation import checked
from footprint.decide.world import draw_world, grids_of, sampled, tokens, total

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONFIG = ["model", "gpu", "engine", "batch"]


@dataclass(frozen=True)
class Request:
    """What is asked of a service: lengths, batches, engines and number format, limits, demand.

    ttft_s, tpot_s: the most time to the first token and per output token. tokens_per_s: generated
    tokens a second that all GPUs together carry; None asks what a single GPU emits.
    """

    prompt: int = 128
    output: int = 128
    batch: Sequence[int] = BATCHES
    engine: str | Sequence[str] = "eager"
    dtype: str = "fp16"
    ttft_s: float = np.inf
    tpot_s: float = np.inf
    tokens_per_s: float | None = None

    def points(self, model, gpu, **changes) -> xr.Dataset:
        """The points that the model expects for this request (see `predict.points`)."""
        return predict.points(model, gpu, **replace(self, **changes).asked)

    @property
    def asked(self) -> dict:
        """The arguments of `predict.windows`."""
        sizes = {"batch": list(self.batch), "prompt": [self.prompt], "output": [self.output]}
        return sizes | {"engine": self.engine, "dtype": self.dtype}


def decode_steps(points: xr.Dataset) -> xr.DataArray:
    """Steps of a decode; the first token comes from the prefill."""
    return np.maximum(points["output"] - 1, 1)


def keep(points: xr.Dataset, served: xr.DataArray) -> xr.Dataset:
    """The points without the numbers of those that do not serve a request."""
    return points.assign({name: points[name].where(served) for name in ("time_s", "energy_J")})


def optimum(
    model,
    zone,
    gpu=None,
    *,
    request: Request | None = None,
    use: carbon.Use | None = None,
    world: xr.Dataset | None = None,
    approach: str = carbon.MAIN,
    **asked,
) -> pd.DataFrame:
    """All configurations that meet a request, for each zone the one of least carbon first.

    The search is exhaustive. The fields of `request` and `use` may be given by themselves
    (tokens_per_s=200, pue=1.2), and n and seed in place of a world. Limits: ttft_s on the prefill
    of a batch and, with a demand, the mean wait until a batch is full; tpot_s on a decode step.
    `count` GPUs carry the demand (utilisation follows from it); without one, a single GPU of the
    utilisation given. approach: the embodied method. The grid's year is sampled. Grams a token:
    mean_g, low_g and high_g (90 %); `least`: share of samples in which the row is the best of its
    zone, `card` the same for its GPU, `meets` the share in which it keeps the limits. A demand that
    nothing meets is `Refused` by the limit that binds.
    """
    of = {kind: {item.name for item in fields(kind)} for kind in (Request, carbon.Use)}
    if unknown := set(asked) - {"n", "seed"}.union(*of.values()):
        allowed = ", ".join(sorted({"n", "seed"}.union(*of.values())))
        raise Refused(f"An optimum has no setting {min(unknown)!r}; allowed are {allowed}.")
    own = {kind: {name: asked[name] for name in asked if name in of[kind]} for kind in of}
    request = replace(request or Request(), **own[Request])
    use = replace(use or carbon.Use(), **own[carbon.Use])
    if request.output < 2:
        raise Refused(f"An output of {request.output} has no decode; 2 tokens or more are allowed.")
    gpus = spec.gpus() if gpu is None else [gpu] if isinstance(gpu, str) else list(gpu)
    zones = [zone] if isinstance(zone, str) else list(zone)
    points = request.points(model, gpus)
    if world is None:
        world = draw_world(points["gpu"].values, zones, asked.get("n", 500), asked.get("seed", 0))
    plan = _plan(points, request)
    points = keep(points, _feasible(points, plan, request, model, gpus))
    took = sampled(points, world)["time_s"]
    first, later = took.sel(phase="prefill", drop=True), took.sel(phase="decode", drop=True)
    meets = plan["wait_s"] + first <= request.ttft_s
    meets &= later / decode_steps(points) <= request.tpot_s
    if request.tokens_per_s is not None:
        load = request.tokens_per_s * (first + later) / points["generated"] / plan["count"]
        use = replace(use, utilisation=np.minimum(load, 1.0).drop_attrs())
        meets &= load <= 1
    grid = grids_of(world, zones)
    found = tokens(points, world, use, g_per_kwh=grid, methods=[approach])
    found = found.squeeze("embodied_method", drop=True).squeeze(["prompt", "output"], drop=True)
    plan = plan.assign(meets=meets.mean("sample")).squeeze(["prompt", "output"], drop=True)
    return _ranked(found, plan, zones)


def _plan(points: xr.Dataset, request: Request) -> xr.Dataset:
    """GPUs that carry the demand, the mean wait for a full batch, and the times under limits."""
    whole = points["time_s"].sum("phase", skipna=False).drop_attrs()
    count, wait = xr.ones_like(whole), xr.zeros_like(whole)
    if request.tokens_per_s is not None:
        rate = checked("tokens_per_s", request.tokens_per_s, "1/s", above=True)
        count = np.ceil(rate * whole / points["generated"])
        wait = (points["batch"] - 1) / 2 * points["output"] * count / rate
    first = points["time_s"].sel(phase="prefill", drop=True)
    later = points["time_s"].sel(phase="decode", drop=True)
    limited = {"ttft_s": first + wait, "tpot_s": later / decode_steps(points)}
    return xr.Dataset({"count": count, "wait_s": wait} | limited).drop_attrs()


def _feasible(points: xr.Dataset, plan: xr.Dataset, request: Request, model, gpus) -> xr.DataArray:
    """Which configurations fit and keep both limits, or `Refused` by the limit that binds."""
    fits = points["status"] == "ok"
    if not fits.any():
        need = float(predict.windows(model, gpus, **request.asked)["memory_B"].min()) / 2**30
        raise Refused(
            f"Nothing fits: memory binds, the smallest configuration takes {need:.1f} GiB."
        )
    limits = {"time to first token": "ttft_s", "time per output token": "tpot_s"}
    for what, name in limits.items():
        limit, least = getattr(request, name), float(plan[name].where(fits).min())
        if least > limit:
            raise Refused(
                f"No configuration keeps the {what}: "
                f"the limit is {limit:g} s and the least is {least:.3g} s."
            )
    soon = fits & (plan["ttft_s"] <= request.ttft_s)
    fine = soon & (plan["tpot_s"] <= request.tpot_s)
    if not fine.any():
        least = float(plan["tpot_s"].where(soon).min())
        raise Refused(
            f"No configuration keeps both limits: the time per output token binds, "
            f"{request.tpot_s:g} s is asked and {least:.3g} s is the least among those that "
            f"start within {request.ttft_s:g} s."
        )
    return fine


def _ranked(tokens: xr.Dataset, plan: xr.Dataset, zones: list[str]) -> pd.DataFrame:
    """Feasible configurations as rows, sorted by zone and mean grams of a token."""
    grams = total(tokens).reset_coords(drop=True)
    flat = grams.stack(config=CONFIG).dropna("config").transpose("zone", "config", "sample")
    index = flat.indexes["config"]
    middle = tokens[["token_J", "token_s", "embodied_g"]].median("sample")
    middle = middle.rename(token_J="energy_J", token_s="busy_s").reset_coords(drop=True)
    columns = xr.merge([plan.reset_coords(drop=True), middle]).stack(config=CONFIG)
    extra = {name: values.values for name, values in columns.sel(config=index).items()}
    tables = []
    for zone in zones:
        here = flat.sel(zone=zone).values
        least = np.bincount(here.argmin(axis=0), minlength=len(index)) / here.shape[1]
        low, high = np.quantile(here, [0.05, 0.95], axis=1)
        means = {"mean_g": here.mean(axis=1), "low_g": low, "high_g": high, "least": least}
        table = index.to_frame(index=False).assign(zone=zone, **means)
        table["card"] = table.groupby("gpu")["least"].transform("sum")
        tables.append(table.assign(**extra).sort_values("mean_g"))
    return pd.concat(tables, ignore_index=True).astype({"batch": int, "count": int})
