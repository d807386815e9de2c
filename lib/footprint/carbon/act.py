"""ACT: what making a die and its memory emits, by the equations and tables of Gupta et al. (version 2 of their code).

E = area x (CI_fab x EPA + GPA + MPA) / yield + memory GB x kg/GB / yield + packages x 150 g. Defaults are ACT's own;
what it lacks (nodes between its rows, a yield that depends on the area, GDDR and HBM) are settings, and they are ours.
`act_kg` and `die_yield` take arrays too, so that draws and point values come from the same lines.
"""

import math
import re
from functools import cache

import numpy as np

from footprint import Refused, spec

FACTORS = {row["id"]: float(row["value"]) for row in spec.table("factors")}
ACT_YIELD, PACKAGE_G, MURPHY_DEFECTS = (
    FACTORS["act-yield"],
    FACTORS["act-package"],
    FACTORS["murphy-defects"],
)


def node_nm(name: str) -> float:
    """Nanometres in a node's name: 12nm -> 12, 4N -> 4."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:nm|n)?", str(name).strip().lower())
    if not found:
        raise Refused(
            f"The node {name!r} has no size that can be read; names like 12nm or 4N are allowed."
        )
    return float(found.group(1))


@cache
def fab_table() -> dict[str, np.ndarray]:
    """ACT's columns by node, the smallest node first."""
    rows = sorted(spec.table("fab"), key=lambda row: float(row["node_nm"]))
    columns = ("node_nm", "epa_kwh_per_cm2", "gpa95_g_per_cm2", "gpa99_g_per_cm2", "mpa_g_per_cm2")
    return {column: np.array([float(row[column]) for row in rows]) for column in columns}


def nearest_node(node: str) -> float:
    """The row of ACT's table nearest to a node; of two equally near ones the older (12 -> 14, 4 -> 5)."""
    nodes, wanted = fab_table()["node_nm"], node_nm(node)
    return float(min(nodes, key=lambda known: (abs(known - wanted), -known)))


def fab_row(node: str, rule: str = "nearest") -> dict[str, float]:
    """ACT's values for a node: rule `nearest` takes a row, `interpolated` (ours) goes linearly between two rows."""
    table = fab_table()
    nodes, wanted = table["node_nm"], node_nm(node)
    if not nodes[0] <= wanted <= nodes[-1]:
        raise Refused(
            f"The node {node!r} lies outside ACT's table; {nodes[0]:g} to {nodes[-1]:g} nm are allowed."
        )
    if rule not in ("nearest", "interpolated"):
        raise Refused(f"The rule {rule!r} is unknown; allowed are nearest and interpolated.")
    at = nearest_node(node) if rule == "nearest" else wanted
    return {column: float(np.interp(at, nodes, values)) for column, values in table.items()}


def fab_grid(fab: str | float) -> float:
    """g/kWh of the electricity of a fab: a name in `fab_grid.csv`, or the number itself."""
    if not isinstance(fab, str):
        return positive("fab (g/kWh)", fab)
    known = {row["id"]: float(row["g_per_kwh"]) for row in spec.table("fab_grid")}
    if fab not in known:
        raise Refused(spec.nearest("fab", fab, list(known)).args[0])
    return known[fab]


