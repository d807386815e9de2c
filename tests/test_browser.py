"""Every page of the built book in headless Chromium, from its file: light on a wide screen, dark on a phone, no network."""

import pytest
from playwright.sync_api import sync_playwright

from browser import HTML, LAUNCH, SIZES, pages, settle

# Of the theme, harmless: the first on every page, the second on the first page that a browser profile ever opens.
KNOWN = ("Identifier 'THEBE_JS_URL' has already been declared", "Got invalid theme mode: . Resetting to auto.")
TABS = (("light", "wide"), ("dark", "phone"))
STATE = """() => ({
    mode: document.documentElement.dataset.theme,
    charts: document.querySelectorAll('.vl-chart').length,
    drawn: document.querySelectorAll('.vl-chart[data-rendered] svg').length,
    named: document.querySelectorAll('.vl-host[aria-label]').length,
    raw: document.querySelectorAll('.math:not(math)').length,
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    cut: [...document.querySelectorAll('figure:has(.vl-chart)')].filter(
        figure => { const box = figure.querySelector('.vl-chart'); return box.scrollWidth > box.clientWidth; }
    ).map(figure => figure.id),
})"""
OVERLAPS = """() => [...document.querySelectorAll('.vl-host svg')].flatMap(chart => {
    const words = [...chart.querySelectorAll('.role-legend text, .role-axis text, .role-title text')].filter(
        word => word.textContent.trim() && getComputedStyle(word).opacity !== '0').map(
        word => ({text: word.textContent, box: word.getBoundingClientRect()}));
    return words.flatMap((one, i) => words.slice(i + 1).filter(({box}) =>
        Math.min(one.box.right, box.right) - Math.max(one.box.left, box.left) > 2 &&
        Math.min(one.box.bottom, box.bottom) - Math.max(one.box.top, box.top) > 4).map(two => `${one.text} | ${two.text}`));
})"""


@pytest.fixture(scope="module")
def chromium():
    assert LAUNCH["executable_path"], "Chromium is missing: install the package chromium."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**LAUNCH)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=TABS, ids="-".join)
def tab(chromium, request):
    """An open tab, its mode and its size."""
    mode, size = request.param
    context = chromium.new_context(viewport=SIZES[size], color_scheme=mode)
    yield context.new_page(), mode, size
    context.close()


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport=SIZES["wide"], color_scheme="light")
    yield page
    page.close()


def test_the_book_is_built():
    assert (HTML / "index.html").exists() and len(pages()) >= 20, "build it first: make render"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_a_page_stands_alone(tab, path):
    page, mode, size = tab
    chapter = path.parent.name == "book"  # a run's page is kept as it was executed, its charts too
    heard = ("error", "warning") if chapter else ("error",)
    asked, said = [], []
    listen = {
        "request": lambda request: asked.append(request.url),
        "pageerror": lambda error: said.append(str(error)),
        "console": lambda message: said.append(message.text) if message.type in heard else None,
    }
    for event, hear in listen.items():
        page.on(event, hear)
    page.goto(path.as_uri())
    settle(page)
    state, overlaps = page.evaluate(STATE), page.evaluate(OVERLAPS)
    for event, hear in listen.items():
        page.remove_listener(event, hear)
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not [text for text in said if not any(known in text for known in KNOWN)]
    assert state["mode"] == mode and state["drawn"] == state["named"] == state["charts"] and state["raw"] == 0
    assert state["sideways"] <= 0, "the page scrolls sideways"
    assert size == "phone" or not state["cut"], "a chart is wider than its page"
    assert not (chapter and overlaps), "words of a chart lie on each other"


def test_charts_follow_the_theme_switch(page):
    page.goto((HTML / "book" / "performance.html").as_uri())
    settle(page)
    colour = "() => getComputedStyle(document.querySelector('.vl-host svg text')).fill"
    before = page.evaluate(colour)
    while page.evaluate("() => document.documentElement.dataset.theme") != "dark":
        page.locator("button.theme-switch-button:visible").first.click()
    assert page.evaluate(colour) != before


def test_a_chart_waits_until_it_is_near_and_none_waits_for_the_printer(page):
    page.goto((HTML / "book" / "performance.html").as_uri())
    page.wait_for_selector(".vl-chart[data-rendered]")
    drawn = "() => document.querySelectorAll('.vl-chart[data-rendered]').length"
    charts = page.locator(".vl-chart").count()
    assert page.evaluate(drawn) < charts
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(f"() => ({drawn})() === {charts}")


def test_equations_are_drawn_and_numbered_by_chapter(page):
    page.goto((HTML / "book" / "performance.html").as_uri())
    chapter = page.locator("h1 .section-number").inner_text().strip(". ")
    numbers = page.locator(".equation .eqno").all_inner_texts()
    assert numbers[:2] == [f"({chapter}.1)", f"({chapter}.2)"]
    tall, plain = (page.locator(f".equation math {part}").first.bounding_box()["height"] for part in ("mfrac", "mfrac mtext"))
    assert tall > 1.8 * plain


def test_what_scrolls_can_be_reached_by_the_keyboard(chromium):
    page = chromium.new_page(viewport=SIZES["phone"])
    page.goto((HTML / "book" / "performance.html").as_uri())
    settle(page)
    stuck = """() => [...document.querySelectorAll('.table-box, .equation, .vl-chart')].filter(
        box => box.scrollWidth > box.clientWidth && box.tabIndex !== 0).length"""
    assert page.evaluate(stuck) == 0
    page.close()
