"""Pages of runs: those of committed templates pass, and every other file in a folder is named."""

import copy
import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest

import light_project as light
from footprint import Refused, spec, trace

ROOT = Path(__file__).parents[2]
TEMPLATES = spec.table("templates")
RUN = ROOT / "notebooks" / "runs" / "t4" / "llama-1b-eager-fp16-modelled.ipynb"
PAGE = json.loads(RUN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["profile", "predict"])
def test_the_templates_at_hand_are_in_the_table(name):
    data = (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()
    hashes = hashlib.sha256(data).hexdigest(), trace.hash_sources(json.loads(data))
    known = [(row["notebook"], row["file_sha256"], row["sources_sha256"]) for row in TEMPLATES]
    assert (name, *hashes) in known, f"data/templates.csv needs a row: {','.join((name, *hashes))}"


def test_all_committed_runs_pass():
    belong, strange = trace.sort_files(ROOT / "notebooks" / "runs", TEMPLATES)
    assert not {name: text for name, text in strange.items() if not name.startswith(".")}
    assert sum(name.endswith(".ipynb") for name in belong) >= 6


def changed(*way, value) -> dict:
    """The page with another value at the end of this way."""
    page = copy.deepcopy(PAGE)
    place = page
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = value
    return page


def given(source: str) -> dict:
    """The page whose cell of injected parameters has this source."""
    tags = [cell["metadata"].get("tags", []) for cell in PAGE["cells"]]
    at = next(i for i, names in enumerate(tags) if "injected-parameters" in names)
    return changed("cells", at, "source", value=source)


@pytest.mark.parametrize(
    "page",
    [
        changed("cells", 0, "source", value="```{literalinclude} ../../../../etc/passwd\n```"),
        changed("cells", 0, "cell_type", value="raw"),
        changed("cells", value=[]),
        changed("cells", 0, "source", value="\ud800"),
        changed("cells", 0, value=7),
        changed("metadata", value={}),
        changed("metadata", "footprint", "notebook_sha256", value=TEMPLATES[0]["file_sha256"]),
        changed("metadata", "footprint", "notebook_sha256", value=["x"]),
        given("model = 'x'\nimport os"),
        given("model = os = open('x', 'w')"),
        given("model = x[open('x', 'w')] = 1"),
        given("model = " + "(" * 300),
        [],
    ],
)
def test_a_page_of_no_committed_template_is_refused_by_name(tmp_path, page):
    (tmp_path / "x.ipynb").write_text(json.dumps(page))
    with pytest.raises(Refused, match=r"^x\.ipynb (is no executed|executed something else)"):
        trace.read_page(tmp_path / "x.ipynb", TEMPLATES)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 99_999, b'{"cells": 1e999}'])
def test_a_page_that_is_no_json_is_refused_by_name(tmp_path, data):
    (tmp_path / "x.ipynb").write_bytes(data)
    with pytest.raises(Refused, match=r"^x\.ipynb is no executed notebook"):
        trace.read_page(tmp_path / "x.ipynb", TEMPLATES)


def test_parameters_of_a_run_may_be_any_plain_values(tmp_path):
    page = given("# Parameters\nmodel = '\u00e4'\nbatches = [1, -2]\nx = {'a': None, 'b': 1.5e3}\n")
    (tmp_path / "x.ipynb").write_text(json.dumps(page))
    assert trace.read_page(tmp_path / "x.ipynb", TEMPLATES)["cells"]


@pytest.fixture
def folder(tmp_path):
    """A folder with one sound run and all that sweeps, reports and sensors write beside it."""
    box = tmp_path / "runs" / "t4"
    box.mkdir(parents=True)
    for path in (RUN, RUN.with_suffix(".nc")):
        shutil.copy(path, box)
    written = (".sweep/events.jsonl", ".sweep/lock", "windows.csv", "windows.parquet")
    written += ("croissant.json", "mlperf.json", "ro-crate-metadata.json", "t4/sensor-0a1b.nc4")
    for name in written:
        (tmp_path / "runs" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "runs" / name).touch()
    (tmp_path / "runs" / ".sweep" / "failed").mkdir()
    shutil.copy(RUN, tmp_path / "runs" / ".sweep" / "failed" / "x.ipynb")
    return tmp_path / "runs"


