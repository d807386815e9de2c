"""Every page of the built book in headless Chromium, light and wide or dark and narrow."""

import io
import os

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from browser import HTML, SIZES, launched, pages, settle
from footprint import carbon, decide, spec
from footprint.chapters.book import load
from footprint.chapters.totals import SAMPLES

# Of the theme, harmless: on the first page of a browser profile.
KNOWN = ("Got invalid theme mode: . Resetting to auto.",)
TABS = (("light", "wide"), pytest.param(("dark", "phone"), marks=pytest.mark.slow))
STATE = """() => ({
    mode: document.documentElement.dataset.theme,
    charts: document.querySelectorAll('.vl-chart').length,
    drawn: document.querySelectorAll('.vl-chart[data-rendered] svg').length,
    named: document.querySelectorAll('.vl-host[aria-label]').length,
    raw: document.querySelectorAll('.math:not(math)').length,
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    cut: [...document.querySelectorAll('figure:has(.vl-chart)')].filter(figure => {
        const box = figure.querySelector('.vl-chart');
        return box.scrollWidth > box.clientWidth;
    }).map(figure => figure.id),
})"""
OVERLAPS = """() => [...document.querySelectorAll('.vl-host svg')].flatMap(chart => {
    const roles = '.role-legend text, .role-axis text, .role-title text';
    const words = [...chart.querySelectorAll(roles)].filter(
        word => word.textContent.trim() && getComputedStyle(word).opacity !== '0').map(
        word => ({text: word.textContent, box: word.getBoundingClientRect()}));
    return words.flatMap((one, i) => words.slice(i + 1).filter(({box}) =>
        Math.min(one.box.right, box.right) - Math.max(one.box.left, box.left) > 2 &&
        Math.min(one.box.bottom, box.bottom) - Math.max(one.box.top, box.top) > 4
    ).map(two => `${one.text} | ${two.text}`));
})"""


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        try:
            browser = launched(playwright)
        except RuntimeError as missing:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
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
    assert (
        state["mode"] == mode
        and state["drawn"] == state["named"] == state["charts"]
        and state["raw"] == 0
    )
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
    tall, plain = (
        page.locator(f".equation math {part}").first.bounding_box()["height"]
        for part in ("mfrac", "mfrac mtext")
    )
    assert tall > 1.8 * plain


def test_what_scrolls_can_be_reached_by_the_keyboard(chromium):
    page = chromium.new_page(viewport=SIZES["phone"])
    page.goto((HTML / "book" / "performance.html").as_uri())
    settle(page)
    stuck = """() => [...document.querySelectorAll('.table-box, .equation, .vl-chart')].filter(
        box => box.scrollWidth > box.clientWidth && box.tabIndex !== 0).length"""
    assert page.evaluate(stuck) == 0
    page.close()


