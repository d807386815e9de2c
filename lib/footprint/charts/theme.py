"""One look for every figure and table: fixed colours with meaning, an offline renderer, a badge for every number's status.

`python -m footprint.charts.theme FILE` writes the script bundle (Vega, Vega-Lite, vega-embed) that the pages load.
"""

import html
import itertools
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import altair as alt
import pandas as pd

COLOURS = {
    "prefill": "#c2693d",
    "decode": "#3f7fb5",
    "generate": "#7a6fb0",
    "idle_bare": "#8a8a8a",
    "idle_loaded": "#94836a",
    "t4": "#2f9079",
    "T4": "#2f9079",
    "rtx-6000-ada": "#b3589a",
    "RTX 6000 Ada": "#b3589a",
    "cpu": "#8d8255",
    "other": "#8a8f98",
    "CA-QC": "#3a9bb8",
    "US-CAL-CISO": "#b58a2e",
    "US-NW-PACE": "#8c6a5d",
    "eager": "#c2693d",
    "graphs": "#2f9079",
    "serving": "#7465b3",
    "operational": "#b87a10",
    "embodied": "#7465b3",
    "measured": "#2f9079",
    "modelled": "#8a8f98",
    "trained": "#3f7fb5",
    "random": "#8a8f98",
}
DOMAINS = {
    "engine": ["eager", "graphs", "serving"],
    "card": ["T4", "RTX 6000 Ada"],
    "phase": ["prefill", "decode", "generate"],
    "weights": ["trained", "random"],
    "pair": ["t4", "rtx-6000-ada", "other"],
    "kind": ["measured", "modelled"],
    "evidence": ["measured", "modelled"],
    "part": ["operational", "embodied"],
    "zone": ["CA-QC", "US-CAL-CISO", "US-NW-PACE"],
}
SHAPES = {
    "measured": "circle",
    "modelled": "diamond",
    "mixed": "triangle",
    "prefill": "square",
    "decode": "circle",
    "generate": "triangle",
    "trained": "circle",
    "random": "diamond",
    "operational": "circle",
    "embodied": "square",
}
STATUSES = ("measured", "modelled", "published", "derived", "unverified")
VEGA_LITE = "6.4"
MORE = (
    "#b58a2e",
    "#3a9bb8",
    "#8c6a5d",
    "#5b7fb5",
    "#c2693d",
)  # GPUs beside the paper's two, in order
WIDTH, HEIGHT, PANEL = 620, 320, {"width": 150, "height": 190}
BATCH = alt.X(
    "batch:Q",
    title="batch size",
    scale=alt.Scale(type="log", base=2),
    axis=alt.Axis(values=[1, 2, 4, 8, 16, 32, 64]),
)
PERCENT = re.compile(r"[-−]?[\d.,]+ ?%|–")
LONG = 48  # a text of more characters gets a wider column


def colour(field: str, title: str | None = None, values=None, **options) -> alt.Color:
    """The colour channel of a field whose values have fixed colours; `values`: those at hand, new GPUs among them."""
    domain = DOMAINS[field] if values is None else list(dict.fromkeys(values))
    more = itertools.cycle(MORE)
    scale = alt.Scale(domain=domain, range=[COLOURS.get(name) or next(more) for name in domain])
    return alt.Color(f"{field}:N", title=title, scale=scale, **options)


def shape(field: str, values=(), **options) -> alt.Shape:
    """The shape channel of a field: measured and modelled never look alike; `values`: those at hand, others among them."""
    domain = list(dict.fromkeys([*DOMAINS[field], *values]))
    scale = alt.Scale(domain=domain, range=[SHAPES[name] for name in domain])
    return alt.Shape(f"{field}:N", title=None, scale=scale, **options)


def tips(*names: str, **formats: str) -> list[alt.Tooltip]:
    """What a mark says on hovering: names, and numbers in a format (`tips("gpu", ratio=".2f")`)."""
    shown = [alt.Tooltip(f"{name}:N") for name in names]
    return shown + [alt.Tooltip(f"{name}:Q", format=text) for name, text in formats.items()]


def interval(
    base: alt.Chart, value: alt.X | alt.Y, low: str = "low", high: str = "high", **marks
) -> alt.LayerChart:
    """A mark at a value and a line between its bounds, along the axis of `value`.

    marks: `rule` and `point`, the looks of the line and of the mark; all else are channels of the mark.
    """
    axis = "x" if isinstance(value, alt.X) else "y"
    rule, point = marks.pop("rule", {}), marks.pop("point", {})
    bound = value.copy()
    bound["shorthand"] = f"{low}:Q"
    line = base.mark_rule(**rule).encode(**{axis: bound, f"{axis}2": f"{high}:Q"})
    return line + base.mark_point(filled=True, **point).encode(**{axis: value}, **marks)


def by_model(names) -> alt.Column:
    """A panel a model, in the order given."""
    return alt.Column("model:N", title=None, sort=list(dict.fromkeys(names)))


