"""A real browser for tests: the machine's Chromium, driven by Playwright, and axe to look for what keeps people out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_sdk.toolchain.fetch import Toolchains
from tests.services.base import Unavailable, apt_install
from tests.support.absent import absent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PINS = Path(__file__).parent / "browser_pins"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str:
    """The browser's program, installed by apt if it may be. Raises Unavailable."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        apt_install("chromium")
        found = shutil.which("chromium")
    if found is None:
        raise Unavailable("apt installed chromium, and there is no program of that name")
    return found


@contextmanager
def a_browser() -> Iterator[Browser]:
    """A browser without a window. Where there is none, the test is skipped."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("no Playwright: `make connected` installs requirements/browser.lock")
    try:
        program = find_chromium()
    except Unavailable as error:
        absent(f"no Chromium: {error}")
    with sync_playwright() as driver:
        # Its own sandbox refuses root, which is who runs in a container; the pages are ours.
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def npm_packages() -> Path:
    """The folder of the pinned npm packages: axe, and htmx to compare ours with. Raises ToolchainUnavailable."""
    return Toolchains().packages("tests-browser", PINS, "axe and htmx")


def findings(page: Page, axe: str) -> list[str]:
    """What axe finds wrong with a page, one line each: rule, impact, and where."""
    # Through the browser's own debugger: the page's policy allows no script of anybody else.
    page.evaluate(f"() => {{ {axe}\n }}")
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']}: {node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]
