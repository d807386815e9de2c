"""Sphinx extension: equations become MathML at build time, so that pages show them without script or network."""

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def inline(writer, node) -> None:
    """An equation within a line."""
    writer.body.append(convert(node.astext()))
    raise SkipNode


def display(writer, node) -> None:
    """An equation on a line of its own, with its number where it has one."""
    identity = f' id="{node["ids"][0]}"' if node["ids"] else ""
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    writer.body.append(f'<div class="equation"{identity}>{convert(node.astext(), display="block")}{number}</div>')
    raise SkipNode


def setup(app: Sphinx) -> dict:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
