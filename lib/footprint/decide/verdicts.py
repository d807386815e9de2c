"""Judges of the claims that carbon decides (A3 to A6, H4 to H7), by every embodied approach, and of H1 and H2.

A draw is a world: a claim is true or not in each, and its probability is the share of worlds in which it is. Each judge
takes the six pairs' points and returns (probability, why, kinds of evidence); how a claim is read stands in its docstring.
H2, H5 and H6 are read from the table of who wins (`decide.who_wins`), each asking for the axes that it hangs on.
"""

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, spec
from footprint.carbon import served, totals
from footprint.decide import compare as decide
from footprint.energy import findings

MATTERS = 0.05  # share of the total from which a part counts as visible
WORTH = 0.01  # share of the total from which a saving counts
SATURATED = (
    1.1  # a doubling of the batch that gains less throughput than this finds the card saturated
)
OLD, NEW = "t4", "rtx-6000-ada"
N = 1000


def _points(pairs: pd.DataFrame) -> xr.Dataset:
    """The points of one length, the shortest at hand."""
    return served.common(served.requests(pairs))


def _kinds(points: xr.Dataset) -> list[str]:
    return sorted(set(points["kind"].values.ravel()))


def agreed(odds: xr.DataArray) -> float:
    """One probability for all approaches: the least certain one; one half where they disagree, so that none decides.

    The approach `paper` is shown and not asked: its values are unverified.
    """
    odds = odds.sel(approach=[name for name in odds.approach.values if name in totals.SOURCED])
    low, high = float(odds.min()), float(odds.max())
    return low if low >= 0.5 else high if high <= 0.5 else 0.5


def _by_approach(odds: xr.DataArray) -> str:
    """Probabilities by approach in words."""
    return "; ".join(
        f"{name} {float(odds.sel(approach=name)):.0%}" for name in odds.approach.values
    )


def regions_differ(pairs: pd.DataFrame) -> tuple:
    """A3: the three regions keep one order in every year and on both bases; the energy is the same, so it cancels."""
    years = totals.by_year()
    both = totals.grids(basis=["lifecycle", "direct"])
    kept = [(years.diff("zone") > 0).values.ravel(), (both.diff("zone") > 0).values.ravel()]
    ratio = both.sel(zone="US-NW-PACE") / both.sel(zone="CA-QC")
    because = (
        f"One run emits {float(ratio[0]):.0f} times as much in PacifiCorp East as in Quebec on a lifecycle basis and "
        f"{float(ratio[1]):.0f} times on a direct one; California lies between, in each year from 2021 to 2025."
    )
    return float(np.concatenate(kept).mean()), because, ["published"]


def making_differs(pairs: pd.DataFrame) -> tuple:
    """A4: the card with the larger die and memory takes more to make, by every approach."""
    kg = totals.card_kg([OLD, NEW], totals.SOURCED, n=N)
    ratio = kg.sel(gpu=NEW, drop=True) / kg.sel(gpu=OLD, drop=True)
    odds, middle = (ratio > 1).mean("draw"), ratio.median("draw")
    parts = carbon.embodied([OLD, NEW], "teardown")
    share = (
        parts["embodied_kg"].sel(component=["die", "memory"]).sum("component") / parts["total_kg"]
    )
    old, new = spec.gpu(OLD), spec.gpu(NEW)
    because = (
        f"{new.die_mm2 / old.die_mm2:.2f} times the die area and {new.memory_GiB / old.memory_GiB:.0f} times the memory take "
        f"{float(middle.min()):.1f} to {float(middle.max()):.1f} times the emissions by approach; die and memory are "
        f"{float(share.min()):.0%} to {float(share.max()):.0%} of a torn-down card."
    )
    return agreed(odds), because, ["modelled"]


def newer_is_faster(pairs: pd.DataFrame) -> tuple:
    """H1: the newer card is faster at every point, and its lead in decode grows with batch and with model size."""
    points = served.requests(pairs)
    times = served.drawn(points, N)["time_s"]
    lead = times.sel(gpu=OLD, drop=True) / times.sel(gpu=NEW, drop=True)
    faster = (
        (lead > 1).where(lead.notnull(), True).all([name for name in lead.dims if name != "draw"])
    )
    decode = (
        lead.sel(phase="decode", drop=True)
        .stack(curve=("model", "prompt", "output"))
        .transpose("curve", "batch", "draw")
    )
    curves = [curve[curve.notnull().all("draw")].values for curve in decode]
    grows = np.array([curve[-1] > curve[0] for curve in curves if len(curve) > 1])
    one = lead.sel(phase="decode", batch=1).median(["prompt", "output"]).transpose("model", "draw")
    one = one.sel(model=sorted(one.model.values, key=lambda name: spec.model(name).parameters))
    holds = faster.values & grows.all(axis=0) & (one.diff("model") > 0).all("model").values
    middle = lead.median("draw")
    because = (
        f"Faster at every point in {float(faster.mean()):.0%} of the draws (by {float(middle.min()):.2f} to "
        f"{float(middle.max()):.1f} times, medians); the lead in decode grows with the batch in {grows.mean():.0%} of curves "
        f"and draws, and is {', '.join(f'{float(value):.1f}' for value in one.median('draw'))} at batch 1 by model size."
    )
    return float(holds.mean()), because, _kinds(points)


