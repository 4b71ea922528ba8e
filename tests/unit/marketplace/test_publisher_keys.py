"""Publishers' keys over time: who may replace them, which count for a release, and what an attacker cannot do."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from marketplace.client import MarketplaceClient
from marketplace.errors import (
    KeySetRefused,
    NamespaceTaken,
    NamespaceUnknown,
    SignatureInvalid,
    SignerUnknown,
    VerificationFailed,
)
from marketplace.keys import SigningKey, generate_key
from marketplace.logbook import Logbook
from marketplace.namespaces import (
    KEY_SET_PAYLOAD,
    KeySet,
    look_at,
    make_key_set,
    propose,
    read_key_set,
    sign_proposal,
    target_path,
)
from marketplace.registry import Registry
from marketplace.signing import canonical_json, join_release, sign_payload, sign_yank
from marketplace.succession import Step, Succession, read_succession
from marketplace.transport import RegistryTransport

Make = Callable[..., Any]
Bind = Callable[..., Awaitable[None]]


def successor(before: KeySet, keys: Sequence[SigningKey], signers: Sequence[SigningKey], **more: Any) -> bytes:
    """The key set after ``before`` that names ``keys``, signed by ``signers``."""
    said = {"threshold": 1, **more}
    return sign_proposal(propose(before, [key.public for key in keys], **said), signers)


@pytest.fixture
def client(registry: Registry, tmp_path: Path) -> MarketplaceClient:
    return MarketplaceClient(RegistryTransport(registry.reader), tmp_path / "cache", registry.trusted_root)


async def release(registry: Registry, make_release: Make, version: str, *by: SigningKey) -> Any:
    signed = make_release(version=version, by=by[0])
    envelope = join_release(signed.package, signed.envelope, by)
    return await registry.publish(signed.package.data, envelope)


async def test_a_release_signed_under_replaced_keys_still_verifies_and_new_ones_need_the_new_keys(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient
) -> None:
    await register(registry)
    await release(registry, make_release, "1.0.0", key)
    fresh = generate_key()
    record = await registry.register_namespace(successor(registry.reader.key_set("acme"), [fresh], [key, fresh]))
    assert (record.version, record.keys) == (2, (fresh.id,))
    await release(registry, make_release, "1.1.0", fresh)
    with pytest.raises(SignerUnknown):
        await release(registry, make_release, "1.2.0", key)
    old, new = await client.fetch("acme/guard", "1.0.0"), await client.fetch("acme/guard", "1.1.0")
    assert old.origin is not None
    assert new.origin is not None
    assert (old.origin.signers, new.origin.signers) == ((key.id,), (fresh.id,))
    assert new.origin.lineage == (key.id, fresh.id)
    assert new.origin.owner == 1
    assert len(old.chain) == len(new.chain)
    assert any("key set v1 of 2" in link for link in old.chain)
    assert any("key set v2 of 2" in link for link in new.chain)


async def test_the_chain_of_a_release_under_replaced_keys_is_verified_with_the_cable_unplugged(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient
) -> None:
    await register(registry)
    signed = make_release(version="1.0.0", by=key)
    await registry.publish(signed.package.data, signed.envelope)
    fresh = generate_key()
    await registry.register_namespace(successor(registry.reader.key_set("acme"), [fresh], [key, fresh]))
    online = await client.verify(signed.package.data, signed.envelope)
    offline = await client.verify(signed.package.data, signed.envelope, offline=True)
    assert offline.package.chain == online.package.chain


async def test_stolen_publisher_key_below_threshold_replaces_nothing_and_releases_nothing(
    registry: Registry, make_release: Make
) -> None:
    held = [generate_key() for _ in range(3)]
    thief = generate_key()
    await registry.register_namespace(make_key_set("acme", held, threshold=2).document)
    present = registry.reader.key_set("acme")
    with pytest.raises(SignatureInvalid, match="not signed by a threshold of v1"):
        await registry.register_namespace(successor(present, [thief], [held[0], thief]))
    with pytest.raises(SignatureInvalid, match="signed by too few"):
        await release(registry, make_release, "1.0.0", held[0])
    assert registry.reader.key_set("acme").version == 1
    assert (await release(registry, make_release, "1.0.0", held[0], held[2])).state == "live"


async def test_threshold_met_by_one_key_twice_counts_once(registry: Registry, make_release: Make) -> None:
    mine, other, thief = generate_key(), generate_key(), generate_key()
    await registry.register_namespace(make_key_set("acme", [mine, other], threshold=2).document)
    said = json.loads(successor(registry.reader.key_set("acme"), [thief], [mine, thief]))
    twice = next(each for each in said["signatures"] if each["keyid"] == mine.id)
    with pytest.raises(SignatureInvalid):  # the same signature again, under the same name
        await registry.register_namespace(canonical_json({**said, "signatures": [*said["signatures"], twice]}))
    for name in (other.id, mine.id.upper(), "0" * 64):  # or under another
        renamed = [*said["signatures"], {**twice, "keyid": name}]
        with pytest.raises((SignatureInvalid, SignerUnknown)):
            await registry.register_namespace(canonical_json({**said, "signatures": renamed}))
    signed = make_release(version="1.0.0", by=mine)
    envelope = json.loads(signed.envelope)
    envelope["signatures"].append({**envelope["signatures"][0], "keyid": other.id})
    with pytest.raises(SignatureInvalid):
        await registry.publish(signed.package.data, canonical_json(envelope))
    assert registry.reader.key_set("acme").version == 1


async def test_namespace_takeover_by_a_stranger_is_refused(registry: Registry, register: Bind) -> None:
    await register(registry)
    present, thief = registry.reader.key_set("acme"), generate_key()
    with pytest.raises(NamespaceTaken):
        await registry.register_namespace(make_key_set("acme", [thief]).document)
    with pytest.raises(SignatureInvalid, match="not signed by a threshold of v1"):
        await registry.register_namespace(successor(present, [thief], [thief]))
    with pytest.raises(SignatureInvalid, match="not signed by a threshold of v1"):
        await registry.register_namespace(successor(present, [thief], [thief], owner="Me, from now on"))
    assert registry.reader.key_set("acme") == present


async def test_every_new_key_proves_that_it_is_held(registry: Registry, register: Bind, key: SigningKey) -> None:
    await register(registry)
    fresh, unheld = generate_key(), generate_key()
    with pytest.raises(SignatureInvalid, match="every key"):
        await registry.register_namespace(
            successor(registry.reader.key_set("acme"), [fresh, unheld], [key, fresh], threshold=1)
        )


async def test_replayed_key_set_does_not_come_back(registry: Registry, register: Bind, key: SigningKey) -> None:
    await register(registry)
    first, fresh, third = registry.reader.key_set("acme"), generate_key(), generate_key()
    second = successor(first, [fresh], [key, fresh])
    await registry.register_namespace(second)
    await registry.register_namespace(successor(registry.reader.key_set("acme"), [third], [fresh, third]))
    with pytest.raises(KeySetRefused, match="replaced already"):
        await registry.register_namespace(second)
    assert (await registry.register_namespace(first.document)).version == 3, "asked again, it changes nothing"
    assert set(registry.reader.key_set("acme").keys) == {third.id}


async def test_a_lost_answer_is_asked_for_again(registry: Registry, register: Bind, key: SigningKey) -> None:
    await register(registry)
    fresh = generate_key()
    document = successor(registry.reader.key_set("acme"), [fresh], [key, fresh])
    assert await registry.register_namespace(document) == await registry.register_namespace(document)


async def test_forked_key_set_is_refused_by_the_registry(registry: Registry, register: Bind, key: SigningKey) -> None:
    await register(registry)
    first, one, other = registry.reader.key_set("acme"), generate_key(), generate_key()
    await registry.register_namespace(successor(first, [one], [key, one]))
    with pytest.raises(KeySetRefused, match="another one of this version"):
        await registry.register_namespace(successor(first, [other], [key, other]))


async def test_a_gap_between_key_sets_is_refused(registry: Registry, register: Bind, key: SigningKey) -> None:
    await register(registry)
    first, one, other = registry.reader.key_set("acme"), generate_key(), generate_key()
    second = read_key_set(successor(first, [one], [key, one]))
    with pytest.raises(KeySetRefused, match="in between are missing"):
        await registry.register_namespace(successor(second, [other], [key, one, other]))
    with pytest.raises(NamespaceUnknown):
        await registry.register_namespace(sign_payload(canonical_json(_as_first(second)), KEY_SET_PAYLOAD, [one]))


def _as_first(second: KeySet) -> dict[str, Any]:
    said = {"publisher": "globex", "version": 2, "threshold": 1, "previous": second.previous}
    return {**said, "keys": [key.to_dict() for key in second.keys.values()]}


async def test_two_key_sets_racing_for_one_version_leave_one(
    registry: Registry, register: Bind, key: SigningKey
) -> None:
    import asyncio

    await register(registry)
    first, rivals = registry.reader.key_set("acme"), [generate_key() for _ in range(4)]
    asked = [registry.register_namespace(successor(first, [rival], [key, rival])) for rival in rivals]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in outcomes) == 1
    assert sum(isinstance(each, KeySetRefused) for each in outcomes) == 3


async def test_a_release_signed_by_a_key_after_it_was_stolen_is_refused_and_earlier_ones_are_good(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient, clock: Any
) -> None:
    await register(registry)
    await release(registry, make_release, "1.0.0", key)
    clock.advance(0.01)
    stolen = datetime.fromtimestamp(clock.now() - 5, UTC).isoformat()
    await release(registry, make_release, "1.0.1", key)  # the thief's
    fresh = generate_key()
    document = successor(registry.reader.key_set("acme"), [fresh], [key, fresh], stolen={key.id: stolen})
    await registry.register_namespace(document)
    assert (await client.fetch("acme/guard", "1.0.0")).manifest.version == "1.0.0"
    with pytest.raises(VerificationFailed) as refused:
        await client.fetch("acme/guard", "1.0.1")
    assert refused.value.link == "signature"


async def test_a_forked_key_set_shown_to_a_client_is_noticed(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient
) -> None:
    """Whoever has the online keys and an old key of the publisher shows key sets as they were, or others."""
    await register(registry)
    await release(registry, make_release, "1.0.0", key)
    first, fresh, thief = registry.reader.key_set("acme"), generate_key(), generate_key()
    await registry.register_namespace(successor(first, [fresh], [key, fresh]))
    await client.fetch("acme/guard", "1.0.0")
    for shown in (first.document, read_key_set(successor(first, [thief], [key, thief]))):
        forged = shown if isinstance(shown, bytes) else Succession((Step(first, 0), Step(shown, 2))).to_bytes()
        await put_target(registry, target_path("acme"), forged)
        with pytest.raises(VerificationFailed, match="other keys of acme"):
            await client.fetch("acme/guard", "1.0.0")


async def test_a_key_set_that_the_log_does_not_have_counts_for_nothing(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient
) -> None:
    await register(registry)
    await release(registry, make_release, "1.0.0", key)
    first, fresh = registry.reader.key_set("acme"), generate_key()
    forged = Succession((Step(first, 0), Step(read_key_set(successor(first, [fresh], [key, fresh])), 1))).to_bytes()
    await put_target(registry, target_path("acme"), forged)
    with pytest.raises(VerificationFailed, match="something else where key set v2 should be"):
        await client.fetch("acme/guard", "1.0.0")


async def put_target(registry: Registry, path: str, document: bytes) -> None:
    """What whoever has the registry's online keys can do."""

    class Forgery:
        def apply(self, connection: Any, now: str, touched: Any) -> None:
            touched.put(path, document)

    await registry.commit(Forgery())


