"""Where two cards tie, and when replacing one pays back: closed forms, on numbers, arrays or draws.

A side of a comparison is what one token takes on one card: a Dataset or dictionary with energy_J and busy_s of a token,
embodied_kg and idle_W of the card. Grams of a token, with x = 1 / utilisation:
(energy + idle x busy x (x - 1)) / 3.6e6 x PUE x I + kg x 1000 x busy x x / lifetime.
"""

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused
from footprint.carbon import totals
from footprint.carbon.equation import J_PER_KWH, checked
from footprint.carbon.uncertainty import YEAR_S

DAY_S = 86400.0
NEVER = 1e30  # stands for infinity where quantiles are interpolated
TABLE = tuple(totals.APPROACHES)


def side(
    points: xr.Dataset, gpu: str, approaches=TABLE, n: int = 2000, seed: int = 0
) -> xr.Dataset:
    """One card's side of a comparison, from `served.requests` or `served.predicted`, with draws."""
    one = points.sel(gpu=[gpu])
    tokens = totals.per_token(one, approaches=approaches, n=n, seed=seed)[["energy_J", "busy_s"]]
    kg = totals.card_kg([gpu], approaches, n, seed)
    whole = tokens.assign(embodied_kg=kg, idle_W=one["idle_W"])
    return whole.isel(gpu=0, drop=True).drop_vars(["kind", "status"], errors="ignore")


def beside(card, host_W: float, host_kg: float):
    """The same side with a share of its host: watts that it draws while the card is busy, and kg that it took to make."""
    energy, kg = card["energy_J"] + host_W * card["busy_s"], card["embodied_kg"] + host_kg
    return card.assign(
        energy_J=energy.assign_attrs(units="J"), embodied_kg=kg.assign_attrs(units="kg")
    )


def host_tie(old, new):
    """Watts of a host, drawn beside each card while it is busy, at which a token takes the same energy on both (see `beside`).

    Above it the faster card takes less. NaN where one card takes less energy whatever the host draws.
    """
    tie = (new["energy_J"] - old["energy_J"]) / (old["busy_s"] - new["busy_s"])
    return tie.where(tie > 0).assign_attrs(units="W")


def grams(card, g_per_kwh, lifetime_years=5.0, utilisation=1.0, pue=1.0):
    """Grams of one token of a side."""
    waits = 1 / utilisation - 1
    energy = card["energy_J"] + card["idle_W"] * card["busy_s"] * waits
    return energy / J_PER_KWH * pue * g_per_kwh + _making(card) * (1 + waits) / lifetime_years


def _making(card):
    """Grams of a token at a lifetime of one year, always busy."""
    return card["embodied_kg"] * 1000 * card["busy_s"] / YEAR_S


def break_even(
    old, new, by: str = "g_per_kwh", *, g_per_kwh=0.0, lifetime_years=5.0, utilisation=1.0, pue=1.0
) -> xr.Dataset:
    """Where two cards emit the same for a token: the intensity (`by="g_per_kwh"`), lifetime or utilisation of the tie.

    The difference of two sides is linear in the intensity, in 1 / lifetime and in 1 / utilisation, so each tie is one
    quotient. Variables: value (NaN where one card wins throughout), old_below and old_above: whether the old card wins
    below and above it (both the same where there is no tie); known is False where an input is NaN.
    """
    grid = checked("g_per_kwh", g_per_kwh, "g/kWh")
    life = checked("lifetime_years", lifetime_years, "years", above=True)
    used = checked("utilisation", utilisation, "1", above=True, most=1)
    if by == "g_per_kwh":
        return _tie(
            *(
                _difference(old, new, at, years, used, pue)
                for at, years in ((0.0, life), (1.0, np.inf))
            )
        )
    if by == "lifetime_years":
        return _inverse(
            _tie(
                *(
                    _difference(old, new, at, years, used, pue)
                    for at, years in ((grid, np.inf), (0.0, 1.0))
                )
            )
        )
    if by == "utilisation":
        waiting = [
            card["idle_W"] * card["busy_s"] / J_PER_KWH * pue * grid + _making(card) / life
            for card in (old, new)
        ]
        tie = _tie(
            _difference(old, new, grid, life, 1.0, pue), waiting[0] - waiting[1]
        )  # in 1 / utilisation - 1
        return _inverse(tie.assign(value=tie["value"] + 1))
    raise Refused(
        f"A break-even by {by!r} is unknown; allowed are g_per_kwh, lifetime_years and utilisation."
    )


