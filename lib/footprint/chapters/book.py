"""What every page starts from: runs, points, the cast of models and GPUs, samples of the world."""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, decide, energy, predict, spec
from footprint.trace import frame

PAPER = ("llama-1b", "llama-3b", "llama-7b")
BATCHES, PROMPTS, OUTPUTS = (1, 2, 4, 8, 16, 32, 64), (128, 512), (128,)
ENGINES, DTYPE = ("eager", "serving"), "fp16"
SMALL, LARGE = "llama-1b", "llama-7b"
CLEAN, SUNNY, DIRTY = decide.ZONES
ROWS = ("model", "device", "engine", "phase", "batch", "prompt_tokens", "output_tokens", "kind")
ROWS += ("weights", "dtype", "place", "lengths")  # what tells the points of all runs apart
LABELLED = 200  # more labels than these are of a figure or a table


@dataclass(frozen=True)
class Book:
    """The evidence of one copy of the book, computed when a page needs it.

    old, new: ids of the two GPUs that pages compare. folder: where `runs` and `local` are
    (default: `notebooks/`). committed: whether only the runs that come with the book count.
    """

    old: str = "t4"
    new: str = "rtx-6000-ada"
    folder: Path | None = None
    committed: bool = False

    @cached_property
    def runs(self) -> xr.Dataset:
        """Windows of all runs at hand, with their energies, of engines and dtypes that are known.

        The attribute `rejected` has a sentence on each file that cannot be used.
        """
        runs = energy.gather_runs(self.folder)
        if not runs.sizes["window"]:
            return runs
        known = runs["engine"].isin([*spec.ENGINES, *spec.ENGINES.values()])
        known &= runs["dtype"].isin(list(spec.DTYPE_BYTES))
        odd = frame(runs.sel(window=~known)).drop_duplicates("file")
        reasons = [
            f"{Path(run.file).name} cannot be used (engine {run.engine}, dtype {run.dtype})."
            for run in odd.itertuples()
        ]
        kept = known & (runs["place"] == "committed") if self.committed else known
        return runs.sel(window=kept).assign_attrs(rejected=[*runs.attrs["rejected"], *reasons])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """All points of all runs, those of processors too, with energy and peak memory."""
        columns = [*ROWS, "energy_J", "peak_memory_B"]
        if not self.runs.sizes["window"]:
            return pd.DataFrame(columns=columns)
        windows = frame(self.runs).reindex(columns=columns)
        points = windows[windows["batch"] > 0].groupby(list(ROWS), sort=False)
        return points.agg({"energy_J": "median", "peak_memory_B": "max"}).reset_index()

    @cached_property
    def measured(self) -> xr.Dataset:
        """The points that were measured on GPUs."""
        points = energy.points(self.runs, engines=spec.ENGINES)
        seen = points["evidence"] == "measured"
        labels = {
            dim: seen.any([other for other in seen.dims if other != dim]) for dim in seen.dims
        }
        return points.sel({dim: kept for dim, kept in labels.items() if dim != "phase"})

    @cached_property
    def models(self) -> list[str]:
        """The paper's models, and all others that were measured on a GPU."""
        return list(dict.fromkeys([*PAPER, *self.measured["model"].values.tolist()]))

    @cached_property
    def gpus(self) -> list[str]:
        """The two GPUs that are compared, and all others that were measured."""
        return list(dict.fromkeys([self.old, self.new, *self.measured["gpu"].values.tolist()]))

    @property
    def others(self) -> list[str]:
        """The measured GPUs that are neither of the two."""
        return [gpu for gpu in self.gpus if gpu not in (self.old, self.new)]

    @cached_property
    def length(self) -> dict[str, int]:
        """Prompt and output tokens of the requests of the pages: those of most measured points."""
        measured = self.measured["evidence"] == "measured"
        seen = measured.sum(["model", "gpu", "engine", "batch", "phase"])
        if not seen.size:
            return {"prompt": PROMPTS[0], "output": OUTPUTS[0]}
        most = seen.stack(length=("prompt", "output")).idxmax("length").item()
        return dict(zip(("prompt", "output"), most, strict=True))

    @cached_property
    def points(self) -> xr.Dataset:
        """Points of the cast at every length and batch of the paper's matrix or of a measurement.

        They are measured where somebody measured, else modelled.
        """
        points = decide.points(self.measured, self.modelled)
        return points.sel(model=self.models, gpu=self.gpus)

    @cached_property
    def modelled(self) -> xr.Dataset:
        """Modelled points of the cast, each GPU in the dtype that it was measured in."""
        usual = {"batch": BATCHES, "prompt": PROMPTS, "output": OUTPUTS}
        sizes = {
            name: sorted({*values, *self.measured[name].values.tolist()})
            for name, values in usual.items()
        }
        models = [name for name in self.models if name in spec.models()]
        listed = [name for name in self.gpus if name in spec.gpus()]
        engines = list(dict.fromkeys([*ENGINES, *self.measured["engine"].values.tolist()]))
        parts = []
        for dtype in dict.fromkeys(map(self.dtype, listed)):
            gpus = [name for name in listed if self.dtype(name) == dtype]
            parts.append(predict.points(models, gpus, engine=engines, dtype=dtype, **sizes))
        alike = dict.fromkeys(("data_vars", "coords"), "minimal")  # what no GPU changes stands once
        return xr.concat(parts, "gpu", compat="override", **alike)

    def dtype(self, gpu: str) -> str:
        """The dtype of a GPU's points: half precision, unless it was only measured in another."""
        if gpu not in self.measured["gpu"]:
            return DTYPE
        dtypes = [name for name in np.unique(self.measured["dtype"].sel(gpu=gpu)) if name]
        return DTYPE if DTYPE in dtypes else dtypes[0]

    def at(self, engine: str = "eager") -> xr.Dataset:
        """The points of one engine and of the book's length, dims (model, gpu, batch, phase)."""
        return self.points.sel(engine=engine, **self.length)

    def seen(self, gpus: list[str], engine: str = "eager") -> xr.DataArray:
        """Whether anything was measured of each of the paper's models on each of these GPUs."""
        evidence = self.points["evidence"].sel(model=list(PAPER), gpu=gpus, engine=engine)
        return (evidence == "measured").any(["batch", "prompt", "output", "phase"])

    @cached_property
    def world(self) -> xr.Dataset:
        """Samples of all that is uncertain, the same for every page."""
        return decide.draw_world(self.gpus)

    @cached_property
    def market(self) -> xr.Dataset:
        """The same samples for all GPUs of the tables."""
        return decide.draw_world(spec.gpus())

    @cached_property
    def tokens(self) -> xr.Dataset:
        """The tokens of GPUs that are always busy, see `emitted`."""
        return self.emitted()

    def emitted(self, use: carbon.Use | None = None, by_phase: bool = False) -> xr.Dataset:
        """Samples of what a token takes and emits with the eager engine, on the grids of 2023."""
        grids = decide.grids()
        return decide.tokens(self.at(), self.world, use, g_per_kwh=grids, by_phase=by_phase)

    @property
    def names(self) -> dict:
        """What the prose of every page may name: the two GPUs and the length of the requests."""
        return {"old": spec.label(self.old), "new": spec.label(self.new), **self.length}


