"""The storefront's pages: what they show, where they lead, and that a stranger's text stays text."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import propose, sign_proposal
from marketplace.publishing import SignedPackage
from marketplace.registry import Registry
from marketplace.service import create_app
from marketplace.signing import sign_deprecation, sign_yank
from marketplace.storefront.asked import Asked
from marketplace.storefront.markup import changes_of, render_markdown, safe_link
from marketplace.storefront.words import count, moment, percent, relative
from marketplace.testing import make_signed, write_plugin
from plugin_sdk.profile import HookProfile, Trial
from tests.support.pictures import png

Make = Callable[..., SignedPackage]
Register = Callable[..., Awaitable[None]]
EVIL = "<script>alert(1)</script>"


class Markup(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
async def http(registry: Registry, register: Register) -> AsyncIterator[httpx.AsyncClient]:
    await register(registry, "acme", "globex")
    transport = httpx.ASGITransport(create_app(registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://market.test") as client:
        yield client


async def publish(registry: Registry, signed: SignedPackage) -> str:
    return (await registry.publish(signed.package.data, signed.envelope)).digest


def assert_tame(html: str) -> None:
    """Nothing in the page runs, loads from elsewhere, or styles itself."""
    page = Markup(html)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert "style" not in attributes, (tag, attributes)
        assert tag not in ("style", "iframe", "object", "embed", "base")
        for name in ("src", "href", "action", "srcset", "hx-get"):
            value = attributes.get(name) or ""
            assert not re.match(r"\s*(javascript|data|vbscript):", value, re.IGNORECASE), (tag, attributes)
            if tag != "a":
                assert not re.match(r"(https?:)?//", value), (tag, attributes)
    for script in page.all("script"):
        assert script.get("src", "").startswith(("/static/", "/marketplace/static/"))  # type: ignore[union-attr]


async def test_the_home_page_lists_plugins_with_facets_and_leads_to_them(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    await publish(registry, make_release("acme/guard", name="Door guard"))
    await publish(registry, make_release("globex/scorer", name="Lead scorer", keywords="sales"))

    page = await http.get("/")

    assert page.status_code == 200
    assert_tame(page.text)
    links = {link["href"] for link in Markup(page.text).all("a")}
    assert {"/store/acme/guard", "/store/globex/scorer", "/?keyword=sales", "/?publisher=globex"} <= links


async def test_a_search_is_told_by_its_address_and_narrowed_by_it(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    await publish(registry, make_release("acme/guard", name="Door guard"))
    await publish(registry, make_release("globex/scorer", name="Lead scorer", keywords="sales"))

    page = await http.get("/", params={"q": "scorer", "publisher": "globex"})
    none = await http.get("/", params={"q": "scorer", "publisher": "acme"})

    assert "Lead scorer" in page.text
    assert "Door guard" not in page.text
    assert 'value="scorer"' in page.text
    assert "Nothing found" in none.text


async def test_only_the_found_part_is_sent_to_htmx_but_the_whole_page_to_the_back_button(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    await publish(registry, make_release())

    part = await http.get("/", headers={"HX-Request": "true"})
    whole = await http.get("/", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})

    assert part.text.lstrip().startswith('<div id="found"')
    assert "<html" not in part.text
    assert "<html" in whole.text
    assert part.headers["vary"] == "HX-Request"


async def test_a_misspelt_word_is_told(registry: Registry, http: httpx.AsyncClient, make_release: Make) -> None:
    await publish(registry, make_release("acme/invoices", name="Invoice bridge"))

    page = await http.get("/", params={"q": "invioce"})
    right = await http.get("/", params={"q": "invoice"})

    assert "No plugin has “invioce”" in page.text
    assert 'href="/?q=invoice"' in page.text
    assert "No plugin has" not in right.text


async def test_what_does_not_run_here_is_left_out_until_asked_for(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    await publish(registry, make_release("acme/later", name="From later", extra='[requires]\nkernel = "^9.0"\n'))

    here = await http.get("/", params={"q": "later"})
    everywhere = await http.get("/", params={"q": "later", "all": "1"})

    assert "1 plugin would fit, but does not run on contract" in here.text
    assert 'href="/store/acme/later"' in everywhere.text


async def test_a_plugins_page_says_what_it_may_do_why_and_the_worst(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    more = '[capabilities.http]\nwhy = "Posts each lead to the CRM."\nhosts = ["crm.example"]\nmethods = ["POST"]\n'
    await publish(registry, make_release(more=more))

    page = await http.get("/store/acme/guard")

    assert "It wants to send requests (POST) to crm.example." in page.text
    assert "Posts each lead to the CRM." in page.text
    assert "It could send what it is given" in page.text
    assert "keelstone marketplace install acme/guard" in page.text


async def test_a_plugins_page_shows_what_each_version_may_do_more(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    await publish(registry, make_release(version="1.0.0"))
    await publish(registry, make_release(version="1.1.0", more='[capabilities.kv]\nwhy = "Remembers people."\n'))

    page = await http.get("/store/acme/guard")

    assert "now keeps small values of its own for your tenant" in page.text
    assert 'href="/store/acme/guard/1.0.0"' in page.text


async def test_the_provenance_is_walked_from_the_root_to_the_log(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    digest = await publish(registry, make_release())

    page = await http.get("/store/acme/guard/1.0.0")

    assert "Every link holds" in page.text
    assert "trusted here (sha256" in page.text
    assert f"sha256 {digest}" in page.text
    assert "Log entry" in page.text
    assert "proved by" in page.text


async def test_a_package_that_was_changed_on_disk_breaks_the_chain_on_its_page(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    digest = await publish(registry, make_release())
    path = registry.reader.package_path(digest)
    assert path is not None
    body = make_release(readme="# Guard\n\nSomething else.\n").package.data
    path.chmod(0o600)
    path.write_bytes(body[: len(path.read_bytes())] if len(body) > len(path.read_bytes()) else body)

    page = await http.get("/store/acme/guard")

    assert "Every link holds" not in page.text
    assert "Chain breaks" in page.text


async def test_withdrawn_revoked_and_deprecated_are_said_at_the_top(
    registry: Registry, http: httpx.AsyncClient, make_release: Make, key: SigningKey
) -> None:
    first = await publish(registry, make_release(version="1.0.0"))
    await publish(registry, make_release(version="1.1.0"))
    await publish(registry, make_release(version="1.2.0"))
    await publish(registry, make_release("acme/warden"))
    await registry.yank(sign_yank("acme/guard", "1.0.0", first, "Eats memory.", key))
    await registry.revoke("acme/guard", "1.1.0", "Sent names away.")
    await registry.deprecate(
        sign_deprecation("acme/guard", "No longer cared for.", "acme/warden", "2026-01-01T00:00:00Z", key)
    )

    yanked, revoked, newest = [
        (await http.get(f"/store/acme/guard/{version}")).text for version in ("1.0.0", "1.1.0", "1.2.0")
    ]

    assert "Version 1.0.0 was withdrawn by its publisher" in yanked
    assert "Eats memory." in yanked
    assert "Not to be installed" in yanked
    assert "Version 1.1.0 was revoked by this marketplace" in revoked
    assert "Sent names away." in revoked
    assert "No longer cared for." in newest
    assert 'href="/store/acme/warden"' in newest
    assert "keelstone marketplace install acme/guard" in newest


async def test_strangers_texts_cannot_act_on_any_page(
    registry: Registry, http: httpx.AsyncClient, make_release: Make, key: SigningKey
) -> None:
    readme = (
        f"# Guard\n\n{EVIL}\n\n[a](javascript:alert(1)) [b](//evil.example/x) [c](data:text/html,x) "
        '[d](https://ok.example "t") ![p](https://evil.example/p.png) ![q](x" onerror="alert(1)) '
        "<img src=x onerror=alert(1)>\n\n[![badge](https://evil.example/b.svg)](https://ok.example)\n\n"
        "```html\n<b onclick=x>\n```\n"
    )
    signed = make_release(name="G <b>x</b>", summary="Says <i>hi</i> & '-- to all.", keywords="<u>", readme=readme)
    digest = await publish(registry, signed)
    await publish(registry, make_release("acme/other"))
    await registry.yank(sign_yank("acme/guard", "1.0.0", digest, EVIL, key))
    await registry.deprecate(sign_deprecation("acme/guard", EVIL, None, "2026-01-01T00:00:00Z", key))

    for path in ("/", "/?q=%3Cscript%3Ealert(1)%3C/script%3E", "/store", "/store/acme", "/store/acme/guard"):
        page = await http.get(path)
        assert page.status_code == 200, path
        assert_tame(page.text)
        assert EVIL not in page.text
        assert "<i>hi" not in page.text
    page = await http.get("/store/acme/guard")
    links = [link["href"] for link in Markup(page.text).all("a")]
    assert "https://ok.example" in links
    assert not [link for link in links if link and "//evil.example/x" in link and not link.startswith("https://")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert not [image for image in Markup(page.text).all("img") if not (image["src"] or "").startswith("/store/")]


async def test_every_page_has_a_policy_that_allows_no_inline_script_and_nobody_else(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    await publish(registry, make_release())

    for path in ("/", "/store", "/store/acme", "/store/acme/guard", "/store/acme/guard/1.0.0", "/store/acme/none"):
        policy = (await http.get(path)).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


async def test_what_is_not_there_is_a_page_of_its_own_status(http: httpx.AsyncClient) -> None:
    missing = await http.get("/store/acme/none")
    malformed = await http.get("/store/acme/No%20Plugin")
    publisher = await http.get("/store/nobody")
    many = await http.get("/", params={"show": "100000"})

    assert [each.status_code for each in (missing, malformed, publisher, many)] == [404, 422, 404, 422]
    for each in (missing, malformed, publisher, many):
        assert each.headers["content-type"].startswith("text/html")
        assert "Browse plugins" in each.text


async def test_icons_are_served_so_that_they_cannot_act(
    registry: Registry, http: httpx.AsyncClient, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    await publish(registry, make_release("acme/plain"))
    folder = write_plugin(tmp_path / "drawn", "acme/drawn")
    (folder / "icon.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><circle r="3"/></svg>')
    await publish(registry, make_signed(folder, key))

    icon = await http.get("/store/acme/drawn/1.0.0/icon")
    none = await http.get("/store/acme/plain/1.0.0/icon")
    missing = await http.get("/store/acme/plain/2.0.0/icon")

    assert icon.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in icon.headers["content-security-policy"]
    assert ">G</text>" in none.text
    assert none.headers["content-security-policy"] == icon.headers["content-security-policy"]
    assert missing.status_code == 404


async def test_screenshots_are_shown_with_what_can_be_seen_on_them(
    registry: Registry, http: httpx.AsyncClient, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    await publish(registry, make_release("acme/plain"))
    shows = 'A list, <b>"quoted"</b>'
    folder = write_plugin(
        tmp_path / "seen", "acme/seen", more=f"[[screenshots]]\nfile = 'screenshots/a.png'\nshows = '{shows}'\n"
    )
    (folder / "screenshots").mkdir()
    (folder / "screenshots" / "a.png").write_bytes(png(320, 200, (9, 9, 9)))
    await publish(registry, make_signed(folder, key))

    page = await http.get("/store/acme/seen")
    shot = await http.get("/store/acme/seen/1.0.0/screenshots/1")
    others = [await http.get(f"/store/acme/{name}/1.0.0/screenshots/{at}") for name, at in (("seen", 2), ("plain", 1))]

    assert 'alt="A list, &lt;b&gt;&#34;quoted&#34;&lt;/b&gt;" width="320" height="200"' in page.text
    assert "Screenshots" not in (await http.get("/store/acme/plain")).text
    assert (shot.status_code, shot.headers["content-type"]) == (200, "image/png")
    assert shot.content == png(320, 200, (9, 9, 9))
    assert "sandbox" in shot.headers["content-security-policy"]
    assert shot.headers["x-content-type-options"] == "nosniff"
    assert [each.status_code for each in others] == [404, 404]
    assert (await http.get("/store/acme/seen/1.0.0/screenshots/0")).status_code == 422


async def test_links_stay_below_the_folder_that_the_service_is_mounted_in(
    registry: Registry, register: Register, make_release: Make
) -> None:
    await register(registry)
    await publish(registry, make_release())
    outer = Starlette(routes=[Mount("/marketplace", create_app(registry))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://platform.test") as client:
        for path in ("/marketplace/", "/marketplace/store/acme", "/marketplace/store/acme/guard"):
            page = Markup((await client.get(path)).text)
            found = [a.get(n) for tag, a in page.tags for n in ("href", "src", "action", "hx-get") if a.get(n)]
            assert found
            assert not [each for each in found if each and not each.startswith(("/marketplace/", "#", "https://"))]
            for asset in (page.all("link")[0]["href"], page.all("script")[0]["src"]):
                assert (await client.get(str(asset))).status_code == 200


async def test_files_of_the_pages_are_kept_for_ever_under_their_digest(http: httpx.AsyncClient) -> None:
    style = Markup((await http.get("/")).text).all("link")[1]["href"]

    now = await http.get(str(style))
    later = await http.get("/static/000000000000/store.css")
    strange = await http.get("/static/x/rendering.py")

    assert "immutable" in now.headers["cache-control"]
    assert now.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" not in later.headers["cache-control"]
    assert strange.status_code == 404


def test_script_in_all_is_under_60_kb() -> None:
    from importlib.resources import files

    static = files("marketplace.storefront") / "static"
    assert sum(len((static / name).read_bytes()) for name in ("htmx.min.js", "store.js")) < 60_000


def test_headings_of_a_readme_begin_below_the_pages_own() -> None:
    html = render_markdown("# Guard\n\n# One\n\n## Two\n", title="Guard")

    assert html == "<h3>One</h3>\n<h4>Two</h4>\n"


@pytest.mark.parametrize(
    ("changelog", "found"),
    [
        ("# Changelog\n\n## 1.1.0\n\n- New.\n\n## 1.0.0\n\n- First.\n", "- New."),
        ("## [1.1.0] - 2026-01-01\nNew.\n## 1.0.0\n", "New."),
        ("## v1.1.0\nNew.", "New."),
        ("## 1.1.0-rc.1\nOld.", ""),
        ("", ""),
    ],
)
def test_a_changelogs_part_about_a_version_is_found(changelog: str, found: str) -> None:
    text = changes_of(changelog, "1.1.0")

    assert text.removeprefix("- 2026-01-01").strip() == found


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "http://plain.example", "//x", "https://a b", 'https://a"x', None, ""]
)
def test_only_https_is_linked_to(address: str | None) -> None:
    assert safe_link(address) is None
    assert safe_link("https://ok.example/a?b=c") == "https://ok.example/a?b=c"


def test_an_address_leaves_out_what_is_as_it_begins() -> None:
    asked = Asked(q="a b", publisher="acme", show=40)

    assert asked.link() == "?q=a+b&publisher=acme"
    assert asked.link(publisher="", all=True) == "?q=a+b&all=1"
    assert asked.link(show=60) == "?q=a+b&publisher=acme&show=60"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (-60, "1 minute ago"),
        (-7_200, "2 hours ago"),
        (-3 * 86_400, "3 days ago"),
        (-15 * 86_400, "2 weeks ago"),
        (-62 * 86_400, "2 months ago"),
        (-800 * 86_400, "2 years ago"),
        (86_400 * 6, "in 6 days"),
    ],
)
def test_moments_are_told_in_relative_words(seconds: float, words: str) -> None:
    assert relative(seconds) == words
    assert f">{words}</time>" in moment(1_800_000_000 + seconds, 1_800_000_000)


def test_numbers_are_told_short_and_nothing_small_as_nothing() -> None:
    assert [count(n) for n in (7, 12_345, 123_456, 4_200_000)] == ["7", "12,345", "123 k", "4.2 M"]
    assert [percent(n) for n in (0, 0.0002, 0.0123, 0.5)] == ["0%", "under 0.1%", "1.2%", "50%"]


async def test_known_weaknesses_are_said_at_the_top_of_the_versions_that_have_them(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    for version in ("1.0.0", "1.2.0"):
        await publish(registry, make_release(version=version))
    said = {
        "id": "ACME-2026-0001",
        "modified": "2026-11-01T10:00:00Z",
        "summary": f"The guard sleeps {EVIL}",
        "affected": [
            {
                "package": {"ecosystem": "Keelstone", "name": "acme/guard"},
                "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.2.0"}]}],
            }
        ],
    }
    await registry.advise(json.dumps(said).encode())

    weak, mended = [(await http.get(f"/store/acme/guard/{version}")).text for version in ("1.0.0", "1.2.0")]
    page = (await http.get("/store/acme/guard")).text

    assert "1.0.0 has a known weakness: The guard sleeps" in weak
    assert "Mended in 1.2.0." in weak
    assert "has a known weakness" not in mended
    assert "No advisory speaks of 1.2.0." in mended
    assert "ACME-2026-0001" in page
    for each in (weak, mended, page):
        assert EVIL not in each
        assert_tame(each)


async def test_a_publishers_page_says_what_happened_to_its_keys(
    registry: Registry, http: httpx.AsyncClient, make_release: Make, key: SigningKey
) -> None:
    assert "What happened to them" not in (await http.get("/store/acme")).text
    first = registry.reader.key_set("acme")
    other = generate_key()
    proposal = propose(first, [other.public], threshold=1, owner="Globex Ltd <b>")
    await registry.register_namespace(sign_proposal(proposal, [key, other]))

    page = (await http.get("/store/acme")).text

    assert "Now held by Globex Ltd &lt;b&gt;" in page
    assert "First keys" in page


async def test_what_a_call_takes_is_shown_beside_the_version_before(
    open_registry: Callable[..., Registry], register: Register, make_release: Make
) -> None:
    needs = {"user_creating": HookProfile(fuel=120_000, memory_bytes=2 << 20, output_bytes=64)}
    registry = open_registry(check_contract=lambda *_: Trial((), dict(needs)))
    await register(registry)
    await publish(registry, make_release("acme/guard", version="1.0.0"))
    needs["user_creating"] = HookProfile(fuel=250_000, memory_bytes=3 << 20, output_bytes=64)
    await publish(registry, make_release("acme/guard", version="1.1.0"))
    transport = httpx.ASGITransport(create_app(registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://market.test") as http:
        newest, first = (await http.get("/store/acme/guard")).text, (await http.get("/store/acme/guard/1.0.0")).text
    assert_tame(newest)
    assert "What a call takes" in newest
    assert "250,000" in newest
    assert "120,000 in 1.0.0" in newest
    assert "2.0 MiB in 1.0.0" in newest
    assert "120,000" in first
    assert " in 1." not in first.partition("What a call takes")[2].partition("</table>")[0]


async def test_what_was_not_tried_says_nothing_of_what_a_call_takes(
    registry: Registry, http: httpx.AsyncClient, make_release: Make
) -> None:
    await publish(registry, make_release("acme/guard"))
    assert "What a call takes" not in (await http.get("/store/acme/guard")).text
