"""`python -m footprint.chapters [PAGE ...]`: the numbers of the pages as JSON, of all pages if none is named."""

import json
import sys

import pandas as pd
import xarray as xr

from footprint.chapters import PAGES
from footprint.chapters.book import load, numbers


def plain(value):
    """A table as records, a Dataset as the records of its frame; all else that JSON cannot say as its text."""
    if isinstance(value, (xr.Dataset, xr.DataArray)):
        value = value.to_dataset(name="value") if isinstance(value, xr.DataArray) else value
        value = value.to_dataframe().reset_index() if value.sizes else value.to_pandas()
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return json.loads(value.to_json(orient="records", double_precision=12))
    return value.item() if hasattr(value, "item") else str(value)


def main(pages: list[str]) -> None:
    """Print the numbers of these pages, sorted by name; what several pages share stands once, in `book`."""
    book = load()
    pages = pages or [page for found in PAGES.values() for page in found]
    chosen = {page: numbers(page, book) for page in pages}
    shared = {id(part): name for name, part in vars(book).items() if isinstance(part, pd.DataFrame)}
    parts = {}
    for found in chosen.values():
        for key, value in found.items():
            if name := shared.get(id(value)):
                parts[name], found[key] = value, f"book.{name}"
    whole = {"book": parts, **chosen}
    print(json.dumps(whole, default=plain, sort_keys=True, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