def test_what_a_sweep_leaves_belongs(folder):
    belong, strange = trace.sort_files(folder, TEMPLATES)
    assert strange == {} and len(belong) == 11


def test_every_other_file_is_named_and_none_is_opened_through_a_link(folder):
    x, t4 = folder / "x", folder / "t4"
    x.mkdir()
    (x / "note.md").write_text("# hello")
    (x / "run.sh").touch()
    (x / ".hidden").touch()
    (folder / ".run-9").mkdir()
    shutil.copy(RUN, folder / ".run-9" / "run.ipynb")
    (folder / ".sweep" / "evil.py").touch()
    shutil.copy(RUN, x / "alone.ipynb")
    shutil.copy(RUN, x / "torn.ipynb")
    (x / "torn.nc").write_bytes(b"junk")
    (x / "other.ipynb").write_text(json.dumps(changed("cells", 0, "source", value="# other")))
    trace.save(light.seed(), x / "other.nc")
    trace.save(light.seed(), x / "a b.nc")
    trace.save(light.seed(), x / "\x1b[2J.nc")
    os.symlink(t4 / RUN.name, x / "link.ipynb")
    os.symlink("/", x / "all")
    os.symlink("..", x / "again")
    os.symlink("nowhere", folder / "windows.csv.nc")
    os.mkfifo(x / "pipe.nc")
    os.remove(folder / "mlperf.json")
    os.symlink("/etc/passwd", folder / "mlperf.json")
    (x / "windows.md").touch()
    _, strange = trace.sort_files(folder, TEMPLATES)
    said = {
        ".run-9/run.ipynb": "is hidden",
        ".sweep/evil.py": "is hidden",
        "mlperf.json": "is a link",
        "windows.csv.nc": "is a link",
        "x/.hidden": "is hidden",
        "'x/\\x1b[2J.nc'": "has an odd name",
        "x/a b.nc": "has an odd name",
        "x/again": "is a link",
        "x/all": "is a link",
        "x/alone.ipynb": "has no valid trace beside it",
        "x/link.ipynb": "is a link",
        "x/note.md": "is no part of a run",
        "x/other.ipynb": "executed something else than it records",
        "x/pipe.nc": "it is no regular file",
        "x/run.sh": "is no part of a run",
        "x/torn.ipynb": "has no valid trace beside it",
        "x/torn.nc": "is not a trace in NetCDF",
        "x/windows.md": "is no part of a run",
    }
    assert set(strange) == set(said)
    for name, words in said.items():
        assert words in strange[name] and strange[name].isprintable()
        assert strange[name].lstrip("'\"").startswith(name.strip("'")), strange[name]


@pytest.mark.slow
def test_a_damaged_page_is_refused_or_shows_its_template(tmp_path):
    """Bytes and values changed at random: nothing but `Refused`, and no foreign source passes."""
    random.seed(0)
    data, path = RUN.read_bytes(), tmp_path / "x.ipynb"
    sources = trace.hash_sources(PAGE)
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(random.choice([1, 1, 8])):
            at = random.randrange(len(damaged))
            damaged[at : at + random.choice([0, 1, 20])] = random.choice(
                [b"", b"{", b"[", b'"', b"null", b"\xff", b"9" * 5000, random.randbytes(2)]
            )
        path.write_bytes(damaged)
        try:
            page = trace.read_page(path, TEMPLATES)
        except Refused as error:
            assert str(error).startswith("x.ipynb ")
        else:
            assert trace.hash_sources(page) == sources