async def test_key_sets_may_ask_for_more_to_change_them_than_to_release(registry: Registry, make_release: Make) -> None:
    held, next_one = [generate_key() for _ in range(3)], generate_key()
    await registry.register_namespace(make_key_set("acme", held, threshold=2, releases=1).document)
    receipt = await release(registry, make_release, "1.0.0", held[1])
    assert receipt.state == "live"
    present = registry.reader.key_set("acme")
    with pytest.raises(SignatureInvalid, match="threshold"):
        await registry.register_namespace(successor(present, [next_one], [held[0], next_one]))
    withdrawn = await registry.yank(sign_yank("acme/guard", "1.0.0", receipt.digest, "broken", held[2]))
    assert withdrawn.state == "yanked"


async def test_the_operator_recovers_a_namespace_whose_keys_are_lost_and_the_log_says_so(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient
) -> None:
    await register(registry)
    await release(registry, make_release, "1.0.0", key)
    fresh = generate_key()
    document = successor(registry.reader.key_set("acme"), [fresh], [fresh])
    record = await registry.recover_namespace(document, "Their laptop burnt; we spoke on the telephone.")
    assert record.version == 2
    await release(registry, make_release, "1.1.0", fresh)
    origin = (await client.fetch("acme/guard", "1.1.0")).origin
    assert origin is not None
    assert origin.recovered
    assert origin.owner == 2
    assert origin.lineage == (fresh.id,)
    before = (await client.fetch("acme/guard", "1.0.0")).origin
    assert before is not None
    assert before.owner == 1
    assert not before.recovered


