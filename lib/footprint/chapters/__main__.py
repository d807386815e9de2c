"""`python -m footprint.chapters [PAGE ...]` prints the numbers of pages (default: all) as JSON.

`python -m footprint.chapters book/assets/headline.svg` draws the README's figure.
"""

import itertools
import json
import sys

import pandas as pd
import xarray as xr

from footprint.chapters import PAGES
from footprint.chapters.book import load, named, numbers
from footprint.charts import performance as charts
from footprint.charts import theme

TABLES = (pd.DataFrame, xr.Dataset)


def plain(value):
    """A table or Dataset as records, a NumPy scalar as a number, all else as text."""
    if isinstance(value, xr.Dataset):
        value = value.to_dataframe().reset_index()
    if isinstance(value, pd.DataFrame):
        return json.loads(value.to_json(orient="records", double_precision=12))
    return value.item() if hasattr(value, "item") else str(value)


def figure():
    """The README's figure: that of the landing page, from the committed runs."""
    from footprint.chapters.opening import BEST, headline

    rows = headline(load(committed=True))
    return charts.headline(rows[rows["choice"] == BEST]).properties(background="white")


def main(pages: list[str]) -> None:
    """Print the numbers of these pages, sorted by name."""
    if pages and pages[0].endswith(".svg"):
        theme.enable()
        return figure().save(pages[0])
    chosen = {}
    for page in pages or itertools.chain(*PAGES.values()):
        values = numbers(page, load())
        tables = {name: value for name, value in values.items() if isinstance(value, TABLES)}
        chosen[page] = tables | named(values)
    print(json.dumps(chosen, default=plain, sort_keys=True, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
