"""Ratings and figures: who may say what, how often, and what is shown of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from kernel.errors import NotFound, ValidationFailed
from marketplace.errors import SignatureInvalid, TooManyReports
from marketplace.keys import SigningKey, generate_key
from marketplace.publishing import SignedPackage
from marketplace.registry import Registry
from marketplace.registry.platforms import Told
from marketplace.registry.ratings import RatingsDesk
from marketplace.registry.tables import Tables
from marketplace.service import create_app
from marketplace.signing import sign_answer
from plugin_sdk.reporting import (
    FIGURES,
    LATENCY_MS,
    RATING,
    coarse,
    percentile,
    platform_name,
    pseudonym,
    step,
)

Make = Callable[..., SignedPackage]


class FakeSigner:
    """A platform's signer with a key of its own."""

    def __init__(self) -> None:
        self.key = OKPKey.generate_key("Ed25519", {"kid": "one"})

    def sign(self, kind: str, statement: Mapping[str, Any]) -> str:
        import json

        header = {"alg": "Ed25519", "kid": "one", "typ": kind}
        body = json.dumps(statement, sort_keys=True).encode()
        return jws.serialize_compact(header, body, self.key, algorithms=["Ed25519"])

    def public_keys(self) -> dict[str, Any]:
        return {"keys": [{**self.key.as_dict(private=False), "use": "sig", "alg": "Ed25519"}]}

    def told(self, kind: str, statement: Mapping[str, Any]) -> Told:
        return Told(self.sign(kind, statement), self.public_keys())


@pytest.fixture
async def digest(registry: Registry, register: Callable[..., Awaitable[None]], make_release: Make) -> str:
    await register(registry)
    signed = make_release()
    return (await registry.publish(signed.package.data, signed.envelope)).digest


