"""Grams of CO2e: operational from energy, embodied from making the card, amortised over its life, a score per token.

Every function takes numbers, numpy and xarray (which broadcast); NaN travels; negative and infinite values are refused.
A year has 365.25 days.
"""

import numpy as np
import xarray as xr

from footprint import Refused
from footprint.carbon.methods import compare, embodied, host
from footprint.carbon.uncertainty import YEAR_S, embodied_draws
from footprint.spec.hours import at, hourly, typical

__all__ = [
    "amortised",
    "at",
    "compare",
    "embodied",
    "embodied_draws",
    "host",
    "hourly",
    "operational",
    "score",
    "typical",
]

J_PER_KWH = 3.6e6


def checked(name: str, value, units: str, above: bool = False, most: float = np.inf):
    """`value` as float, array or DataArray, or `Refused` in one sentence: negative, infinite, or in other units."""
    if isinstance(value, xr.Dataset):
        raise Refused(f"{name} is a Dataset; one variable of it is allowed.")
    stated = value.attrs.get("units", units) if isinstance(value, xr.DataArray) else units
    if stated != units:
        raise Refused(f"{name} is in {stated}; {units} is allowed.")
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        value = None
    if value is None:
        raise Refused(f"{name} is no number; numbers and arrays of them are allowed.")
    wrong = np.isinf(numbers) | (numbers < 0) | (numbers > most) | (above & (numbers == 0))
    if wrong.any():
        least = "above 0" if above else "of 0 or more"
        limit = f" and at most {most:g}" if np.isfinite(most) else ""
        raise Refused(
            f"{name} holds {numbers[wrong].flat[0]:g}; finite numbers {least}{limit} are allowed."
        )
    return (
        value
        if isinstance(value, xr.DataArray)
        else float(numbers)
        if numbers.ndim == 0
        else numbers
    )


def _labelled(result, units: str, long_name: str, *inputs):
    """`result` with units, and with the reasons that its inputs give for their gaps, where it can carry attributes."""
    if isinstance(result, xr.DataArray):
        reasons = {
            item.attrs["reason"]: 0
            for item in inputs
            if isinstance(item, xr.DataArray) and "reason" in item.attrs
        }
        result.attrs = {"units": units, "long_name": long_name} | (
            {"reason": "; ".join(reasons)} if reasons else {}
        )
    return result


def operational(energy_J, g_per_kwh, pue=1.0):
    """Grams emitted by electricity: E / 3.6e6 x PUE x I, with E in J, I in g/kWh and PUE of 1 or more (1: GPU only)."""
    energy, intensity = checked("energy_J", energy_J, "J"), checked("g_per_kwh", g_per_kwh, "g/kWh")
    overhead = checked("pue", pue, "1", above=True)
    if (np.asarray(overhead, dtype=float) < 1).any():
        raise Refused(f"pue holds {np.min(overhead):g}; a power usage effectiveness is at least 1.")
    grams = energy / J_PER_KWH * overhead * intensity
    return _labelled(grams, "g", "operational emissions", energy, intensity, overhead)


def amortised(embodied_kg, busy_s, lifetime_years=5, utilisation=1.0):
    """Grams of a card's making charged to busy seconds: kg x 1000 x busy / (lifetime x utilisation).

    utilisation is the share of the lifetime that the card is busy: below 1 the idle reserved time is charged too.
    """
    kg, busy = checked("embodied_kg", embodied_kg, "kg"), checked("busy_s", busy_s, "s")
    share = _time_share(busy, lifetime_years, utilisation)
    return _labelled(kg * 1000 * share, "g", "amortised embodied emissions", kg, busy)


def _time_share(busy, lifetime_years, utilisation):
    """SCI's TS: time reserved over expected lifespan."""
    life = checked("lifetime_years", lifetime_years, "years", above=True)
    used = checked("utilisation", utilisation, "1", above=True, most=1)
    return busy / used / (life * YEAR_S)


def score(
    energy_J,
    g_per_kwh,
    embodied_kg,
    busy_s,
    tokens,
    *,
    pue=1.0,
    lifetime_years=5,
    utilisation=1.0,
    resource_share=1.0,
    unit: str = "generated token",
    boundary: str = "GPU only, SCI-style",
) -> xr.Dataset:
    """Software Carbon Intensity, (O + M) / R with O = E x I and M = TE x TS x RS, in the standard's own names.

    E kWh with PUE, I g/kWh, O g, TE g (all embodied emissions of the card), TS = TiR / EL (time reserved over
    lifespan), RS = RR / ToR (resource share), M g, R functional units, SCI g per unit. `unit` says what R counts.
    Without the host this is SCI-style, not conformant: the boundary stands in the attributes.
    """
    energy, kg = checked("energy_J", energy_J, "J"), checked("embodied_kg", embodied_kg, "kg")
    count = checked("tokens", tokens, "1", above=True)
    grams = operational(energy, g_per_kwh, pue)
    time_share = _time_share(checked("busy_s", busy_s, "s"), lifetime_years, utilisation)
    share = checked("resource_share", resource_share, "1", most=1)
    embodied_g = kg * 1000 * time_share * share
    terms = {
        "E": (
            energy / J_PER_KWH * pue,
            "kWh",
            "energy of the reserved hardware, times the PUE that is set",
        ),
        "I": (g_per_kwh, "g/kWh", "location-based carbon intensity of electricity"),
        "O": (grams, "g", "operational emissions, E x I"),
        "TE": (kg * 1000, "g", "total embodied emissions of the card"),
        "TS": (time_share, "1", "time share, TiR / EL"),
        "RS": (share, "1", "resource share, RR / ToR"),
        "M": (embodied_g, "g", "embodied emissions, TE x TS x RS"),
        "R": (count, "1", f"functional units: {unit}s"),
        "SCI": ((grams + embodied_g) / count, "g", f"grams per {unit}, (O + M) / R"),
    }
    arrays = {name: xr.DataArray(value).copy() for name, (value, _, _) in terms.items()}
    for name, (_, units, meaning) in terms.items():
        arrays[name].attrs |= {"units": units, "long_name": meaning}
    return xr.Dataset(arrays, attrs={"boundary": boundary, "functional_unit": unit})
