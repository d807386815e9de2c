"""The numbers of each page of the book, a function a page: `chapters.energy(book) -> dict`.

The function of a page, named in `PAGES`, takes the `Book` and returns a dict of
- numbers, and labelled numbers (a Series, DataArray or dict: prose names `share.t4`, `share.max`);
- phrases (a `str` in Markdown whose words depend on numbers; a badge is a `theme.Page`);
- frames or Datasets for figures and tables.

The first cell of a page, tagged remove-cell, is `n = chapters.show("energy")`, which glues what
prose can name: {glue:text}`ratio:.2f` formats a number, {glue:text}`word` takes plain words,
{glue:md}`phrase:myst` Markdown, {glue:}`evidence` a badge; a paragraph that depends on numbers is a
directive {glue:md} with :format: myst. Every page may name `old`, `new`, `prompt` and `output`. A
badge that never changes is Markdown: [modelled]{.status .modelled}. A figure is a cell of one line,
`charts.latency(n["points"])`, a table is `theme.table(n["bounds"])`.

What several pages need is a cached property of `Book`: `points` (all lengths and engines), `world`,
`models`, `gpus`; `at("eager")` has the points of the book's length. Each page is a process of its
own. `python -m footprint.chapters [PAGE ...]` prints all numbers as JSON.
"""

import lazy_loader

PAGES = {
    "carbon": ["operational", "embodied"],
    "comparison": ["hardware", "performance", "energy"],
    "decisions": ["decide", "cells"],
    "evidence": ["method", "validation", "sensor", "limits"],
    "opening": ["index", "question", "artifact"],
    "service": ["operate"],
    "totals": ["together", "explorer"],
    "appendices": ["runs", "schema", "tables", "reproduce", "your-gpu"],
}  # module: the pages whose numbers it makes

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "book": ["Book", "load", "numbers", "show"],
        **{module: [page.replace("-", "_") for page in pages] for module, pages in PAGES.items()},
    },
)
