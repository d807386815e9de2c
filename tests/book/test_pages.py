"""The pages of runs in the book: what a stranger put into one is neither executed nor shown."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import light_project as light
from footprint import trace

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "notebooks" / "runs"
MODELLED, MEASURED = (
    RUNS / "t4" / "llama-1b-eager-fp16-modelled.ipynb",
    RUNS / "amd-epyc-2t" / "llama-1b-eager-fp32.ipynb",
)
HOSTILE = "<script>hostile()</script>"
ANSWERS = (
    "<table><thead><tr><th>task</th><th>answer</th></tr></thead><tbody><tr><td onclick='hostile()'>"
    "sum<img src=x onerror='hostile()'></td><td>&lt;script&gt;hostile()</td></tr></tbody></table>"
)
OUTPUTS = [
    {"output_type": "stream", "name": "hostile()", "text": [HOSTILE, "\ud800"]},
    {"output_type": "display_data", "data": {"text/html": HOSTILE, "text/plain": "plain"}},
    {"output_type": "execute_result", "data": {"application/javascript": "hostile()"}},
    {"output_type": "display_data", "data": {"text/markdown": "```{raw} html\nhostile()\n```"}},
    {"output_type": "display_data", "data": {"image/svg+xml": f"<svg>{HOSTILE}</svg>"}},
    {"output_type": "display_data", "data": {"text/html": ANSWERS}},
]


@pytest.fixture
def pages(monkeypatch):
    """The module of the book."""
    monkeypatch.syspath_prepend(ROOT / "book")
    import pages

    return pages


def hostile(path: Path) -> dict:
    """An executed notebook with its own sources, and all else in it a stranger's."""
    page = json.loads(path.read_text(encoding="utf-8"))
    for cell in page["cells"]:
        figure = {"figure": {"caption": "```{raw} html\nhostile()\n```", "name": "x"}}
        cell["metadata"] = {"tags": [*cell["metadata"].get("tags", []), "hostile()"]}
        cell["metadata"] |= {"mystnb": figure, "attachments": {"hostile()": {}}}
        if cell["cell_type"] == "code":
            cell["outputs"] = copy.deepcopy(OUTPUTS)
        else:
            cell["attachments"] = {"x.svg": {"image/svg+xml": HOSTILE}}
    page["metadata"] |= {
        "mystnb": {"execution_mode": "force", "execution_excludepatterns": []},
        "myst": {"enable_extensions": ["html_image"], "substitutions": {"x": HOSTILE}},
        "kernelspec": {"name": "hostile()"},
        "html_meta": {"refresh": "hostile()"},
    }
    return page


def contributed(path: Path, folder: Path) -> Path:
    """A hostile notebook beside a sound trace."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / path.name
    place.write_text(json.dumps(hostile(path)))
    shutil.copy(path.with_suffix(".nc"), place.with_suffix(".nc"))
    return place


@pytest.mark.parametrize("path", [MODELLED, MEASURED], ids=["modelled", "measured"])
def test_a_page_shows_its_sources_and_texts_and_draws_the_rest_from_the_trace(
    pages, tmp_path, path
):
    shown = json.loads(pages.page(contributed(path, tmp_path)))
    real = json.loads(pages.page(path))
    assert shown["metadata"] == real["metadata"]
    for cell, known in zip(shown["cells"], real["cells"], strict=True):
        assert {**cell, "outputs": []} == {**known, "outputs": []}
        call = cell["source"].rpartition("\n")[2]
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                assert output["name"] == "stdout" and output["text"] == f"{HOSTILE}?"
            elif "runpage." not in call:
                assert set(output["data"]) == {"text/plain"}
            elif "answers" in call:
                assert output["data"]["text/html"].count("hostile") == 1
                assert "&lt;script&gt;hostile()" in output["data"]["text/html"]
        if "runpage." in call and "answers" not in call:
            assert cell["outputs"] == known["outputs"]
            assert "hostile" not in json.dumps(cell["outputs"])


def test_the_numbers_of_a_page_are_those_of_its_run(pages):
    """What is drawn anew from a committed trace has the words and numbers that the run showed."""
    executed, shown = json.loads(MODELLED.read_text()), json.loads(pages.page(MODELLED))
    words = {}
    for name, page in (("executed", executed), ("shown", shown)):
        (cell,) = [cell for cell in page["cells"] if "windows_table" in "".join(cell["source"])]
        html = "".join(cell["outputs"][0]["data"]["text/html"])
        words[name] = re.findall(r">([^<]+)<", html)
    assert words["executed"] == words["shown"]


def test_a_trace_that_lacks_what_a_figure_needs_leaves_a_sentence(pages, tmp_path):
    place = contributed(MODELLED, tmp_path)
    trace.save(light.seed(request="no JSON"), place.with_suffix(".nc"))
    assert "cannot be drawn anew (JSONDecodeError)" in pages.page(place)


@pytest.mark.parametrize("outputs", [None, 7, [7], [{}], [{"output_type": "stream"}], {"a": 1}])
def test_outputs_that_no_notebook_has_leave_a_sentence(pages, tmp_path, outputs):
    place = contributed(MODELLED, tmp_path)
    page = json.loads(place.read_text())
    for cell in page["cells"]:
        cell["outputs"] = outputs
    place.write_text(json.dumps(page))
    assert "cannot be drawn anew" in pages.page(place)


NOTE = """---
file_format: mystnb
kernelspec:
  name: python3
