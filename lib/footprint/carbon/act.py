"""ACT: embodied carbon of a die and its memory, by the equations and tables of Gupta et al., v2.

kg = area x (g_per_kwh of the fab x EPA + GPA + MPA) / yield + memory GB x kg/GB / yield
     + packages x 150 g

Defaults are ACT's own. Settings add what ACT lacks: nodes between its rows, a yield that depends on
the area, GDDR and HBM. `act_kg` and `die_yield` take arrays, so samples take the same lines.
"""

import math
import re
from collections.abc import Callable
from functools import cache

import numpy as np

from footprint import Refused, spec
from footprint.carbon.equation import checked

FACTORS = {row["id"]: row["value"] for row in spec.rows("factors")}
ACT_YIELD = FACTORS["act-yield"]
PACKAGE_G = FACTORS["act-package"]
MURPHY_DEFECTS = FACTORS["murphy-defects"]


def node_nm(name: str) -> float:
    """Nanometres in a node's name: 12nm -> 12, 4N -> 4."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:nm|n)?", str(name).strip().lower())
    if not number:
        raise Refused(
            f"The node {name!r} has no size that can be read; names like 12nm or 4N are allowed."
        )
    return float(number.group(1))


@cache
def fab_table() -> dict[str, np.ndarray]:
    """ACT's columns by node, the smallest node first."""
    rows = sorted(spec.rows("fab"), key=lambda row: row["node_nm"])
    columns = ("node_nm", "epa_kwh_per_cm2", "gpa95_g_per_cm2", "gpa99_g_per_cm2", "mpa_g_per_cm2")
    return {column: np.array([row[column] for row in rows]) for column in columns}


def nearest_node(node: str) -> float:
    """The row of ACT's table nearest to a node; of two equally near ones the older (12 -> 14)."""
    nodes, wanted = fab_table()["node_nm"], node_nm(node)
    return float(min(nodes, key=lambda known: (abs(known - wanted), -known)))


def fab_row(node: str, rule: str = "nearest") -> dict[str, float]:
    """ACT's values for a node, by its `nearest` row or (ours) `interpolated` between two rows."""
    table = fab_table()
    nodes, wanted = table["node_nm"], node_nm(node)
    if not nodes[0] <= wanted <= nodes[-1]:
        raise Refused(
            f"The node {node!r} lies outside ACT's table; "
            f"{nodes[0]:g} to {nodes[-1]:g} nm are allowed."
        )
    if rule not in ("nearest", "interpolated"):
        raise Refused(f"The rule {rule!r} is unknown; allowed are nearest and interpolated.")
    at = nearest_node(node) if rule == "nearest" else wanted
    return {column: float(np.interp(at, nodes, values)) for column, values in table.items()}


def _value_or_row(name: str, given: str | float, table: str, units: str, read: Callable) -> float:
    """The number itself, or what `read` takes from the row of a table that a word names."""
    if not isinstance(given, str):
        return checked(name, given, units)
    rows = {row["id"]: row for row in spec.rows(table)}
    if given not in rows:
        raise Refused(spec.nearest(name, given, list(rows)).args[0])
    return read(rows[given])


def fab_grid(fab: str | float) -> float:
    """g/kWh of the electricity of a fab: a name in `fab_grid.csv`, or the number itself."""
    return _value_or_row("fab", fab, "fab_grid", "g/kWh", lambda row: row["g_per_kwh"])


def memory_kg_per_gb(name: str | float) -> float:
    """kg CO2e per GB: a row of `memory.csv` (ACT's are divided by its yield), or the number."""

    def kg(row: dict) -> float:
        return row["g_per_gb"] / 1000 / (ACT_YIELD if row["divide_by_yield"] else 1)

    return _value_or_row("memory", name, "memory", "kg/GB", kg)


def die_yield(area_mm2, model: str = "fixed", fixed=ACT_YIELD, defects_per_cm2=MURPHY_DEFECTS):
    """Share of good dies: `fixed` (ACT), `murphy` ((1 - exp(-AD)) / AD)^2 or `poisson` exp(-AD)."""
    if model == "fixed":
        return fixed
    faults = np.asarray(area_mm2) / 100 * defects_per_cm2
    if model == "poisson":
        return np.exp(-faults)
    if model == "murphy":
        safe = np.where(faults == 0, 1, faults)
        return np.where(faults == 0, 1.0, (-np.expm1(-safe) / safe) ** 2)
    raise Refused(f"The yield model {model!r} is unknown; allowed are fixed, murphy and poisson.")


