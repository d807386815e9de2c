"""data/: every table is complete, sourced, machine-readable and described."""

import dataclasses
import datetime
import math
import re
from dataclasses import MISSING
from importlib.resources import files

import pytest

from footprint import spec

DATA = files("footprint").joinpath("data")
TABLES = sorted(
    path.name.removesuffix(".csv") for path in DATA.iterdir() if path.name.endswith(".csv")
)
PROVENANCE = ("source", "accessed", "status", "licence")
STATUS = {"measured", "modelled", "published", "derived", "unverified"}
UNIT = re.compile(
    r"_per_[a-zA-Z0-9]+$|_(W|J|s|B|kg|kgco2e|GB|GiB|GBps|cm2|mm2|nm|V|MHz|C|tflops|tokens|pct|years)$"
)
README = DATA.joinpath("README.md").read_text(encoding="utf-8")


@pytest.fixture(params=TABLES)
def table(request):
    return request.param


def may_default(table: str, column: str) -> bool:
    """Whether a dash in this column of a table of GPUs leaves the default of `spec.GPU`."""
    optional = {field.name for field in dataclasses.fields(spec.GPU) if field.default != MISSING}
    return table in ("gpus", "measured_gpus") and column in optional


def cells(table: str):
    """(line, column, cell) of every cell of a table."""
    return [(line, *cell) for line, row in enumerate(spec.table(table), 2) for cell in row.items()]


def test_the_tables_of_the_design_are_there():
    assert {
        "models",
        "gpus",
        "grids",
        "prompts",
        "azure_lengths",
        "published",
        "paper_values",
    } <= set(TABLES)


def test_no_cell_is_blank_or_left_over(table):
    assert spec.table(table)
    assert [cell for cell in cells(table) if None in cell or not cell[2].strip()] == []


def test_every_row_says_where_it_comes_from(table):
    for row in spec.table(table):
        assert set(PROVENANCE) <= set(row)
        assert row["status"] in STATUS
        assert datetime.date.fromisoformat(row["accessed"])


def test_ids_are_unique(table):
    names = [row["id"] for row in spec.table(table) if "id" in row]
    assert len(names) == len(set(names))


def test_numbers_are_finite_or_nan(table):
    for line, column, cell in cells(table):
        try:
            number = float(cell)
        except ValueError:
            if cell == "-" and may_default(table, column):
                continue
            assert not UNIT.search(column), (
                f"{table}.csv line {line}: {column} is {cell!r}, not a number"
            )
        else:
            assert math.isfinite(number) or cell == "nan", (
                f"{table}.csv line {line}: {column} is {cell!r}"
            )


def test_files_are_plain_text_and_name_no_machine(table):
    raw = DATA.joinpath(f"{table}.csv").read_bytes()
    assert b"\r" not in raw and not raw.startswith(b"\xef\xbb\xbf") and raw.endswith(b"\n")
    assert not re.search(rb"(^|[\s,\"])/(home|root|tmp|Users|work)/|file://", raw)
    raw.decode("utf-8")


def test_the_data_dictionary_describes_each_column(table):
    section = re.search(
        rf"^## {table}\.csv$(.*?)(?=^## |\Z)", README, flags=re.MULTILINE | re.DOTALL
    )
    assert section, f"data/README.md has no section on {table}.csv"
    undescribed = [
        c for c in spec.table(table)[0] if c not in PROVENANCE and f"`{c}`" not in section[1]
    ]
    assert undescribed == []


def test_the_data_dictionary_describes_nothing_that_is_gone():
    assert set(re.findall(r"^## (\w+)\.csv$", README, flags=re.MULTILINE)) == set(TABLES)


def test_hourly_files_are_the_ones_in_their_index():
    index = {row["file"] for row in spec.table("hourly")}
    assert index == {f"hourly/{path.name}" for path in DATA.joinpath("hourly").iterdir()}
    for file in index:
        header, *rows = DATA.joinpath(file).read_text(encoding="utf-8").splitlines()
        assert header == "time_utc,g_per_kwh"
        assert all(
            re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00Z,(\d+(\.\d+)?|nan)", row) for row in rows
        )


def test_claims_and_hypotheses_can_be_judged():
    rows = {row["id"]: row for row in spec.table("published")}
    assert {f"H{number}" for number in range(1, 7)} <= set(rows) and "A1" in rows
    assert {row["decided_by"] for row in rows.values()} <= {
        "time",
        "energy",
        "operational",
        "embodied",
        "total",
    }
    assert all(
        row["status"] == ("published" if name[0] == "A" else "derived")
        for name, row in rows.items()
    )


def test_values_recalled_from_the_paper_are_marked_unverified():
    rows = {row["id"]: row for row in spec.table("paper_values")}
    assert {row["status"] for row in rows.values()} == {"unverified"}
    assert [float(rows[f"grid-{name}"]["value"]) for name in ("quebec", "california", "pace")] == [
        31,
        262,
        647,
    ]
    assert [float(rows[f"embodied-{name}"]["value"]) for name in ("t4", "rtx-6000-ada")] == [
        10.3,
        26.6,
    ]
    for row in rows.values():
        if row["subject"] != "all":
            assert (
                spec.gpu(row["subject"])
                if row["quantity"] == "embodied carbon"
                else spec.grid(row["subject"])
            )
