"""What every page starts from, loaded once a process: the runs at hand, their points, and what follows from them."""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from footprint.carbon import served
from footprint.energy import findings


@dataclass(frozen=True)
class Book:
    """The evidence of one copy of the book; what a page does not ask for is not computed.

    old, new: ids of the two GPUs that pages compare. folder: where `runs` and `local` are, else `notebooks/`.
    """

    old: str = "t4"
    new: str = "rtx-6000-ada"
    folder: Path | None = None

    @cached_property
    def runs(self) -> xr.Dataset:
        """Windows of all runs at hand, with their energies."""
        return findings.runs(self.folder)

    @cached_property
    def points(self) -> pd.DataFrame:
        """All points at hand, a row each."""
        return findings.points(self.runs)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """The points of the paper's models and GPUs with the eager engine."""
        return findings.six_pairs(self.points)

    @cached_property
    def requests(self) -> xr.Dataset:
        """What requests of one length take on the paper's models and GPUs, both phases."""
        return served.common(served.requests(self.pairs))

    @cached_property
    def serving(self) -> pd.DataFrame:
        """The same points as the model expects them with a serving engine."""
        return findings.instead(self.pairs, "serving")


LABELLED = 200  # more labels than these are of a figure or a table


class Phrase(str):
    """Words of a page in Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)


@cache
def load(old: str = "t4", new: str = "rtx-6000-ada", folder: Path | None = None) -> Book:
    """The book that compares these two GPUs; the same one for every page of a process."""
    return Book(old, new, folder)


def numbers(page: str, book: Book, *given) -> dict:
    """What the function of a page returns, its NumPy scalars as plain numbers."""
    found = getattr(import_module("footprint.chapters"), page.replace("-", "_"))(book, *given)
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in found.items()
    }


def named(found: dict) -> dict:
    """What prose can name: numbers and phrases, and of labelled numbers each (`share.t4`) with `share.min` and `share.max`."""
    names = {}
    for key, value in found.items():
        if isinstance(value, xr.Dataset):
            value = value.to_array()
        if isinstance(value, xr.DataArray):
            value = value.to_series() if value.ndim else value.item()
        if isinstance(value, dict | pd.Series) and len(value) <= LABELLED:
            series = pd.Series(value)
            if series.dtype.kind in "if":
                names |= {f"{key}.min": series.min().item(), f"{key}.max": series.max().item()}
            for label, each in series.to_dict().items():
                parts = label if isinstance(label, tuple) else [label]
                names[".".join([key, *map(str, parts)])] = each
        elif isinstance(value, bool | int | float | str):
            names[key] = value
    return names


def show(page: str, *given, **cast) -> dict:
    """Numbers of a page for its cells, those that prose can take in glued.

    given: what the page's function takes besides the book. cast: arguments of `load`.
    """
    from myst_nb import glue

    from footprint.charts import theme

    theme.enable()
    found = numbers(page, load(**cast), *given)
    for key, value in named(found).items():
        words = isinstance(value, str) and not isinstance(value, theme.Page)
        glue(key, Phrase(value) if words else value, display=False)
    return found