async def test_a_recovery_that_the_log_hides_is_refused(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient
) -> None:
    await register(registry)
    await release(registry, make_release, "1.0.0", key)
    first, fresh = registry.reader.key_set("acme"), generate_key()
    await registry.recover_namespace(successor(first, [fresh], [fresh]), "lost")
    steps = read_succession(registry.reader.key_sets("acme")[0].to_bytes()).steps
    hidden = Succession((steps[0], Step(steps[1].key_set, steps[1].entry, None, True))).to_bytes()
    await put_target(registry, target_path("acme"), hidden)
    with pytest.raises(VerificationFailed, match="hides a change of owner"):
        await client.fetch("acme/guard", "1.0.0")


async def test_a_new_owner_counts_from_the_log_on(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, client: MarketplaceClient
) -> None:
    await register(registry)
    await release(registry, make_release, "1.0.0", key)
    buyer = generate_key()
    document = successor(registry.reader.key_set("acme"), [buyer], [key, buyer], owner="Globex Ltd")
    assert (await registry.register_namespace(document)).owner == "Globex Ltd"
    await release(registry, make_release, "1.1.0", buyer)
    origin = (await client.fetch("acme/guard", "1.1.0")).origin
    assert origin is not None
    assert origin.owner == 2
    assert origin.owned_since is not None
    assert not origin.recovered