---
# Note

```{{code-cell}} python
{code}
```
"""
TOC = """format: jb-book
root: book/index
chapters:
- file: book/runs
  sections:
  - glob: notebooks/runs/*/*
  - glob: notebooks/local/*/*
"""


@pytest.mark.slow
def test_a_strangers_folder_neither_runs_nor_enters_the_book(tmp_path):
    """A small book with the real settings: hostile text, notebooks, traces, links."""
    book, secret, ran = tmp_path / "work" / "book", tmp_path / "secret.txt", tmp_path / "ran"
    secret.write_text("BUILDERS-SECRET")
    book.mkdir(parents=True)
    for name in ("extension.py", "pages.py", "runs.md", "references.bib"):
        shutil.copy(ROOT / "book" / name, book)
    shutil.copytree(ROOT / "book" / "assets", book / "assets")
    shutil.copy(ROOT / "_config.yml", tmp_path / "work")
    (tmp_path / "work" / "_toc.yml").write_text(TOC)
    code = f"open({str(ran)!r}, 'w')"
    note = NOTE.format(code=code)
    (book / "index.md").write_text("# Index\n")
    runs = tmp_path / "work" / "notebooks" / "runs"
    for path in (MODELLED, MODELLED.with_suffix(".nc")):
        (runs / "t4").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, runs / "t4")
    (runs / "t4" / f"{MODELLED.stem}.md").write_text(note)
    contributed(MEASURED, runs / "y")
    x = runs / "x"
    x.mkdir()
    (x / "note.md").write_text(note)
    (x / "note.rst").write_text(f".. literalinclude:: {secret}\n")
    page = hostile(MODELLED)
    page["cells"][0]["source"] = f"```{{literalinclude}} {secret}\n```\n{HOSTILE}"
    (x / "page.ipynb").write_text(json.dumps(page))
    shutil.copy(MODELLED.with_suffix(".nc"), x / "page.nc")
    (x / "bad.nc").write_bytes(b"junk")
    shutil.copy(MODELLED, x / "alone.ipynb")
    (x / "cell.ipynb").write_text(json.dumps({**page, "cells": [{"source": code}]}))
    for name, target in (("all", "/"), ("again", "."), ("once", "..")):
        os.symlink(target, x / name)
    os.symlink(secret, x / "secret.md")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", str(tmp_path / "work")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run(
        [*command, "--all", "-W", "--keep-going", "-q"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path / "work",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not ran.exists()
    html = tmp_path / "work" / "_build" / "html"
    made = {path.relative_to(html).as_posix() for path in html.rglob("notebooks/**/*.html")}
    assert made == {
        f"notebooks/runs/t4/{MODELLED.stem}.html",
        f"notebooks/runs/y/{MEASURED.stem}.html",
    }
    for path in (tmp_path / "work" / "_build").rglob("*"):
        assert path.is_dir() or b"BUILDERS-SECRET" not in path.read_bytes(), path
    shown = (html / "notebooks" / "runs" / "y" / f"{MEASURED.stem}.html").read_text()
    assert "hostile()" in shown and "<script>hostile()" not in shown and "onerror=" not in shown
    assert "hostile" not in "".join(re.findall(r"<script\b.*?</script>", shown, re.DOTALL))
    kept = html / "_sources" / "notebooks" / "runs" / "y" / f"{MEASURED.stem}.ipynb"
    assert "mystnb" not in kept.read_text() and "javascript" not in kept.read_text()
    named = (html / "book" / "runs.html").read_text()
    for name in ("note.md", "note.rst", "page.ipynb", "bad.nc", "alone.ipynb", "cell.ipynb"):
        assert f"runs/x/{name}" in named
    for name in ("all", "again", "once", "secret.md"):
        assert f"runs/x/{name} is a link" in named
    assert str(tmp_path) not in named and "Warning" not in named
