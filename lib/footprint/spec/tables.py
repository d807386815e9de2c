"""The tables in `data/`: read once, as strings, as a frame of numbers, or as typed records."""

import csv
import difflib
import os
import stat
from contextlib import suppress
from dataclasses import MISSING, fields
from functools import cache
from importlib.resources import files

DATA = files("footprint").joinpath("data")


def content(path, most_B: int = 2**24) -> bytes:
    """The bytes of a regular file; OSError for a pipe, a device, or more bytes than `most_B`."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        data = file.read(most_B + 1)
    if len(data) > most_B:
        raise OSError(f"it has more than {most_B:,} bytes")
    return data


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of `data/<name>.csv`, every cell a string."""
    with DATA.joinpath(f"{name}.csv").open(newline="", encoding="utf-8") as lines:
        return tuple(csv.DictReader(lines))


@cache
def rows(name: str) -> tuple[dict, ...]:
    """Rows of `data/<name>.csv`; a column of only numbers or `nan` is numeric, all others text."""
    columns = {column: [row[column] for row in table(name)] for column in table(name)[0]}
    for column, cells in columns.items():
        for number in (float, int):
            with suppress(ValueError):
                columns[column] = [number(cell) for cell in cells]
    return tuple(
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    )


def frame(name: str):
    """The rows of `data/<name>.csv` as a new DataFrame."""
    import pandas as pd  # here: measuring processes need no pandas

    return pd.DataFrame(rows(name))


def record(cls, row: dict[str, str]):
    """A record from a row of strings by the types of its fields; `-` means the default."""
    read = {bool: lambda text: text == "1", int: int, float: float, str: str}
    given = {}
    for field in fields(cls):
        cell = row.get(field.name)
        if cell is not None and (cell != "-" or field.default is MISSING):
            given[field.name] = read[field.type](cell)
    return cls(**given)


@cache
def records(cls, name: str) -> dict:
    """The rows of `data/<name>.csv` as records of `cls`, by their first column."""
    return {next(iter(row.values())): record(cls, row) for row in table(name)}


def nearest(what: str, wanted: str, known: list[str]) -> KeyError:
    """The error for an unknown name: one sentence with the nearest known ones."""
    close = difflib.get_close_matches(wanted.lower(), known, n=4, cutoff=0.4)
    said = "the nearest names are" if close else "some known names are"
    return KeyError(
        f"There is no {what} named {wanted!r:.80}; {said} {', '.join(close or known[:4])}."
    )