def older_wins_small(pairs: pd.DataFrame) -> tuple:
    """H2: a token of the smallest model takes less energy on the older card at batch 1, and more at the largest batch."""
    points = _points(pairs)
    small = min(points.model.values, key=lambda name: spec.model(name).parameters)
    table = decide.who_wins(
        points.sel(model=[small]), [totals.YEARS], approaches=[totals.MAIN], n=N
    )
    ratios = table["energy_ratio"].squeeze(drop=True).dropna("batch")
    first, last = ratios.isel(batch=0), ratios.isel(batch=-1)
    because = (
        f"A token of the {findings.label(small)} model, its prefill included, takes {float(first.median()):.2f} times the "
        f"energy on the T4 at batch {int(first.batch)} (less in {float(decide.odds(first)):.0%} of the draws) and "
        f"{float(last.median()):.2f} times at batch {int(last.batch)} (more in {1 - float(decide.odds(last)):.0%})."
    )
    return float(((first < 1) & (last > 1)).mean()), because, _kinds(points)


def _embodied_share(points: xr.Dataset) -> xr.DataArray:
    """Median over the points of the embodied share of the total, by draw, zone and approach."""
    tokens = totals.per_token(points, totals.drawn_grids(n=N), n=N)
    return (tokens["embodied_g"] / totals.total(tokens)).median(["model", "gpu", "batch"])


def _range(share: xr.DataArray, zone: str) -> str:
    middle = share.sel(zone=zone, approach=list(totals.SOURCED)).median("draw")
    return f"{float(middle.min()):.1%} to {float(middle.max()):.1%}"


def both_matter(pairs: pd.DataFrame) -> tuple:
    """A5: each part is visible somewhere: embodied on the cleanest of the three grids, operational on the dirtiest."""
    points = _points(pairs)
    share = _embodied_share(points)
    odds = (
        (share.sel(zone="CA-QC") >= MATTERS) & (1 - share.sel(zone="US-NW-PACE") >= MATTERS)
    ).mean("draw")
    because = (
        f"Embodied is {_range(share, 'CA-QC')} of the total in Quebec by approach, the grid's year drawn; the rest is "
        f"operational (at least {MATTERS:.0%} counts as visible): {_by_approach(odds)}."
    )
    return agreed(odds), because, _kinds(points)


def visible_where_clean(pairs: pd.DataFrame) -> tuple:
    """H5: over the table (its median cell), the embodied share is visible in Quebec and not in PacifiCorp East."""
    points = _points(pairs)
    share = decide.who_wins(points, n=N)["embodied_share"]
    share = share.median(["model", "gpu", "batch", "lifetime_years", "utilisation"])
    odds = ((share.sel(zone="CA-QC") >= MATTERS) & (share.sel(zone="US-NW-PACE") < MATTERS)).mean(
        "draw"
    )
    because = (
        f"Embodied share by approach, median over batches and lifetimes: {_range(share, 'CA-QC')} in Quebec, "
        f"{_range(share, 'US-NW-PACE')} in PacifiCorp East ({MATTERS:.0%} is the line): {_by_approach(odds)}."
    )
    return agreed(odds), because, _kinds(points)


def batching_helps(pairs: pd.DataFrame) -> tuple:
    """H4: each doubling of the batch that is no saturation yet takes less energy and less carbon for a generated token."""
    points = served.requests(pairs)
    tokens = totals.per_token(points, totals.drawn_grids(n=N), n=N)

    def step(values: xr.DataArray) -> xr.DataArray:
        first, second = (
            values.isel(batch=part).drop_vars(["batch", "status"])
            for part in (slice(-1), slice(1, None))
        )
        return second / first

    over = step(tokens["busy_s"]) > 1 / SATURATED
    energy, carbon_ = (step(values) for values in (tokens["energy_J"], totals.total(tokens)))
    falls = (over | ~(energy > 1)) & (over | ~(carbon_ > 1))
    odds = falls.all(["model", "gpu", "prompt", "output", "batch", "zone"]).mean("draw")
    curves = tokens["energy_J"].median("draw")
    times = float((curves.sel(batch=1) / curves.min("batch")).median())
    because = (
        f"The best batch takes {times:.0f} times less energy a token than batch 1 (median of pairs and lengths); no doubling "
        f"before saturation (less than {SATURATED - 1:.0%} more throughput) costs more: {_by_approach(odds)}."
    )
    return agreed(odds), because, _kinds(points)


