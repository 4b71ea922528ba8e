"""Advisories: what may be said, by whom, which versions it is about, and that clients only believe what is signed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import Conflict, Forbidden, NotFound, ValidationFailed
from marketplace.advisories import ADVISORIES_TARGET, MAX_BYTES, read_advisories, read_advisory, sign_advisory
from marketplace.client import MarketplaceClient
from marketplace.errors import SignerUnknown, VerificationFailed
from marketplace.keys import SigningKey, generate_key
from marketplace.registry import Registry
from marketplace.transport import RegistryTransport

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]


def osv(*plugins: str, **changes: Any) -> bytes:
    said = {
        "schema_version": "1.6.0",
        "id": "ACME-2026-0001",
        "modified": "2026-11-23T10:00:00Z",
        "summary": "The guard sleeps",
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],
        "affected": [
            {
                "package": {"ecosystem": "Keelstone", "name": plugin},
                "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.2.0"}]}],
            }
            for plugin in plugins or ("acme/guard",)
        ],
    }
    return json.dumps({**said, **changes}).encode()


def ranged(*events: tuple[str, str], versions: tuple[str, ...] = ()) -> bytes:
    said = json.loads(osv())
    said["affected"][0]["ranges"] = [{"type": "SEMVER", "events": [dict([event]) for event in events]}]
    said["affected"][0]["versions"] = list(versions)
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ([("introduced", "0"), ("fixed", "1.2.0")], ["0.0.1", "1.1.9", "1.2.0-rc.1"], ["1.2.0", "2.0.0"]),
        ([("introduced", "1.0.0"), ("last_affected", "1.4.0")], ["1.0.0", "1.4.0"], ["0.9.0", "1.4.1"]),
        (
            [("fixed", "1.2.0"), ("introduced", "2.0.0"), ("introduced", "0"), ("fixed", "2.1.0")],
            ["1.1.0", "2.0.5"],
            ["1.3.0", "2.1.0"],
        ),
        ([("introduced", "1.10.0")], ["1.10.0", "9.0.0"], ["1.9.0"]),
    ],
)
def test_versions_are_evaluated_as_osv_says(
    events: list[tuple[str, str]], inside: list[str], outside: list[str]
) -> None:
    said = read_advisory(ranged(*events), by="marketplace")
    assert [v for v in inside if not said.affects("acme/guard", v)] == []
    assert [v for v in outside if said.affects("acme/guard", v)] == []
    assert not said.affects("acme/other", inside[0])


def test_versions_by_name_count_too_and_a_withdrawn_one_affects_nothing() -> None:
    said = read_advisory(ranged(("introduced", "3.0.0"), versions=("1.5.0",)), by="x")
    assert said.affects("acme/guard", "1.5.0")
    assert not said.affects("acme/guard", "1.5.1")
    gone = read_advisory(osv(withdrawn="2026-11-24T10:00:00Z"), by="x")
    assert not gone.affects("acme/guard", "1.0.0")
    assert said.fixed_in("acme/guard") == ()
    assert read_advisory(osv(), by="x").fixed_in("acme/guard") == ("1.2.0",)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{" * 5_000,
        b" " * (MAX_BYTES + 1),
        osv(id="../../etc"),
        osv(affected=[]),
        osv(affected=json.loads(osv())["affected"] * 21),
        osv("No Plugin"),
        osv(modified="yesterday"),
        osv(modified="2026-11-23T10:00:00"),
        osv(references=[{"type": "WEB", "url": "javascript:alert(1)"}]),
        ranged(("fixed", "1.0.0")),
        ranged(("introduced", "one")),
        ranged(("limit", "1.0.0")),
        osv(affected=[{"package": {"ecosystem": "npm", "name": "left-pad"}, "versions": ["1.0.0"]}]),
        osv(affected=[{"package": {"ecosystem": "Keelstone", "name": "acme/guard"}}]),
    ],
)
def test_what_is_no_advisory_about_plugins_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationFailed, match="cannot be taken"):
        read_advisory(body, by="marketplace")


@pytest.fixture
async def stocked(registry: Registry, register: Bind, make_release: Make) -> Registry:
    await register(registry, "acme", "globex")
    for plugin in ("acme/guard", "globex/audit"):
        signed = make_release(plugin)
        await registry.publish(signed.package.data, signed.envelope)
    return registry


async def test_an_advisory_is_a_signed_target_and_logged(stocked: Registry) -> None:
    taken = await stocked.advise(osv())
    assert (taken.by, taken.fixed_in("acme/guard")) == ("marketplace", ("1.2.0",))
    assert stocked.reader.advisories.about("acme/guard") == (taken,)
    assert stocked.reader.advisories.about("globex/audit") == ()
    assert await stocked.advise(osv()) == taken


async def test_a_newer_word_takes_the_place_of_an_older_one_and_never_the_other_way(stocked: Registry) -> None:
    await stocked.advise(osv())
    newer = osv(modified="2026-11-24T10:00:00Z", withdrawn="2026-11-24T10:00:00Z")
    assert (await stocked.advise(newer)).withdrawn
    with pytest.raises(Conflict, match="newer word"):
        await stocked.advise(osv())
    assert stocked.reader.advisories.about("acme/guard") == ()
    assert len(stocked.reader.advisories.all()) == 1


async def test_a_publisher_speaks_of_plugins_of_its_own_only(stocked: Registry, key: SigningKey) -> None:
    taken = await stocked.advise(sign_advisory(osv(), key), by_publisher=True)
    assert taken.by == "acme"
    with pytest.raises(Forbidden, match="plugins of its own"):
        await stocked.advise(sign_advisory(osv("acme/guard", "globex/audit", id="ACME-2"), key), by_publisher=True)
    assert [each.id for each in stocked.reader.advisories.all()] == ["ACME-2026-0001"]


async def test_a_forged_advisory_is_refused(stocked: Registry) -> None:
    with pytest.raises(SignerUnknown):
        await stocked.advise(sign_advisory(osv(), generate_key()), by_publisher=True)
    assert stocked.reader.advisories.all() == ()


async def test_nobody_takes_anothers_advisory_over_but_the_marketplace(stocked: Registry, key: SigningKey) -> None:
    await stocked.advise(sign_advisory(osv("globex/audit"), key), by_publisher=True)
    later = {"modified": "2026-11-24T10:00:00Z"}
    with pytest.raises(Forbidden, match="is another's"):
        await stocked.advise(sign_advisory(osv("acme/guard", **later), key), by_publisher=True)
    assert (await stocked.advise(osv("globex/audit", **later))).by == "marketplace"
    with pytest.raises(Forbidden, match="is another's"):
        await stocked.advise(
            sign_advisory(osv("globex/audit", modified="2026-11-25T10:00:00Z"), key), by_publisher=True
        )


async def test_what_is_about_no_plugin_here_is_refused(stocked: Registry) -> None:
    with pytest.raises(NotFound, match="acme/gone"):
        await stocked.advise(osv("acme/gone"))


def test_a_list_that_cannot_be_read_is_an_error_and_none_is_none() -> None:
    assert read_advisories(None) == ()
    for document in (b"", b"[]", b'{"format": 2, "advisories": []}', b'{"format": 1, "advisories": [{"id": "x"}]}'):
        with pytest.raises(VerificationFailed, match="advisories"):
            read_advisories(document)


async def test_a_client_reads_the_verified_list(stocked: Registry, tmp_path: Path) -> None:
    await stocked.advise(osv())
    client = MarketplaceClient(RegistryTransport(stocked.reader), tmp_path / "cache", stocked.trusted_root)
    (found,) = await client.advisories()
    assert found.affects("acme/guard", "1.0.0")
    assert ADVISORIES_TARGET == "registry/advisories.json"
