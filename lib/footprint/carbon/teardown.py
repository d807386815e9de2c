"""Embodied carbon of whole GPUs: published teardowns scaled to a GPU, and published totals."""

from functools import cache

import numpy as np

from footprint import Refused, spec
from footprint.carbon.act import MURPHY_DEFECTS, die_yield, measure, nearest_node
from footprint.carbon.equation import checked

INPUTS = ("memory_packages", "board_cm2", "heatsink_kg", "casing_kg", "mass_kg")
# Components scaled by factors with a prior.
SCALED = ("die", "board", "cooling", "casing", "transport", "end of life")


@cache
def teardown_factors(without: tuple[str, ...] = ()) -> dict[str, float]:
    """Mean kg CO2e per mm2, package, cm2 or kg over the torn-down GPUs, less those in `without`.

    The mean of the GPUs' own ratios, as in the study; a GPU without a casing is not in that mean.
    """
    rows = [row for row in spec.rows("teardown") if row["card"] not in without]

    def mean(emission: str, size: str, family: str = "") -> float:
        chosen = [row for row in rows if row["memory_family"].startswith(family) and row[size]]
        return float(np.mean([row[emission] / row[size] for row in chosen]))

    return {
        "die": mean("die_kgco2e", "die_with_losses_mm2"),
        "gddr": mean("memory_kgco2e", "memory_packages", "gddr"),
        "hbm": mean("memory_kgco2e", "memory_packages", "hbm"),
        "board": mean("board_kgco2e", "board_cm2"),
        "cooling": mean("heatsink_kgco2e", "heatsink_kg"),
        "casing": mean("casing_kgco2e", "casing_kg"),
        "transport": mean("transport_kgco2e", "mass_kg"),
        "end of life": mean("end_of_life_kgco2e", "mass_kg"),
    }


def teardown_kg(gpu: spec.GPU, defects_per_cm2, factors: dict, inputs: dict) -> dict:
    """Teardown factors x sizes by component; the die counts with its losses (Murphy's yield)."""
    good = die_yield(gpu.die_mm2, "murphy", defects_per_cm2=defects_per_cm2)
    return {
        "die": factors["die"] * gpu.die_mm2 / good,
        "memory": factors[gpu.memory_family] * inputs["memory_packages"],
        "board": factors["board"] * inputs["board_cm2"],
        "cooling": factors["cooling"] * inputs["heatsink_kg"],
        "casing": factors["casing"] * inputs["casing_kg"],
        "transport": factors["transport"] * inputs["mass_kg"],
        "end of life": factors["end of life"] * inputs["mass_kg"],
    }


def teardown(
    gpu: spec.GPU,
    *,
    defects_per_cm2: float = MURPHY_DEFECTS,
    without: tuple[str, ...] = (),
    sizes: dict[str, float] | None = None,
) -> tuple[dict, dict]:
    """Factors of published teardowns scaled to a GPU.

    without: torn-down GPUs left out of the mean (a back-test). sizes: memory_packages, board_cm2,
    heatsink_kg, casing_kg, mass_kg; those of `cards.csv` unless given. A size that nobody published
    is NaN, and so is its component; the reason stands in `embodied_reason`.
    """
    given = sizes or {}
    if unknown := set(given) - set(INPUTS):
        raise Refused(
            f"There is no size {min(unknown)!r} of a card; allowed are {', '.join(INPUTS)}."
        )
    inputs = {
        name: checked(name, given.get(name, measure(gpu.id, name)), name.rpartition("_")[2])
        for name in INPUTS
    }
    defects = checked("defects_per_cm2", defects_per_cm2, "1/cm2")
    return teardown_kg(gpu, defects, teardown_factors(tuple(without)), inputs), {
        "boundary": "card without distribution and use",
        "status": "modelled",
        "source": "mean factors of the cards in teardown.csv "
        "x areas, packages and masses in cards.csv",
    }


def _scale(component: str) -> str:
    """The name of a component's factor in `priors.csv`."""
    return f"{component.replace(' ', '_')}_scale"


def teardown_parameters(gpu: spec.GPU) -> dict[str, str]:
    """Uncertain inputs of the teardown for a GPU, each with its group in `priors.csv`."""
    groups = {"defects_per_cm2": f"{nearest_node(gpu.node):g}", "memory_scale": gpu.memory_family}
    return groups | {_scale(name): "all" for name in SCALED}


def teardown_samples(gpu: spec.GPU, values: dict[str, np.ndarray]) -> np.ndarray:
    """kg of a GPU for sampled inputs: the scaled teardown with Murphy's yield."""
    scales = {name: values[_scale(name)] for name in SCALED}
    scales[gpu.memory_family] = values["memory_scale"]
    factors = {name: teardown_factors()[name] * scale for name, scale in scales.items()}
    inputs = {name: measure(gpu.id, name) for name in INPUTS}
    return sum(teardown_kg(gpu, values["defects_per_cm2"], factors, inputs).values())


def vendor(gpu: spec.GPU) -> tuple[dict, dict]:
    """The maker's own footprint, or `Refused`; of the H100 one eighth of the HGX baseboard."""
    rows = [row for row in spec.rows("embodied_published") if row["set"] == "vendor"]
    published = [row for row in rows if row["gpu"] == gpu.id]
    if not published:
        known = ", ".join(sorted({row["gpu"] for row in rows} - {"-"}))
        raise Refused(
            f"No published footprint (vendor) of {gpu.id} is known; there is one for {known}."
        )
    parts = [row for row in published if row["component"] != "total"]
    kg: dict[str, float] = {}
    for row in parts or [published[0] | {"component": "unsplit"}]:
        kg[row["component"]] = kg.get(row["component"], 0.0) + row["kgco2e"]
    about = {name: published[0][name] for name in ("boundary", "status", "source")}
    weak = any(row["status"] == "unverified" for row in parts)
    return kg, about | ({"status": "unverified"} if weak else {})


def paper(gpu: spec.GPU) -> tuple[dict, dict]:
    """The total that the paper is recalled to state (nobody here has read it), or `Refused`."""
    rows = [row for row in spec.rows("paper_values") if row["quantity"] == "embodied carbon"]
    found = {row["subject"]: row for row in rows}
    if gpu.id not in found:
        raise Refused(f"The paper gives no embodied carbon of {gpu.id}; it has {', '.join(found)}.")
    row = found[gpu.id]
    about = {"boundary": "die and memory", "status": row["status"], "source": row["source"]}
    return {"unsplit": row["value"]}, about
