"""The Footprint of a Token: measure, model and explain what serving a large language model costs.

Read the module names aloud and you have the method: `spec` says what there is, `workload` what is asked, `meter` what
is read, `profile` runs it, `trace` keeps it, `energy` and `carbon` derive from it, `predict` models what nobody here owns,
`decide` and `charts` say what it means, `sweep` does it many times.
"""

from hashlib import sha256
from pathlib import Path

__version__ = "0.1.0"


class Refused(ValueError):
    """Bad input, said in one sentence: what was wrong and what is allowed."""

    def _render_traceback_(self) -> list[str]:
        """Let a notebook show the sentence alone (an IPython protocol)."""
        return [f"Refused: {self}"]


def root() -> Path:
    """Folder of the book (it holds `_toc.yml`) at or above the working directory, else the working directory."""
    here = Path.cwd()
    return next(
        (folder for folder in (here, *here.parents) if (folder / "_toc.yml").exists()), here
    )


def digest(text: str) -> str:
    """Twelve hexadecimal digits that stand for a text nobody needs to see."""
    return sha256(text.encode()).hexdigest()[:12]


# Names that the pages of earlier runs import; the code itself uses the rooms.
_EARLIER = {"profile": "measure", "provenance": "measure", "runpage": "charts", "theme": "charts"}


def __getattr__(name: str):
    """A module under the name that the page of an earlier run imports."""
    if name in _EARLIER:
        from importlib import import_module

        return import_module(f"footprint.{_EARLIER[name]}.{name}")
    raise AttributeError(f"module 'footprint' has no attribute {name!r}")
