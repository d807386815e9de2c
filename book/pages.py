"""The pages of runs in the book: a stranger's notebook is data.

Of an executed notebook the book takes its sources, which are those of a committed template, and
texts. Tables and figures are drawn anew from the trace; nothing that a page calls HTML, Markdown
or a script reaches the reader.
"""

import json
import re
from pathlib import Path

import xarray as xr
from bs4 import BeautifulSoup

from footprint import spec, trace
from footprint.charts import runpage, theme

DRAWN = ("account", "windows_table", "steps", "power", "modelled")
CALL = re.compile(r"runpage\.(\w+)\(.*\)")
TAGS = ("parameters", "injected-parameters", "hide-output")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def page(path: Path) -> str:
    """A notebook with what is shown of the executed notebook in this file, as JSON."""
    theme.enable()
    executed = trace.read_page(path, spec.table("templates"))
    tree = trace.load(path.with_suffix(".nc"))
    cells = [_cell(cell, tree) | {"id": f"cell-{i}"} for i, cell in enumerate(executed["cells"])]
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def _cell(cell: dict, tree: xr.DataTree) -> dict:
    """A cell's source with its known tags, and what is shown below it."""
    source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
    shown = {"cell_type": cell["cell_type"], "source": source}
    shown["metadata"] = {"tags": [tag for tag in TAGS if tag in tags]}
    if cell["cell_type"] == "code":
        try:
            outputs = _outputs(source, cell["outputs"], tree)
        except Exception as error:  # a sound trace may lack what a figure needs
            words = f"What this cell showed cannot be drawn anew ({type(error).__name__})."
            outputs = [_displayed("text/html", theme.note(words))]
        shown |= {"execution_count": None, "outputs": outputs}
    return shown


def _outputs(source: str, outputs: list[dict], tree: xr.DataTree) -> list[dict]:
    """What is shown below a cell: a figure or table of the trace, the answers, else plain text."""
    call = CALL.fullmatch(source.rpartition("\n")[2])
    if call and call[1] in DRAWN:
        drawn = getattr(runpage, call[1])(tree)
        if not isinstance(drawn, theme.Page):
            drawn = drawn._repr_mimebundle_()["text/html"]
        return [_displayed("text/html", drawn)]
    if call and call[1] == "answers":
        return [_displayed("text/html", _answers(outputs))]
    return [_text(output) for output in outputs]


def _displayed(kind: str, data: str) -> dict:
    return {"output_type": "display_data", "data": {kind: data}, "metadata": {}}


def _answers(outputs: list[dict]) -> str:
    """The table of prompts and answers, from the texts of its cells."""
    texts = "".join(_joined(output.get("data", {}).get("text/html", "")) for output in outputs)
    rows = [
        [cell.get_text() for cell in row.find_all(["th", "td"])]
        for row in BeautifulSoup(texts, "html.parser").find_all("tr")
    ]
    return runpage.answers([dict(zip(rows[0], row, strict=False)) for row in rows[1:]])


def _text(output: dict) -> dict:
    """The plain text of an output."""
    if output["output_type"] == "stream":
        name = "stderr" if output["name"] == "stderr" else "stdout"
        return {"output_type": "stream", "name": name, "text": _joined(output["text"])}
    return _displayed("text/plain", _joined(output.get("data", {}).get("text/plain", "")))


def _joined(text: str | list[str]) -> str:
    """A text of a notebook, which may be stored by lines, in letters that can be written."""
    return "".join(text).encode("utf-8", "replace").decode()
