"""Where two GPUs emit the same for a token, and when replacing one pays back, in closed form.

A side of a comparison is what one token takes on one busy GPU: a Dataset or dictionary with
token_s, token_J, embodied_kg and idle_W (see `on_gpu`); numbers, arrays or samples. Its grams
(`carbon.token`) are linear in the grid's intensity, in 1 / lifetime and in 1 / utilisation, so each
tie is one quotient.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, carbon
from footprint.carbon.equation import YEAR_S, checked
from footprint.decide.world import tokens

DAY_S = 86400.0
NEVER = 1e30  # stands for infinity where quantiles are interpolated
ALONE = carbon.Use()  # five years, always busy, without a host


def on_gpu(
    points: xr.Dataset, world: xr.Dataset, gpu: str, methods: Sequence[str] | None = None
) -> xr.Dataset:
    """Samples of what a token takes on this GPU, with its embodied kg and idle power."""
    one = points.sel(gpu=[gpu])
    taken = tokens(one, world, ALONE, methods=methods)
    kg = world["embodied_kg"].sel(gpu=[gpu], embodied_method=taken["embodied_method"])
    whole = taken[["token_s", "token_J"]].assign(embodied_kg=kg, idle_W=one["idle_W"])
    return whole.isel(gpu=0, drop=True).reset_coords("evidence", drop=True)


def emitted(side, g_per_kwh, use: carbon.Use) -> xr.Dataset:
    """What one token of a side takes and emits (see `carbon.token`)."""
    seconds, joules = _taken(side)
    return carbon.token(seconds, joules, 1, side["idle_W"], side["embodied_kg"], g_per_kwh, use)


def _taken(side) -> tuple:
    """Seconds and joules of a token of a side; they may be called busy_s and energy_J, too."""
    names = ("token_s", "token_J") if "token_s" in side else ("busy_s", "energy_J")
    return tuple(side[name] for name in names)


def host_tie(old, new) -> xr.DataArray:
    """Watts of a host beside each busy GPU at which a token takes the same energy on both GPUs.

    Above it the faster GPU takes less. NaN where one GPU takes less whatever the host draws.
    """
    old_s, old_J = _taken(old)
    new_s, new_J = _taken(new)
    tie = (new_J - old_J) / (old_s - new_s)
    return tie.where(tie > 0).assign_attrs(units="W")


def break_even(
    old,
    new,
    by: str = "g_per_kwh",
    *,
    g_per_kwh=0.0,
    lifetime_years=5.0,
    utilisation=1.0,
    pue=1.0,
    use: carbon.Use | None = None,
) -> xr.Dataset:
    """The grid intensity, lifetime or utilisation at which two GPUs emit the same for a token.

    by: g_per_kwh, lifetime_years or utilisation. `use` takes the place of lifetime_years,
    utilisation and pue. Variables: value (NaN where one GPU wins throughout), old_below and
    old_above: whether the old GPU wins below and above it (equal where there is no tie); known: no
    input is NaN.
    """
    use = use or carbon.Use(lifetime_years, utilisation, pue)
    grid = checked("g_per_kwh", g_per_kwh, "g/kWh")
    if by not in ("g_per_kwh", "lifetime_years", "utilisation"):
        raise Refused(
            f"A break-even by {by!r} is unknown; "
            "allowed are g_per_kwh, lifetime_years and utilisation."
        )

    def difference(use: carbon.Use, g_per_kwh) -> xr.Dataset:
        return emitted(old, g_per_kwh, use) - emitted(new, g_per_kwh, use)

    if by == "g_per_kwh":
        apart = difference(use, 1.0)
        return _tie(apart["embodied_g"], apart["operational_g"])
    if by == "lifetime_years":
        apart = difference(replace(use, lifetime_years=1.0), grid)
        return _inverse(_tie(apart["operational_g"], apart["embodied_g"]))
    # Grams are linear in x = 1 / utilisation - 1: 0 for a GPU always busy, 1 for one half busy.
    busy = difference(replace(use, utilisation=1.0), grid)
    more = difference(replace(use, utilisation=0.5), grid) - busy
    tie = _tie(
        busy["operational_g"] + busy["embodied_g"], more["operational_g"] + more["embodied_g"]
    )
    return _inverse(tie.assign(value=tie["value"] + 1))


def _tie(base, slope) -> xr.Dataset:
    """The root above 0 of base + slope x value, and on which sides of it the old GPU wins."""
    slope, base = xr.broadcast(slope, base)
    known = base.notnull() & slope.notnull()
    value = -base / slope.where(base * slope < 0)
    below = xr.where(base != 0, base, slope) < 0
    above = xr.where(slope != 0, slope, base) < 0
    sides = {"old_below": below & known, "old_above": above & known}
    return xr.Dataset({"value": value, **sides, "known": known})


def _inverse(tie: xr.Dataset) -> xr.Dataset:
    """The same tie in the inverse of its variable: below and above change places."""
    swapped = tie.rename({"old_below": "old_above", "old_above": "old_below"})
    return swapped.assign(value=1 / tie["value"])


def old_wins(tie: xr.Dataset, at) -> xr.DataArray:
    """Share of samples in which the old GPU emits less at a value of the variable, or NaN."""
    before = (at < tie["value"]) | tie["value"].isnull()
    wins = xr.where(before, tie["old_below"], tie["old_above"])
    return wins.where(tie["known"]).mean("sample", skipna=False)


def payback(
    old,
    new,
    g_per_kwh,
    use: carbon.Use = ALONE,
    *,
    replaced=1,
    age_years=0.0,
    accounting: str = "sunk",
) -> xr.DataArray:
    """Days after which one new GPU has emitted less than keeping the `replaced` old GPUs.

    use: its utilisation is the busy share of each old GPU; the new GPU serves the same tokens and
    idles the rest (inf where it cannot, and where it never pays back). accounting: `sunk` charges
    the new GPU's embodied carbon when it is bought, and that of the old GPUs is past either way;
    `amortised` charges each GPU day by day over its lifetime, and what is left on old GPUs of
    age_years is written off on the day of the change.
    """
    if accounting not in ("sunk", "amortised"):
        raise Refused(f"The accounting {accounting!r} is unknown; allowed are sunk and amortised.")
    before = emitted(old, g_per_kwh, use)
    slower = xr.DataArray(_taken(new)[0]) / before["token_s"]
    taken = (replaced * use.utilisation * slower).drop_attrs()
    after = emitted(new, g_per_kwh, replace(use, utilisation=taken.where(taken <= 1)))
    kept = replaced * _daily_g(before, use.utilisation)
    saved = (kept - _daily_g(after, taken)).where((taken <= 1) | taken.isnull(), -1.0)
    cost = (new["embodied_kg"] + use.host_kg) * 1000
    past = replaced * (old["embodied_kg"] + use.host_kg) * 1000
    days = xr.where(saved > 0, cost / saved.where(saved > 0), np.inf).where(saved.notnull())
    if accounting == "sunk":
        return days
    life = use.lifetime_years * YEAR_S / DAY_S
    left = np.maximum(use.lifetime_years - age_years, 0.0) * YEAR_S / DAY_S
    # The daily share of the new GPU is earned each day, so only the write-off is a debt.
    early, pace = saved > cost / life, saved + (past - cost) / life
    return xr.where(early, past * left / life / pace.where(early), days)


def _daily_g(token: xr.Dataset, utilisation):
    """Grams a day of a GPU's electricity at this busy share."""
    return token["operational_g"] / token["token_s"] * utilisation * DAY_S


def drifting(days: xr.DataArray, yearly: float) -> xr.DataArray:
    """Sunk paybacks on a grid whose intensity is `yearly` times that of the year before.

    Daily savings move with the grid, so (1 - exp(-r t)) / r = days with r = -ln(yearly) a year. inf
    where a grid that gets cleaner never lets the new GPU pay back.
    """
    rate = -np.log(checked("yearly", yearly, "1", above=True)) / (YEAR_S / DAY_S)
    if rate == 0:
        return days
    ever = rate * days < 1
    drifted = -np.log1p(-rate * days.where(ever, 0.0)) / rate
    return drifted.where(ever, np.inf).where(days.notnull())


def spread(days: xr.DataArray, level: float = 0.9) -> pd.DataFrame:
    """Median, low and high of samples that may be infinite (never), as rows."""
    tails = (1 - level) / 2
    cut = days.where(~np.isinf(days), NEVER).quantile([tails, 0.5, 1 - tails], "sample")
    cut = cut.where(cut < NEVER / 2, np.inf).assign_coords(quantile=["low", "median", "high"])
    return cut.reset_coords(drop=True).to_dataset("quantile").to_dataframe().reset_index()
