"""Screenshots of the pages, light, dark, wide and phone: python tests/look.py FOLDER [PAGE ...]"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from browser import SIZES, launched, pages, settle

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[2:]
    with sync_playwright() as playwright:
        chromium = launched(playwright)
        for mode in ("light", "dark"):
            for name, size in SIZES.items():
                context = chromium.new_context(viewport=size, color_scheme=mode)
                page = context.new_page()
                for path in pages():
                    if not wanted or path.stem in wanted:
                        page.goto(path.as_uri())
                        settle(page)
                        page.screenshot(
                            path=folder / f"{path.stem}-{mode}-{name}.png", full_page=True
                        )
