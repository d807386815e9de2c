"""Which card, which batch, how many: the configuration of least carbon, the Pareto front, who wins where.

Break-evens and paybacks are closed forms of `breakeven`; here configurations are compared exhaustively, draw by draw.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from footprint import carbon
from footprint.carbon import served, totals
from footprint.decide.breakeven import (
    ALONE,
    beside,
    break_even,
    drifting,
    grams,
    host_tie,
    old_wins,
    payback,
    side,
    spread,
)
from footprint.decide.search import BATCHES, optimum
from footprint.decide.world import joint_evidence, tokens, total
from footprint.predict import model as predict

__all__ = [
    "BATCHES",
    "beside",
    "break_even",
    "drifting",
    "engines",
    "host_tie",
    "odds",
    "old_wins",
    "optimum",
    "pareto",
    "payback",
    "setups",
    "side",
    "spread",
    "who_wins",
]

HOST, HOST_W = (
    "two-socket",
    100.0,
)  # a scenario of `hosts.csv` and of what it draws for each card while the card works


def who_wins(
    points: xr.Dataset,
    lifetimes=range(3, 9),
    utilisation=(totals.BUSY,),
    old: str = "t4",
    new: str = "rtx-6000-ada",
    approaches=tuple(totals.APPROACHES),
    n: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """The table of who wins, world by world: what the old card takes over what the new one takes, at the same point.

    carbon_ratio (model, batch, ..., zone, approach, lifetime_years, utilisation, draw) of a token's whole carbon;
    energy_ratio and time_ratio (model, batch, ..., draw) of its energy and its time; embodied_share (gpu, and all of the
    first) of each card's own total. Below 1 the old card wins; NaN where one of the two cannot serve. The grids of the three
    regions are drawn. `odds` makes probabilities of it; the scoreboard reads its claims H2, H5 and H6 from it.
    """
    axes = {"lifetime_years": (lifetimes, "years"), "utilisation": (utilisation, "1")}
    used = {
        name: xr.DataArray(list(values), {name: list(values)}, attrs={"units": units})
        for name, (values, units) in axes.items()
    }
    both = points.drop_vars(["kind", "status"]).sel(gpu=[old, new])
    tokens = totals.per_token(
        both, totals.drawn_grids(n=n, seed=seed), list(approaches), n=n, seed=seed, **used
    )
    whole = totals.total(tokens)

    def ratio(values: xr.DataArray) -> xr.DataArray:
        return values.sel(gpu=old, drop=True) / values.sel(gpu=new, drop=True)

    found = {"carbon_ratio": ratio(whole), "time_ratio": ratio(tokens["busy_s"])}
    found |= {
        "energy_ratio": ratio(tokens["energy_J"]),
        "embodied_share": tokens["embodied_g"] / whole,
    }
    found = {name: values.assign_attrs(units="1") for name, values in found.items()}
    return xr.Dataset(found, attrs={"old": old, "new": new})


def engines(points: xr.Dataset) -> dict[str, xr.Dataset]:
    """The points of `served.requests` (the eager loop), and what the model expects of a serving engine in its place."""
    names = [points[name].values.tolist() for name in ("model", "gpu")]
    asked = {
        name: np.atleast_1d(points[name].values).astype(int).tolist()
        for name in ("batch", "prompt", "output")
    }
    other = predict.windows(*names, engine="serving", **asked).isel(engine=0, prompt=0, output=0)
    return {"eager loop": points, "serving engine": served.predicted(other)}


def setups(
    points: xr.Dataset,
    host_W: float = HOST_W,
    host: str = HOST,
    old: str = "t4",
    new: str = "rtx-6000-ada",
    approach: str = totals.MAIN,
    n: int = 2000,
    seed: int = 0,
) -> xr.DataArray:
    """Probability that a token emits less on the old card, by what the answer hangs on besides the cards.

    Dimensions (engine, counted, served, model, zone): the eager loop of `points` or the serving engine that the model
    expects in its place; the card alone, or with host_W and the making of a host beside it; one request at a time, or each
    card at the batch of its own least carbon. The year of the grid is drawn.
    """
    kg, grid = float(carbon.host(host).sum()), totals.drawn_grids(n=n, seed=seed)
    found = []
    for name, cube in engines(points).items():
        for counted, share in (("card alone", (0.0, 0.0)), ("beside a host", (host_W, kg))):
            cards = (
                beside(side(cube, gpu, [approach], n, seed).squeeze("approach", drop=True), *share)
                for gpu in (old, new)
            )
            first, second = (grams(card, grid) for card in cards)
            for way in ("one at a time", "own best batch"):
                pair = [_served(values, way) for values in (first, second)]
                at = {"engine": [name], "counted": [counted], "served": [way]}
                found.append(odds(pair[0] / pair[1]).expand_dims(at))
    order = {
        name: list(dict.fromkeys(part[name].item() for part in found))
        for name in ("engine", "counted", "served")
    }
    return xr.combine_by_coords(found)["probability"].reindex(order)


def _served(grams_: xr.DataArray, way: str) -> xr.DataArray:
    """Grams of a token one at a time, or at the batch of the least mean grams of those that fit."""
    if way == "one at a time":
        return grams_.sel(batch=1, drop=True)
    return grams_.isel(
        batch=grams_.mean("draw", skipna=False).fillna(np.inf).argmin("batch")
    ).drop_vars("batch")


def odds(ratio: xr.DataArray) -> xr.DataArray:
    """Probability that the old card takes less: the share of the draws below 1; NaN where one of the two cannot serve."""
    share = (ratio < 1).where(ratio.notnull()).mean("draw", skipna=False)
    return share.rename("probability").assign_attrs(
        units="1", long_name="probability that the old card takes less"
    )


def pareto(*objectives) -> np.ndarray:
    """Which points no other point beats: as low or lower in all objectives and lower in one. NaN is never among them."""
    points = np.stack([np.ravel(np.asarray(values, dtype=float)) for values in objectives], axis=1)
    front = np.isfinite(points).all(axis=1)
    for i in np.flatnonzero(front):
        others = points[front]
        front[i] = not ((others <= points[i]).all(axis=1) & (others < points[i]).any(axis=1)).any()
    return front.reshape(np.shape(objectives[0]))


# The road of pages that take points and the world; what stands above goes with the road of before.

OLD, NEW = "t4", "rtx-6000-ada"  # the paper's GPUs
AXES = ("zone", "batch", "lifetime_years", "utilisation")  # along which the likelier GPU may change
LIFETIMES = xr.DataArray(
    np.arange(3, 9), {"lifetime_years": np.arange(3, 9)}, attrs={"units": "years"}
)


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
    """What a token takes and emits on the old GPU over what it does on the new one, at each point that both serve.

    Samples of carbon_ratio (zone, embodied_method, and the dimensions of `use`), energy_ratio and time_ratio, and of
    embodied_share (gpu), the embodied part of each GPU's own total. Below 1 the old GPU takes less; NaN where one of the
    two cannot serve. Where a method has no embodied carbon of one of the two, both stand by their operational carbon, as
    the coordinate `counted` (embodied_method) says.
    """
    found = tokens(points.sel(gpu=[old, new]), world, use, methods=methods, g_per_kwh=g_per_kwh)
    kg = world["embodied_kg"].sel(gpu=[old, new], embodied_method=found["embodied_method"])
    known = kg.notnull().all(["gpu", "sample"]).reset_coords(drop=True)
    grams, whole = xr.where(known, total(found), found["operational_g"]), total(found)
    sides = {gpu: found["evidence"].sel(gpu=gpu, drop=True) for gpu in (old, new)}
    quantities = {"carbon": grams, "energy": found["token_J"], "time": found["token_s"]}
    data = {}
    for name, values in quantities.items():
        plain = values.drop_vars(["evidence", "embodied_reason"], errors="ignore")
        quotient = plain.sel(gpu=old, drop=True) / plain.sel(gpu=new, drop=True)
        data[f"{name}_ratio"] = quotient.assign_attrs(units="1")
    data["embodied_share"] = (found["embodied_g"] / whole).assign_attrs(units="1")
    words = xr.where(known, "both carbons", "operational carbon")
    coords = {"evidence": joint_evidence(*sides.values()), "counted": words}
    return xr.Dataset(data, attrs={"old": old, "new": new}).assign_coords(coords)


def probability(ratio: xr.DataArray) -> xr.DataArray:
    """Probability that the old GPU takes less: the share of samples below 1; NaN where one of the two cannot serve."""
    share = (ratio < 1).where(ratio.notnull()).mean("sample", skipna=False)
    return share.rename("probability").assign_attrs(
        units="1", long_name="probability that the old GPU takes less"
    )


def scenarios(
    points: xr.Dataset,
    world: xr.Dataset,
    uses: Mapping[str, carbon.Use],
    *,
    old: str = OLD,
    new: str = NEW,
    method: str = carbon.MAIN,
) -> xr.DataArray:
    """Probability that a token emits less on the old GPU, by what the answer depends on besides the GPUs.

    points: of one length, with the dimension engine. uses: name -> use, say the GPU alone and with a host. Dimensions
    (engine, counted, served, model, zone): `counted` names the use; `served` is one request at a time, or each GPU at the
    batch of its own least carbon. The year of the grid is sampled.
    """
    found = []
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
            found.append(share.expand_dims(counted=[name], served=[way]))
    whole = xr.combine_by_coords(found)["probability"].transpose(
        "engine", "counted", "served", "model", "zone"
    )
    return whole.reindex(counted=list(uses), served=["one at a time", "own best batch"])


def versus(over: xr.Dataset, under: xr.Dataset, quantity: str = "energy_J") -> xr.Dataset:
    """The ratio of two sets of points, each of one GPU, at every point that both have: ratio, low, high, probability.

    quantity: time_s or energy_J. low and high are the ends of the 90 % interval, probability is that of a ratio above 1.
    The errors of two points are independent and log-normal; only the gain of a board that both were measured on cancels.
    """
    first, second = (side.reset_coords(drop=True) for side in (over, under))
    names = [f"{quantity}_low_sd", f"{quantity}_high_sd"]
    sds = [(side[names[0]] + side[names[1]]) / 2 for side in (first, second)]
    variance = sds[0] ** 2 + sds[1] ** 2
    if quantity == "energy_J" and over["gpu"].item() == under["gpu"].item():
        boards = [
            xr.where(side["evidence"] == "measured", side["gain_sd"], 0.0).reset_coords(drop=True)
            for side in (over, under)
        ]
        variance = variance - 2 * np.minimum(*boards) ** 2
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
    """What the joint choice of GPU and batch saves over the choice by one carbon alone, in each sample.

    saving_operational and saving_embodied: share of the total saved over the choice by that carbon alone, by model, zone,
    embodied_method and sample; 0 where both choices are the same.
    """
    stacked = tokens.reset_coords(drop=True).stack(config=("gpu", "batch"))
    whole = total(stacked).fillna(np.inf)
    found = {}
    for name in ("operational", "embodied"):
        alone = stacked[f"{name}_g"].fillna(np.inf).argmin("config")
        picked = whole.isel(config=alone).drop_vars(["config", "gpu", "batch"])
        found[f"saving_{name}"] = 1 - whole.min("config") / picked
    return xr.Dataset(found).drop_attrs()


def anywhere(holds: xr.DataArray) -> xr.DataArray:
    """Whether something holds at any setting, by method and sample."""
    return holds.any([name for name in holds.dims if name not in ("embodied_method", "sample")])


def flips(ratio: xr.DataArray) -> xr.DataArray:
    """Whether the GPU of least carbon changes along an axis, at some other setting: (axis, embodied_method, sample)."""
    less = (ratio < 1).where(ratio.notnull())
    found = [anywhere(less.max(dim) > less.min(dim)) for dim in AXES]
    return xr.concat(found, xr.Variable("axis", list(AXES)), coords="minimal", compat="override")
