"""The runs at hand, the file of a run, the tables of data, and what the paper's matrix costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import xarray as xr

from footprint import predict, root, spec
from footprint.chapters.book import SMALL, Book
from footprint.charts import theme
from footprint.decide.world import ZONES
from footprint.energy import list_runs
from footprint.energy.runs import FOLDERS
from footprint.predict import intervals
from footprint.trace import schema as trace
from footprint.trace import sort_files

ONE = {"batch": 1, "prompt": 512, "output": 128}  # a request of the matrix `first`
READINGS = {  # of one GPU -> the causes of error that they settle
    "none": (),
    "milliseconds a layer of the host": ("host",),
    "watts at rest with a model in memory": ("floor",),
    "both": ("host", "floor"),
    "both, one TPOT and its watts": (*intervals.CAUSES, "joules", "floor"),
}


def runs(book: Book) -> dict:
    """A row a run, with a link to its page where the book has it, and the files left out."""
    notebooks = Path(book.folder or root() / "notebooks")
    pages, left_out = show_pages(notebooks)
    known = {PurePath(name).name for name in left_out}
    odd = [text for text in book.runs.attrs["rejected"] if text.split()[0] not in known]
    reasons = pd.DataFrame({"not shown": [*left_out.values(), *odd]}, dtype=object)
    if not book.runs.sizes["window"]:
        return {"runs": pd.DataFrame(), "left_out": reasons}
    table, names = list_runs(book.runs), []
    for file in table.pop("file"):
        page = Path(file).relative_to(notebooks).with_suffix("").as_posix()
        name = PurePath(page).name
        names.append(theme.link(name, f"../notebooks/{page}.html") if page in pages else name)
    table.insert(0, "run", pd.Series(names, dtype=object))
    return {"runs": table, "left_out": reasons}


def show_pages(notebooks: Path) -> tuple[list[str], dict[str, str]]:
    """Pages of runs that the book shows, and why other files are left out, by their paths.

    Paths are relative to `notebooks`; those of pages have no ending. Hidden files are not named.
    """
    pages, left_out = [], {}
    for folder in FOLDERS:
        belong, strange = sort_files(notebooks / folder, spec.table("templates"))
        names = [PurePath(folder, name) for name in belong if not name.startswith(".")]
        pages += [
            name.with_suffix("").as_posix()
            for name in names
            if name.suffix == ".ipynb" and len(name.parts) == 3
        ]
        left_out |= {
            f"{folder}/{name}": f"{folder}/{text}"
            for name, text in strange.items()
            if "/." not in f"/{name}"
        }
    return pages, left_out


def schema(book: Book) -> dict:
    """The attributes and the variables of a trace."""
    attributes = [
        {"attribute": name, "type": kind.__name__, "meaning": meaning}
        for name, (kind, meaning) in (trace.ATTRS | trace.OPTIONAL_ATTRS).items()
    ]
    variables = [
        {"group": group, "kind": kind, "variable": name, "units": variable.units}
        | {"meaning": f"{variable.long_name}: {variable.meaning}"}
        for group, kinds in trace.SCHEMA.items()
        for kind, variables in kinds.items()
        for name, variable in variables.items()
    ]
    return {"attributes": pd.DataFrame(attributes), "variables": pd.DataFrame(variables)}


def reproduce(book: Book, costs: Mapping[str, Sequence] = {}) -> dict:
    """What each step took; `costs`: of the runs of the paper's matrix (`sweep.cost.of`), by GPU."""
    steps = pd.DataFrame(spec.table("steps"))
    numbers = steps[["minutes", "disk_GB"]].astype(float)
    numbers = numbers.rename(columns={"disk_GB": "GB of disk"})
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
    both = ["time_s", "energy_J"]
    over = (decode[both] / expected[both].reindex_like(decode)).median(shape)
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
    changes = theme.labelled(rows, "model", "card")
    changed = _changed(book, int(seen.sum()))
    return {
        "changes": changes,
        "changed": changed,
        "readings": _readings(book.old, book.new),
        **{f"reading_{name}": size for name, size in ONE.items()},
    }


def _readings(old: str, new: str) -> pd.DataFrame:
    """Half-widths in % of what is expected of the smallest model, as readings settle its causes."""
    rows = []
    for reading, causes in READINGS.items():
        data = predict.windows(SMALL, [old, new], **ONE, known=causes).squeeze(drop=True)
        row = {"readings": reading}
        for title, name in (("TPOT", "tpot_s"), ("J", "decode_energy_J")):
            half = np.log(data[f"{name}_high"] / data[f"{name}_low"]) / 2
            sides = {spec.label(gpu): half.sel(gpu=gpu).item() for gpu in (old, new)}
            sides["their ratio"] = np.hypot(*sides.values())
            row |= {f"{title}, {side} (%)": 100 * np.expm1(by) for side, by in sides.items()}
        rows.append(row | {"status": "modelled"})
    return pd.DataFrame(rows)


def _changed(book: Book, points: int) -> str:
    if not points:
        return "No GPU was measured in this copy: every point of a GPU in the chapters is modelled."
    gpus = book.measured["gpu"].values.tolist()
    beside = [spec.label(gpu) for gpu in gpus if gpu not in (book.old, book.new)]
    words = f"{points} points of {', '.join(map(spec.label, gpus))} were measured"
    words += ", and take the place of modelled ones."
    if beside:
        words += f" {', '.join(beside)} stands beside the two cards that the chapters compare."
    return words


def tables(book: Book) -> dict:
    """The size of the table of grids, and its rows of the paper's three regions."""
    grids = spec.frame("grids")
    rows = [row for row in spec.table("grids") if row["zone"] in ZONES]
    return {"rows": len(grids), "zones": grids["zone"].nunique(), "regions": pd.DataFrame(rows)}
