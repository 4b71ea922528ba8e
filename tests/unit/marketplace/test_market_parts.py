"""What a release was linked from: its list, what is known of it at publishing, and what becomes known later."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import ValidationFailed
from marketplace.advisories import read_advisory
from marketplace.archive import read_archive, write_archive
from marketplace.client import MarketplaceClient
from marketplace.errors import ReleaseRefused
from marketplace.keys import SigningKey
from marketplace.package import read_package
from marketplace.publishing import SignedPackage
from marketplace.registry import Registry
from marketplace.signing import sign_release
from marketplace.testing import make_signed, write_plugin
from marketplace.transport import RegistryTransport
from plugin_sdk.profile import Trial
from plugin_sdk.sbom import SBOM_FILE, Part, write_sbom
from plugin_sdk.services import BY_OSV
from tests.unit.marketplace.test_market_osv import osv

Bind = Callable[..., Awaitable[None]]
Open = Callable[..., Registry]
PAD, EVIL = Part("npm", "left-pad", "1.3.0"), Part("npm", "evil", "1.0.0")
GRAVE = {"database_specific": {"severity": "CRITICAL"}}
MALICIOUS = osv("MAL-2026-1", "evil", events=({"introduced": "0"},))


@pytest.fixture
def make(tmp_path: Path, key: SigningKey) -> Callable[..., SignedPackage]:
    def one(version: str = "1.0.0", *parts: Part, plugin: str = "acme/guard", **text: str) -> SignedPackage:
        return make_signed(write_plugin(tmp_path / "sources", plugin, version, **text), key, parts=parts)

    return one


async def publish(registry: Registry, signed: SignedPackage) -> Any:
    return await registry.publish(signed.package.data, signed.envelope)


def rules_broken(registry: Registry, signed: SignedPackage) -> list[str]:
    return [each["rule"] for each in registry.reader.findings("acme/guard", signed.package.manifest.version)]


# ------------------------------------------------------------------------------ the list


async def test_a_release_without_a_list_is_told_so(
    registry: Registry, register: Bind, tmp_path: Path, key: Any
) -> None:
    await register(registry)
    bare = make_signed(write_plugin(tmp_path / "bare"), key, parts=None)
    assert (await publish(registry, bare)).state == "live"
    assert rules_broken(registry, bare) == ["parts-listed"]


@pytest.mark.parametrize("what", ["version", "plugin", "component", "json", "nesting"])
async def test_a_list_that_is_broken_or_about_something_else_is_refused(
    registry: Registry, register: Bind, make: Any, key: SigningKey, what: str
) -> None:
    await register(registry)
    package = make("1.0.0", PAD).package
    manifest, digest = package.manifest, package.component_digest
    said = {
        "version": lambda: write_sbom(manifest.model_copy(update={"version": "1.0.1"}), digest, (), "1"),
        "plugin": lambda: write_sbom(manifest.model_copy(update={"id": "acme/other"}), digest, (), "1"),
        "component": lambda: write_sbom(manifest, "00" * 32, (), "1"),
        "json": lambda: b"{",
        "nesting": lambda: b'{"bomFormat": "CycloneDX", "x": ' + b"[" * 60 + b"]" * 60 + b"}",
    }[what]()
    members = read_archive(package.data, len(package.data)) | {SBOM_FILE: said}
    data = write_archive(members)
    with pytest.raises(ReleaseRefused, match="parts-valid"):
        await registry.publish(data, sign_release(read_package(data), key))


# ------------------------------------------------------------------------------ at publishing


async def test_malicious_dependency_added_later_by_a_new_release(registry: Registry, register: Bind, make: Any) -> None:
    await register(registry)
    await registry.import_weaknesses([MALICIOUS])
    assert (await publish(registry, make("1.0.0", PAD))).state == "live"
    with pytest.raises(ReleaseRefused, match=r"pkg:npm/evil@1\.0\.0 is malicious: MAL-2026-1"):
        await publish(registry, make("1.0.1", PAD, EVIL))
    assert [each.version for each in registry.reader.index("acme/guard").releases] == ["1.0.0"]


async def test_no_policy_lets_a_malicious_part_through(open_registry: Open) -> None:
    with pytest.raises(Exception, match="always enforced"):
        open_registry(rules={"parts-malicious": "monitored"})


async def test_a_grave_weakness_waits_for_a_person_and_a_lesser_one_is_noted(
    open_registry: Open, register: Bind, make: Any
) -> None:
    registry = open_registry()
    await register(registry)
    await registry.import_weaknesses([osv()])
    lesser = make("1.0.0", PAD)
    assert (await publish(registry, lesser)).state == "live"
    assert rules_broken(registry, lesser) == ["parts-weak-minor"]
    await registry.import_weaknesses([osv(modified="2026-02-01T00:00:00Z", **GRAVE)])
    assert (await publish(registry, make("1.0.1", PAD))).state == "quarantined"
    assert (await publish(registry, make("1.0.2", Part("npm", "left-pad", "1.3.1")))).state == "live"
    strict = open_registry(threshold="medium")
    await strict.import_weaknesses([osv("GHSA-2", "right-pad")])
    assert (await publish(strict, make("1.0.3", Part("npm", "right-pad", "1.0.0")))).state == "quarantined"


async def test_a_held_release_whose_part_turned_out_malicious_cannot_be_approved(
    registry: Registry, register: Bind, make: Any
) -> None:
    await register(registry)
    await registry.import_weaknesses([osv("GHSA-9", "evil", **GRAVE)])
    held = make("1.0.0", EVIL)
    assert (await publish(registry, held)).state == "quarantined"
    await registry.import_weaknesses([MALICIOUS])
    with pytest.raises(ReleaseRefused, match="MAL-2026-1"):
        await registry.decide(held.package.digest, approved=True, reason="", reviewer="me")


async def test_without_an_import_the_rules_say_that_they_could_not_look(registry: Registry, make: Any) -> None:
    seen = await registry.validate(make("1.0.0", EVIL).package.data)
    assert {"parts-malicious", "parts-weak"} <= set(seen.unseen)
    await registry.import_weaknesses([MALICIOUS])
    seen = await registry.validate(make("1.0.0", EVIL).package.data)
    assert [each.rule for each in seen.enforced] == ["parts-malicious"]


# ------------------------------------------------------------------------------ later


async def test_malicious_dependency_known_only_after_the_release_went_live(
    registry: Registry, register: Bind, make: Any, tmp_path: Path
) -> None:
    await register(registry)
    await publish(registry, make("1.0.0", PAD, EVIL))
    await publish(registry, make("1.1.0", PAD))
    assert registry.reader.advisories.all() == ()
    await registry.import_weaknesses([MALICIOUS])
    (affected,) = registry.reader.parts.affected()
    assert (affected.plugin, affected.version, affected.package, affected.weakness.id) == (
        "acme/guard",
        "1.0.0",
        "evil",
        "MAL-2026-1",
    )
    # Platforms believe only what the marketplace's metadata vouches for.
    client = MarketplaceClient(RegistryTransport(registry.reader), tmp_path / "cache", registry.trusted_root)
    (said,) = await client.advisories()
    assert (said.id, said.by, said.aliases) == ("DEP-MAL-2026-1", BY_OSV, ("MAL-2026-1",))
    assert said.affects("acme/guard", "1.0.0")
    assert not said.affects("acme/guard", "1.1.0")
    assert said.fixed_in("acme/guard") == ("1.1.0",)
    assert "evil 1.0.0" in said.details
    assert said == registry.reader.advisories.about("acme/guard")[0]
    await client.close()


async def test_an_advisory_follows_what_its_weakness_becomes_and_is_withdrawn_with_it(
    registry: Registry, register: Bind, make: Any, clock: Any
) -> None:
    await register(registry)
    await publish(registry, make("1.0.0", PAD))
    await registry.import_weaknesses([osv(**GRAVE)])
    assert registry.reader.advisories.all()[0].withdrawn is None
    assert await registry.match_parts() == 0
    clock.advance(1)
    await publish(registry, make("1.0.1", Part("npm", "left-pad", "1.3.1")))
    assert await registry.match_parts() == 1
    assert registry.reader.advisories.all()[0].fixed_in("acme/guard") == ("1.0.1",)
    await registry.import_weaknesses([osv(modified="2026-02-01T00:00:00Z", withdrawn="2026-02-01T00:00:00Z", **GRAVE)])
    (said,) = registry.reader.advisories.all()
    assert said.withdrawn is not None
    assert registry.reader.advisories.about("acme/guard") == ()
    await registry.import_weaknesses([osv(modified="2026-03-01T00:00:00Z", **GRAVE)])
    assert registry.reader.advisories.all()[0].withdrawn is None


async def test_what_is_not_grave_is_listed_for_operators_and_told_to_nobody(
    registry: Registry, register: Bind, make: Any
) -> None:
    await register(registry)
    await publish(registry, make("1.0.0", PAD))
    await registry.import_weaknesses([osv()])
    assert [each.grave for each in registry.reader.parts.affected()] == [False]
    assert registry.reader.advisories.all() == ()


async def test_a_weakness_of_what_many_link_is_shared_out_and_plugins_stay_where_they_are(
    open_registry: Open, register: Bind, make: Any
) -> None:
    registry = open_registry(rules={"parts-weak": "monitored"})
    await register(registry)
    for number in range(21):
        await publish(registry, make("1.0.0", PAD, plugin=f"acme/{'abcdefghijklmnopqrstuvwxyz'[number] * 9}"))
    await registry.import_weaknesses([osv(**GRAVE)])
    said = {each.id: [a.plugin for a in each.affected] for each in registry.reader.advisories.all()}
    assert {id_: len(plugins) for id_, plugins in said.items()} == {
        "DEP-GHSA-aaaa-bbbb-cccc": 20,
        "DEP-GHSA-aaaa-bbbb-cccc-P2": 1,
    }
    await publish(registry, make("1.0.0", PAD, plugin="acme/aardvark"))
    await registry.match_parts()
    after = {each.id: [a.plugin for a in each.affected] for each in registry.reader.advisories.all()}
    assert after["DEP-GHSA-aaaa-bbbb-cccc"] == said["DEP-GHSA-aaaa-bbbb-cccc"]
    assert after["DEP-GHSA-aaaa-bbbb-cccc-P2"] == ["acme/aardvark", *said["DEP-GHSA-aaaa-bbbb-cccc-P2"]]


def test_nobody_else_gives_an_advisory_such_a_name() -> None:
    said = {"id": "DEP-MAL-2026-1", "modified": "2026-01-01T00:00:00Z", "summary": "x"}
    affected = [{"package": {"ecosystem": "Keelstone", "name": "acme/guard"}, "versions": ["1.0.0"]}]
    with pytest.raises(ValidationFailed, match="DEP-"):
        read_advisory(json.dumps({**said, "affected": affected}).encode(), by="acme")


# ------------------------------------------------------------------------------ looked at anew


async def test_what_was_refused_is_looked_at_anew_once_the_rules_have_changed(
    open_registry: Open, register: Bind, make: Any
) -> None:
    tried = 0

    def slow(component: bytes, manifest: Any, schema: Any) -> Trial:
        nonlocal tried
        tried += 1
        time.sleep(0.3)
        return Trial(["it does not answer"])

    first = open_registry(patience=0.0, check_contract=slow)
    await register(first)
    await first.import_weaknesses([osv("GHSA-1", "nothing")])
    signed = make("1.0.0", EVIL)
    assert (await publish(first, signed)).state in ("received", "scanning")
    assert await _settled(first, signed) == "refused"
    # Another process is asked: in the first one the scan may yet be about to end, and tells the refusal itself.
    assert (await publish(open_registry(check_contract=slow), signed)).state == "refused"
    assert tried == 1
    await first.import_weaknesses([MALICIOUS])
    with pytest.raises(ReleaseRefused, match="parts-malicious"):
        await publish(open_registry(), signed)
    assert (await publish(open_registry(), signed)).state == "refused"
    mended = osv("MAL-2026-1", "evil", modified="2026-05-01T00:00:00Z", events=({"introduced": "7.0.0"},))
    await first.import_weaknesses([mended])
    assert (await publish(open_registry(), signed)).state == "live"
    assert tried == 1


async def _settled(registry: Registry, signed: SignedPackage) -> str:
    states = (registry.reader.reviews.status(signed.package.digest).receipt.state for _ in range(1_000))
    for state in states:
        if state not in ("received", "scanning"):
            return state
        await asyncio.sleep(0.02)
    raise AssertionError("the scan does not end")
