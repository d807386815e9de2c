"""Grams of CO2e: of electricity, of a GPU's embodied carbon, and of one generated token.

The equation of a token, from which break-even, payback and plans follow:

    token_J       = (energy_J + time_s x (host_W + idle_W x (1 / utilisation - 1))) / tokens
    operational_g = token_J / 3.6e6 x PUE x g_per_kwh
    embodied_g    = (embodied_kg + host_kg) x 1000 x time_s / tokens / utilisation / lifetime

Every function takes numbers, numpy and xarray (which broadcast) and passes NaN on; negative and
infinite values are refused. A year has 365.25 days.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from footprint import Refused

YEAR_S = 365.25 * 86400
J_PER_KWH = 3.6e6
# Numbers that describe a use: units, least, most, and whether the least is left out.
LIMITS = {
    "lifetime_years": ("years", 0, np.inf, True),
    "utilisation": ("1", 0, 1, True),
    "pue": ("1", 1, np.inf, False),
    "host_W": ("W", 0, np.inf, False),
    "host_kg": ("kg", 0, np.inf, False),
}


def checked(name: str, value, units: str, above: bool = False, most: float = np.inf, least=0):
    """The value as a number or array; `Refused` if out of bounds, infinite or in other units."""
    if isinstance(value, xr.Dataset):
        raise Refused(f"{name} is a Dataset; one variable of it is allowed.")
    stated = value.attrs.get("units", units) if isinstance(value, xr.DataArray) else units
    if stated != units:
        raise Refused(f"{name} is in {stated}; {units} is allowed.")
    try:
        numbers = np.asarray("none" if value is None else value, dtype=float)
    except OverflowError:
        raise Refused(f"{name} is larger than any finite number that is allowed.") from None
    except (TypeError, ValueError):
        raise Refused(f"{name} is no number; numbers and arrays of them are allowed.") from None
    wrong = np.isinf(numbers) | (numbers < least) | (numbers > most) | (above & (numbers == least))
    if wrong.any():
        lower = f"above {least:g}" if above else f"of {least:g} or more"
        upper = f" and at most {most:g}" if np.isfinite(most) else ""
        raise Refused(
            f"{name} holds {numbers[wrong].flat[0]:g}; finite numbers {lower}{upper} are allowed."
        )
    if isinstance(value, xr.DataArray):
        return value
    return float(numbers) if numbers.ndim == 0 else numbers


def _of_use(name: str, value):
    """A number that describes a use of a GPU, checked."""
    units, least, most, above = LIMITS[name]
    return checked(name, value, units, above, most, least)


@dataclass(frozen=True)
class Use:
    """How a GPU is used, and what is counted beside it; numbers or arrays of them.

    lifetime_years: years in service. utilisation: busy share of that time (idle reserved time is
    charged to the tokens). pue: power usage effectiveness of the data centre. host_W, host_kg: the
    share of a host for each GPU, in watts while the GPU is busy and in kg of embodied carbon.
    """

    lifetime_years: float = 5.0
    utilisation: float = 1.0
    pue: float = 1.0
    host_W: float = 0.0
    host_kg: float = 0.0

    def __post_init__(self):
        for name in LIMITS:
            _of_use(name, getattr(self, name))


def _labelled(result, units: str, long_name: str, *inputs):
    """The result with units and the reasons of its inputs' gaps, if it can carry attributes."""
    if isinstance(result, xr.DataArray):
        reasons = {
            item.attrs["reason"]: 0
            for item in inputs
            if isinstance(item, xr.DataArray) and "reason" in item.attrs
        }
        result.attrs = {"units": units, "long_name": long_name}
        result.attrs |= {"reason": "; ".join(reasons)} if reasons else {}
    return result


def operational(energy_J, g_per_kwh, pue=1.0):
    """Grams emitted by electricity: energy_J / 3.6e6 x pue x g_per_kwh (pue 1: the GPU alone)."""
    energy, intensity = checked("energy_J", energy_J, "J"), checked("g_per_kwh", g_per_kwh, "g/kWh")
    overhead = _of_use("pue", pue)
    grams = energy / J_PER_KWH * overhead * intensity
    return _labelled(grams, "g", "operational emissions", energy, intensity, overhead)