@pytest.fixture
async def http(registry: Registry, digest: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://market.test") as client:
        yield client


def rating(registry: Registry, published: str, tenant: str = "tenant-1", stars: int = 4, **more: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(registry.now(), UTC).isoformat(timespec="seconds")
    said = {"plugin": "acme/guard", "version": "1.0.0", "digest": published, "tenant": tenant, "stars": stars, "at": at}
    return {**said, "text": "Does what it says.", **more}


def figures(registry: Registry, version: str = "1.0.0", tenants: int = 2, ago: int = 0, **more: Any) -> dict[str, Any]:
    day = datetime.fromtimestamp(registry.now(), UTC).date() - timedelta(days=ago)
    latency = [0] * (len(LATENCY_MS) + 1)
    latency[2] = 90
    latency[5] = 10
    row = {"plugin": "acme/guard", "version": version, "tenants": tenants, "calls": 100, "errors": 2}
    return {"day": day.isoformat(), "part": "ab" * 8, "rows": [{**row, "latency": latency, **more}]}


def today(registry: Registry) -> Any:
    return datetime.fromtimestamp(registry.now(), UTC).date()


# ---------------------------------------------------------------------------- ratings


async def test_a_rating_signed_by_a_platform_is_shown_with_its_plugin(
    registry: Registry, digest: str, http: httpx.AsyncClient
) -> None:
    signer = FakeSigner()
    told = signer.told(RATING, rating(registry, digest))

    answer = await http.post("/ratings", json={"statement": told.statement, "keys": told.keys})
    listed = (await http.get("/plugins/acme/guard/ratings")).json()
    page = (await http.get("/store/acme/guard")).text

    assert answer.status_code == 201
    assert listed["summary"] == {"number": 1, "mean": 4.0, "stars": [0, 0, 0, 1, 0], "platforms": 1}
    assert listed["ratings"][0]["platform"] == platform_name(signer.public_keys())
    assert "Does what it says." in page
    assert "4 of 5 stars" in page


async def test_a_tenant_has_one_rating_of_a_plugin_and_the_newer_counts(registry: Registry, digest: str) -> None:
    signer, desk = FakeSigner(), registry.reader.ratings
    desk.take(signer.told(RATING, rating(registry, digest, stars=1)), registry.now())
    desk.take(signer.told(RATING, rating(registry, digest, stars=5)), registry.now())
    desk.take(signer.told(RATING, rating(registry, digest, tenant="tenant-2", stars=2)), registry.now())
    # Another platform's tenant of the same name is another tenant.
    desk.take(FakeSigner().told(RATING, rating(registry, digest, stars=2)), registry.now())

    assert sorted(each.stars for each in desk.of("acme/guard")) == [2, 2, 5]
    assert desk.summaries(["acme/guard"])["acme/guard"].platforms == 2


async def test_nothing_counts_that_is_not_signed_by_the_keys_it_comes_with(registry: Registry, digest: str) -> None:
    signer, stranger, desk = FakeSigner(), FakeSigner(), registry.reader.ratings
    said = rating(registry, digest)
    private = {"keys": [signer.key.as_dict(private=True)]}
    for told in (
        Told(signer.sign(RATING, said), stranger.public_keys()),
        Told(signer.sign(FIGURES, said), signer.public_keys()),
        Told(signer.sign(RATING, said)[:-6] + "AAAAAA", signer.public_keys()),
        Told("nonsense", signer.public_keys()),
        Told(signer.sign(RATING, said), {}),
        Told(signer.sign(RATING, said), {"keys": signer.public_keys()["keys"] * 9}),
        Told(signer.sign(RATING, said), private),
        Told(signer.sign(RATING, said), {"keys": [{"kty": "oct", "k": "AAAA"}]}),
    ):
        with pytest.raises(SignatureInvalid):
            desk.take(told, registry.now())
    assert desk.of("acme/guard") == []


async def test_only_what_this_marketplace_published_is_rated(registry: Registry, digest: str) -> None:
    signer, desk = FakeSigner(), registry.reader.ratings
    for more in ({"digest": "0" * 64}, {"version": "9.9.9"}, {"plugin": "acme/other"}):
        with pytest.raises(NotFound):
            desk.take(signer.told(RATING, rating(registry, digest, **more)), registry.now())
    assert desk.newest() == []


@pytest.mark.parametrize(
    "more",
    [
        {"stars": 0},
        {"stars": 6},
        {"stars": True},
        {"stars": "5"},
        {"text": "x" * 1_001},
        {"text": 7},
        {"tenant": ""},
        {"tenant": "t" * 201},
        {"at": "2020-01-01T00:00:00+00:00"},
        {"at": "not a moment"},
    ],
)
async def test_what_is_no_rating_of_today_is_refused(registry: Registry, digest: str, more: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        registry.reader.ratings.take(FakeSigner().told(RATING, rating(registry, digest, **more)), registry.now())


async def test_a_platform_rates_only_so_much_in_a_day(
    registry: Registry, digest: str, tmp_path: Path, clock: Any
) -> None:
    signer, desk = FakeSigner(), RatingsDesk(Tables(tmp_path / "registry"), a_day=2)
    for number in range(2):
        desk.take(signer.told(RATING, rating(registry, digest, tenant=f"tenant-{number}")), registry.now())
    with pytest.raises(TooManyReports):
        desk.take(signer.told(RATING, rating(registry, digest, tenant="tenant-9")), registry.now())
    clock.advance(1)
    desk.take(signer.told(RATING, rating(registry, digest, tenant="tenant-9")), registry.now())
    assert len(desk.of("acme/guard")) == 3


async def test_only_so_many_platforms_are_new_in_a_day(registry: Registry, digest: str, tmp_path: Path) -> None:
    desk, known = RatingsDesk(Tables(tmp_path / "registry"), new_a_day=2), FakeSigner()
    for signer in (known, FakeSigner()):
        desk.take(signer.told(RATING, rating(registry, digest)), registry.now())
    with pytest.raises(TooManyReports):
        desk.take(FakeSigner().told(RATING, rating(registry, digest)), registry.now())
    desk.take(known.told(RATING, rating(registry, digest, tenant="tenant-2")), registry.now())


async def test_the_operator_hides_a_rating_and_ignores_a_platform(registry: Registry, digest: str) -> None:
    signer, desk = FakeSigner(), registry.reader.ratings
    bad = desk.take(signer.told(RATING, rating(registry, digest, stars=1, text="Rude.")), registry.now())
    desk.take(FakeSigner().told(RATING, rating(registry, digest, stars=5)), registry.now())

    desk.hide(bad.id, "Insults a person.")
    hidden = [each.stars for each in desk.of("acme/guard")]
    desk.hide(bad.id, None)
    desk.ignore(bad.platform, "Makes tenants up.")
    ignored = desk.summaries(["acme/guard"])["acme/guard"].number

    assert hidden == [5]
    assert ignored == 1
    with pytest.raises(ValidationFailed, match="no longer listens"):
        desk.take(signer.told(RATING, rating(registry, digest, tenant="tenant-3")), registry.now())
    with pytest.raises(NotFound):
        desk.hide("0" * 16, "x")
    with pytest.raises(NotFound):
        desk.ignore("platform-none", "x")


async def test_a_publisher_answers_with_its_key_and_nobody_else_does(
    registry: Registry, digest: str, http: httpx.AsyncClient, key: SigningKey
) -> None:
    desk = registry.reader.ratings
    rated = desk.take(FakeSigner().told(RATING, rating(registry, digest)), registry.now())
    now = datetime.fromtimestamp(registry.now(), UTC).isoformat(timespec="seconds")

    async def answer(by: SigningKey, text: str | None, at: str = now, to: str = rated.id) -> int:
        envelope = sign_answer("acme/guard", to, text, at, by)
        return (await http.post("/ratings/answers", content=envelope)).status_code

    assert await answer(generate_key(), "Not ours.") == 403
    assert await answer(key, "Thank you.") == 204
    assert "Thank you." in (await http.get("/store/acme/guard")).text
    assert await answer(key, "Old.", "2020-01-01T00:00:00+00:00") == 403
    assert await answer(key, "Whom?", to="0" * 16) == 404
    assert await answer(key, None) == 204
    assert desk.of("acme/guard")[0].answer is None


async def test_what_people_write_is_text_on_every_page(
    registry: Registry, digest: str, http: httpx.AsyncClient, key: SigningKey
) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x00"
    rated = registry.reader.ratings.take(FakeSigner().told(RATING, rating(registry, digest, text=evil)), registry.now())
    now = datetime.fromtimestamp(registry.now(), UTC).isoformat(timespec="seconds")
    await http.post("/ratings/answers", content=sign_answer("acme/guard", rated.id, evil, now, key))

    page = (await http.get("/store/acme/guard")).text

    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    # What turns the direction of text around could make one sentence look like another.
    assert "\u202e" not in page
    assert "\x00" not in page


def test_a_tenant_cannot_be_followed_from_plugin_to_plugin() -> None:
    one, other = FakeSigner(), FakeSigner()

    assert pseudonym(one, "acme/guard", "acme") == pseudonym(one, "acme/guard", "acme")
    names = {
        pseudonym(signer, plugin, tenant)
        for signer in (one, other)
        for plugin in ("acme/guard", "acme/other")
        for tenant in ("acme", "globex")
    }
    assert len(names) == 8


# ---------------------------------------------------------------------------- figures


async def test_nothing_is_shown_of_fewer_than_five_platforms(
    registry: Registry, digest: str, http: httpx.AsyncClient
) -> None:
    desk = registry.reader.figures
    for _ in range(4):
        assert desk.take(FakeSigner().told(FIGURES, figures(registry)), registry.now()) == 1
    few = desk.of("acme/guard", today(registry))
    few_page = (await http.get("/store/acme/guard")).text
    told = FakeSigner().told(FIGURES, figures(registry))
    answer = await http.post("/figures", json={"statement": told.statement, "keys": told.keys})
    many = desk.of("acme/guard", today(registry))

    assert answer.json() == {"kept": 1}
    assert (few.platforms, few.calls, few.versions) == (0, 0, ())
    assert "Nothing is shown while fewer than 5 platforms report it" in few_page
    assert (many.platforms, many.calls, many.tenants, many.error_rate) == (5, 500, 10, 0.02)
    assert (await http.get("/plugins/acme/guard/figures")).json()["platforms"] == 5
    assert "In use" in (await http.get("/store/acme")).text


async def test_a_version_that_few_run_is_withheld_and_in_no_total(
    registry: Registry, digest: str, make_release: Make
) -> None:
    second = make_release(version="1.1.0")
    await registry.publish(second.package.data, second.envelope)
    desk = registry.reader.figures
    for _ in range(5):
        desk.take(FakeSigner().told(FIGURES, figures(registry)), registry.now())
    desk.take(FakeSigner().told(FIGURES, figures(registry, "1.1.0", tenants=500)), registry.now())

    shown = desk.of("acme/guard", today(registry))

    assert [version.version for version in shown.versions] == ["1.0.0"]
    assert (shown.platforms, shown.calls, shown.tenants, shown.withheld) == (5, 500, 10, 1)


async def test_percentiles_and_errors_are_told_by_version(registry: Registry, digest: str) -> None:
    for _ in range(5):
        registry.reader.figures.take(FakeSigner().told(FIGURES, figures(registry)), registry.now())

    (version,) = registry.reader.figures.of("acme/guard", today(registry)).versions

    assert (version.share, version.error_rate) == (1.0, 0.02)
    assert version.p50 is not None
    assert 2 < version.p50 < 5
    assert version.p95 == 35.0
    assert version.p99 == 47.0


async def test_the_same_report_again_changes_nothing_and_parts_add_up(registry: Registry, digest: str) -> None:
    desk, signers = registry.reader.figures, [FakeSigner() for _ in range(5)]
    for signer in (*signers, *signers):
        desk.take(signer.told(FIGURES, figures(registry)), registry.now())
    once = desk.of("acme/guard", today(registry))
    desk.take(signers[0].told(FIGURES, {**figures(registry, tenants=5), "part": "cd" * 8}), registry.now())
    more = desk.of("acme/guard", today(registry))

    assert (once.calls, once.tenants) == (500, 10)
    # Processes of one platform serve the same tenants.
    assert (more.calls, more.tenants) == (600, 13)


async def test_figures_leave_after_four_weeks(registry: Registry, digest: str, clock: Any) -> None:
    for _ in range(5):
        registry.reader.figures.take(FakeSigner().told(FIGURES, figures(registry)), registry.now())
    clock.advance(27)
    assert registry.reader.figures.of("acme/guard", today(registry)).platforms == 5
    clock.advance(1)
    assert registry.reader.figures.of("acme/guard", today(registry)).platforms == 0


async def test_what_the_marketplace_never_published_is_dropped(registry: Registry, digest: str) -> None:
    said = figures(registry, version="7.7.7")

    assert registry.reader.figures.take(FakeSigner().told(FIGURES, said), registry.now()) == 0


@pytest.mark.parametrize(
    "more",
    [
        {"errors": 101},
        {"calls": -1},
        {"calls": 1.5},
        {"calls": 10**13},
        {"tenants": 3},
        {"tenants": 0},
        {"latency": [1]},
        {"latency": [0] * 12 + ["x"]},
        {"plugin": "p" * 201},
        {"strange": 1},
    ],
)
async def test_what_is_no_figure_is_refused(registry: Registry, digest: str, more: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        registry.reader.figures.take(FakeSigner().told(FIGURES, figures(registry, **more)), registry.now())


@pytest.mark.parametrize("more", [{"ago": 4}, {"ago": -1}])
async def test_figures_are_of_the_last_days(registry: Registry, digest: str, more: dict[str, int]) -> None:
    with pytest.raises(ValidationFailed):
        registry.reader.figures.take(FakeSigner().told(FIGURES, figures(registry, **more)), registry.now())


@pytest.mark.parametrize(
    ("tenants", "told"), [(0, 0), (1, 1), (4, 2), (9, 5), (24, 10), (99, 25), (499, 100), (9999, 500)]
)
def test_a_number_of_tenants_is_told_coarsely(tenants: int, told: int) -> None:
    assert coarse(tenants) == told


@pytest.mark.parametrize(("ms", "at"), [(0.2, 0), (1, 0), (1.1, 1), (10, 3), (5_000, 11), (60_000, 12)])
def test_a_call_belongs_to_the_step_that_it_fits_in(ms: float, at: int) -> None:
    assert step(ms) == at


def test_percentiles_of_nothing_and_of_the_slowest() -> None:
    assert percentile([0] * 13, 0.5) is None
    assert percentile([0] * 12 + [5], 0.5) == 5_000
