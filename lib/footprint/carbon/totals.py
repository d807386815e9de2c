"""Carbon of one generated token: its whole request (prefill and decode) on the grid and in the card's making, as draws.

A draw is one state of the world: how far the times and the power of each card are off, what each card took to make.
All points of a card share its draw, and so do all zones and approaches; two cards err apart. So ratios, shares and
rankings are computed draw by draw, and their intervals and probabilities are those of the whole chain.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, carbon, spec
from footprint.carbon import served
from footprint.carbon import uncertainty as draws
from footprint.carbon.equation import checked

ZONES = ("CA-QC", "US-CAL-CISO", "US-NW-PACE")
YEARS_KNOWN = range(2021, 2026)  # of the grid table
YEARS, BUSY = (
    5.0,
    1.0,
)  # the default use of a card: five years, always busy; no data centre around it
APPROACHES = {
    "ACT": {"method": "act"},
    "ACT with priors": {"method": "act", "drawn": True},
    "teardown": {"method": "teardown", "drawn": True},
    "paper": {"method": "paper", "drawn": True},
}
MAIN = "ACT with priors"
SOURCED = tuple(
    name for name in APPROACHES if name != "paper"
)  # what ranges and verdicts rest on: `paper` is unverified


def card_kg(
    gpus: Sequence[str], approaches: Sequence[str] = tuple(APPROACHES), n: int = 2000, seed: int = 0
) -> xr.DataArray:
    """kg CO2e of making each card by each approach (approach, gpu, draw); ACT's own defaults have no spread."""
    if unknown := set(approaches) - set(APPROACHES):
        raise Refused(
            f"The approach {min(unknown)!r} is unknown here; allowed are {', '.join(APPROACHES)}."
        )
    found = []
    for name in approaches:
        method = APPROACHES[name]["method"]
        if "drawn" in APPROACHES[name]:
            found.append(
                draws.embodied_draws(list(gpus), n, seed, method).drop_vars("embodied_reason")
            )
        else:
            kg = carbon.embodied(list(gpus), method)["total_kg"].reset_coords(drop=True)
            found.append(kg.expand_dims(draw=n, axis=-1))
    whole = xr.concat(
        found,
        xr.Variable("approach", list(approaches)),
        coords="minimal",
        compat="override",
        combine_attrs="drop",
    )
    return whole.assign_attrs(units="kg", long_name="embodied emissions of the card")


def grids(
    zones: Sequence[str] = ZONES, basis: str | Sequence[str] = "lifecycle", year: int = 2023
) -> xr.DataArray:
    """g/kWh of zones (and, for several bases, of each basis: `lifecycle`, `direct`)."""
    bases = [basis] if isinstance(basis, str) else list(basis)
    values = [[spec.grid(zone, year, kind).g_per_kwh for kind in bases] for zone in zones]
    table = xr.DataArray(
        values, {"zone": list(zones), "basis": bases}, name="g_per_kwh", attrs={"units": "g/kWh"}
    )
    return table.isel(basis=0) if isinstance(basis, str) else table


def by_year(zones: Sequence[str] = ZONES) -> xr.DataArray:
    """Lifecycle g/kWh of zones in each year of the table (zone, year)."""
    years = xr.Variable("year", list(YEARS_KNOWN))
    return xr.concat([grids(zones, year=int(year)) for year in years.values], years).transpose(
        "zone", "year"
    )


def year_drawn(n: int = 2000, seed: int = 0) -> np.ndarray:
    """Which of the table's years each draw is in (its place): all alike, since none is like the years of a card's life."""
    return (draws.stream(("year", "grid"), n, seed) * len(YEARS_KNOWN)).astype(int)


def drawn_grids(zones: Sequence[str] = ZONES, n: int = 2000, seed: int = 0) -> xr.DataArray:
    """Draws of the g/kWh of zones (zone, draw): those of one of the table's years, the same year for all zones."""
    picked = by_year(zones).isel(year=xr.DataArray(year_drawn(n, seed), dims="draw"))
    return picked.drop_vars(["year", "basis"], errors="ignore")


