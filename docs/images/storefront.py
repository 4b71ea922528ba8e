"""Takes the picture of the storefront anew, from its real page: ``python -m docs.images.storefront``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.browser import a_browser
from tests.support.market import served

PICTURE = Path(__file__).parent / "storefront.png"


def take() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as home, served(Path(home)) as store, a_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1500})
        page.goto(f"{store.url}/store/northwind/invoice-bridge")
        page.screenshot(path=PICTURE)


if __name__ == "__main__":
    take()