def act_kg(area_mm2, good, grams_per_cm2: dict, memory_kg, packages=0) -> dict:
    """ACT's equation by component: area x grams_per_cm2 / yield, plus memory and 150 g a package.

    grams_per_cm2: see `per_area`. Without packages, packaging lies outside the boundary.
    """
    cm2 = area_mm2 / 100 / good
    kg = {name: cm2 * grams / 1000 for name, grams in grams_per_cm2.items()} | {"memory": memory_kg}
    return kg | ({"packaging": packages * PACKAGE_G / 1000} if packages else {})


def per_area(epa_kwh, gpa_g, mpa_g, fab_g_per_kwh) -> dict:
    """Grams of a square centimetre of die: the fab's electricity, process gases and materials."""
    return {"die energy": fab_g_per_kwh * epa_kwh, "die gas": gpa_g, "die materials": mpa_g}


def act(
    gpu: spec.GPU,
    *,
    node: str = "nearest",
    fab: str | float = "taiwan",
    abatement: int = 97,
    yield_model: str = "fixed",
    fixed_yield: float = ACT_YIELD,
    defects_per_cm2: float = MURPHY_DEFECTS,
    memory: str | float = "ddr4_10nm",
    packages: bool | int = False,
) -> tuple[dict, dict]:
    """ACT v2 of die and memory (and packages on request), with its own defaults.

    node: `nearest` row of ACT's table, `interpolated` (ours), or a node such as `3nm`. fab: a
    place, a fuel or g/kWh. abatement: 95, 97 (the mean of the two tables) or 99 %. packages: True
    counts the GPU and its memory packages.
    """
    levels = {95: (95,), 97: (95, 99), 99: (99,)}
    if abatement not in levels:
        raise Refused(f"The gas abatement {abatement!r} is unknown; allowed are 95, 97 and 99.")
    by_rule = node in ("nearest", "interpolated")
    row = fab_row(gpu.node if by_rule else node, node if by_rule else "nearest")
    gas = np.mean([row[f"gpa{level}_g_per_cm2"] for level in levels[abatement]])
    fixed = checked("fixed_yield", fixed_yield, "1", above=True, most=1)
    defects = checked("defects_per_cm2", defects_per_cm2, "1/cm2")
    good = die_yield(gpu.die_mm2, yield_model, fixed, defects)
    if isinstance(packages, bool):
        packages = 1 + measure(gpu.id, "memory_packages") if packages else 0
    count = checked("packages", packages, "1")
    memory_kg = gpu.memory_GiB * memory_kg_per_gb(memory)
    grams = per_area(row["epa_kwh_per_cm2"], gas, row["mpa_g_per_cm2"], fab_grid(fab))
    kg = act_kg(gpu.die_mm2, good, grams, memory_kg, count)
    whole, bare = "die, memory and packages", "die and memory, no packages, board or cooling"
    return kg, {
        "boundary": whole if packages else bare,
        "status": "modelled",
        "source": "ACT v2 facebookresearch/ACT abc9fbb",
    }


def act_parameters(gpu: spec.GPU) -> dict[str, str]:
    """Uncertain inputs of ACT for a GPU, each with its group in `priors.csv`."""
    by_node = ("epa_scale", "gas_position", "fab_g_per_kwh", "defects_per_cm2")
    node = dict.fromkeys(by_node, f"{nearest_node(gpu.node):g}")
    return node | {"mpa_scale": "all", "memory_kg_per_gb": gpu.memory_family}


def act_samples(gpu: spec.GPU, values: dict[str, np.ndarray]) -> np.ndarray:
    """kg of a GPU for sampled inputs: ACT with packages and Murphy's yield."""
    row = fab_row(gpu.node)
    clean, dirty = row["gpa99_g_per_cm2"], row["gpa95_g_per_cm2"]
    grams = per_area(
        row["epa_kwh_per_cm2"] * values["epa_scale"],
        clean + values["gas_position"] * (dirty - clean),
        row["mpa_g_per_cm2"] * values["mpa_scale"],
        values["fab_g_per_kwh"],
    )
    good = die_yield(gpu.die_mm2, "murphy", defects_per_cm2=values["defects_per_cm2"])
    memory_kg = gpu.memory_GiB * values["memory_kg_per_gb"]
    parts = act_kg(gpu.die_mm2, good, grams, memory_kg, 1 + measure(gpu.id, "memory_packages"))
    return sum(parts.values())


@cache
def _measures() -> dict[str, dict]:
    return {row["gpu"]: row for row in spec.rows("cards")}


def measure(gpu: str, column: str) -> float:
    """One input of a GPU from `cards.csv`; NaN where the GPU or the value is unknown."""
    return _measures()[gpu][column] if gpu in _measures() else math.nan


def remark(gpu: str) -> str:
    """Why inputs of a GPU are missing or borrowed."""
    return _measures()[gpu]["remarks"] if gpu in _measures() else f"{gpu} is not in cards.csv"