class Phrase(str):
    """Words of a page in Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)


@cache
def load(**cast) -> Book:
    """The book of this cast (see `Book`); the same one for every page of a process."""
    return Book(**cast)


def numbers(page: str, book: Book, *given) -> dict:
    """What the function of a page returns, its NumPy scalars as plain numbers."""
    values = getattr(import_module("footprint.chapters"), page.replace("-", "_"))(book, *given)
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in values.items()
    }


def named(values: dict) -> dict:
    """What prose can name: numbers, phrases, and labelled numbers (`share.t4`, `share.max`)."""
    names = {}
    for key, value in values.items():
        if isinstance(value, xr.Dataset):
            value = value.to_array()
        if isinstance(value, xr.DataArray):
            value = value.to_series() if value.ndim else value.item()
        if isinstance(value, dict | pd.Series) and len(value) <= LABELLED:
            series = pd.Series(value)
            if series.dtype.kind in "if":
                least, most = series.agg(["min", "max"]).tolist()
                names |= {f"{key}.min": least, f"{key}.max": most}
            for label, each in series.to_dict().items():
                parts = label if isinstance(label, tuple) else [label]
                names[".".join([key, *map(str, parts)])] = each
        elif isinstance(value, bool | int | float | str):
            names[key] = value
    return names


def show(page: str, *given, **cast) -> dict:
    """The numbers of a page for its cells, glued for its prose.

    given: what the page's function takes besides the book. cast: arguments of `load`.
    """
    from myst_nb import glue

    from footprint.charts import theme

    theme.enable()
    book = load(**cast)
    values = numbers(page, book, *given)
    for key, value in named(book.names | values).items():
        words = isinstance(value, str) and not isinstance(value, theme.Page)
        glue(key, Phrase(value) if words else value, display=False)
    return values