def _look() -> alt.theme.ThemeConfig:
    """Quiet axes in the colour of the page's text, so that one chart serves a light page and a dark one."""
    ink = "currentColor"
    words = {"labelColor": ink, "titleColor": ink, "titleFontWeight": "normal"}
    words |= {"labelFontSize": 11, "titleFontSize": 12}
    lines = {"tickColor": ink, "domainColor": ink, "gridColor": ink, "labelSeparation": 3}
    lines |= {"gridOpacity": 0.12, "domainOpacity": 0.5, "tickOpacity": 0.5}
    symbols = {"symbolOpacity": 1, "symbolBaseFillColor": ink, "symbolBaseStrokeColor": ink}
    config = {
        "background": "transparent",
        "view": {"stroke": None, "continuousWidth": WIDTH},
        "axis": words | lines,
        "legend": words | symbols | {"orient": "top"},
        "header": words | {"labelPadding": 6},
        **{mark: {"color": ink} for mark in ("mark", "text", "rule")},
        "point": {"strokeWidth": 1.6},
        "line": {"strokeWidth": 1.8},
    }
    return alt.theme.ThemeConfig({"config": config})


def _render(spec: dict) -> dict:
    """A chart as page source: an empty host and the specification beside it; `charts.js` draws it when it is seen."""
    text = json.dumps(spec, separators=(",", ":")).replace("</", "<\\/")
    script = f'<script type="application/json">{text}</script>'
    controls = (
        '<form class="controls"></form>'
        if any("bind" in each for each in spec.get("params", []))
        else ""
    )
    return {
        "text/html": f'<div class="vl-chart">{controls}<div class="vl-host"></div>{script}</div>'
    }


def enable() -> None:
    """Use this look and the offline renderer for all charts of the process."""
    alt.theme.register("book", enable=True)(_look)
    alt.renderers.register("book", _render)
    alt.renderers.enable("book")
    alt.data_transformers.disable_max_rows()


class Page(str):
    """HTML that a notebook shows as it is."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<{len(self)} characters of HTML>"


def badge(status: str) -> Page:
    """A small mark of a number's status."""
    if status not in STATUSES:
        raise ValueError(f"The status {status!r} is unknown; allowed are {', '.join(STATUSES)}.")
    return Page(f'<span class="status {status}">{status}</span>')


def kinds(column) -> Page:
    """The badges of the kinds of evidence in a column, for a sentence."""
    names = sorted(set(column))
    return Page(" ".join(badge(name) if name in STATUSES else name for name in names))


def note(text: str) -> Page:
    """One sentence in place of a figure or table that has nothing to show."""
    return Page(f'<p class="nothing">{html.escape(text)}</p>')


def _cell(value, digits: int) -> tuple[str, str]:
    """Class and content of a table's cell."""
    if isinstance(value, Page):
        return "text" if len(re.sub("<[^>]*>", "", value)) > LONG else "", value
    if isinstance(value, str):
        kind = "number" if PERCENT.fullmatch(value) else "text" if len(value) > LONG else ""
        return kind, badge(value) if value in STATUSES else html.escape(value)
    if pd.isna(value):
        return "number", "–"
    if (
        isinstance(value, int) or abs(value) >= 10**digits - 0.5
    ):  # what rounds to a further digit needs no exponent
        return "number", f"{value:,.0f}"
    return "number", f"{value:#.{digits}g}".rstrip(".")


def table(
    rows: pd.DataFrame | Sequence[dict], digits: int = 3, sorts: bool = False, empty: str = ""
) -> Page:
    """A table for a page: columns of numbers to the right, with `digits` significant digits; statuses as badges; a box that
    scrolls sideways by itself. `sorts`: readers may sort and filter its rows. `empty`: the sentence instead of no rows."""
    frame = pd.DataFrame(rows)
    if empty and not len(frame):
        return note(empty)
    head, columns = [], []
    for name, values in frame.items():
        cells = [_cell(value, digits) for value in values.tolist()]
        number = bool(cells) and all(kind == "number" for kind, _ in cells)
        kinds = [kind if number or kind != "number" else "" for kind, _ in cells]
        head.append(
            f'<th scope="col" class="{"number" if number else ""}">{html.escape(str(name))}</th>'
        )
        columns.append(
            [
                f'<td class="{kind}">{text}</td>'
                for kind, (_, text) in zip(kinds, cells, strict=True)
            ]
        )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    whole = (
        f'<table class="plain"><thead><tr>{"".join(head)}</tr></thead><tbody>{body}</tbody></table>'
    )
    return Page(f'<div class="table-box{" sorts" if sorts else ""}">{whole}</div>')


def download(frame: pd.DataFrame, name: str, text: str) -> Page:
    """A link that saves a table as a CSV file of this name; the page carries it, so that it needs no server."""
    rows = frame.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    where = f'href="data:text/csv;charset=utf-8,{quote(rows)}" download="{name}"'
    return Page(f"<p><a {where}>{html.escape(text)}</a></p>")


def link(text: str, href: str) -> Page:
    """A link for a cell of a table (in a column of dtype object: pandas makes plain text of any other)."""
    return Page(f'<a href="{html.escape(href)}">{html.escape(text)}</a>')


def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script in a scope of its own (loading it twice is harmless)."""
    import vl_convert

    return "(function(){" + vl_convert.javascript_bundle(vl_version=VEGA_LITE) + "})();\n"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(bundle(), encoding="utf-8")
