"""With synthetic runs at hand no cell fails, and a measured GPU stands in the figures."""

import ast
import re
import shutil
from pathlib import Path

import myst_nb
import pytest

import made_runs
from footprint import spec
from footprint.chapters import PAGES
from footprint.chapters.book import load, named, numbers

ROOT = Path(__file__).parents[2]
CELL = re.compile(r"```\{code-cell\} python\n(?:---\n.*?\n---\n|(?::[^\n]*\n)+)(.*?)```", re.DOTALL)
FIGURES = ("performance", "energy", "operational", "together", "decide")
ANY_GPU = ("validation", "explorer")  # pages that speak of all GPUs of a table
MODELS, ADA = ("llama-1b", "llama-3b", "llama-7b"), "rtx-6000-ada"


def paper(folder: Path, *gpus: str, **attrs) -> None:
    for gpu in gpus:
        for model in MODELS:
            made_runs.run(folder, model, gpu, **attrs)


CASES = {
    "nothing": lambda folder: (),
    "one-liner": lambda folder: made_runs.run(folder, MODELS[0], "t4", workload=made_runs.README),
    "t4": lambda folder: paper(folder, "t4"),
    "ada": lambda folder: paper(folder, ADA),
    "both": lambda folder: paper(folder, "t4", ADA),
    "a100": lambda folder: paper(folder, "a100-80gb-pcie"),
    "unknown": lambda folder: paper(folder, "no-table-knows-it", like="a10"),
    "two dtypes": lambda folder: [paper(folder, ADA, dtype=dtype) for dtype in ("fp16", "bf16")],
    "two engines": lambda folder: [
        paper(folder, "t4", engine=engine) for engine in ("eager", "compiled")
    ],
}


def cells(page: str) -> list:
    """What the cells of a page show, executed one after the other."""
    space, shown = {}, []
    for code in CELL.findall((ROOT / f"book/{page}.md").read_text()):
        tree = ast.parse(code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, page, "exec"), space)
        if last:
            shown.append(eval(compile(ast.Expression(last.value), page, "eval"), space))
    return shown


def measured(shown: list) -> set[str]:
    """Names of the GPUs that rows of figures say to be measured."""
    names = set()
    for chart in shown:
        if hasattr(chart, "to_dict"):
            for rows in chart.to_dict().get("datasets", {}).values():
                told = [row for row in rows if isinstance(row, dict)]
                for gpu, evidence in (("gpu", "evidence"), ("newer", "newer_evidence")):
                    names |= {row.get(gpu) for row in told if row.get(evidence) == "measured"}
    return names


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A book's folder without runs, in which the cells are executed."""
    for name in ("_toc.yml", "notebooks/sweep.toml", "book/assets/sensor-example.nc4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(myst_nb, "glue", lambda *given, **options: None)
    load.cache_clear()
    yield tmp_path
    load.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_cells_run_and_a_measured_gpu_stands_in_the_figures(project, case):
    CASES[case](project / "notebooks" / "local")
    gpus = {spec.label(path.name) for path in (project / "notebooks" / "local").glob("*")}
    missing = {}
    for page in {page for pages in PAGES.values() for page in pages}:
        shown = cells(page)
        if page in FIGURES and not gpus <= measured(shown):
            missing[page] = gpus - measured(shown)
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("pair", [("t4", "l4"), (ADA, "t4"), ("v100-16gb", "h100-80gb-pcie")])
def test_any_two_gpus_are_compared_on_every_page(project, pair):
    """Also a slower newer one, some that the paper does not name, and one without a teardown."""
    book = load(old=pair[0], new=pair[1])
    for page in {page for pages in PAGES.values() for page in pages}:
        said = str(named(book.names | numbers(page, book)))
        assert page in ANY_GPU or "t4" in pair or spec.label("t4") not in said, page
