"""The paper's claims and our hypotheses: verdict, probability, why, and the evidence.

A sample is a state of the world: a claim is true or false in each, and its probability is the share
of samples in which it is true. The docstring of its judge says how a claim is read; claims about
carbon are judged by every method that knows both GPUs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, spec
from footprint.decide import compare
from footprint.decide.breakeven import ALONE
from footprint.decide.world import ZONES, grid_years, grids, sampled, tokens, total

SURE = 0.95  # probability from which a verdict is plain
LIKELY = 0.75
MATTERS = 0.05  # share of the total from which a part counts as visible
WORTH = 0.01  # share of the total from which a saving counts
SATURATED = 1.1  # a doubling of the batch that gains less throughput finds the GPU saturated
CLEAN, BETWEEN, DIRTY = ZONES


@dataclass(frozen=True)
class Case:
    """What the claims are judged by: points of one engine, two GPUs, and the length of requests."""

    points: xr.Dataset
    world: xr.Dataset
    length: Mapping[str, int]
    old: str = compare.OLD
    new: str = compare.NEW

    @property
    def names(self) -> tuple[str, str]:
        """Printed names of the older and of the newer GPU."""
        return spec.label(self.old), spec.label(self.new)

    @property
    def both(self) -> xr.Dataset:
        """The points of the two GPUs, of all models that a table knows."""
        known = [name for name in self.points["model"].values if name in spec.models()]
        return self.points.sel(gpu=[self.old, self.new], model=known)

    @property
    def one(self) -> xr.Dataset:
        """The points of the two GPUs at the length of the requests."""
        return self.both.sel(self.length)

    @property
    def methods(self) -> list[str]:
        """The embodied methods that know both GPUs."""
        kg = self.world["embodied_kg"].sel(gpu=[self.old, self.new])
        known = kg.notnull().all(["gpu", "sample"])
        return known["embodied_method"].values[known.values].tolist()

    def tokens(self, points: xr.Dataset) -> xr.Dataset:
        """Samples of a token of some points, by the methods that know both GPUs."""
        return tokens(points, self.world, methods=self.methods).reset_coords(drop=True)

    def ratios(self, use: carbon.Use = ALONE) -> xr.Dataset:
        """The older GPU over the newer one, for one length."""
        pair = {"old": self.old, "new": self.new, "methods": self.methods}
        return compare.ratios(self.one, self.world, use, **pair).reset_coords(drop=True)

    def versus(self, quantity: str) -> xr.Dataset:
        """The older GPU over the newer one, at every point of every length."""
        return compare.versus(self.both.sel(gpu=self.old), self.both.sel(gpu=self.new), quantity)

    def judged(self, chance, because: str, evidence=None) -> dict:
        """A row of the scoreboard; evidence: points (those of one length by default), or words."""
        if "embodied_method" in getattr(chance, "dims", ()):
            chance = agreed(chance)
        kinds = self.one if evidence is None else evidence
        if isinstance(kinds, xr.Dataset):
            kinds = {*kinds["evidence"].values.ravel()} - {"not run"}
        row = {"verdict": verdict(float(chance)), "probability": float(chance), "because": because}
        return row | {"status": min(kinds) if len(kinds) == 1 else "derived"}


def verdict(chance: float) -> str:
    """Words for a probability that a claim holds."""
    if pd.isna(chance):
        return "open"
    words = {SURE: "holds", LIKELY: "likely holds", 1 - LIKELY: "open", 1 - SURE: "likely fails"}
    return next((word for least, word in words.items() if chance >= least), "fails")


def sourced(methods) -> list[str]:
    """The embodied methods that verdicts rest on: `paper` is shown and not asked."""
    return [str(name) for name in methods if name in carbon.SOURCED]


def agreed(chances: xr.DataArray) -> float:
    """One probability for all sourced methods: the least certain, or 1/2 where methods disagree."""
    known = chances.sel(embodied_method=sourced(chances["embodied_method"].values))
    low, high = float(known.min()), float(known.max())
    return low if low >= 0.5 else high if high <= 0.5 else 0.5


def by_method(chances: xr.DataArray) -> str:
    """Probabilities by embodied method in words."""
    return "; ".join(f"{name} {chance:.0%}" for name, chance in chances.to_series().items())


def hardware_matters(case: Case, quantity: str, noun: str) -> dict:
    """A1, A2: the quantity differs between the GPUs: probability of the larger side, the median."""
    found = case.versus(quantity)
    ratio = found["ratio"]
    chance = found["probability"].where(ratio > 1, 1 - found["probability"])
    old, new = case.names
    because = (
        f"The {old} takes {ratio.min():.2f} to {ratio.max():.2f} times the {noun} of the {new} "
        f"over {ratio.count():d} points."
    )
    return case.judged(chance.median(), because, found)


def phases_differ(case: Case) -> dict:
    """H3: at some point, one GPU takes less energy in prefill and the other one in decode."""
    energy = case.versus("energy_J").stack(point=("model", "prompt", "output", "batch"))
    energy = energy.dropna("point", how="any", subset=["ratio"])
    prefill, decode = energy.sel(phase="prefill", drop=True), energy.sel(phase="decode", drop=True)
    p, q = prefill["probability"], decode["probability"]
    differ = p * (1 - q) + q * (1 - p)
    at = int(differ.argmax("point"))
    model, _, _, batch = differ["point"].values[at]
    apart = ((prefill["ratio"] > 1) != (decode["ratio"] > 1)).mean()
    because = (
        f"Furthest apart for {spec.label(model)} at batch {batch}: {' over '.join(case.names)} is "
        f"{prefill['ratio'][at]:.2f} in prefill and {decode['ratio'][at]:.2f} in decode; "
        f"phases disagree at {apart:.0%} of points."
    )
    return case.judged(differ.max(), because, energy)


def regions_differ(case: Case) -> dict:
    """A3: the three regions keep one order in every year and on both bases; energy cancels."""
    years, both = grid_years(), grids(basis=["lifecycle", "direct"])
    kept = [(values.diff("zone") > 0).values.ravel() for values in (years, both)]
    ratio = both.sel(zone=DIRTY) / both.sel(zone=CLEAN)
    because = (
        f"One run emits {ratio.sel(basis='lifecycle'):.0f} times as much in "
        f"{spec.zone_name(DIRTY)} as in {spec.zone_name(CLEAN)} on a lifecycle basis and "
        f"{ratio.sel(basis='direct'):.0f} times on a direct one; {spec.zone_name(BETWEEN)} lies "
        f"between, in each year from {years['year'].min():d} to {years['year'].max():d}."
    )
    return case.judged(np.concatenate(kept).mean(), because, ["published"])


def embodied_differs(case: Case) -> dict:
    """A4: the GPU with the larger die and memory has more embodied carbon, by every method."""
    if not {case.old, case.new} <= {*spec.gpus()}:
        return case.judged(np.nan, "Nobody knows the die of one of the two.", ["unverified"])
    gpus = [spec.gpu(name) for name in (case.old, case.new)]
    less, more = sorted(gpus, key=lambda gpu: gpu.die_mm2)
    kg = case.world["embodied_kg"].sel(embodied_method=sourced(case.methods))
    kg = kg.reset_coords(drop=True)
    ratio = kg.sel(gpu=more.id, drop=True) / kg.sel(gpu=less.id, drop=True)
    chances, middle = (ratio > 1).mean("sample"), ratio.median("sample")
    parts = carbon.embodied([less, more], "teardown")
    chips = parts["embodied_kg"].sel(component=["die", "memory"]).sum("component")
    share = chips / parts["total_kg"]
    because = (
        f"{more.die_mm2 / less.die_mm2:.2f} times the die area and "
        f"{more.memory_GiB / less.memory_GiB:.0f} times the memory take {middle.min():.1f} to "
        f"{middle.max():.1f} times the emissions by method; die and memory are "
        f"{share.min():.0%} to {share.max():.0%} of a torn-down card."
    )
    return case.judged(chances, because, ["modelled"])


def parameters(model: str) -> int:
    return spec.model(model).parameters


def newer_is_faster(case: Case) -> dict:
    """H1: the newer GPU is faster at every point; its lead in decode grows with batch and model."""
    times = sampled(case.both, case.world)["time_s"].reset_coords(drop=True)
    lead = times.sel(gpu=case.old, drop=True) / times.sel(gpu=case.new, drop=True)
    faster = ((lead > 1) | lead.isnull()).all([dim for dim in lead.dims if dim != "sample"])
    decode = lead.sel(phase="decode", drop=True)
    curves = decode.stack(curve=("model", "prompt", "output")).transpose("curve", "batch", "sample")
    curves = [curve[curve.notnull().all("sample")].values for curve in curves]
    grows = np.array([curve[-1] > curve[0] for curve in curves if len(curve) > 1])
    one = decode.sel(batch=1).median(["prompt", "output"]).transpose("model", "sample")
    one = one.sel(model=sorted(one["model"].values, key=parameters))
    holds = faster.values & grows.all(axis=0) & (one.diff("model") > 0).all("model").values
    middle = lead.median("sample")
    leads = ", ".join(f"{value:.1f}" for value in one.median("sample"))
    because = (
        f"Faster at every point in {faster.mean():.0%} of the samples (by {middle.min():.2f} to "
        f"{middle.max():.1f} times, medians); the lead in decode grows with the batch in "
        f"{grows.mean():.0%} of curves and samples, and is {leads} at batch 1 by model size."
    )
    return case.judged(holds.mean(), because, case.both)


def older_wins_small(case: Case) -> dict:
    """H2: the older GPU takes less energy for the smallest model at batch 1, more at the last."""
    small = min(case.one["model"].values, key=parameters)
    ratio = case.ratios()["energy_ratio"].sel(model=small).dropna("batch")
    first, last = ratio.isel(batch=0), ratio.isel(batch=-1)
    because = (
        f"A token of the {spec.label(small)} model, its prefill included, takes "
        f"{first.median():.2f} times the energy on the {case.names[0]} at batch {first['batch']:d} "
        f"(less in {compare.probability(first):.0%} of the samples) and {last.median():.2f} times "
        f"at batch {last['batch']:d} (more in {1 - compare.probability(last):.0%})."
    )
    return case.judged(((first < 1) & (last > 1)).mean(), because, case.one.sel(model=small))


def _range(share: xr.DataArray) -> str:
    """The range of a median share over the sourced methods, in words."""
    middle = share.sel(embodied_method=sourced(share["embodied_method"].values)).median("sample")
    return f"{middle.min():.1%} to {middle.max():.1%}"


def both_matter(case: Case) -> dict:
    """A5: embodied carbon is visible on the cleanest grid, operational carbon on the dirtiest."""
    grams = case.tokens(case.one)
    share = (grams["embodied_g"] / total(grams)).median(["model", "gpu", "batch"])
    clean, dirty = share.sel(zone=CLEAN), share.sel(zone=DIRTY)
    chances = ((clean >= MATTERS) & (1 - dirty >= MATTERS)).mean("sample")
    because = (
        f"Embodied is {_range(clean)} of the total in {spec.zone_name(CLEAN)} by method, the "
        f"grid's year sampled; the rest is operational (at least {MATTERS:.0%} counts as visible): "
        f"{by_method(chances)}."
    )
    return case.judged(chances, because)


def visible_where_clean(case: Case) -> dict:
    """H5: embodied carbon is visible on a clean grid and not on a dirty one (median cell)."""
    share = case.ratios(carbon.Use(lifetime_years=compare.LIFETIMES))["embodied_share"]
    share = share.median(["model", "gpu", "batch", "lifetime_years"])
    clean, dirty = share.sel(zone=CLEAN), share.sel(zone=DIRTY)
    chances = ((clean >= MATTERS) & (dirty < MATTERS)).mean("sample")
    because = (
        f"Embodied share by method, median over batches and lifetimes: {_range(clean)} in "
        f"{spec.zone_name(CLEAN)}, {_range(dirty)} in {spec.zone_name(DIRTY)} ({MATTERS:.0%} is "
        f"the line): {by_method(chances)}."
    )
    return case.judged(chances, because)


def batching_helps(case: Case) -> dict:
    """H4: each doubling of the batch below saturation takes less energy and less carbon a token."""
    taken = case.tokens(case.both)

    def step(values: xr.DataArray) -> xr.DataArray:
        values = values.drop_vars("batch")
        return values.isel(batch=slice(1, None)) / values.isel(batch=slice(-1))

    saturated = step(taken["token_s"]) > 1 / SATURATED
    falls = (saturated | ~(step(taken["token_J"]) > 1)) & (saturated | ~(step(total(taken)) > 1))
    dims = ["model", "gpu", "prompt", "output", "batch", "zone"]
    chances = falls.all(dims).mean("sample")
    curves = taken["token_J"].median("sample")
    times = (curves.sel(batch=1) / curves.min("batch")).median()
    because = (
        f"The best batch takes {times:.0f} times less energy a token than batch 1 (median of pairs "
        f"and lengths); no doubling before saturation (less than {SATURATED - 1:.0%} more "
        f"throughput) costs more: {by_method(chances)}."
    )
    return case.judged(chances, because, case.both)


def joint_choice_saves(case: Case) -> dict:
    """A6: for some model and region the choice by one of the two carbons alone is not the best."""
    saves = compare.choices(case.tokens(case.one)) > WORTH
    either = saves["saving_operational"] | saves["saving_embodied"]
    chances, changed = either.any(["model", "zone"]).mean("sample"), saves.mean()
    because = (
        f"Weighing both saves at least {WORTH:.0%} somewhere by method: {by_method(chances)}. It "
        f"betters the choice by operational carbon alone in {changed['saving_operational']:.0%} of "
        "all models, regions and samples, and that by embodied carbon alone in "
        f"{changed['saving_embodied']:.0%}; elsewhere one choice has the least of both."
    )
    return case.judged(chances, because)


def each_alone_misleads(case: Case) -> dict:
    """H7: A6 read strictly: each of the two carbons alone misleads somewhere."""
    misleads = (compare.choices(case.tokens(case.one)) > WORTH).any(["model", "zone"])
    operational = misleads["saving_operational"]
    chances = (operational & misleads["saving_embodied"]).mean("sample")
    because = (
        f"Operational carbon alone misleads somewhere: {by_method(operational.mean('sample'))}; "
        f"each of the two does: {by_method(chances)}."
    )
    return case.judged(chances, because)


def least_is_not_fastest(case: Case) -> dict:
    """H6: the slower GPU may emit less, and each of four axes changes the GPU of least carbon."""
    # The difference of two GPUs is linear in 1 / utilisation, so a change shows at the ends.
    ends = xr.DataArray([0.1, 1.0], {"utilisation": [0.1, 1.0]}, attrs={"units": "1"})
    ratios = case.ratios(carbon.Use(compare.LIFETIMES, ends))
    less = compare.anywhere((ratios["time_ratio"] > 1) & (ratios["carbon_ratio"] < 1))
    changed = compare.flips(ratios["carbon_ratio"])
    chances = (less & changed.all("axis")).mean("sample")
    share = changed.mean(["embodied_method", "sample"]).to_series()
    because = (
        f"The slower GPU emits less at some point in {less.mean():.0%} of the samples; the GPU of "
        f"least carbon changes with the region in {share['zone']:.0%}, batch in "
        f"{share['batch']:.0%}, lifetime in {share['lifetime_years']:.0%}, utilisation in "
        f"{share['utilisation']:.0%}; all of it: {by_method(chances)}."
    )
    return case.judged(chances, because)


JUDGES: dict[str, Callable[[Case], dict]] = {
    "A1": lambda case: hardware_matters(case, "time_s", "time"),
    "A2": lambda case: hardware_matters(case, "energy_J", "energy"),
    "A3": regions_differ,
    "A4": embodied_differs,
    "A5": both_matter,
    "A6": joint_choice_saves,
    "H1": newer_is_faster,
    "H2": older_wins_small,
    "H3": phases_differ,
    "H4": batching_helps,
    "H5": visible_where_clean,
    "H6": least_is_not_fastest,
    "H7": each_alone_misleads,
}
EMBODIED = {"A4", "A5", "A6", "H4", "H5", "H6", "H7"}  # need the embodied carbon of both GPUs
UNRUN = {"A3", "A4"}  # need no point


def scoreboard(case: Case, judges: Mapping[str, Callable] = JUDGES) -> pd.DataFrame:
    """One row a claim: id, claim, verdict, probability, why (`because`), status of the evidence."""
    shared = bool(case.both["time_s"].notnull().all(["gpu", "phase"]).any())
    pair, rows = " and ".join(case.names), []
    for claim in spec.table("published"):
        name, why = claim["id"], ""
        if name not in judges:
            why = "Not judged yet."
        elif name in EMBODIED and not sourced(case.methods):
            why = f"No method knows the embodied carbon of both {pair}."
        elif name not in UNRUN and not shared:
            why = f"No point is known of both {pair}."
        row = case.judged(np.nan, why, ["unverified"]) if why else judges[name](case)
        rows.append({"id": name, "claim": claim["claim"]} | row)
    return pd.DataFrame(rows)
