"""The executed notebook beside a trace, and what else may lie in a folder of runs.

A folder of runs may come from a stranger: nothing in it is executed, and links are not followed.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from footprint import Refused
from footprint.trace.reader import content, load

MOST_B = 20 * 2**20  # of a page
NAME = re.compile(r"[A-Za-z0-9][\w.+=@-]*", re.ASCII)  # a page's name becomes an address
WRITTEN = re.compile(  # what sweeps, reports and sensors write besides runs
    r"(\w[\w.+=@-]*/)*(windows\.csv|windows\.parquet|croissant\.json|mlperf\.json"
    r"|ro-crate-metadata\.json|sensor-\w+\.nc4|\.sweep/events\.jsonl|\.sweep/lock)",
    re.ASCII,
)
FAILED = ".sweep/failed/"  # pages of runs that failed, some without a trace
ODD = (AttributeError, KeyError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError)


def read_page(path: str | Path, templates: Iterable[Mapping[str, str]]) -> dict:
    """The executed notebook in a file; `Refused` unless it executed a template of `templates`.

    templates: rows of `data/templates.csv`. The page's sources must be those of the template whose
    hash it records; papermill's cell of parameters may only give plain values to names.
    """
    name, data = Path(path).name, content(path, MOST_B)
    try:
        page = json.loads(data)
        recorded, sources = page["metadata"]["footprint"]["notebook_sha256"], hash_sources(page)
        known = (recorded, sources) in {
            (row["file_sha256"], row["sources_sha256"]) for row in templates
        }
    except ODD:
        raise Refused(f"{name} is no executed notebook of this project.") from None
    if not known:
        raise Refused(
            f"{name} executed something else than it records; "
            "the templates that were ever committed to this project are allowed."
        )
    return page


def hash_sources(page: dict) -> str:
    """SHA-256 of kinds and sources of the cells, without the parameters of one run."""
    cells = [
        [cell["cell_type"], "".join(cell["source"])]
        for cell in page["cells"]
        if not _gives_parameters(cell)
    ]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _gives_parameters(cell: dict) -> bool:
    """Whether papermill wrote this cell; an error if it does more than give values to names."""
    if "injected-parameters" not in cell["metadata"].get("tags", []):
        return False
    for line in ast.parse("".join(cell["source"])).body:
        if not isinstance(line, ast.Assign) or {type(to) for to in line.targets} != {ast.Name}:
            return False
        ast.literal_eval(line.value)
    return cell["cell_type"] == "code"


def sort_files(
    folder: str | Path, templates: Iterable[Mapping[str, str]]
) -> tuple[list[str], dict[str, str]]:
    """The files that belong in a folder of runs, and a sentence on each other one, by its path.

    Traces that load belong there, their pages, and what sweeps and reports write. Paths are
    relative to the folder; what a terminal cannot show is escaped.
    """
    templates, belong, strange = list(templates), [], {}
    for here, folders, names in os.walk(folder):
        for path in (Path(here, name) for name in [*folders, *names]):
            if path.is_dir() and not path.is_symlink():
                continue
            place = path.relative_to(folder).as_posix()
            if fault := _fault(path, place, templates):
                strange[_shown(place)] = _shown(fault)
            else:
                belong.append(place)
    for page in [place for place in belong if place.endswith(".ipynb")]:
        if f"{page.removesuffix('.ipynb')}.nc" not in belong and not page.startswith(FAILED):
            belong.remove(page)
            strange[page] = f"{page} has no valid trace beside it."
    return sorted(belong), dict(sorted(strange.items()))


def _fault(path: Path, place: str, templates: list) -> str:
    """Why a file does not belong in a folder of runs; empty if it does."""
    try:
        if path.is_symlink():
            return f"{place} is a link; a run holds its files itself."
        if WRITTEN.fullmatch(place) and path.is_file():
            return ""
        if "/." in f"/{place.removeprefix(FAILED)}":
            return f"{place} is hidden; files of runs are visible."
        if path.suffix not in (".nc", ".ipynb"):
            return f"{place} is no part of a run; traces (.nc) and their pages (.ipynb) are."
        if not all(NAME.fullmatch(part) for part in place.removeprefix(FAILED).split("/")):
            return f"{place} has an odd name; letters, digits and . _ + = @ - are allowed."
        load(path) if path.suffix == ".nc" else read_page(path, templates)
    except Refused as error:
        return f"{place}: {error}"
    except Exception as error:  # odd in a way that nobody foresaw
        return f"{place} cannot be used ({type(error).__name__})."
    return ""


def _shown(text: str) -> str:
    """The text, with escapes where it holds what moves a terminal's cursor or is no letter."""
    return text if text.isprintable() else ascii(text)