def positive(name: str, value: float) -> float:
    """`value` as a float, or `Refused` unless it is finite and at least 0 (NaN passes: it is a known unknown)."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.number)
        or value < 0
        or math.isinf(value)
    ):
        raise Refused(f"{name} is {value!r}; a finite number of 0 or more is allowed.")
    return float(value)


def die_yield(area_mm2, model: str = "fixed", fixed=ACT_YIELD, defects_per_cm2=MURPHY_DEFECTS):
    """Share of good dies: `fixed` (ACT), `murphy` ((1 - exp(-AD)) / AD)^2, or `poisson` exp(-AD)."""
    if model == "fixed":
        return fixed
    faults = np.asarray(area_mm2) / 100 * defects_per_cm2
    if model == "poisson":
        return np.exp(-faults)
    if model == "murphy":
        safe = np.where(faults == 0, 1, faults)
        return np.where(faults == 0, 1.0, (-np.expm1(-safe) / safe) ** 2)
    raise Refused(f"The yield model {model!r} is unknown; allowed are fixed, murphy and poisson.")


def act_kg(area_mm2, good, epa, gpa, mpa, fab_g_per_kwh, memory_kg, packages=0) -> dict:
    """ACT's equation by component: area x (CI_fab x EPA + GPA + MPA) / yield, plus memory and 150 g a package.

    Without packages there is no packaging component: it lies outside the boundary, it is not zero.
    """
    per_gram = area_mm2 / 100 / good / 1000
    return {
        "die energy": per_gram * fab_g_per_kwh * epa,
        "die gas": per_gram * gpa,
        "die materials": per_gram * mpa,
        "memory": memory_kg,
    } | ({"packaging": packages * PACKAGE_G / 1000} if packages else {})


def memory_kg_per_gb(name: str | float) -> float:
    """kg CO2e per GB of a row of `memory.csv` (ACT's rows are divided by its yield), or the number itself."""
    if not isinstance(name, str):
        return positive("memory (kg/GB)", name)
    rows = {row["id"]: row for row in spec.table("memory")}
    if name not in rows:
        raise Refused(spec.nearest("memory", name, list(rows)).args[0])
    row = rows[name]
    return float(row["g_per_gb"]) / 1000 / (ACT_YIELD if row["divide_by_yield"] == "1" else 1)


def act(
    card: spec.GPU,
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
    """ACT v2: die and memory (and packages on request), its own defaults unless a setting says otherwise.

    node: `nearest` row of ACT's table, `interpolated` (ours), or a node such as `3nm`. fab: a place, a fuel or g/kWh.
    abatement: 95, 97 (the mean of the two tables) or 99 %. packages: True counts the GPU and its memory packages.
    """
    if abatement not in (95, 97, 99):
        raise Refused(f"The gas abatement {abatement!r} is unknown; allowed are 95, 97 and 99.")
    if not 0 < positive("fixed_yield", fixed_yield) <= 1:
        raise Refused(f"fixed_yield is {fixed_yield!r}; a share above 0 and up to 1 is allowed.")
    by_rule = node in ("nearest", "interpolated")
    row = fab_row(card.node if by_rule else node, node if by_rule else "nearest")
    gas = np.mean(
        [row[f"gpa{level}_g_per_cm2"] for level in ((95, 99) if abatement == 97 else (abatement,))]
    )
    good = die_yield(
        card.die_mm2, yield_model, fixed_yield, positive("defects_per_cm2", defects_per_cm2)
    )
    if isinstance(packages, bool):
        packages = 1 + measure(card.id, "memory_packages") if packages else 0
    count = positive("packages", packages)
    memory_kg = card.memory_GiB * memory_kg_per_gb(memory)
    epa, mpa = row["epa_kwh_per_cm2"], row["mpa_g_per_cm2"]
    kg = act_kg(card.die_mm2, good, epa, gas, mpa, fab_grid(fab), memory_kg, count)
    boundary = (
        "die, memory and packages" if packages else "die and memory, no packages, board or cooling"
    )
    return kg, {
        "boundary": boundary,
        "status": "modelled",
        "source": "ACT v2 facebookresearch/ACT abc9fbb",
    }


@cache
def _cards() -> dict[str, dict[str, str]]:
    return {row["gpu"]: row for row in spec.table("cards")}


def measure(card: str, column: str) -> float:
    """One input of a card from `cards.csv`; NaN where the card or the value is unknown."""
    return float(_cards()[card][column]) if card in _cards() else math.nan


def remark(card: str) -> str:
    """Why inputs of a card are missing or borrowed."""
    return _cards()[card]["remarks"] if card in _cards() else f"{card} is not in cards.csv"
