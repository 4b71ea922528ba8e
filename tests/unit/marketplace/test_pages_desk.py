"""The operator's pages: closed to everybody else, and what they show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from marketplace.publishing import SignedPackage
from marketplace.registry import Registry
from marketplace.registry.access import LINK_SECONDS, SESSION_SECONDS
from marketplace.registry.reach import Reached
from marketplace.service import create_app
from plugin_sdk.reporting import RATING
from tests.unit.marketplace.test_pages_reports import FakeSigner
from tests.unit.marketplace.test_pages_reports import rating as rated

Make = Callable[..., SignedPackage]
Open = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
PAGES = ("/desk", "/desk/releases", "/desk/ratings", "/desk/review", "/desk/affected")


@pytest.fixture
def browser(registry: Registry) -> Open:
    """A browser somewhere, looking at some address."""

    @asynccontextmanager
    async def opened(client: str = "127.0.0.1", base: str = "http://127.0.0.1:8700", **headers: str) -> Any:
        transport = httpx.ASGITransport(create_app(registry), client=(client, 5000))
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as http:
            yield http

    return opened


@pytest.fixture
async def operator(registry: Registry, browser: Open) -> AsyncIterator[httpx.AsyncClient]:
    async with browser() as http:
        await http.post("/desk/enter", data={"link": registry.reader.access.make_link(registry.now())})
        yield http


async def test_a_link_lets_in_once_and_only_by_the_button(registry: Registry, browser: Open) -> None:
    link = registry.reader.access.make_link(registry.now())
    async with browser() as http, browser() as other:
        looked = [await http.get("/desk/enter", params={"link": link}) for _ in range(2)]
        before = await http.get("/desk")
        entered = await http.post("/desk/enter", data={"link": link})
        inside = await http.get("/desk")
        again = await other.post("/desk/enter", data={"link": link})

        assert [page.status_code for page in looked] == [200, 200]
        assert before.status_code == 403
        assert "keelstone marketplace pages" in before.text
        assert entered.status_code == 303
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "path=/desk" in cookie
        assert inside.status_code == 200
        assert inside.headers["cache-control"] == "no-store"
        assert again.status_code == 403


async def test_links_and_sessions_end(registry: Registry, browser: Open, clock: Any) -> None:
    late = registry.reader.access.make_link(registry.now())
    clock.advance((LINK_SECONDS + 1) / 86_400)
    async with browser() as http:
        assert (await http.post("/desk/enter", data={"link": late})).status_code == 403
        await http.post("/desk/enter", data={"link": registry.reader.access.make_link(registry.now())})
        clock.advance((SESSION_SECONDS - 1) / 86_400)
        assert (await http.get("/desk")).status_code == 200
        clock.advance(2 / 86_400)
        assert (await http.get("/desk")).status_code == 403


async def test_leaving_ends_the_session_not_only_the_cookie(registry: Registry, operator: httpx.AsyncClient) -> None:
    session = operator.cookies["keelstone-desk"]
    assert registry.reader.access.holds(session, registry.now())

    await operator.post("/desk/leave")

    assert not registry.reader.access.holds(session, registry.now())
    assert (await operator.get("/desk")).status_code == 403


@pytest.mark.parametrize(
    "where",
    [
        {"client": "192.0.2.7"},
        {"base": "http://market.example"},
        {"base": "http://192.0.2.1:8700"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_from_elsewhere_not_even_a_good_session_opens_them(
    registry: Registry, browser: Open, where: dict[str, str]
) -> None:
    access = registry.reader.access
    session = access.enter(access.make_link(registry.now()), registry.now())
    link = access.make_link(registry.now())
    async with browser(**where) as http:
        for page in PAGES:
            answer = await http.get(page, headers={"cookie": f"keelstone-desk={session}"})
            assert answer.status_code == 403
            assert "on the marketplace&#39;s own machine only" in answer.text
        assert (await http.get("/desk/enter", params={"link": link})).status_code == 403
        assert (await http.post("/desk/enter", data={"link": link})).status_code == 403
    assert access.enter(link, registry.now()) is not None


@pytest.mark.parametrize("base", ["http://localhost:8700", "http://[::1]:8700", "http://127.0.0.1"])
async def test_every_name_of_this_machine_opens_them(registry: Registry, browser: Open, base: str) -> None:
    async with browser(base=base) as http:
        await http.post("/desk/enter", data={"link": registry.reader.access.make_link(registry.now())})
        assert [(await http.get(page)).status_code for page in PAGES] == [200] * len(PAGES)


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
async def test_a_form_on_another_site_changes_nothing(
    registry: Registry,
    operator: httpx.AsyncClient,
    register: Callable[..., Awaitable[None]],
    make_release: Make,
    headers: dict[str, str],
) -> None:
    await register(registry)
    signed = make_release()
    digest = (await registry.publish(signed.package.data, signed.envelope)).digest
    desk = registry.reader.ratings
    told = desk.take(FakeSigner().told(RATING, rated(registry, digest)), registry.now())

    answer = await operator.post(f"/desk/ratings/{told.id}", data={"reason": "x"}, headers=headers)

    assert answer.status_code == 403
    assert desk.newest()[0].hidden is None


async def test_a_rating_is_hidden_with_a_reason_and_shown_again(
    registry: Registry, operator: httpx.AsyncClient, register: Callable[..., Awaitable[None]], make_release: Make
) -> None:
    await register(registry)
    signed = make_release()
    digest = (await registry.publish(signed.package.data, signed.envelope)).digest
    told = registry.reader.ratings.take(FakeSigner().told(RATING, rated(registry, digest)), registry.now())

    silent = await operator.post(f"/desk/ratings/{told.id}", data={"reason": "  "})
    hidden = await operator.post(f"/desk/ratings/{told.id}", data={"reason": "Insults <b>people</b>."})
    page = (await operator.get("/desk/ratings")).text
    public = (await operator.get("/store/acme/guard")).text
    shown = await operator.post(f"/desk/ratings/{told.id}", data={"show": "1"})

    assert [silent.status_code, hidden.status_code, shown.status_code] == [422, 303, 303]
    assert "Insults &lt;b&gt;people&lt;/b&gt;." in page
    assert "Does what it says." not in public
    assert "Does what it says." in (await operator.get("/store/acme/guard")).text


async def test_the_state_of_the_registry_is_shown(
    registry: Registry,
    operator: httpx.AsyncClient,
    register: Callable[..., Awaitable[None]],
    make_release: Make,
    clock: Any,
) -> None:
    await register(registry)
    signed = make_release()
    digest = (await registry.publish(signed.package.data, signed.envelope)).digest
    await registry.revoke("acme/guard", "1.0.0", "Sent names <away>.")
    registry.reader.revocations.note(digest, Reached("platform-1", True, 2.5))
    registry.reader.revocations.note(digest, Reached("platform-2", False, 0.5))

    page = (await operator.get("/desk")).text
    roles = {each.role: each for each in registry.reader.state.roles()}
    (revoked,) = registry.reader.state.revoked()

    assert "Sent names &lt;away&gt;." in page
    assert "2.5 s" in page
    assert (revoked.platforms, revoked.had_it, revoked.slowest) == (2, 1, 2.5)
    assert set(roles) == {"root", "targets", "bins", "snapshot", "timestamp"}
    assert roles["timestamp"].version == roles["snapshot"].version > 1
    assert roles["timestamp"].expires < roles["root"].expires
    assert "Expired" not in page
    assert registry.reader.state.log_tail()[0].kind == "kill"


async def test_metadata_that_nobody_signed_anew_is_shown_as_expired(
    registry: Registry, browser: Open, clock: Any
) -> None:
    clock.advance(10)
    async with browser() as http:
        await http.post("/desk/enter", data={"link": registry.reader.access.make_link(registry.now())})
        assert "Expired" in (await http.get("/desk")).text


async def test_new_releases_are_shown_beside_what_was_before(
    registry: Registry,
    operator: httpx.AsyncClient,
    register: Callable[..., Awaitable[None]],
    make_release: Make,
    clock: Any,
) -> None:
    await register(registry)
    for version, more in (("1.0.0", ""), ("1.1.0", '[capabilities.kv]\nwhy = "Remembers people."\n')):
        signed = make_release(version=version, more=more)
        await registry.publish(signed.package.data, signed.envelope)
        clock.advance(1 / 24)

    newest, oldest = registry.reader.state.newest_releases()

    assert [change.words for change in newest.changes] == ["now keeps small values of its own for your tenant"]
    assert (newest.first, oldest.first) == (False, True)
    assert datetime.fromisoformat(newest.published).astimezone(UTC) > datetime.fromisoformat(oldest.published)
    assert "now keeps small values" in (await operator.get("/desk/releases")).text


@pytest.mark.parametrize(("verdict", "after"), [("approve", 200), ("reject", 404)])
async def test_a_held_release_is_looked_at_and_gets_a_verdict(
    registry: Registry,
    operator: httpx.AsyncClient,
    register: Callable[..., Awaitable[None]],
    make_release: Make,
    verdict: str,
    after: int,
) -> None:
    await register(registry)
    for version in ("1.0.0", "2.0.0", "1.1.0"):
        more = '[capabilities.kv]\nwhy = "Remembers <people>."\n' if version == "1.1.0" else ""
        signed = make_release(version=version, more=more)
        await registry.publish(signed.package.data, signed.envelope)
    page = f"/desk/review/{signed.package.digest}"

    queue, shown = (await operator.get("/desk/review")).text, (await operator.get(page)).text
    silent = await operator.post(page, data={"verdict": verdict})
    strange = await operator.post(
        page, data={"verdict": verdict, "reason": "x"}, headers={"Origin": "http://evil.test"}
    )
    waiting = registry.reader.reviews.queue()
    decided = await operator.post(page, data={"verdict": verdict, "reason": "Looked at it.", "reviewer": "Ada"})

    assert f'href="{page}"' in queue
    assert "now keeps small values of its own for your tenant" in shown
    assert "Remembers &lt;people&gt;." in shown
    assert (silent.status_code, strange.status_code, len(waiting)) == (422, 403, 1)
    assert decided.status_code == 303
    assert registry.reader.reviews.queue() == []
    assert (await operator.get("/store/acme/guard/1.1.0")).status_code == after
    assert "Looked at it." in (await operator.get(page)).text
    assert (await operator.get(f"/desk/review/{'0' * 64}")).status_code == 404
