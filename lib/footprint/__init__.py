"""The Footprint of a Token: measure, model and explain what serving a large language model costs.

`spec` holds models, GPUs and grids, `workload` the parameters of a run. `measure` runs it, `trace`
stores it, `energy` and `carbon` derive from it, `predict` models GPUs that nobody here owns.
`decide`, `charts` and `chapters` explain the numbers, `sweep` does many runs.
"""

from hashlib import sha256
from pathlib import Path

__version__ = "0.1.0"


class Refused(ValueError):
    """Bad input; one sentence says what was wrong and what is allowed."""

    def _render_traceback_(self) -> list[str]:
        """Let a notebook show the sentence alone (an IPython protocol)."""
        return [f"Refused: {self}"]


def shown(value: object, most: int = 80) -> str:
    """The start of a value as code, for a sentence; its type where the value is too large."""
    try:
        return f"{value!r:.{most}}"
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"


def root() -> Path:
    """Folder of the book (with `_toc.yml`) at or above the working directory, else the latter."""
    here = Path.cwd()
    books = [folder for folder in (here, *here.parents) if (folder / "_toc.yml").exists()]
    return books[0] if books else here


def digest(text: str) -> str:
    """Twelve hexadecimal digits of the hash of a text."""
    return sha256(text.encode()).hexdigest()[:12]


# Names that the pages of earlier runs import; the code itself uses the rooms.
_EARLIER = {"profile": "measure", "provenance": "measure", "runpage": "charts", "theme": "charts"}


def __getattr__(name: str):
    """A module under the name that the page of an earlier run imports."""
    if name in _EARLIER:
        from importlib import import_module

        return import_module(f"footprint.{_EARLIER[name]}.{name}")
    raise AttributeError(f"module 'footprint' has no attribute {name!r}")
