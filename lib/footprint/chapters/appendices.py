"""The runs at hand, the file of a run, the tables of data, and what the paper's matrix costs."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

import pandas as pd
import xarray as xr

from footprint import spec
from footprint.chapters.book import Book
from footprint.charts import theme
from footprint.decide.world import ZONES
from footprint.energy import list_runs
from footprint.trace import schema as trace


def runs(book: Book) -> dict:
    """A row a run, with a link to its page."""
    if not book.runs.sizes["window"]:
        return {"runs": pd.DataFrame()}
    table = list_runs(book.runs)
    files = [PurePath(name) for name in table.pop("file")]
    links = [
        theme.link(file.stem, f"../notebooks/{file.parts[-3]}/{file.parts[-2]}/{file.stem}.html")
        for file in files
    ]
    table.insert(0, "run", pd.Series(links, dtype=object))
    return {"runs": table}


def schema(book: Book) -> dict:
    """The attributes and the variables of a trace."""
    attributes = [
        {"attribute": name, "type": kind.__name__, "meaning": meaning}
        for name, (kind, meaning) in (trace.ATTRS | trace.OPTIONAL_ATTRS).items()
    ]
    variables = [
        {
            "group": group,
            "kind": kind,
            "variable": name,
            "units": item.units,
            "meaning": f"{item.long_name}: {item.meaning}",
        }
        for group, kinds in trace.SCHEMA.items()
        for kind, known in kinds.items()
        for name, item in known.items()
    ]
    return {"attributes": pd.DataFrame(attributes), "variables": pd.DataFrame(variables)}


def reproduce(book: Book, costs: Mapping[str, Sequence] = {}) -> dict:
    """What each step took; `costs`: of the runs of the paper's matrix (`sweep.cost.of`), by GPU."""
    steps = pd.DataFrame(spec.table("steps"))
    numbers = {
        "minutes": steps["minutes"].astype(float),
        "GB of disk": steps["disk_GB"].astype(float),
    }
    rows = [
        {
            "step": f"make sweep MATRIX=paper on {spec.label(gpu)}",
            "hours": sum(run.seconds for run in runs) / 3600,
            "most memory (GiB)": max(run.memory_GiB for run in runs),
            "Wh": sum(run.energy_J for run in runs) / 3600,
            "g CO2e in California": sum(run.operational_g + run.embodied_g for run in runs),
            "points that do not fit": str(sum(len(run.misfits) for run in runs)),
            "status": "modelled",
        }
        for gpu, runs in costs.items()
    ]
    shown = steps[["step", "does", "needs"]].assign(**numbers, energy="no counter")
    return {"steps": shown.assign(status=steps["status"]), "costs": pd.DataFrame(rows)}


def your_gpu(book: Book) -> dict:
    """What the GPUs that were measured change: how many points, and how far the model was off."""
    decode, expected = book.measured.sel(phase="decode"), book.modelled.sel(phase="decode")
    shape = ["batch", "prompt", "output"]
    seen = decode["time_s"].notnull()
    over = {
        name: (decode[name] / expected[name].reindex_like(decode[name])).median(shape)
        for name in ("time_s", "energy_J")
    }
    columns = {
        "dtype": book.measured["dtype"],
        "weights": book.measured["weights"],
        "points": seen.sum(shape),
        "decode time over modelled": over["time_s"],
        "decode energy over modelled": over["energy_J"],
    }
    columns = {name: values.reset_coords(drop=True) for name, values in columns.items()}
    rows = xr.Dataset(columns).to_dataframe(["model", "gpu", "engine"]).reset_index()
    rows = rows[rows["points"] > 0].rename(columns={"gpu": "card"}).assign(status="measured")
    names = {name: rows[name].map(spec.label) for name in ("model", "card")}
    return {"changes": rows.assign(**names), "changed": _changed(book, int(seen.sum()))}


def _changed(book: Book, points: int) -> str:
    if not points:
        return "No GPU was measured in this copy: every point of a GPU in the chapters is modelled."
    gpus = book.measured["gpu"].values.tolist()
    beside = [spec.label(gpu) for gpu in gpus if gpu not in (book.old, book.new)]
    said = f"{points} points of {', '.join(map(spec.label, gpus))} were measured, and take the place of modelled ones."
    if beside:
        said += f" {', '.join(beside)} stands beside the two cards that the chapters compare."
    return said


def tables(book: Book) -> dict:
    """The size of the table of grids, and its rows of the paper's three regions."""
    grids = spec.frame("grids")
    rows = [row for row in spec.table("grids") if row["zone"] in ZONES]
    return {"rows": len(grids), "zones": grids["zone"].nunique(), "regions": pd.DataFrame(rows)}