def amortised(embodied_kg, busy_s, lifetime_years=5, utilisation=1.0):
    """Grams of embodied carbon charged to busy seconds: kg x 1000 x busy / (life x utilisation).

    utilisation: busy share of the lifetime; below 1 the idle reserved time is charged, too.
    """
    kg, busy = checked("embodied_kg", embodied_kg, "kg"), checked("busy_s", busy_s, "s")
    share = _time_share(busy, lifetime_years, utilisation)
    return _labelled(kg * 1000 * share, "g", "amortised embodied emissions", kg, busy)


def _time_share(busy, lifetime_years, utilisation):
    """SCI's TS: time reserved over expected lifespan."""
    life = _of_use("lifetime_years", lifetime_years)
    return busy / _of_use("utilisation", utilisation) / (life * YEAR_S)


def token(time_s, energy_J, tokens, idle_W, embodied_kg, g_per_kwh, use: Use) -> xr.Dataset:
    """What one generated token takes and emits: token_s, token_J, operational_g, embodied_g.

    time_s, energy_J: of a batch, or of a phase of it (phases add up). tokens: what the batch
    generates. idle_W: power of the GPU while it waits. embodied_kg: of the GPU. g_per_kwh: of the
    grid. token_J includes the energy of idle reserved time and of the host (see `Use`).
    """
    with xr.set_options(keep_attrs=False):  # no unit of a factor holds after a product
        time, energy = checked("time_s", time_s, "s"), checked("energy_J", energy_J, "J")
        count = checked("tokens", tokens, "1", above=True)
        kg = checked("embodied_kg", embodied_kg, "kg") + use.host_kg
        waits = 1 / use.utilisation - 1
        idle = xr.where(waits > 0, checked("idle_W", idle_W, "W") * waits, 0.0)
        seconds, joules = time / count, (energy + (idle + use.host_W) * time) / count
        operational_g = operational(joules, g_per_kwh, use.pue)
        embodied_g = amortised(kg, seconds, use.lifetime_years, use.utilisation)
    parts = {
        "token_s": (seconds, "s", "time of the GPU"),
        "token_J": (joules, "J", "energy"),
        "operational_g": (operational_g, "g", "operational carbon"),
        "embodied_g": (embodied_g, "g", "embodied carbon"),
    }
    whole = xr.Dataset({name: xr.DataArray(part) for name, (part, _, _) in parts.items()})
    for name, (_, units, meaning) in parts.items():
        whole[name].attrs = {"units": units, "long_name": f"{meaning} for a generated token"}
    return whole.assign_attrs(per="generated token", boundary="GPU only, SCI-style")


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
    """Software Carbon Intensity of the standard: (O + M) / R, O = E x I, M = TE x TS x RS.

    E kWh with PUE, I g/kWh, O g, TE g (all embodied emissions of the GPU), TS = TiR / EL (time
    reserved over lifespan), RS = RR / ToR (resource share), M g, R functional units, SCI g per
    unit. `unit` says what R counts. Without the host this is SCI-style, not conformant; attributes
    state the boundary.
    """
    energy, kg = checked("energy_J", energy_J, "J"), checked("embodied_kg", embodied_kg, "kg")
    count = checked("tokens", tokens, "1", above=True)
    grams = operational(energy, g_per_kwh, pue)
    time_share = _time_share(checked("busy_s", busy_s, "s"), lifetime_years, utilisation)
    share = checked("resource_share", resource_share, "1", most=1)
    kwh, embodied_g = energy / J_PER_KWH * pue, kg * 1000 * time_share * share
    terms = {
        "E": (kwh, "kWh", "energy of the reserved hardware, times the PUE that is set"),
        "I": (g_per_kwh, "g/kWh", "location-based carbon intensity of electricity"),
        "O": (grams, "g", "operational emissions, E x I"),
        "TE": (kg * 1000, "g", "total embodied emissions of the GPU"),
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