def per_token(
    points: xr.Dataset,
    intensity: xr.DataArray | None = None,
    approaches: Sequence[str] = tuple(APPROACHES),
    *,
    lifetime_years=YEARS,
    utilisation=BUSY,
    pue=1.0,
    n: int = 2000,
    seed: int = 0,
    by_phase: bool = False,
    took: xr.Dataset | None = None,
) -> xr.Dataset:
    """Draws of what one generated token takes: energy_J, busy_s, operational_g (zone), embodied_g (approach).

    points: from `served`; took: draws of them (`served.drawn`) where they are at hand. intensity: from `grids`, the three
    regions by default. A use of the card is lifetime_years, utilisation and pue, numbers or draws (see `use`): idle
    reserved time is charged to the tokens, with the card's idle power and with its making.
    """
    busy, energy = (served.drawn(points, n, seed) if took is None else took).values()
    if not by_phase:
        busy, energy = (values.sum("phase", skipna=False) for values in (busy, energy))
    used = checked("utilisation", utilisation, "1", above=True, most=1)
    waits = 1 / used - 1
    energy = energy + xr.where(waits > 0, points["idle_W"] * waits, 0.0) * busy
    tokens = points["generated"]
    busy, energy = (
        values.assign_attrs(units=u) for values, u in ((busy / tokens, "s"), (energy / tokens, "J"))
    )
    kg = card_kg(points.gpu.values, approaches, n, seed)
    found = {
        "energy_J": energy,
        "busy_s": busy,
        "operational_g": carbon.operational(
            energy, grids() if intensity is None else intensity, pue
        ),
        "embodied_g": carbon.amortised(kg, busy, lifetime_years, utilisation),
    }
    return xr.Dataset(
        found, attrs={"per": "generated token", "boundary": "GPU only, SCI-style", "seed": seed}
    )


def use(n: int = 2000, seed: int = 0) -> dict[str, xr.DataArray]:
    """The second scenario: lifetime, utilisation and PUE drawn from their priors, as settings of `per_token`."""
    return {str(name): values for name, values in draws.use_draws(n, seed).data_vars.items()}


def total(tokens: xr.Dataset) -> xr.DataArray:
    """Operational plus embodied grams of a token (zone beside approach), draw by draw."""
    return (
        (tokens["operational_g"] + tokens["embodied_g"]).rename("total_g").assign_attrs(units="g")
    )


def frame(values: xr.DataArray, points: xr.Dataset | None = None) -> pd.DataFrame:
    """Mean, median, low and high (90 %) of draws as rows, with the kind of evidence where points are given."""
    rows = draws.summary(values).reset_coords(drop=True).to_dataframe().reset_index()
    if points is None:
        return rows
    kinds = points["kind"].reset_coords(drop=True).to_dataframe(name="kind").reset_index()
    return rows.merge(
        kinds, on=[name for name in ("model", "gpu") if name in kinds and name in rows]
    )


def thriftiest(tokens: xr.Dataset, approach: str = MAIN) -> xr.DataArray:
    """The batch with the least mean total of those that fit, by all other dimensions; NaN where none fits."""
    mean = total(tokens.sel(approach=approach, drop=True)).mean("draw", skipna=False)
    return mean.fillna(np.inf).idxmin("batch").where(mean.notnull().any("batch"))


def headline(
    pairs: pd.DataFrame, models: Sequence[str] = ("llama-1b", "llama-7b"), approach: str = MAIN
) -> pd.DataFrame:
    """The landing page's numbers: a row for each model, card, region and batch (`choice`: 1, and the one of least carbon).

    Per generated token of the shortest requests: energy_J, operational_mg, embodied_mg, total_mg with _low and _high
    (90 %), ms (the card's time a token) and step_ms (what its reader waits for it); `status` is the kind of evidence.
    """
    points = served.common(served.requests(pairs)).sel(model=list(models))
    tokens = per_token(points, approaches=[approach])
    best = thriftiest(tokens, approach)
    step = points["time_s"].sel(phase="decode") / (points["output"] - 1) * 1e3
    found = {"energy_J": tokens["energy_J"], "ms": tokens["busy_s"] * 1e3}
    found |= {
        f"{name}_mg": tokens[f"{name}_g"].squeeze() * 1e3 for name in ("operational", "embodied")
    }
    found |= {"total_mg": total(tokens).squeeze("approach") * 1e3}
    rows = []
    for model, gpu, zone in ((m, g, z) for m in models for g in points.gpu.values for z in ZONES):
        least = best.sel(model=model, gpu=gpu, zone=zone).item()
        for choice, batch in (("batch 1", 1.0), ("least carbon", least)):
            at = {"model": model, "gpu": gpu, "batch": batch}
            row = {
                **at,
                "zone": zone,
                "choice": choice,
                "status": points["kind"].sel(model=model, gpu=gpu).item(),
            }
            for name, values in found.items():
                row |= _interval(
                    name, values.sel(at | ({"zone": zone} if "zone" in values.dims else {}))
                )
            rows.append(row | {"step_ms": step.sel(at).item()})
    return pd.DataFrame(rows).astype({"batch": int})


def _interval(name: str, values: xr.DataArray) -> dict[str, float]:
    """Median and 90 % interval of one quantity's draws under the names name, name_low, name_high."""
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {name: middle, f"{name}_low": low, f"{name}_high": high}
