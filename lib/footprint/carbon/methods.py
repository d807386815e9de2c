"""A card's embodied emissions by component, by four methods, side by side, and with a share of its host.

Boundaries differ by method and stand in the attributes: what lies outside one is absent, what nobody knows is NaN.
"""

import inspect
import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from footprint import Refused, spec
from footprint.carbon.act import act, positive, remark
from footprint.carbon.teardown import paper, teardown, vendor

METHODS = {"act": act, "teardown": teardown, "vendor": vendor, "paper": paper}
COMPONENTS = (
    "die energy",
    "die gas",
    "die materials",
    "die",
    "memory",
    "packaging",
    "board",
    "cooling",
    "casing",
    "assembly",
    "transport",
    "end of life",
    "other",
    "unsplit",
    "host",
)
JOINED = {"data_vars": "all", "coords": ["embodied_reason"], "compat": "equals", "join": "outer"}


def host(scenario: str, gpus_per_host: int | None = None) -> xr.DataArray:
    """kg CO2e by component of a server without GPUs, per GPU: a stated scenario of `hosts.csv`, not a measurement."""
    rows = [row for row in spec.table("hosts") if row["scenario"] == scenario]
    if not rows:
        known = sorted({row["scenario"] for row in spec.table("hosts")})
        raise Refused(spec.nearest("host scenario", scenario, known).args[0])
    share = positive(
        "gpus_per_host", int(rows[0]["gpus_per_host"]) if gpus_per_host is None else gpus_per_host
    )
    if share < 1:
        raise Refused(f"gpus_per_host is {gpus_per_host}; 1 or more is allowed.")
    kg = np.array([float(row["kgco2e_per_host"]) for row in rows]) / share
    attrs = {
        "units": "kg",
        "long_name": "embodied emissions of the host per GPU",
        "scenario": scenario,
    }
    attrs |= {
        "gpus_per_host": share,
        "source": "; ".join(dict.fromkeys(row["source"] for row in rows)),
    }
    return xr.DataArray(
        kg, {"component": [row["component"] for row in rows]}, "component", "host_kg", attrs
    )


def embodied(
    gpu: str | spec.GPU | Sequence,
    method: str = "act",
    *,
    host_scenario: str | None = None,
    gpus_per_host: int | None = None,
    **settings,
) -> xr.Dataset:
    """Cradle-to-gate emissions of a card (or several: dimension gpu) by component, in kg CO2e.

    method: `act`, `teardown`, `vendor` or `paper`; its settings are those of `act.act` and `teardown.teardown`.
    Variables embodied_kg (component) and total_kg, their sum; a missing input makes both NaN and `embodied_reason` says
    why. `host_scenario` adds the share of a server (see `host`) as a component of its own.
    Raises `Refused` for an unknown method or setting, and where no published footprint of a card exists.
    """
    _check(method, settings)
    extra = {"host_scenario": host_scenario, "gpus_per_host": gpus_per_host}
    if not isinstance(gpu, str | spec.GPU):
        each = [embodied(one, method, **extra, **settings) for one in gpu]
        return xr.concat(each, "gpu", **JOINED, combine_attrs=_join)
    card = spec.gpu(gpu) if isinstance(gpu, str) else gpu
    kg, about = METHODS[method](card, **settings)
    if host_scenario:
        kg["host"] = float(host(host_scenario, gpus_per_host).sum())
        about["boundary"] += f"; share of a host ({host_scenario})"
    gap = [name for name, value in kg.items() if np.isnan(value)]
    reason = f"no {', '.join(gap)}: {remark(card.id)}" if gap else ""
    order = [name for name in COMPONENTS if name in kg]
    values = xr.DataArray([float(kg[name]) for name in order], {"component": order}, "component")
    values.attrs = {"units": "kg", "long_name": "embodied emissions by component"}
    total = values.sum("component", skipna=False).assign_attrs(
        units="kg", long_name="embodied emissions of the card"
    )
    about |= {"method": method, "settings": json.dumps(settings, sort_keys=True, default=str)}
    whole = xr.Dataset({"embodied_kg": values, "total_kg": total}, attrs=about)
    return whole.assign_coords(gpu=card.id, embodied_reason=reason)


def _check(method: str, settings: dict):
    """`Refused` for a method or a setting that does not exist."""
    if method not in METHODS:
        raise Refused(f"The method {method!r} is unknown; allowed are {', '.join(METHODS)}.")
    names = [name for name in inspect.signature(METHODS[method]).parameters if name != "card"]
    if unknown := set(settings) - set(names):
        raise Refused(
            f"The method {method!r} has no setting {min(unknown)!r}; allowed: {', '.join(names) or 'none'}."
        )


def _join(all_attrs: list[dict], context=None) -> dict:
    """Attributes of several cards: equal ones once, others side by side."""
    names = dict.fromkeys(name for attrs in all_attrs for name in attrs)
    return {
        name: "; ".join(dict.fromkeys(attrs[name] for attrs in all_attrs if name in attrs))
        for name in names
    }


ALL_METHODS = {
    "ACT": {"method": "act"},
    "ACT, packages": {"method": "act", "packages": True},
    "ACT, Murphy yield": {"method": "act", "packages": True, "yield_model": "murphy"},
    "teardown": {"method": "teardown"},
    "vendor": {"method": "vendor"},
    "paper": {"method": "paper"},
}


def compare(
    gpus: Sequence[str] | None = None, methods: Mapping[str, dict] | None = None
) -> xr.Dataset:
    """`embodied` of many cards by many methods (label -> method and settings): dimensions approach, gpu, component.

    Where a method has no value for a card there is NaN, and `embodied_reason` (approach, gpu) says why; a component
    outside a method's boundary is NaN too, and total_kg is the sum of those inside.
    """
    cards, chosen = list(gpus or spec.gpus()), dict(methods or ALL_METHODS)
    columns = []
    for settings in chosen.values():
        row = []
        for card in cards:
            try:
                found = embodied(card, **settings)
            except Refused as refusal:
                empty = {"embodied_kg": ("component", [np.nan]), "total_kg": np.nan}
                found = xr.Dataset(
                    empty, {"component": ["other"], "gpu": card, "embodied_reason": str(refusal)}
                )
            row.append(found.reindex(component=list(COMPONENTS)))
        columns.append(xr.concat(row, "gpu", **JOINED, combine_attrs="drop"))
    whole = xr.concat(
        columns, xr.Variable("approach", list(chosen)), **JOINED, combine_attrs="drop"
    )
    for name, meaning in (
        ("embodied_kg", "embodied emissions by component"),
        ("total_kg", "embodied emissions"),
    ):
        whole[name].attrs = {"units": "kg", "long_name": meaning}
    return whole.assign_attrs(settings=json.dumps(chosen, sort_keys=True))
