"""Whole cards: factors of published teardowns scaled to a card, the maker's footprint, and the paper's numbers."""

from functools import cache

import numpy as np

from footprint import Refused, spec
from footprint.carbon.act import MURPHY_DEFECTS, die_yield, measure, positive

INPUTS = ("memory_packages", "board_cm2", "heatsink_kg", "casing_kg", "mass_kg")


@cache
def teardown_factors(without: tuple[str, ...] = ()) -> dict[str, float]:
    """Mean kg CO2e per mm2, package, cm2 or kg over the torn-down cards, less those named in `without`.

    Means of the cards' own ratios, as the study takes them; a card without a casing does not count in that mean.
    """
    cards = [row for row in spec.table("teardown") if row["card"] not in without]

    def mean(emission: str, size: str, family: str = "") -> float:
        chosen = [
            row for row in cards if row["memory_family"].startswith(family) and float(row[size])
        ]
        return float(np.mean([float(row[emission]) / float(row[size]) for row in chosen]))

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


def teardown_kg(area_mm2, good, factors: dict, family: str, inputs: dict) -> dict:
    """Teardown factors x sizes: the die's area counts with its losses (area / yield)."""
    return {
        "die": factors["die"] * area_mm2 / good,
        "memory": factors[family] * inputs["memory_packages"],
        "board": factors["board"] * inputs["board_cm2"],
        "cooling": factors["cooling"] * inputs["heatsink_kg"],
        "casing": factors["casing"] * inputs["casing_kg"],
        "transport": factors["transport"] * inputs["mass_kg"],
        "end of life": factors["end of life"] * inputs["mass_kg"],
    }


def teardown(
    card: spec.GPU,
    *,
    defects_per_cm2: float = MURPHY_DEFECTS,
    without: tuple[str, ...] = (),
    sizes: dict[str, float] | None = None,
) -> tuple[dict, dict]:
    """Factors of published teardowns scaled to a card; `without` leaves torn-down cards out of the mean (a back-test).

    Sizes come from `cards.csv` unless given: memory_packages, board_cm2, heatsink_kg, casing_kg, mass_kg.
    A size that nobody published is NaN, and so is its component; the reason stands in `embodied_reason`.
    """
    given = sizes or {}
    if unknown := set(given) - set(INPUTS):
        raise Refused(
            f"There is no size {min(unknown)!r} of a card; allowed are {', '.join(INPUTS)}."
        )
    inputs = {name: positive(name, given.get(name, measure(card.id, name))) for name in INPUTS}
    good = die_yield(
        card.die_mm2, "murphy", defects_per_cm2=positive("defects_per_cm2", defects_per_cm2)
    )
    kg = teardown_kg(
        card.die_mm2, good, teardown_factors(tuple(without)), card.memory_family, inputs
    )
    source = "mean factors of the cards in teardown.csv x areas, packages and masses in cards.csv"
    return kg, {
        "boundary": "card without distribution and use",
        "status": "modelled",
        "source": source,
    }


def published(card: spec.GPU, name: str) -> tuple[dict, dict]:
    """The parts of one published footprint (a `set` of `embodied_published.csv`), or `Refused` where there is none."""
    rows = [row for row in spec.table("embodied_published") if row["set"] == name]
    found = [row for row in rows if row["gpu"] == card.id]
    if not found:
        have = ", ".join(sorted({row["gpu"] for row in rows} - {"-"}))
        raise Refused(
            f"No published footprint ({name}) of {card.id} is known; there is one for {have}."
        )
    parts = [row for row in found if row["component"] != "total"] or [
        {**found[0], "component": "unsplit"}
    ]
    kg: dict[str, float] = {}
    for row in parts:
        kg[row["component"]] = kg.get(row["component"], 0.0) + float(row["kgco2e"])
    weakest = (
        "unverified" if any(row["status"] == "unverified" for row in parts) else found[0]["status"]
    )
    return kg, {"boundary": found[0]["boundary"], "status": weakest, "source": found[0]["source"]}


def vendor(card: spec.GPU) -> tuple[dict, dict]:
    """The maker's own product carbon footprint: for the H100 one eighth of the HGX baseboard."""
    return published(card, "vendor")


def paper(card: spec.GPU) -> tuple[dict, dict]:
    """The total that the paper is recalled to state (`paper_values.csv`); nobody here has read it."""
    found = {
        row["subject"]: row
        for row in spec.table("paper_values")
        if row["quantity"] == "embodied carbon"
    }
    if card.id not in found:
        raise Refused(
            f"The paper gives no embodied carbon of {card.id}; it has {', '.join(found)}."
        )
    row = found[card.id]
    about = {"boundary": "die and memory", "status": row["status"], "source": row["source"]}
    return {"unsplit": float(row["value"])}, about
