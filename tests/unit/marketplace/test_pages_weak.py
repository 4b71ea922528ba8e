"""The operator's page of affected releases: weak parts, what is told of them, and nothing that a stranger can write."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request

from marketplace.keys import SigningKey
from marketplace.publishing import SignedPackage
from marketplace.registry import Registry
from marketplace.service import create_app
from marketplace.storefront.rendering import Renderer
from marketplace.storefront.weak import add_weakness_page
from marketplace.testing import make_signed, write_plugin
from plugin_sdk.sbom import Part
from tests.unit.marketplace.test_market_osv import osv

Bind = Callable[..., Awaitable[None]]
PAD, EVIL = Part("npm", "left-pad", "1.3.0"), Part("npm", "evil", "1.0.0")
MALICIOUS = osv("MAL-2026-1", "evil", events=({"introduced": "0"},))
GRAVE = {"database_specific": {"severity": "CRITICAL"}}


@pytest.fixture
def make(tmp_path: Path, key: SigningKey) -> Callable[..., SignedPackage]:
    def one(version: str = "1.0.0", *parts: Part, plugin: str = "acme/guard") -> SignedPackage:
        return make_signed(write_plugin(tmp_path / "sources", plugin, version), key, parts=parts)

    return one


@pytest.fixture
async def operator(registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(registry), client=("127.0.0.1", 5000))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as http:
        await http.post("/desk/enter", data={"link": registry.reader.access.make_link(registry.now())})
        yield http


async def look(operator: httpx.AsyncClient) -> str:
    answer = await operator.get("/desk/affected")
    assert answer.status_code == 200
    return answer.text


async def test_before_any_import_the_page_says_that_nothing_is_known(operator: httpx.AsyncClient) -> None:
    page = await look(operator)
    assert "No OSV export was ever imported" in page
    assert "No published release has a weak part" in page


async def test_releases_are_shown_with_their_weak_parts_and_what_platforms_are_told(
    registry: Registry, register: Bind, make: Callable[..., SignedPackage], operator: httpx.AsyncClient
) -> None:
    await register(registry)
    for signed in (make("1.0.0", PAD, EVIL), make("1.1.0")):
        await registry.publish(signed.package.data, signed.envelope)
    await registry.import_weaknesses([MALICIOUS, osv(**GRAVE)])

    page = await look(operator)

    # Once, with both parts, not once for each; the version without them is not there.
    assert page.count('href="/store/acme/guard/1.0.0"') == 1
    assert "/store/acme/guard/1.1.0" not in page
    for said in ("MAL-2026-1", "GHSA-aaaa-bbbb-cccc", "Malicious part", "critical", "1.1.0"):
        assert said in page
    assert "keelstone marketplace kill acme/guard 1.0.0" in page
    ids = {advisory.id for advisory in registry.reader.advisories.all()}
    assert ids == {"DEP-MAL-2026-1", "DEP-GHSA-aaaa-bbbb-cccc"}
    assert all(id_.replace("-", "-<wbr>") in page for id_ in ids)


async def test_a_revoked_release_comes_last_and_asks_for_nothing_more(
    registry: Registry, register: Bind, make: Callable[..., SignedPackage], operator: httpx.AsyncClient
) -> None:
    await register(registry)
    for signed in (make("1.0.0", EVIL), make("1.0.0", PAD, plugin="acme/zebra")):
        await registry.publish(signed.package.data, signed.envelope)
    await registry.import_weaknesses([MALICIOUS, osv(**GRAVE)])
    await registry.revoke("acme/guard", "1.0.0", "A part of it steals.")

    page = await look(operator)

    assert page.index("/store/acme/zebra/1.0.0") < page.index("/store/acme/guard/1.0.0")
    assert "Revoked" in page
    assert "marketplace kill" not in page


async def test_what_a_stranger_wrote_of_a_weakness_is_text(
    registry: Registry, register: Bind, make: Callable[..., SignedPackage], operator: httpx.AsyncClient
) -> None:
    await register(registry)
    signed = make("1.0.0", EVIL)
    await registry.publish(signed.package.data, signed.envelope)
    await registry.import_weaknesses([MALICIOUS | {"summary": "<script>alert(1)</script>"}])

    page = await look(operator)

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


async def test_a_long_list_is_cut_and_says_so(
    registry: Registry,
    register: Bind,
    make: Callable[..., SignedPackage],
) -> None:
    await register(registry)
    for version in ("1.0.0", "1.1.0"):
        signed = make(version, PAD)
        await registry.publish(signed.package.data, signed.envelope)
    await registry.import_weaknesses([osv()])
    app, router = FastAPI(), APIRouter(prefix="/desk")

    async def admitted(request: Request) -> None:
        """Everybody: the gate is tried elsewhere."""

    add_weakness_page(router, registry, Renderer(), admitted, most=1)
    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8700") as http:
        page = await look(http)

    assert "The first 1 of 2" in page
    assert page.count('class="timeline-head"') == 1


async def test_the_page_can_be_walked_by_headings_and_its_table_by_keyboard(
    registry: Registry, register: Bind, make: Callable[..., SignedPackage], operator: httpx.AsyncClient
) -> None:
    await register(registry)
    signed = make("1.0.0", EVIL)
    await registry.publish(signed.package.data, signed.envelope)
    await registry.import_weaknesses([MALICIOUS])

    page = await look(operator)
    shown = page[page.index("<h1>") : page.index("</section>\n", page.index("told-title")) + len("</section>")]
    tree = ET.fromstring(f"<main>{shown.replace('<wbr>', '<wbr/>')}</main>")

    titles = {each.get("id") for each in tree.iter("h2")}
    assert [each.tag for each in tree.iter() if each.tag in ("h1", "h2", "h3")] == ["h1", "h2", "h2"]
    assert {each.get("aria-labelledby") for each in tree.iter("section")} == titles
    assert all(each.get("scope") in ("col", "row") for each in tree.iter("th"))
    (region,) = (each for each in tree.iter("div") if each.get("role") == "region")
    assert (region.get("tabindex"), bool(region.get("aria-label"))) == ("0", True)
    assert '<a href="/desk/affected" aria-current="page">Affected</a>' in page