def choices(points: xr.Dataset, n: int = N) -> xr.Dataset:
    """What the joint choice of card and batch saves over the choice for one carbon alone, in each world.

    saving_operational and saving_embodied: share of the total saved over the choice by that carbon alone, by model, zone,
    approach and draw; 0 where both choices are the same.
    """
    tokens = totals.per_token(points, totals.drawn_grids(n=n), n=n).stack(config=("gpu", "batch"))
    whole = totals.total(tokens).fillna(np.inf)
    least = whole.min("config")
    found = {}
    for name in ("operational", "embodied"):
        alone = tokens[f"{name}_g"].fillna(np.inf).argmin("config")
        picked = whole.isel(config=alone).drop_vars(["config", "gpu", "batch"], errors="ignore")
        found[f"saving_{name}"] = 1 - least / picked
    return xr.Dataset(found)


def joint_choice_saves(pairs: pd.DataFrame) -> tuple:
    """A6: for some model and region the choice by one of the two carbons alone is not the best."""
    points = _points(pairs)
    found = choices(points) > WORTH
    odds = (
        (found["saving_operational"] | found["saving_embodied"]).any(["model", "zone"]).mean("draw")
    )
    changed = found.mean()
    because = (
        f"Weighing both saves at least {WORTH:.0%} somewhere by approach: {_by_approach(odds)}. It betters the choice by "
        f"operational carbon alone in {float(changed['saving_operational']):.0%} of all models, regions and draws, and that "
        f"by embodied carbon alone in {float(changed['saving_embodied']):.0%}; elsewhere one choice has the least of both."
    )
    return agreed(odds), because, _kinds(points)


def each_alone_misleads(pairs: pd.DataFrame) -> tuple:
    """H7: A6 read strictly: the choice by operational carbon alone is not the best somewhere, and so for embodied alone."""
    points = _points(pairs)
    found = (choices(points) > WORTH).any(["model", "zone"])
    operational = found["saving_operational"]
    odds = (operational & found["saving_embodied"]).mean("draw")
    because = (
        f"Operational carbon alone misleads somewhere: {_by_approach(operational.mean('draw'))}; each of the two does: "
        f"{_by_approach(odds)}."
    )
    return agreed(odds), because, _kinds(points)


AXES = {
    "region": "zone",
    "batch": "batch",
    "lifetime": "lifetime_years",
    "utilisation": "utilisation",
}
ENDS_OF_USE = (
    0.1,
    1.0,
)  # the difference of two cards is linear in 1/utilisation, so a flip shows at the ends


def flips(ratio: xr.DataArray) -> xr.DataArray:
    """Whether the card of least carbon changes along an axis, at some other setting: (axis, approach, draw)."""
    less = (ratio < 1).where(ratio.notnull())
    found = []
    for dim in AXES.values():
        changed = less.max(dim) > less.min(dim)
        found.append(
            changed.any([name for name in changed.dims if name not in ("approach", "draw")])
        )
    return xr.concat(found, xr.Variable("axis", list(AXES)), coords="minimal", compat="override")


def least_is_not_fastest(pairs: pd.DataFrame) -> tuple:
    """H6: somewhere the slower card emits less, and each of region, batch, lifetime and utilisation changes the card."""
    points = _points(pairs)
    table = decide.who_wins(points, utilisation=ENDS_OF_USE, n=N)
    carbon_, slower = table["carbon_ratio"], table["time_ratio"] > 1
    less = (slower & (carbon_ < 1)).any(
        [name for name in carbon_.dims if name not in ("approach", "draw")]
    )
    changed = flips(carbon_)
    odds = (less & changed.all("axis")).mean("draw")
    axes = ", ".join(f"{name} in {float(changed.sel(axis=name).mean()):.0%}" for name in AXES)
    because = (
        f"The slower card emits less at some point in {float(less.mean()):.0%} of the draws; the card of least carbon "
        f"changes with the {axes}; all of it: {_by_approach(odds)}."
    )
    return agreed(odds), because, _kinds(points)
