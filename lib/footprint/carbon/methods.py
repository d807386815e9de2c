"""Embodied carbon of a GPU by component: the methods, one or all of them, and the share of a host.

To add a method, write a function (GPU, settings) -> (kg by component, what they are about) and name
it in `METHODS`; if it states its uncertainty, give it a `Prior` and rows in `priors.csv`.
Boundaries differ by method and stand in the attributes: what lies outside one is absent, what
nobody knows is NaN.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from footprint import Refused, spec
from footprint.carbon.act import act, act_parameters, act_samples, remark
from footprint.carbon.equation import checked
from footprint.carbon.teardown import paper, teardown, teardown_parameters, teardown_samples, vendor


@dataclass(frozen=True)
class Prior:
    """How uncertain a method is.

    parameters: the uncertain inputs of a GPU, each with its group. samples: kg of a GPU for sampled
    inputs. rows: setting of the memory -> the `method`s of `priors.csv` whose rows hold; a later
    one overrides an earlier one.
    """

    parameters: Callable[[spec.GPU], dict[str, str]]
    samples: Callable[[spec.GPU, dict[str, np.ndarray]], np.ndarray]
    rows: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Method:
    """A method that estimates the embodied carbon of a GPU.

    value: kg by component of a GPU, and boundary, status and source. settings: arguments of `value`
    that differ from its defaults. prior: the uncertainty, if stated; sampled_as: the method whose
    samples stand for it, if not. compared: whether every world has it (it then needs a value of
    most GPUs). sourced: whether verdicts may rest on it. colour, dash: of its marks in figures.
    """

    value: Callable[..., tuple[dict, dict]]
    settings: Mapping = field(default_factory=dict)
    prior: Prior | None = None
    sampled_as: str = ""
    compared: bool = True
    sourced: bool = True
    colour: str = "#8a8f98"
    dash: tuple[int, ...] = (1, 0)


METHODS = {
    "ACT": Method(act, sampled_as="ACT with priors", colour="#3f7fb5"),
    "ACT with priors": Method(
        act,
        {"packages": True, "yield_model": "murphy"},
        Prior(act_parameters, act_samples, {"wide": ("act",), "act": ("act", "act-memory")}),
        colour="#7a6fb0",
        dash=(6, 2),
    ),
    "teardown": Method(
        teardown,
        prior=Prior(teardown_parameters, teardown_samples, {"wide": ("teardown",)}),
        colour="#b87a10",
        dash=(2, 2),
    ),
    "vendor": Method(vendor, compared=False),
    "paper": Method(paper, sourced=False, colour="#8a8f98", dash=(8, 3, 2, 3)),
}
SOURCED = tuple(name for name, method in METHODS.items() if method.compared and method.sourced)
MAIN = "ACT with priors"
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


def method_named(name: str) -> Method:
    """The method of this name, in any case (`act` is ACT), or `Refused`."""
    entry = {known.lower(): entry for known, entry in METHODS.items()}.get(str(name).lower())
    if entry is None:
        raise Refused(f"The method {name!r} is unknown; allowed are {', '.join(METHODS)}.")
    return entry


def host(scenario: str, gpus_per_host: int | None = None) -> xr.DataArray:
    """kg CO2e by component of a server without GPUs, per GPU, in a scenario of `hosts.csv`."""
    rows = [row for row in spec.rows("hosts") if row["scenario"] == scenario]
    if not rows:
        known = sorted({row["scenario"] for row in spec.rows("hosts")})
        raise Refused(spec.nearest("host scenario", scenario, known).args[0])
    count = rows[0]["gpus_per_host"] if gpus_per_host is None else gpus_per_host
    share = checked("gpus_per_host", count, "1", least=1)
    attrs = {
        "units": "kg",
        "long_name": "embodied emissions of the host per GPU",
        "scenario": scenario,
        "gpus_per_host": share,
        "source": "; ".join(dict.fromkeys(row["source"] for row in rows)),
    }
    kg = [row["kgco2e_per_host"] / share for row in rows]
    parts = {"component": [row["component"] for row in rows]}
    return xr.DataArray(kg, parts, "component", "host_kg", attrs)


def embodied(
    gpu: str | spec.GPU | Sequence,
    method: str = "act",
    *,
    host_scenario: str | None = None,
    gpus_per_host: int | None = None,
    **settings,
) -> xr.Dataset:
    """Cradle-to-gate emissions of a GPU (or several: dimension gpu) by component, in kg CO2e.

    method: one of `METHODS`, in any case; settings are those of its function (`act.act`,
    `teardown.teardown`). Variables: embodied_kg (component) and total_kg, their sum; a missing
    input makes both NaN and `embodied_reason` says why. `host_scenario` adds the share of a server
    (see `host`) as a component. Raises `Refused` for an unknown method or setting, and where a GPU
    has no published footprint.
    """
    chosen = method_named(method)
    allowed = [name for name in inspect.signature(chosen.value).parameters if name != "gpu"]
    if unknown := set(settings) - set(allowed):
        raise Refused(
            f"The method {method!r} has no setting {min(unknown)!r}; "
            f"allowed: {', '.join(allowed) or 'none'}."
        )
    if not isinstance(gpu, str | spec.GPU):
        extra = {"host_scenario": host_scenario, "gpus_per_host": gpus_per_host}
        each = [embodied(one, method, **extra, **settings) for one in gpu]
        return xr.concat(each, "gpu", **JOINED, combine_attrs=_join)
    record = spec.gpu(gpu) if isinstance(gpu, str) else gpu
    kg, about = chosen.value(record, **chosen.settings | settings)
    if host_scenario:
        kg["host"] = float(host(host_scenario, gpus_per_host).sum())
        about["boundary"] += f"; share of a host ({host_scenario})"
    gap = [name for name, value in kg.items() if np.isnan(value)]
    reason = f"no {', '.join(gap)}: {remark(record.id)}" if gap else ""
    order = [name for name in COMPONENTS if name in kg]
    values = xr.DataArray([float(kg[name]) for name in order], {"component": order}, "component")
    values.attrs = {"units": "kg", "long_name": "embodied emissions by component"}
    total = values.sum("component", skipna=False).assign_attrs(
        units="kg", long_name="embodied emissions of the GPU"
    )
    about |= {"method": method, "settings": json.dumps(settings, sort_keys=True, default=str)}
    whole = xr.Dataset({"embodied_kg": values, "total_kg": total}, attrs=about)
    return whole.assign_coords(gpu=record.id, embodied_reason=reason)


def _join(all_attrs: list[dict], context=None) -> dict:
    """Attributes of several GPUs: equal ones once, others side by side."""
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
    """`embodied` of many GPUs by many methods: dimensions embodied_method, gpu, component.

    methods: label -> method and settings. Where a method has no value for a GPU there is NaN, and
    `embodied_reason` (embodied_method, gpu) says why; a component outside a method's boundary is
    NaN, too, and total_kg is the sum of those inside.
    """
    names, chosen = list(gpus or spec.gpus()), dict(methods or ALL_METHODS)
    columns = []
    for settings in chosen.values():
        row = []
        for gpu in names:
            try:
                found = embodied(gpu, **settings)
            except Refused as refusal:
                empty = {"embodied_kg": ("component", [np.nan]), "total_kg": np.nan}
                labels = {"component": ["other"], "gpu": gpu, "embodied_reason": str(refusal)}
                found = xr.Dataset(empty, labels)
            row.append(found.reindex(component=list(COMPONENTS)))
        columns.append(xr.concat(row, "gpu", **JOINED, combine_attrs="drop"))
    labels = xr.Variable("embodied_method", list(chosen))
    whole = xr.concat(columns, labels, **JOINED, combine_attrs="drop")
    whole["embodied_kg"].attrs = {"units": "kg", "long_name": "embodied emissions by component"}
    whole["total_kg"].attrs = {"units": "kg", "long_name": "embodied emissions"}
    return whole.assign_attrs(settings=json.dumps(chosen, sort_keys=True))
