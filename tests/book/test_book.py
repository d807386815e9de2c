"""The book in the repository (contents, figures, numbers) and as built (links)."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from browser import HTML
from footprint import spec
from footprint.trace import schema

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.md"))
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CELL = re.compile(r"```\{code-cell\} python\n(.*?)```", re.DOTALL)
# Numbers that are names, units or part of the set-up; all others are computed.
NAMES = re.compile(
    r"\b(?:1B|3B|7B|RTX\s+6000|batch 1|16 bits?|128 (?:tokens|generated)|CC BY 4\.0|20\d\d|CO2)\b"
    r"|\bbelow 1\b|\bscope 2\b|\bPython 3\.\d+(?: or 3\.\d+)?|\b(?:25|75|9[05]) %|\b12 nm"
    r"|\b[1-9]\.\s"
)
# Where somebody's files lie: a home, a scratch folder, an absolute path into a checkout.
PLACE = re.compile(
    rb"/(?:home|root|tmp|Users)/"
    rb"|(?<![\w.:/~-])/(?:[\w.-]+/)+(?:notebooks|lib/footprint|tests|\.venv|book|_build)\b"
)
NUMBER = re.compile(r"(?<![\w`{#.\-])\d+(?:\.\d+)?(?![\w`}])")


def in_toc(node) -> list[str]:
    """All files and globs below a node of the table of contents."""
    if isinstance(node, list):
        return [name for item in node for name in in_toc(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file", "glob") if key in node]
    return own + [
        name for key in ("parts", "chapters", "sections") for name in in_toc(node.get(key, []))
    ]


def prose(chapter: Path) -> str:
    """The prose of a chapter, without front matter, code, equations, tables and figures."""
    text = re.sub(r"\A---\n.*?\n---\n", "", chapter.read_text(), flags=re.DOTALL)
    for drop in (
        r"```.*?```",
        r"\$\$.*?\$\$[^\n]*",
        r"\$[^$\n]*\$",
        r"`[^`]*`",
        r"^\|.*$",
        r"\{[^}]*\}",
    ):
        text = re.sub(drop, "", text, flags=re.DOTALL | re.MULTILINE)
    return text


def test_every_chapter_is_in_the_contents_and_the_contents_are_there():
    listed = [name for name in in_toc(TOC) if "*" not in name]
    assert all((ROOT / f"{name}.md").exists() for name in listed)
    assert {f"book/{path.stem}" for path in CHAPTERS} == set(listed)


def test_the_page_of_tables_names_every_table():
    page = (ROOT / "book/tables.md").read_text()
    assert {path.name for path in (ROOT / "lib/footprint/data").glob("*.csv")} <= set(
        re.findall(r"`(\w+\.csv)`", page)
    )


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_types_in_no_numbers(chapter):
    typed = NUMBER.findall(NAMES.sub("", prose(chapter)))
    assert not typed, f"typed-in numbers: {typed}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_figure_is_numbered_captioned_and_named_once(chapter):
    for cell in CELL.findall(chapter.read_text()):
        if re.search(r"^charts\w*\.\w+\(", cell, re.MULTILINE):
            assert re.search(
                r"mystnb:\n  figure:\n    name: fig-[\w-]+\n    caption: \|\n      \S", cell
            ), cell


def test_figure_names_and_labels_are_unique():
    text = "\n".join(path.read_text() for path in CHAPTERS)
    names = re.findall(r"name: (fig-[\w-]+)", text) + re.findall(
        r"^\(([\w-]+)\)=$", text, re.MULTILINE
    )
    names += re.findall(r"\$\$ \((eq-[\w-]+)\)", text)
    assert len(names) == len(set(names))


def test_every_figure_and_equation_that_is_named_exists():
    text = "\n".join(path.read_text() for path in CHAPTERS)
    known = set(re.findall(r"name: (fig-[\w-]+)", text)) | set(re.findall(r"\((eq-[\w-]+)\)", text))
    assert set(re.findall(r"\{(?:numref|eq)\}+`([\w-]+)`", text)) <= known


def test_every_chapter_opens_with_its_finding():
    for part in TOC["parts"][0]["chapters"]:
        text = (ROOT / f"{part['file']}.md").read_text()
        opening = text[text.index("\n# ") :].split("\n## ")[0]
        assert "**" in opening, f"{part['file']} has no finding in bold before its first section"


def test_the_schema_page_is_printed_from_the_schema():
    page = HTML / "book" / "schema.html"
    text = page.read_text()
    for group in schema.SCHEMA:
        for kind in ("measured", "modelled"):
            for name in schema.variables(group, kind):
                assert f">{name}<" in text
    assert all(f">{name}<" in text for name in schema.ATTRS)


class Anchors(HTMLParser):
    """Ids and links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


def test_no_internal_link_is_broken():
    pages = {path.resolve(): Anchors(path.read_text()) for path in HTML.rglob("*.html")}
    assert len(pages) > 15
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("#!"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in pages and parts.fragment not in pages[target].ids
            ):
                broken.append(f"{path.relative_to(HTML.resolve())} -> {link}")
    assert not broken, broken