def _difference(old, new, *use):
    """Grams of a token on the old card over those on the new one."""
    return grams(old, *use) - grams(new, *use)


def _tie(base, slope) -> xr.Dataset:
    """The root of base + slope x value above 0, and whether the difference (old minus new) is negative on its sides."""
    base, slope = xr.broadcast(xr.DataArray(base), xr.DataArray(slope))
    known = base.notnull() & slope.notnull()
    value = -base / slope.where(base * slope < 0)
    below = xr.where(base != 0, base, slope) < 0
    above = xr.where(slope != 0, slope, base) < 0
    return xr.Dataset(
        {"value": value, "old_below": below & known, "old_above": above & known, "known": known}
    )


def _inverse(tie: xr.Dataset) -> xr.Dataset:
    """The same tie in the inverse of its variable: below and above change places."""
    return tie.rename({"old_below": "old_above", "old_above": "old_below"}).assign(
        value=1 / tie["value"]
    )


def old_wins(tie: xr.Dataset, at) -> xr.DataArray:
    """Share of the draws in which the old card emits less at a value of the variable of a break-even; NaN if unknown."""
    before = (at < tie["value"]) | tie["value"].isnull()
    wins = xr.where(before, tie["old_below"], tie["old_above"])
    return wins.where(tie["known"]).mean("draw", skipna=False)


def payback(
    old,
    new,
    g_per_kwh,
    *,
    load=1.0,
    replaced=1,
    age_years=0.0,
    lifetime_years=5.0,
    pue=1.0,
    accounting: str = "sunk",
) -> xr.DataArray:
    """Days after which replacing `replaced` running old cards by one new card has emitted less than keeping them.

    load: the busy share of each old card; the new one serves the same tokens and idles the rest (inf where it cannot, and
    where it never pays back). `sunk`: the making of the old cards is past either way, that of the new one is charged when
    it is bought. `amortised`: each card is charged day by day until its lifetime ends, and what is left on an old card of
    age_years that goes early is written off on the day of the change.
    """
    share = checked("load", load, "1", above=True, most=1)
    taken = xr.DataArray(replaced * share * new["busy_s"] / old["busy_s"])
    grid = DAY_S / J_PER_KWH * pue * checked("g_per_kwh", g_per_kwh, "g/kWh")
    kept = replaced * grid * (share * old["energy_J"] / old["busy_s"] + (1 - share) * old["idle_W"])
    fresh = grid * (taken * new["energy_J"] / new["busy_s"] + (1 - taken) * new["idle_W"])
    saved = (kept - fresh).where((taken <= 1) | taken.isnull(), -1.0)
    day = YEAR_S / DAY_S
    life, left = lifetime_years * day, np.maximum(lifetime_years - age_years, 0.0) * day
    cost, past = new["embodied_kg"] * 1000, replaced * old["embodied_kg"] * 1000
    days = xr.where(saved > 0, cost / saved.where(saved > 0), np.inf).where(saved.notnull())
    if accounting == "sunk":
        return days
    if accounting != "amortised":
        raise Refused(f"The accounting {accounting!r} is unknown; allowed are sunk and amortised.")
    early = (
        saved > cost / life
    )  # the new card's daily share is earned each day, so only the write-off is a debt
    pace = saved + (past - cost) / life
    return xr.where(early, past * left / life / pace.where(early), days)


def drifting(days: xr.DataArray, yearly: float) -> xr.DataArray:
    """Paybacks of a sunk past (`payback`) on a grid whose intensity is `yearly` times as high each year as in the one before.

    What the new card saves in a day moves with the grid, so (1 - exp(-r t)) / r = days with r = -ln(yearly) a year: the
    same for every card and load. inf where a grid that gets cleaner never lets it pay back.
    """
    rate = -np.log(checked("yearly", yearly, "1", above=True)) / (YEAR_S / DAY_S)
    if rate == 0:
        return days
    ever = rate * days < 1
    return (
        (-np.log1p(-rate * days.where(ever, 0.0)) / rate).where(ever, np.inf).where(days.notnull())
    )


def spread(days: xr.DataArray, level: float = 0.9) -> pd.DataFrame:
    """Median, low and high of draws that may be infinite (never), as rows."""
    tails = (1 - level) / 2
    cut = days.where(~np.isinf(days), NEVER).quantile([tails, 0.5, 1 - tails], "draw")
    cut = cut.where(cut < NEVER / 2, np.inf).assign_coords(quantile=["low", "median", "high"])
    return cut.reset_coords(drop=True).to_dataset("quantile").to_dataframe().reset_index()
