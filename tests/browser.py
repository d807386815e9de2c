"""What the page checks and `look.py` share: where Chromium is, the pages of the built book, and when a page has settled."""

import shutil
from pathlib import Path

HTML = Path(__file__).parents[1] / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome")
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
LAUNCH = {
    "executable_path": next(filter(None, map(shutil.which, NAMES)), None),
    "args": list(QUIET),
}


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