def test_a_word_of_the_glossary_leads_to_it_once_a_chapter_and_says_what_it_means():
    glossary = (HTML / "book" / "glossary.html").read_text()
    link = re.compile(
        r'<a class="word[^"]*" href="glossary\.html#([^"]+)" title="([^"]+)">([^<]+)</a>'
    )
    for page in (HTML / "book").glob("*.html"):
        found = link.findall(page.read_text())
        places = [place for place, _, _ in found]
        assert len(places) == len(set(places)) and all(
            f'id="{place}"' in glossary for place in places
        ), page.name
    words = {
        place: (meaning, word)
        for place, meaning, word in link.findall((HTML / "book" / "performance.html").read_text())
    }
    assert (
        words["term-TTFT"][0].startswith("Time to first token")
        and words["term-KV-cache"][1] == "KV cache"
    )
    assert not link.search(glossary)


def committed(ending: str) -> list[Path]:
    """Files of the committed runs; a sweep at work keeps its own in hidden folders."""
    return [
        path
        for path in (ROOT / "notebooks" / "runs").glob(f"[!.]*/[!.]*{ending}")
        if path.is_file()
    ]


def test_runs_have_their_trace_beside_them():
    pages, traces = (
        {path.with_suffix("") for path in committed(ending)} for ending in (".ipynb", ".nc")
    )
    assert pages == traces and len(pages) >= 6


def test_runs_are_shown_as_they_were_executed_and_chapters_never_as_they_were():
    execute = yaml.safe_load((ROOT / "_config.yml").read_text())["execute"]
    assert execute["execute_notebooks"] == "force"
    for folder in ("runs", "local"):
        run = PurePosixPath(f"/any/notebooks/{folder}/device/run.ipynb")
        assert any(run.match(pattern) for pattern in execute["exclude_patterns"])


@pytest.mark.slow
def test_a_changed_row_changes_the_page(tmp_path):
    """After a change in a grid's row the page says the new number and not the old."""
    leave = shutil.ignore_patterns(
        ".git", ".venv", "_build", "*.egg-info", "local", ".*_cache", ".hypothesis"
    )
    work = shutil.copytree(ROOT, tmp_path / "work", ignore=leave)
    (work / "_toc.yml").write_text("format: jb-book\nroot: book/operational\n")
    table, page = work / "lib/footprint/data/grids.csv", work / "_build/html/book/operational.html"
    command = [
        Path(sys.executable).with_name("jupyter-book"),
        "build",
        work,
        "--all",
        "-q",
    ]  # as the Makefile has it
    row, said = (
        "US-NW-PACE,Pacificorp East,USA,2023,lifecycle,{}77,",
        '<td class="number">{}77</td>',
    )
    for old, new in (("7", "6"), ("6", "7")):
        text = table.read_text()
        table.write_text(text.replace(row.format(old), row.format(new)))
        subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": str(work / "lib")},
            check=True,
            capture_output=True,
        )
        assert said.format(new) in page.read_text() and said.format(old) not in page.read_text()


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        pytest.param("import os; os._exit(3)", "Kernel died", marks=pytest.mark.slow),
    ],
)
def test_a_chapter_that_fails_or_dies_fails_the_build(tmp_path, cell, said):
    """A small book of two pages, one of them at fault."""
    shutil.copytree(
        ROOT / "book",
        tmp_path / "book",
        ignore=lambda folder, names: [n for n in names if not n.endswith(".py")],
    )
    front = (ROOT / "book/limits.md").read_text().split("\n---\n")[0] + "\n---\n"
    for name, code in (("index", "print('whole')"), ("fault", cell)):
        (tmp_path / f"book/{name}.md").write_text(
            f"{front}\n# {name}\n\n```{{code-cell}} python\n{code}\n```\n"
        )
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/fault\n"
    )
    (tmp_path / "_config.yml").write_text(
        "execute: {execute_notebooks: force}\nsphinx: {local_extensions: {extension: book/}}\n"
    )
    book = [
        Path(sys.executable).parent / "jupyter-book",
        "build",
        str(tmp_path),
        "-W",
        "--keep-going",
        "-q",
    ]
    done = subprocess.run(book, capture_output=True, text=True, timeout=120)
    reports = [path.read_text() for path in tmp_path.rglob("*.err.log")]
    assert done.returncode != 0 and said in "".join([done.stderr, *reports])


def test_no_page_names_the_host_of_live_code():
    for path in HTML.rglob("*.html"):
        text = path.read_text()
        assert "THEBE_JS_URL" not in text and "unpkg.com" not in text, path.name


def test_every_run_page_has_its_own_name_and_its_trace():
    for path in committed(".ipynb"):
        page = (HTML / path.relative_to(ROOT)).with_suffix(".html").read_text()
        assert f"<title>{path.stem} on {path.parent.name}" in page
        assert f"{path.stem}.nc" in page


def test_the_environment_file_reads_the_same_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    assert "-c constraints.txt" in (ROOT / "requirements.txt").read_text()


def test_committed_runs_name_nobody_and_no_place():
    for path in committed(""):
        data = path.read_bytes()
        assert str(ROOT).encode() not in data, f"{path.name} holds the path of this checkout"
        assert not (found := PLACE.search(data)), f"{path.name} holds {found[0]}"


def test_the_paper_is_cited_with_its_claims_not_its_recalled_values():
    recalled = {
        row["value"] for row in spec.table("paper_values") if row["quantity"] == "embodied carbon"
    }
    for chapter in CHAPTERS:
        assert not recalled & set(NUMBER.findall(prose(chapter)))
