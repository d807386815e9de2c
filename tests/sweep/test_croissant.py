"""croissant: the reference reader of the format accepts the description and reads through it what the table holds."""

import json

import pandas as pd
import pytest

from footprint.sweep import croissant

mlc = pytest.importorskip("mlcroissant")
pytestmark = pytest.mark.filterwarnings(
    "ignore:ConjunctiveGraph:DeprecationWarning"
)  # the reader's own

DATA = pd.DataFrame(
    {
        "model": ["llama-1b", 't, "x"'],
        "batch": [1, 4],
        "energy_J": [2.5, 10.0],
        "fits": [True, False],
    }
)
SAID = {"energy_J": {"units": "J", "long_name": "energy of the window"}}


@pytest.fixture
def described(tmp_path):
    """A table and its description side by side."""
    table = tmp_path / "windows.csv"
    DATA.to_csv(table, index=False)
    place = tmp_path / "croissant.json"
    found = croissant.describe(table, DATA, SAID, "Two windows.", "2026-11-22")
    place.write_text(json.dumps(found, default=str))
    return place


def test_a_reader_finds_every_row_and_every_type(described):
    dataset = mlc.Dataset(jsonld=str(described))
    assert not dataset.metadata.ctx.issues.errors
    rows = [
        {
            key.removeprefix("windows/"): value.decode() if isinstance(value, bytes) else value
            for key, value in row.items()
        }
        for row in dataset.records("windows")
    ]
    assert pd.DataFrame(rows).equals(DATA)


def test_columns_say_what_they_are(described):
    fields = {
        field["name"]: field for field in json.loads(described.read_text())["recordSet"][0]["field"]
    }
    assert fields["energy_J"]["description"] == "energy of the window [J]"
    assert fields["model"]["description"] == "id of the model"
    assert {name: field["dataType"] for name, field in fields.items()} == {
        "model": "sc:Text",
        "batch": "sc:Integer",
        "energy_J": "sc:Float",
        "fits": "sc:Boolean",
    }


def test_another_table_is_noticed(described):
    table = described.parent / "windows.csv"
    table.write_text(table.read_text().replace("2.5", "2.6"))
    with pytest.raises(Exception, match=r"Download\(windows\.csv\)"):
        list(mlc.Dataset(jsonld=str(described)).records("windows"))
