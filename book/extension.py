"""What the book adds to Sphinx.

Equations become MathML, which needs no script or network. A number stays on a line with its unit.
The first use of a word of the glossary in a chapter is a link. The page of a run has its name and
its trace, and shows what `pages.py` takes from the executed notebook. A page with charts loads what
draws them. Chapters are executed in parallel.
"""

import os
import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import jupyter_client
import pages
from docutils.nodes import (
    Node,
    SkipNode,
    Text,
    caption,
    citation,
    definition_list_item,
    literal,
    paragraph,
    reference,
    title,
)
from docutils.nodes import inline as inline_node
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.matching import patfilter
from sphinx.util.math import get_node_equation_number
from traitlets import default

from footprint.chapters.appendices import show_pages

SAME = {
    r"\\(begin|end){(align\*?|split)}": r"\\\1{aligned}",
    r"\\bar\b": r"\\overline",
    r"\\dots\b": r"\\ldots",
}

UNIT = re.compile(r"(?<=\d) (?=(%|[kMG]?[WJ]\b|k?Wh\b|m?s\b|k?g\b|GB\b|GiB\b|mm²))")


def convert(node, block: bool) -> str:
    """MathML of an equation; a warning, and so an error of the build, if it cannot be converted."""
    source = node.astext()
    for written, known in SAME.items():
        source = re.sub(written, known, source)
    try:
        return tex2mathml(source, as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("equation: %s", error, location=node)
        return f"<code>{node.astext()}</code>"


def inline(writer, node) -> None:
    """An equation within a line."""
    writer.body.append(convert(node, block=False))
    raise SkipNode


def display(writer, node) -> None:
    """An equation on a line of its own, with its number where it has one."""
    identity = f' id="{node["ids"][0]}"' if node["ids"] else ""
    number = (
        f'<span class="eqno">({get_node_equation_number(writer, node)})</span>'
        if node.get("number")
        else ""
    )
    writer.body.append(f'<div class="equation"{identity}>{convert(node, block=True)}{number}</div>')
    raise SkipNode


class Glued(SphinxTransform):
    """A glued number becomes part of the text around it, as if its author had typed it."""

    default_priority = 400

    def apply(self) -> None:
        for number in list(self.document.findall(inline_node)):
            if "pasted-text" in number["classes"]:
                parent, place = number.parent, number.parent.index(number)
                around = range(max(place - 1, 0), min(place + 2, len(parent)))
                near = [i for i in around if i == place or isinstance(parent[i], Text)]
                text = "".join(parent[i].astext() for i in near)
                parent[near[0] : near[-1] + 1] = [Text(text)]


class Together(SphinxPostTransform):
    """A space between a number and its unit does not break."""

    default_priority = 900

    def run(self) -> None:
        for text in list(self.document.findall(Text)):
            if UNIT.search(text) and "xml:space" not in text.parent:
                text.parent.replace(text, Text(UNIT.sub("\u00a0", text)))


GLOSSARY = "book/glossary"


@cache
def glossary(env) -> dict[re.Pattern, tuple[str, str]]:
    """The place and meaning of each word of the glossary by its pattern, longest first."""
    found = {}
    for item in env.get_doctree(GLOSSARY).findall(definition_list_item):
        word, meaning = item[0].astext(), " ".join(item[-1].astext().split())
        exact = 0 if word.isupper() else re.IGNORECASE
        found[re.compile(rf"(?<![\w-]){re.escape(word)}(s|es)?(?![\w-])", exact)] = (
            item[0]["ids"][0],
            meaning,
        )
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0].pattern)))


class Words(SphinxPostTransform):
    """The first use of a word of the glossary in a chapter is a link with its meaning."""

    default_priority = 850

    def run(self) -> None:
        name = self.env.docname
        if not name.startswith("book/") or name == GLOSSARY or GLOSSARY not in self.env.all_docs:
            return
        left = dict(glossary(self.env))
        for text in list(self.document.findall(Text)):
            if self.reads(text):
                text.parent.replace(text, self.linked(str(text), left))

    def reads(self, node: Node) -> bool:
        """Whether a text stands in a sentence, and in no link, heading or code."""
        inside = False
        while node := node.parent:
            inside |= isinstance(node, (paragraph, caption))
            if isinstance(node, (reference, literal, title, citation)):
                return False
        return inside

    def linked(self, text: str, left: dict) -> list[Node]:
        """The text with links for the words that are still `left`, which they leave."""
        for pattern, (place, meaning) in left.items():
            if match := pattern.search(text):
                del left[pattern]
                where = f"{self.app.builder.get_relative_uri(self.env.docname, GLOSSARY)}#{place}"
                link = reference(
                    "", match[0], refuri=where, internal=True, reftitle=meaning, classes=["word"]
                )
                return [
                    *self.linked(text[: match.start()], left),
                    link,
                    *self.linked(text[match.end() :], left),
                ]
        return [Text(text)] if text else []


