"""The numbers of the pages of data: the explorer and what it carries, and the tables."""

import pandas as pd

from footprint import spec
from footprint.carbon import totals
from footprint.chapters.service import llamas
from footprint.charts import explore
from footprint.charts.explorer import ITS
from footprint.energy import findings


def explorer(book) -> dict:
    """What the explorer carries, and its ranking at the settings that it opens with."""
    points, worlds, grids = explore.points(llamas()), explore.worlds(), explore.grids()
    settings = [ITS[name] for name in ("model", "engine", "batch", "region", "approach")]
    use = {"lifetime_years": ITS["lifetime"], "utilisation": ITS["utilisation"], "pue": ITS["pue"]}
    alone, hosted = (
        explore.ranked(*settings, host_W=watts, **use).set_index("gpu") for watts in (0, HOST_W)
    )
    first, likeliest = alone.index[0], alone["best"].idxmax()
    grew = (hosted["mean_g"] / alone["mean_g"]).sort_values()
    recalled = {row["id"] for row in spec.table("gpus") if row["status"] == "unverified"}
    often, plain = alone["best"].max(), alone["best"].max() >= 0.5
    return {
        "points": points,
        "worlds": worlds,
        "grids": grids,
        "batch": ITS["batch"],
        "utilisation": ITS["utilisation"],
        "first": findings.label(first),
        "best": "it is best"
        if first == likeliest
        else f"most often best is the {findings.label(likeliest)},",
        "often": often,
        "plain": "" if plain else ": no card is plainly the best",
        "recalled": RECALLED if first in recalled else "",
        "rows": len(points),
        "carried": points[["model", "gpu", "engine", "batch"]].nunique(),
        "samples": explore.DRAWS,
        "years": {
            "first": totals.YEARS_KNOWN[0],
            "last": totals.YEARS_KNOWN[-1],
            "count": len(totals.YEARS_KNOWN),
        },
        "request": {"prompt": explore.PROMPT, "output": explore.OUTPUT},
        "zones": len(grids),
        "host_W": HOST_W,
        "most": findings.label(grew.index[-1]),
        "most_grew": grew.iloc[-1],
        "least": findings.label(grew.index[0]),
        "least_grew": grew.iloc[0],
    }


HOST_W = 100
RECALLED = " (its data sheet is recalled and not read [unverified]{.status .unverified})"


def tables(book) -> dict:
    """The size of the table of grids, and its rows of the three regions."""
    grids = pd.DataFrame(spec.table("grids"))
    return {
        "rows": len(grids),
        "zones": grids["zone"].nunique(),
        "regions": grids[grids["zone"].isin(totals.ZONES)],
    }