def test_a_proposal_says_who_must_still_sign() -> None:
    one, two, fresh = generate_key(), generate_key(), generate_key()
    first = make_key_set("acme", [one, two], threshold=2)
    document = propose(first, [two.public, fresh.public], threshold=1)
    assert look_at(document, first).missing_old == 2
    seen = look_at(sign_proposal(document, [two]), first)
    assert (seen.missing_old, seen.missing_new, seen.could_sign) == (1, (fresh.id,), (one.id,))
    whole = sign_proposal(sign_proposal(sign_proposal(document, [two]), [fresh]), [one])
    assert look_at(whole, first).complete


async def test_an_audit_finds_a_key_set_that_the_marketplace_hides(
    registry: Registry, register: Bind, key: SigningKey, tmp_path: Path
) -> None:
    await register(registry)
    first, fresh = registry.reader.key_set("acme"), generate_key()
    await registry.register_namespace(successor(first, [fresh], [key, fresh]))
    logbook = Logbook(RegistryTransport(registry.reader), tmp_path / "audit", registry.trusted_root)
    assert logbook.audit(whole=True)[1].problems == []
    await put_target(registry, target_path("acme"), first.document)
    (problem,) = logbook.audit(whole=True)[1].problems
    assert "keys acme 2" in problem
    assert "does not list this key set" in problem
