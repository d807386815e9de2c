"""The look of every figure and table: fixed colours, an offline renderer, badges of status.

`python -m footprint.charts.theme FILE` writes the scripts that pages load, Vega among them.
"""

import html
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import altair as alt
import numpy as np
import pandas as pd

from footprint import spec

COLOURS = {
    "prefill": "#c2693d",
    "decode": "#3f7fb5",
    "generate": "#7a6fb0",
    "t4": "#2f9079",
    "T4": "#2f9079",
    "rtx-6000-ada": "#b3589a",
    "RTX 6000 Ada": "#b3589a",
    "other": "#8a8f98",
    "CA-QC": "#3a9bb8",
    "US-CAL-CISO": "#b58a2e",
    "US-NW-PACE": "#8c6a5d",
    "eager": "#c2693d",
    "graphs": "#2f9079",
    "compiled": "#2f9079",
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
    "evidence": ["measured", "modelled"],
    "part": ["operational", "embodied"],
    "zone": ["CA-QC", "US-CAL-CISO", "US-NW-PACE"],
}
SHAPES = {
    "measured": "circle",
    "modelled": "diamond",
    "mixed": "triangle",
    "trained": "circle",
    "random": "diamond",
}
STATUSES = ("measured", "modelled", "published", "derived", "unverified")
VEGA_LITE = "6.4"
# GPUs beside the paper's two, in order
MORE = ("#b58a2e", "#3a9bb8", "#8c6a5d", "#5b7fb5", "#c2693d")
WIDTH, HEIGHT, PANEL = 620, 320, {"width": 150, "height": 190}
BATCH = alt.X(
    "batch:Q",
    title="batch size",
    scale=alt.Scale(type="log", base=2),
    axis=alt.Axis(values=[1, 2, 4, 8, 16, 32, 64]),
)
PERCENT = re.compile(r"[-−]?[\d.,]+ ?%|–")
LONG = 48  # a text of more characters gets a wider column


def in_order(values: Iterable) -> list:
    """Each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))


def labelled(rows: pd.DataFrame, *fields: str) -> pd.DataFrame:
    """The rows with printed names instead of ids in these columns of models, GPUs or a `zone`."""
    names = {name: spec.zone_name if name == "zone" else spec.label for name in fields}
    return rows.assign(**{name: rows[name].map(named) for name, named in names.items()})


def styled(channel: type, field: str, styles: Mapping, title: str | None = None, **options):
    """A channel of a field, with a style (a colour, shape or dash) for each value."""
    scale = alt.Scale(domain=list(styles), range=list(styles.values()))
    return channel(f"{field}:N", title=title, scale=scale, **options)


def colour(field: str, title: str | None = None, values=None, **options) -> alt.Color:
    """The colour channel of a field, of its DOMAIN or of other `values` (unknown GPUs too)."""
    more = itertools.cycle(MORE)
    names = DOMAINS[field] if values is None else in_order(values)
    hues = {name: COLOURS.get(name) or next(more) for name in names}
    return styled(alt.Color, field, hues, title, **options)


def shape(field: str, values=(), **options) -> alt.Shape:
    """The shape channel of a field, of its DOMAIN and of further `values`."""
    shapes = {name: SHAPES[name] for name in in_order([*DOMAINS[field], *values])}
    return styled(alt.Shape, field, shapes, **options)


def tips(*names: str, **formats: str) -> list[alt.Tooltip]:
    """Tooltips of names, and of numbers in a format: `tips("gpu", ratio=".2f")`."""
    shown = [alt.Tooltip(f"{name}:N") for name in names]
    return shown + [alt.Tooltip(f"{name}:Q", format=text) for name, text in formats.items()]


def interval(
    base: alt.Chart, value: alt.X | alt.Y, low: str = "low", high: str = "high", **marks
) -> alt.LayerChart:
    """A mark at a value and a line between its bounds, along the axis of `value`.

    marks: `rule` and `point`, options of the line and of the mark; channels of the mark.
    """
    axis = "x" if isinstance(value, alt.X) else "y"
    rule, point = marks.pop("rule", {}), marks.pop("point", {})
    bound = value.copy()
    bound["shorthand"] = f"{low}:Q"
    line = base.mark_rule(**rule).encode(**{axis: bound, f"{axis}2": f"{high}:Q"})
    return line + base.mark_point(filled=True, **point).encode(**{axis: value}, **marks)


def panels(**fields: pd.Series) -> dict[str, alt.Row | alt.Column]:
    """The channels `row` and `column` of a facet, with a panel for each value in order.

    fields: columns of the rows, by channel: `panels(column=rows["model"])`.
    """
    channels = {"row": alt.Row, "column": alt.Column}
    return {
        name: channels[name](f"{values.name}:N", title=None, sort=in_order(values))
        for name, values in fields.items()
    }


def _look() -> alt.theme.ThemeConfig:
    """Quiet axes in the colour of the page's text, for light and dark pages."""
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