def of_run(name: str) -> bool:
    """Whether a page is that of a run."""
    return name.startswith("notebooks/")


class RunPage(SphinxTransform):
    """The page of a run has the run's name as its heading, and a link to its trace."""

    default_priority = 400

    def apply(self) -> None:
        if not of_run(self.env.docname):
            return
        _, device, run = self.env.docname.rsplit("/", 2)
        heading = next(self.document.findall(title))
        heading.clear()
        heading += Text(f"{run} on {device}")
        trace = download_reference(
            "", "", literal("", f"{run}.nc"), reftarget=f"{run}.nc", refdoc=self.env.docname
        )
        heading.parent.insert(2, paragraph("", "The trace of this run: ", trace))


class ByFile(jupyter_client.AsyncKernelManager):
    """A kernel over ipc sockets, which have no races for free TCP ports."""

    folder = TemporaryDirectory(prefix="kernels-")

    @default("transport")
    def by_file(self) -> str:
        return "ipc"

    @default("ip")
    def place(self) -> str:
        return f"{self.folder.name}/{uuid4().hex[:8]}"


def side_by_side(app: Sphinx, config) -> None:
    """Let Sphinx read pages in parallel; two extensions are safe for it but do not say so."""
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"):
        app.extensions[name].parallel_read_safe = True
    if os.name == "posix":
        jupyter_client.AsyncKernelManager = ByFile  # what nbclient starts kernels with
    # chapters differ in length, and each waits for its kernel to start
    app.parallel = 2 * (os.cpu_count() or 1)


def choose(app: Sphinx, config) -> None:
    """Let Sphinx see the chapters of the contents and the pages of runs that are ours.

    Links among the runs are not followed.
    """
    notebooks, contents = Path(app.srcdir, "notebooks"), config.external_site_map
    shown = [f"notebooks/{name}" for name in show_pages(notebooks)[0]]
    shown = {name for pattern in contents.globs() for name in patfilter(shown, pattern)}
    names = [*(f"{name}.md" for name in contents), *(f"{name}.ipynb" for name in shown)]
    config.include_patterns = names
    links = [path for path in notebooks.glob("*/**/*") if path.is_symlink()]
    names = [path.relative_to(app.srcdir).as_posix() for path in links]
    # a star for each sign that may mean something in a pattern
    config.exclude_patterns += [re.sub(r"[^\w./-]+", "*", name, flags=re.ASCII) for name in names]


def take(app: Sphinx, docname: str, source: list[str]) -> None:
    """Read of the page of a run what is shown of it."""
    if of_run(docname):
        source[0] = pages.page(Path(app.srcdir, f"{docname}.ipynb"))


def offer(app: Sphinx, error: Exception | None) -> None:
    """Offer the pages of runs for download as they are shown."""
    for name in filter(of_run, () if error else app.env.found_docs):
        shown = Path(app.outdir).parent / "jupyter_execute" / f"{name}.ipynb"
        shutil.copyfile(shown, Path(app.outdir) / "_sources" / f"{name}.ipynb")


def deal(app: Sphinx, env, docnames: list[str]) -> None:
    """Deal the pages out, so that no stretch of the list has all the long chapters."""
    docnames[:] = [
        name for start in range(app.parallel) for name in sorted(docnames)[start :: app.parallel]
    ]


def finish(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Load the bundle that draws charts, and drop contradictory roles of docutils."""
    body = context.get("body", "")
    if 'class="vl-chart"' in body:
        app.add_js_file("vega/bundle.js", priority=400, loading_method="defer")
    for role in (' role="list"', ' role="doc-biblioentry"'):
        body = re.sub(
            f'(<div(?: class="citation" id="[^"]*")?){role}(?= class="citation-list"|>)',
            r"\1",
            body,
        )
    context["body"] = body


def setup(app: Sphinx) -> dict:
    """Register the parts; the renderer has the name `mathml`."""
    app.connect("config-inited", side_by_side)
    app.connect("config-inited", choose, priority=950)  # once the contents are read, at 900
    app.connect("source-read", take)
    app.connect("build-finished", offer)
    app.connect("env-before-read-docs", deal)
    app.connect("html-page-context", finish)
    app.add_transform(Glued)
    app.add_transform(RunPage)
    app.add_post_transform(Words)
    app.add_post_transform(Together)
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
