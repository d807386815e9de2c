"""GPUs or configurations side by side: ratios, scenarios, single points, the Pareto front.

Samples of the world are compared one by one; the closed forms are in `breakeven`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from footprint import carbon
from footprint.decide.breakeven import ALONE
from footprint.decide.world import joint_evidence, tokens, total

HOST, HOST_W = "two-socket", 100.0  # scenario of `hosts.csv`, and its watts for each busy GPU
OLD, NEW = "t4", "rtx-6000-ada"  # the paper's GPUs
AXES = ("zone", "batch", "lifetime_years", "utilisation")  # along which the likelier GPU may change
YEARS = np.arange(3, 9)
LIFETIMES = xr.DataArray(YEARS, {"lifetime_years": YEARS}, attrs={"units": "years"})


def ratios(
    points: xr.Dataset,
    world: xr.Dataset,
    use: carbon.Use = ALONE,
    *,
    old: str = OLD,
    new: str = NEW,
    methods: Sequence[str] | None = None,
    g_per_kwh: xr.DataArray | None = None,
) -> xr.Dataset:
    """What a token takes and emits on the old GPU over the new one, at each point that both serve.

    Samples of carbon_ratio (zone, embodied_method, and the dimensions of `use`), energy_ratio and
    time_ratio, and of embodied_share (gpu), the embodied part of each GPU's own total. Below 1 the
    old GPU takes less; NaN where a GPU cannot serve. Where a method has no embodied carbon of one
    GPU, both stand by their operational carbon, as the coordinate `counted` (embodied_method) says.
    """
    taken = tokens(points.sel(gpu=[old, new]), world, use, methods=methods, g_per_kwh=g_per_kwh)
    kg = world["embodied_kg"].sel(gpu=[old, new], embodied_method=taken["embodied_method"])
    known = kg.notnull().all(["gpu", "sample"]).reset_coords(drop=True)
    grams, whole = xr.where(known, total(taken), taken["operational_g"]), total(taken)
    evidence = joint_evidence(*[taken["evidence"].sel(gpu=gpu, drop=True) for gpu in (old, new)])
    quantities = {"carbon": grams, "energy": taken["token_J"], "time": taken["token_s"]}
    data = {}
    for name, values in quantities.items():
        plain = values.drop_vars(["evidence", "embodied_reason"], errors="ignore")
        quotient = plain.sel(gpu=old, drop=True) / plain.sel(gpu=new, drop=True)
        data[f"{name}_ratio"] = quotient.assign_attrs(units="1")
    data["embodied_share"] = (taken["embodied_g"] / whole).assign_attrs(units="1")
    words = xr.where(known, "both carbons", "operational carbon")
    coords = {"evidence": evidence, "counted": words}
    return xr.Dataset(data, attrs={"old": old, "new": new}).assign_coords(coords)


def probability(ratio: xr.DataArray) -> xr.DataArray:
    """Probability that the old GPU takes less (share of samples); NaN where one cannot serve."""
    share = (ratio < 1).where(ratio.notnull()).mean("sample", skipna=False)
    attrs = {"units": "1", "long_name": "probability that the old GPU takes less"}
    return share.rename("probability").assign_attrs(attrs)


def scenarios(
    points: xr.Dataset,
    world: xr.Dataset,
    uses: Mapping[str, carbon.Use],
    *,
    old: str = OLD,
    new: str = NEW,
    method: str = carbon.MAIN,
) -> xr.DataArray:
    """Probability that a token emits less on the old GPU, by engine, use, load, model and zone.

    points: of one length, with the dimension engine. uses: name -> use, say the GPU alone and with
    a host. Dimensions (engine, counted, served, model, zone): `counted` names the use; `served` is
    one request at a time, or each GPU at the batch of its own least carbon. The grid's year is
    sampled.
    """
    shares = []
    for name, use in uses.items():
        grams = total(tokens(points.sel(gpu=[old, new]), world, use, methods=[method]))
        grams = grams.squeeze("embodied_method", drop=True).reset_coords(drop=True)
        mean = grams.mean("sample", skipna=False).fillna(np.inf)
        ways = {
            "one at a time": grams.sel(batch=1, drop=True),
            "own best batch": grams.isel(batch=mean.argmin("batch")).drop_vars("batch"),
        }
        for way, values in ways.items():
            share = probability(values.sel(gpu=old, drop=True) / values.sel(gpu=new, drop=True))
            shares.append(share.expand_dims(counted=[name], served=[way]))
    whole = xr.combine_by_coords(shares)["probability"]
    whole = whole.transpose("engine", "counted", "served", "model", "zone")
    return whole.reindex(counted=list(uses), served=["one at a time", "own best batch"])


def versus(over: xr.Dataset, under: xr.Dataset, quantity: str = "energy_J") -> xr.Dataset:
    """The ratio of two sets of points, each of one GPU: ratio, low, high, probability.

    quantity: time_s or energy_J. low, high: 90 % interval; probability: of a ratio above 1. The
    errors of two points are independent and log-normal; only the gain of one board cancels.
    """
    first, second = over.reset_coords(drop=True), under.reset_coords(drop=True)
    low, high = f"{quantity}_low_sd", f"{quantity}_high_sd"
    variance = sum(((side[low] + side[high]) / 2) ** 2 for side in (first, second))
    if quantity == "energy_J" and over["gpu"].item() == under["gpu"].item():
        gains = [side["gain_sd"].where(side["evidence"] == "measured", 0) for side in (over, under)]
        variance = variance - 2 * np.minimum(*gains).reset_coords(drop=True) ** 2
    sd, log_ratio = np.sqrt(variance), np.log(first[quantity] / second[quantity])
    half = ndtri(0.95) * sd
    found = {
        "ratio": np.exp(log_ratio),
        "low": np.exp(log_ratio - half),
        "high": np.exp(log_ratio + half),
        "probability": xr.apply_ufunc(ndtr, log_ratio / sd.where(sd > 0)),
    }
    both = [side["evidence"].reset_coords(drop=True) for side in (over, under)]
    return xr.Dataset(found).drop_attrs().assign_coords(evidence=joint_evidence(*both))


def choices(tokens: xr.Dataset) -> xr.Dataset:
    """What the joint choice of GPU and batch saves over the choice by one carbon alone.

    saving_operational, saving_embodied: share of the total, by model, zone, embodied_method and
    sample; 0 where both choices are the same.
    """
    stacked = tokens.reset_coords(drop=True).stack(config=("gpu", "batch"))
    whole = total(stacked).fillna(np.inf)
    savings = {}
    for name in ("operational", "embodied"):
        alone = stacked[f"{name}_g"].fillna(np.inf).argmin("config")
        picked = whole.isel(config=alone).drop_vars(["config", "gpu", "batch"])
        savings[f"saving_{name}"] = 1 - whole.min("config") / picked
    return xr.Dataset(savings).drop_attrs()


def anywhere(holds: xr.DataArray) -> xr.DataArray:
    """Whether something holds at any setting, by method and sample."""
    return holds.any([name for name in holds.dims if name not in ("embodied_method", "sample")])


def flips(ratio: xr.DataArray) -> xr.DataArray:
    """Whether the GPU of least carbon changes along each axis: (axis, embodied_method, sample)."""
    less = (ratio < 1).where(ratio.notnull())
    found = [anywhere(less.max(dim) > less.min(dim)) for dim in AXES]
    return xr.concat(found, xr.Variable("axis", list(AXES)), coords="minimal", compat="override")


def pareto(*objectives) -> np.ndarray:
    """Which points no other point beats (no higher anywhere and lower somewhere); never a NaN."""
    points = np.stack([np.ravel(np.asarray(values, dtype=float)) for values in objectives], axis=1)
    front = np.isfinite(points).all(axis=1)
    for i in np.flatnonzero(front):
        others = points[front]
        front[i] = not ((others <= points[i]).all(axis=1) & (others < points[i]).any(axis=1)).any()
    return front.reshape(np.shape(objectives[0]))
