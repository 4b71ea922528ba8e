"""The storefront in a real browser: axe finds nothing, the keyboard goes everywhere, phones and no script do too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.absent import toolchains_at_hand
from tests.support.browser import a_browser, findings, npm_packages
from tests.support.market import Store, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.connected

PAGES = {
    "home": "/",
    "found": "/?q=invoice",
    "misspelt": "/?q=invioce",
    "nothing": "/?q=zzzzzz&publisher=lumen",
    "narrowed": "/?publisher=harbour&sort=name",
    "plugin": "/store/northwind/invoice-bridge",
    "revoked": "/store/lumen/translate/0.4.0",
    "withdrawn": "/store/harbour/address-check/1.4.2",
    "deprecated": "/store/old-mill/csv-export",
    "version": "/store/northwind/invoice-bridge/2.0.0",
    "weak": "/store/northwind/invoice-bridge/1.1.0",
    "publisher": "/store/northwind",
    "publishers": "/store",
    "missing": "/store/none/such",
    "closed": "/desk",
}
DESK = {
    "state": "/desk",
    "queue": "/desk/review",
    "releases": "/desk/releases",
    "affected": "/desk/affected",
    "reviews": "/desk/ratings",
}
PHONE, SCREEN = {"width": 360, "height": 740}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with served(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def packages() -> Path:
    with toolchains_at_hand():
        return npm_packages()
    raise AssertionError("toolchains_at_hand passes nothing over")


@pytest.fixture(scope="module")
def axe(packages: Path) -> str:
    return (packages / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def said_of(context: BrowserContext) -> list[str]:
    """What pages of a context complain of from now on; an answer that is an error on purpose is no complaint."""
    told: list[str] = []

    def note(page: Page) -> None:
        page.on("console", lambda m: told.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told.append(str(error)))

    context.on("page", note)
    return told


def complaints(told: list[str]) -> list[str]:
    return [text for text in told if "responded with a status of 40" not in text]


def test_axe_finds_nothing_on_any_page(store: Store, browser: Browser, axe: str, scheme: str) -> None:
    for size in (SCREEN, PHONE):
        context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        told, page = said_of(context), context.new_page()
        for name, path in PAGES.items():
            page.goto(store.url + path)
            assert findings(page, axe) == [], (name, size["width"])
        assert complaints(told) == []
        context.close()


def test_axe_finds_nothing_on_the_operators_pages(store: Store, browser: Browser, axe: str, scheme: str) -> None:
    context = browser.new_context(viewport=SCREEN, color_scheme=scheme)  # type: ignore[arg-type]
    told, page = said_of(context), context.new_page()
    page.goto(store.link())
    assert findings(page, axe) == []
    page.get_by_role("button", name="Enter").click()
    page.wait_for_url(f"{store.url}/desk")
    for name, path in DESK.items():
        page.goto(store.url + path)
        assert findings(page, axe) == [], name
    assert complaints(told) == []
    context.close()


def test_an_operator_looks_at_a_held_release_and_approves_it(store: Store, browser: Browser, axe: str) -> None:
    context = browser.new_context(viewport=SCREEN)
    told, page = said_of(context), context.new_page()
    page.goto(store.link())
    page.get_by_role("button", name="Enter").click()
    page.get_by_role("link", name="Review queue").click()
    page.get_by_role("link", name="northwind/stock-watch 0.10.0").click()
    page.get_by_role("heading", name="Against 0.9.0").wait_for()
    assert page.get_by_text("now keeps small values of its own for your tenant").is_visible()
    assert findings(page, axe) == []
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.get_by_label("Why").fill("A fix for those who stay before 1.0.")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("Nothing waits for a review").wait_for()
    answer = page.goto(f"{store.url}/store/northwind/stock-watch/0.10.0")
    assert answer is not None
    assert answer.status == 200
    assert complaints(told) == []
    context.close()


def test_an_operator_hides_a_review_and_leaves(store: Store, browser: Browser) -> None:
    context = browser.new_context(viewport=SCREEN)
    page = context.new_page()
    page.goto(store.link())
    page.get_by_role("button", name="Enter").click()
    page.get_by_role("link", name="Reviews", exact=True).click()
    review = page.get_by_role("listitem").filter(has_text="Set up in ten minutes.")
    review.get_by_label("Why hide the review").fill("Advertises something else.")
    review.get_by_role("button", name="Hide the review").click()
    page.get_by_text("Hidden: Advertises something else.").wait_for()
    page.goto(f"{store.url}/store/northwind/invoice-bridge")
    assert page.get_by_text("Set up in ten minutes.").count() == 0
    page.goto(f"{store.url}/desk/ratings")
    page.get_by_role("button", name="Show again").click()
    page.get_by_text("Hidden: Advertises something else.").wait_for(state="detached")
    page.get_by_role("button", name="Leave").click()
    page.wait_for_url(f"{store.url}/")
    answer = page.goto(f"{store.url}/desk")
    assert answer is not None
    assert answer.status == 403
    context.close()


def test_the_keyboard_goes_from_search_to_a_plugin_to_its_install_command(store: Store, browser: Browser) -> None:
    context = browser.new_context(viewport=SCREEN, permissions=["clipboard-read", "clipboard-write"])
    told, page = said_of(context), context.new_page()
    page.goto(f"{store.url}/store")
    page.keyboard.press("/")
    page.keyboard.type("invoice")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{store.url}/?q=invoice")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Invoice bridge":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/store/northwind/invoice-bridge")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.copy") == "install-command":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "keelstone marketplace install northwind/invoice-bridge"
    assert complaints(told) == []
    context.close()


def test_results_follow_the_typing_and_the_back_button_goes_back(store: Store, browser: Browser) -> None:
    context = browser.new_context(viewport=SCREEN)
    told, page = said_of(context), context.new_page()
    page.goto(f"{store.url}/")
    page.get_by_role("searchbox").press_sequentially("translate")
    page.get_by_role("heading", name="1 plugin for “translate”").wait_for()
    assert page.url == f"{store.url}/?q=translate"
    assert page.evaluate("document.activeElement.id") == "q"
    page.goto(f"{store.url}/")
    page.get_by_role("complementary", name="Narrow down").get_by_role("link", name="lumen").click()
    page.get_by_role("heading", name="3 plugins").wait_for()
    assert page.url == f"{store.url}/?publisher=lumen"
    page.go_back()
    page.get_by_role("heading", name="New here").wait_for()
    assert page.get_by_role("searchbox").is_visible()
    # What was narrowed in part of the page is kept by the next search.
    page.get_by_role("complementary", name="Narrow down").get_by_role("link", name="lumen").click()
    page.get_by_role("heading", name="3 plugins").wait_for()
    page.get_by_role("searchbox").fill("t")
    page.get_by_role("searchbox").press("Enter")
    page.wait_for_url("**q=t**")
    assert "publisher=lumen" in page.url
    assert complaints(told) == []
    context.close()


def test_on_a_phone_nothing_scrolls_sideways_and_targets_are_large(store: Store, browser: Browser) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = context.new_page()
    for name, path in PAGES.items():
        page.goto(store.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
    page.goto(f"{store.url}/store/northwind/invoice-bridge")
    copy = page.get_by_role("button", name="Copy the install command").bounding_box()
    assert copy is not None
    assert copy["height"] >= 40
    assert copy["y"] + copy["height"] < PHONE["height"]
    context.close()


def test_everything_is_read_and_searched_without_script(store: Store, browser: Browser) -> None:
    context = browser.new_context(viewport=SCREEN, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{store.url}/")
    page.get_by_role("searchbox").fill("invoice")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(f"{store.url}/?q=invoice")
    page.get_by_role("link", name="Invoice bridge").click()
    for text in (
        "keelstone marketplace install northwind/invoice-bridge",
        "It wants to send requests (GET, POST) to api.books.example, vat.example.",
        "now reaches vat.example",
        "Every link holds",
        "Since March not one invoice by hand.",
    ):
        assert page.get_by_text(text).first.is_visible(), text
    # A button that could do nothing is not shown.
    assert page.get_by_role("button", name="Copy the install command").count() == 0
    page.get_by_text("All 17 links that were checked").click()
    assert page.get_by_text("in-toto statement in a DSSE envelope").is_visible()
    page.get_by_role("link", name="Publishers").click()
    page.get_by_role("link", name="lumen").click()
    page.get_by_role("heading", level=1, name="lumen").wait_for()
    context.close()


def test_screen_readers_are_told_names_roles_and_where_they_are(store: Store, browser: Browser) -> None:
    context = browser.new_context(viewport=SCREEN)
    page = context.new_page()
    page.goto(f"{store.url}/store/northwind/invoice-bridge")
    for role, name in (
        ("banner", None),
        ("search", None),
        ("main", None),
        ("contentinfo", None),
        ("navigation", "Where this is"),
        ("navigation", "On this page"),
        ("complementary", "Install and facts"),
        ("region", "Provenance of 2.0.0"),
        ("region", "Reviews"),
        ("searchbox", "Search plugins"),
        ("button", "Copy the install command"),
        ("button", "Copy the digest"),
    ):
        found = page.get_by_role(role, name=name) if name else page.get_by_role(role)  # type: ignore[arg-type]
        assert found.count() == 1, (role, name)
    chart = page.get_by_role("img", name="Downloads a day over the last 90 days")
    assert chart.count() == 1
    assert page.get_by_role("img", name="4 of 5 stars").count() == 2
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    context.close()


def test_pages_ask_nobody_else_for_anything_and_obey_their_own_policy(store: Store, browser: Browser) -> None:
    context = browser.new_context(viewport=SCREEN)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in PAGES.values():
        page.goto(store.url + path)
    assert asked
    assert [url for url in asked if not url.startswith(store.url + "/")] == []
    page.goto(f"{store.url}/")
    ran = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            return window.ran === true;
        }"""
    )
    assert ran is False
    context.close()


def test_our_htmx_is_the_one_that_was_published(packages: Path) -> None:
    ours = (files("marketplace.storefront") / "static" / "htmx.min.js").read_bytes()
    theirs = (packages / "htmx.org" / "dist" / "htmx.min.js").read_bytes()

    assert hashlib.sha256(ours).hexdigest() == hashlib.sha256(theirs).hexdigest()
    licence = (files("marketplace.storefront") / "static" / "htmx.LICENSE.txt").read_text(encoding="utf-8")
    assert licence == (packages / "htmx.org" / "LICENSE").read_text(encoding="utf-8")