def _render(chart: dict) -> dict:
    """HTML of a chart's specification, which `charts.js` draws once it is in view."""
    text = json.dumps(chart, separators=(",", ":")).replace("</", "<\\/")
    bound = any("bind" in parameter for parameter in chart.get("params", []))
    inside = '<form class="controls"></form>' if bound else ""
    inside += f'<div class="vl-host"></div><script type="application/json">{text}</script>'
    return {"text/html": f'<div class="vl-chart">{inside}</div>'}


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
    """Badges of the kinds of evidence in an array or column, for a sentence."""
    names = sorted(set(np.ravel(column)))
    return Page(" ".join(badge(name) if name in STATUSES else name for name in names))


def note(text: str) -> Page:
    """A sentence in place of an empty figure or table."""
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
    # less a half: what rounds up to a further digit needs no exponent
    if isinstance(value, int) or abs(value) >= 10**digits - 0.5:
        return "number", f"{value:,.0f}"
    return "number", f"{value:#.{digits}g}".rstrip(".")


def table(
    rows: pd.DataFrame | Sequence[dict], digits: int = 3, sorts: bool = False, empty: str = ""
) -> Page:
    """A table for a page, with numbers to the right and statuses as badges.

    digits: significant digits of numbers. sorts: readers may sort and filter the rows. empty: the
    sentence in place of no rows.
    """
    frame = pd.DataFrame(rows)
    if empty and not len(frame):
        return note(empty)
    head, columns = [], []
    for name, values in frame.items():
        cells = [_cell(value, digits) for value in values.tolist()]
        number = bool(cells) and all(kind == "number" for kind, _ in cells)
        right, title = "number" if number else "", html.escape(str(name))
        head.append(f'<th scope="col" class="{right}">{title}</th>')
        classes = {"number": right}
        columns.append(
            [f'<td class="{classes.get(kind, kind)}">{text}</td>' for kind, text in cells]
        )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    whole = f"<thead><tr>{''.join(head)}</tr></thead><tbody>{body}</tbody>"
    box = f"table-box{' sorts' if sorts else ''}"
    return Page(f'<div class="{box}"><table class="plain">{whole}</table></div>')


def download(frame: pd.DataFrame, name: str, text: str) -> Page:
    """A link that saves a table, which the page carries, as a CSV file of this name."""
    rows = frame.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    where = f'href="data:text/csv;charset=utf-8,{quote(rows)}" download="{name}"'
    return Page(f"<p><a {where}>{html.escape(text)}</a></p>")


def link(text: str, href: str) -> Page:
    """A link for a cell of a table, in a column of dtype object."""
    return Page(f'<a href="{html.escape(href)}">{html.escape(text)}</a>')


def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script, which may be loaded twice."""
    import vl_convert

    return "(function(){" + vl_convert.javascript_bundle(vl_version=VEGA_LITE) + "})();\n"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(bundle(), encoding="utf-8")
