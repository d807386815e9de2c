"""The mechanism of the pages: one book a process, plain numbers, and their JSON."""

import json
import re
from pathlib import Path

import pytest

from footprint import chapters
from footprint.chapters import __main__ as command
from footprint.chapters.book import PAPER, load, named, numbers

ROOT = Path(__file__).parents[2]
PAGES = [page for pages in chapters.PAGES.values() for page in pages]
CELL = re.compile(r"```\{code-cell\} python\n(.*?)```", re.DOTALL)
OPTIONS = re.compile(r"\A---\n.*?\n---\n|\A(?::[^\n]*\n)+", re.DOTALL)


def test_the_book_is_loaded_once_a_process():
    assert load() is load() and load().points is load().points


def test_without_a_measured_gpu_all_is_modelled_at_the_usual_length():
    book = load(folder=ROOT / "tests")
    assert book.gpus == ["t4", "rtx-6000-ada"] and book.models == list(PAPER)
    assert book.length == {"prompt": 128, "output": 128}
    assert set(book.at()["evidence"].values.flat) == {"modelled"}
    assert book.world.sizes["sample"] == 2000


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page == "question")) for page in PAGES]
)
def test_a_page_glues_what_it_computes_and_nothing_else(page):
    found = numbers(page, load())
    text = (ROOT / f"book/{page}.md").read_text()
    glued = set(re.findall(r"\{glue:(?:text|md|any)?\}`([^`:]+)", text))
    glued |= set(re.findall(r"\{glue:md\} (\w+)", text))
    shown = set(re.findall(r'\bn\["(\w+)"\]', text))
    glued -= set(load().names)
    assert {name.split(".")[0] for name in glued} | shown == set(found)
    assert glued <= set(named(found))


@pytest.mark.parametrize("page", PAGES)
def test_a_cell_holds_no_analysis(page):
    text = (ROOT / f"book/{page}.md").read_text()
    for cell in CELL.findall(text):
        code = OPTIONS.sub("", cell).strip().splitlines()
        assert len(code) <= 7 and not re.search(r"\bdef |\blambda\b|\._", "\n".join(code)), cell


def test_the_numbers_of_a_page_are_printed_as_json(capsys):
    command.main(["energy"])
    said = json.loads(capsys.readouterr().out)["energy"]
    assert said["small.low"] < said["small.ratio"] < said["small.high"]
    assert said["cap"][0]["model"] == "TinyLlama 1.1B" and len(said["joules"]) == 84


def test_the_readme_shows_the_figure_of_the_committed_runs(tmp_path):
    command.main([str(tmp_path / "headline.svg")])
    committed = (ROOT / "book/assets/headline.svg").read_text()
    drawn = (tmp_path / "headline.svg").read_text()
    assert drawn == committed, "python -m footprint.chapters book/assets/headline.svg"
