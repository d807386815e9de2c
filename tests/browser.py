"""What the page checks and `look.py` share: a browser, the built pages, when a page has settled.

`python tests/browser.py` looks for a browser and gets one where there is none: Playwright's own,
or, for root with apt, the distribution's.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HTML = Path(__file__).parents[1] / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
MISSING = (
    "no browser: install Chromium, Chrome or Edge, "
    f"or run {os.path.relpath(sys.executable)} -m playwright install chromium"
)
FETCH_S = 600  # for one way to get a browser
SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


def launched(playwright):
    """The system's browser or Playwright's own, headless; RuntimeError where none starts."""
    from playwright.sync_api import Error

    system = next(filter(None, map(shutil.which, NAMES)), None)
    try:
        return playwright.chromium.launch(executable_path=system, args=list(QUIET))
    except Error:
        raise RuntimeError(MISSING) from None


def starts() -> bool:
    """Whether there is a browser that starts."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        try:
            launched(playwright).close()
        except RuntimeError:
            return False
    return True


def fetch() -> bool:
    """Whether there is a browser, got from Playwright or the distribution if need be."""
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        ways.append(["sh", "-c", "apt-get update -qq && apt-get install -y -qq chromium"])
    for way in [None, *ways]:
        if way:
            print("looking for a browser:", *way[-1:], flush=True)
            try:
                subprocess.run(way, capture_output=True, timeout=FETCH_S, check=False)
            except subprocess.TimeoutExpired:
                continue
        if starts():
            return True
    return False


def pages() -> list[Path]:
    """The pages of the built book that a reader opens."""
    skip = ("genindex.html", "search.html", "index.html")
    found = sorted((HTML / "book").glob("*.html")) + sorted((HTML / "notebooks").rglob("*.html"))
    return [path for path in found if path.name not in skip or path.parent.name == "book"]


def settle(page) -> None:
    """Scroll from chart to chart and wait until each is drawn."""
    for chart in page.locator(".vl-chart").element_handles():
        chart.scroll_into_view_if_needed()
        chart.wait_for_selector("xpath=self::*[@data-rendered or @data-failed]", state="attached")
    page.evaluate("() => window.scrollTo(0, 0)")


if __name__ == "__main__" and not fetch():
    sys.exit(f"Pages will not be tested in a browser; {MISSING}.")