def saved(page, kind: str) -> bytes:
    """What the button of a page's first figure saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save this figure as {kind}").first.click()
    assert download.value.suggested_filename == f"fig-latency.{kind.lower()}"
    return download.value.path().read_bytes()


def test_a_figure_can_be_taken_away_with_its_numbers(page):
    page.goto((HTML / "book" / "performance.html").as_uri())
    page.wait_for_selector(".vl-chart[data-rendered]")
    svg = saved(page, "SVG").decode()
    assert svg.startswith('<svg color="#222"') and "TTFT" in svg
    png = saved(page, "PNG")
    width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))
    assert png.startswith(b"\x89PNG") and width > 900 and height > 500
    rows = pd.read_csv(io.BytesIO(saved(page, "CSV")))
    told = {"gpu", "phase", "batch", "time_s", "time_s_low", "time_s_high", "evidence"}
    assert told <= set(rows) and len(rows) > 40
    for name in ("cells", "runs"):
        href = page.locator(f".take a:text-is('{name}')").first.get_attribute("href")
        assert (HTML / "book" / href).exists()


def test_the_table_of_runs_is_filtered_and_sorted(page):
    page.goto((HTML / "book" / "runs.html").as_uri())
    rows = page.locator(".sorts tbody tr")
    whole = rows.count()
    page.get_by_role("searchbox", name="Show only rows").fill("Modelled T4")
    shown = rows.filter(visible=True)
    assert 0 < shown.count() < whole and all("T4" in text for text in shown.all_inner_texts())
    page.get_by_role("searchbox", name="Show only rows").fill("")
    head = page.locator(".sorts th", has_text="windows")
    for way in ("ascending", "descending"):
        head.get_by_role("button").click()
        column = head.evaluate("cell => cell.cellIndex")
        counts = [int(row.locator("td").nth(column).inner_text()) for row in rows.all()]
        assert head.get_attribute("aria-sort") == way and counts == sorted(
            counts, reverse=way == "descending"
        )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_axe_finds_nothing_serious_or_critical(chromium, mode):
    page, axe, found = chromium.new_page(viewport=SIZES["wide"], color_scheme=mode), Axe(), []
    for path in pages():
        page.goto(path.as_uri())
        settle(page)
        for fault in axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                found += [
                    f"{path.stem}: {fault['id']}: {node['html'][:120]}" for node in fault["nodes"]
                ]
    page.close()
    assert not found, found


BARS = """() => {
    const bars = document.querySelectorAll('.mark-rule [aria-label*="whole: "]');
    return Object.fromEntries([...bars].map(bar => {
        const parts = bar.getAttribute('aria-label').split('; ');
        const said = Object.fromEntries(parts.map(part => part.split(': ')));
        return [said.name, [said.whole, said.low, said.high, said.making].map(Number)];
    }));
}"""


def explorer(page, settings: str = "") -> dict[str, list[float]]:
    """Mean, low, high and making (mg a token) of each bar of the explorer at these settings."""
    page.goto("about:blank")
    page.goto((HTML / "book" / "explorer.html").as_uri() + settings)
    page.wait_for_selector(".vl-chart[data-rendered]")
    return page.evaluate(BARS)


def test_the_explorer_computes_what_the_library_computes(page):
    shown = explorer(
        page,
        "#model=llama-3b&batch=8&engine=serving&region=US-NW-PACE&approach=teardown&utilisation=0.3"
        "&lifetime=3&pue=1.4",
    )
    world, cards = load().market.isel(sample=slice(SAMPLES)), spec.gpus()
    request = decide.Request(engine="serving", batch=[8])
    use = carbon.Use(lifetime_years=3.0, utilisation=0.3, pue=1.4)
    points = request.points("llama-3b", cards)
    tokens = decide.tokens(points, world, use, methods=["teardown"]).sel(zone="US-NW-PACE")
    tokens = tokens.squeeze(drop=True)
    whole = decide.total(tokens)
    seen = 0
    for card in cards:
        mean, low, high, making = shown.get(spec.label(card), [np.nan] * 4)
        exact = whole.sel(gpu=card).values * 1e3
        assert np.isnan(mean) == np.isnan(exact).all(), card
        if not np.isnan(mean):
            seen += 1
            assert mean == pytest.approx(exact.mean(), rel=0.02), card
            assert (low, high) == pytest.approx(tuple(np.sort(exact)[[2, -4]]), rel=0.05), card
            assert making == pytest.approx(
                float(tokens["embodied_g"].sel(gpu=card).mean()) * 1e3, rel=0.02
            ), card
    assert seen >= 14


def test_a_host_in_the_explorer_is_the_library_s(page):
    shown = explorer(
        page,
        "#model=llama-7b&batch=1&engine=serving&region=US-CAL-CISO&utilisation=1&host=100&host_kg=144",
    )
    table = decide.optimum(
        "llama-7b",
        "US-CAL-CISO",
        request=decide.Request(engine="serving", batch=[1]),
        use=carbon.Use(host_W=100, host_kg=144),
        world=load().market.isel(sample=slice(SAMPLES)),
    ).set_index("gpu")
    assert len(table) == len(shown)
    for card, row in table.iterrows():
        assert shown[spec.label(card)][0] == pytest.approx(row["mean_g"] * 1e3, rel=0.02), card
    words = " ".join(page.locator(".vl-host svg text").all_text_contents())
    assert f"best in {100 * table['least'].max():.0f} %" in words


def test_the_explorer_is_used_by_the_keyboard_and_its_state_is_in_the_address(page):
    before = explorer(page)
    assert len(before) == len(spec.gpus()) and "#" not in page.url
    page.focus("select[name=batch]")
    page.keyboard.press("ArrowDown")
    page.focus("input[name=lifetime]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.hash === '#batch=16&lifetime=5.5'")
    after = page.evaluate(BARS)
    assert after["L4"][0] < before["L4"][0]
    assert explorer(page, page.url.partition("#")[1] + page.url.partition("#")[2]) == after
    page.evaluate("() => { location.hash = '#batch=8'; }")
    page.wait_for_function("() => document.querySelector('select[name=batch]').value === '8'")
    assert page.evaluate(BARS) == before


def test_the_explorer_says_why_a_card_has_no_bar_and_takes_no_nonsense(page):
    plain = explorer(page)
    assert explorer(page, "#batch=3&model=gpt&lifetime=abc&colour=red") == plain
    limited = explorer(page, "#approach=paper")
    assert set(limited) == {"T4", "RTX 6000 Ada"}
    words = " ".join(page.locator(".vl-host svg text").all_text_contents())
    assert "no value by paper" in words and "T4 emits less than RTX 6000 Ada" in words
    explorer(page, "#batch=256&ttft=0.2")
    words = " ".join(page.locator(".vl-host svg text").all_text_contents())
    assert "first token too late" in words and "does not fit" in words
