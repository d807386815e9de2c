"""A table of windows described for those who look for data: Croissant 1.0 (https://docs.mlcommons.org/croissant)."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from footprint.trace.schema import ATTRS

PAPER = "https://doi.org/10.1145/3727200.3727220"
LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"


def describe(
    table: Path, data: pd.DataFrame, said: Mapping[str, Mapping[str, str]], about: str, date: str
) -> dict:
    """JSON-LD of one CSV file: its checksum, and each column with its type, its meaning and its units.

    said: `units` and `long_name` by column, as xarray keeps them; columns of the run are described by the schema.
    """
    import mlcroissant as mlc

    kinds = {
        "b": mlc.DataType.BOOL,
        "i": mlc.DataType.INTEGER,
        "u": mlc.DataType.INTEGER,
        "f": mlc.DataType.FLOAT,
    }
    fields = [
        mlc.Field(
            id=f"windows/{name}",
            name=name,
            description=_meaning(name, said.get(name, {})),
            data_types=[kinds.get(data[name].dtype.kind, mlc.DataType.TEXT)],
            source=mlc.Source(file_object=table.name, extract=mlc.Extract(column=name)),
        )
        for name in data
    ]
    content = table.read_bytes()
    file = mlc.FileObject(
        id=table.name,
        name=table.name,
        content_url=table.name,
        content_size=f"{len(content)} B",
        encoding_formats=["text/csv"],
        sha256=hashlib.sha256(content).hexdigest(),
        description="all windows with derived energies, a row each",
    )
    return mlc.Metadata(
        name="footprint-of-a-token-windows",
        description=about,
        license=[LICENCE],
        url=PAPER,
        version="1.0.0",
        date_published=date,
        cite_as=f"Nguyen et al. 2024, Towards Sustainable Large Language Model Serving, {PAPER}",
        distribution=[file],
        record_sets=[mlc.RecordSet(id="windows", name="windows", fields=fields)],
    ).to_json()


def _meaning(name: str, said: Mapping[str, str]) -> str:
    """One line: what the column is and in which units."""
    text = said.get("long_name") or ATTRS.get(name, ("", name.replace("_", " ")))[1]
    return f"{text} [{said['units']}]" if said.get("units") else text
