"""The log and receipts get other keys: what was signed stays good, and the old keys are worth nothing to a thief."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import BackendUnavailable, ValidationFailed
from marketplace.ceremony import Ceremony, Rotation
from marketplace.client import MarketplaceClient
from marketplace.errors import KeyMissing, LogInconsistent, VerificationFailed
from marketplace.keys import SigningKey, generate_key
from marketplace.log.checkpoint import read_checkpoint, sign_checkpoint
from marketplace.log.entry import release_entry
from marketplace.log.key import KEYS_TARGET, log_member, read_log_keys
from marketplace.log.proof import LogProof, read_proof
from marketplace.log.witness import witness_vkey
from marketplace.logbook import Logbook
from marketplace.registry import Registry
from marketplace.registry.handover import hand_over, handed_roles
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.receipts import sign_receipt
from marketplace.signing import HANDOVER, canonical_json, sign_statement
from marketplace.transport import RegistryTransport
from marketplace.tuf_repository import RepositoryKeys

Make = Callable[..., Any]
Open = Callable[..., Registry]
HandOver = Callable[..., Rotation]


class Road(RegistryTransport):
    """A transport that can lead to another registry's log, give other bytes, or be cut."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.reader)
        self.log: Registry | None = None
        self.replaced: dict[str, bytes] = {}
        self.cut = False

    def stream(self, path: str) -> Iterator[bytes]:
        if self.cut:
            raise BackendUnavailable("The cable is unplugged.")
        if path in self.replaced:
            yield self.replaced[path]
        elif self.log is not None and path.startswith("log/"):
            yield from RegistryTransport(self.log.reader).stream(path)
        else:
            yield from super().stream(path)


@pytest.fixture
def road(shop: Registry) -> Road:
    return Road(shop)


@pytest.fixture
def handed(shop: Registry, tmp_path: Path, clock: Any) -> HandOver:
    """Hands over to a new key as another process does, with keys of its own, while the registry runs."""

    def do(role: str = "log") -> Rotation:
        with shop._tables.write() as connection:
            ceremony = Ceremony(RepositoryKeys(tmp_path / "registry" / "keys"), clock)
            return hand_over(MetadataRows(connection, clock.now()), ceremony, role)

    return do


def client_at(road: Road, shop: Registry, folder: Path) -> MarketplaceClient:
    return MarketplaceClient(road, folder, shop.trusted_root)


def logbook_at(road: Road, shop: Registry, folder: Path, **options: Any) -> Logbook:
    return Logbook(road, folder, shop.trusted_root, **options)


async def publish(registry: Registry, signed: Any) -> Any:
    return await registry.publish(signed.package.data, signed.envelope)


async def refused(work: Awaitable[Any]) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        await work
    return caught.value


def stolen_copy(tmp_path: Path, clock: Any) -> Registry:
    """What a thief of the log's key, and of everything else, has of the time before the handover."""
    shutil.copytree(tmp_path / "registry", tmp_path / "stolen")
    return Registry.open(tmp_path / "stolen", clock=clock)


def forged_proof(shop: Registry, thief: SigningKey, digest: str) -> bytes:
    """A log of one entry that never was, short enough for a retired key, and well signed by it."""
    origin = read_log_keys(keys_of(shop)).present.name
    entry = release_entry("acme/guard", "9.9.9", digest, "0" * 64, "2026-01-01T00:00:00Z")
    return LogProof(0, entry, (), sign_checkpoint(origin, 1, entry.leaf, thief).to_bytes()).to_bytes()


def keys_of(shop: Registry) -> bytes:
    with shop._tables.read() as connection:
        body: bytes = connection.exec_driver_sql(
            "SELECT body FROM tuf_targets WHERE path = ? AND superseded IS NULL", (KEYS_TARGET,)
        ).scalar_one()
        return body


def sign_as_registry(registry: Registry, documents: dict[str, bytes]) -> None:
    """What a thief of the online TUF keys could do."""
    with registry._tables.write() as connection:
        registry._repository.commit(MetadataRows(connection, registry._clock.now()), documents)


# ------------------------------------------------------------------------------ nothing is lost


async def test_publishing_following_and_auditing_go_on_over_two_handovers(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path, make_release: Make
) -> None:
    old, logbook = client_at(road, shop, tmp_path / "old"), logbook_at(road, shop, tmp_path / "old")
    await old.fetch("acme/guard", "1.0.0")
    assert logbook.audit()[1].entries == 3
    for number, size in ((2, 4), (3, 6)):
        rotation = handed()
        assert rotation.retired != rotation.added
        receipt = await publish(shop, make_release(version=f"1.{number}.0"))
        assert receipt.log_index == size
        for client in (old, client_at(road, shop, tmp_path / f"new-{number}")):
            assert (await client.fetch("acme/guard", f"1.{number}.0")).manifest.version == f"1.{number}.0"
        key, found = logbook.audit()
        assert (found.entries, found.kinds, found.problems) == (2, {"handover": 1, "publish": 1}, [])
        assert key == read_log_keys(keys_of(shop)).present
    assert [old.size for old in read_log_keys(keys_of(shop)).retired] == [3, 5]
    whole = logbook_at(road, shop, tmp_path / "late").audit(whole=True)[1]
    assert (whole.entries, whole.problems) == (7, [])


async def test_what_was_installed_before_is_verified_after_the_handover_without_the_network(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path, make_release: Make
) -> None:
    data, client = make_release(version="1.0.0").package.data, client_at(road, shop, tmp_path / "old")
    await client.fetch("acme/guard", "1.0.0")
    handed()
    await publish(shop, make_release(version="1.2.0"))
    await client.fetch("acme/guard", "1.2.0")
    road.cut = True
    assert any("signed by key" in line for line in (await client.verify(data, offline=True)).package.chain)


async def test_an_old_proof_file_is_good_anywhere_the_log_can_be_asked_and_for_good_where_it_was(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path
) -> None:
    body = shop.reader.log_file("proof/acme/guard/1.0.0")
    seen = logbook_at(road, shop, tmp_path / "seen")
    seen.proof("acme/guard", "1.0.0")
    late = logbook_at(road, shop, tmp_path / "late")
    # The handover names the log at 3 entries; this proof is of then. An older one needs the log's word.
    older = shop.reader.log_file("proof/acme/guard/1.0.0/at/2")
    handed()
    late.audit()
    for each in (body, older):
        assert late.check(each)[0].entry.version == "1.0.0"
    seen.audit()
    road.cut = True
    for logbook in (seen, late):
        assert logbook.check(body)[1].size == 3
    assert late.check(older)[1].size == 2
    with pytest.raises(VerificationFailed, match="cannot be seen now"):
        seen.check(older)
    assert read_proof(older).verify(read_log_keys(keys_of(shop)).retired[0].key).size == 2


async def test_witnesses_go_on_and_what_they_signed_before_still_counts(
    open_registry: Open, shop: Registry, handed: HandOver, tmp_path: Path
) -> None:
    witness = generate_key()
    vkey = witness_vkey(witness)
    watched = open_registry(witnesses=[vkey])
    road = Road(watched)
    book = logbook_at(road, shop, tmp_path / "witness")
    await watched.cosign(book.witness(witness, vkey.name, shop._clock.now()).to_bytes())
    handed()
    asking = logbook_at(road, shop, tmp_path / "asking", witnesses=[vkey], witnesses_needed=1)
    assert asking.proof("acme/guard", "1.0.0")[1].size == 3
    await watched.cosign(book.witness(witness, vkey.name, shop._clock.now()).to_bytes())
    assert asking.proof("acme/guard", "1.0.0")[1].size == 4


async def test_a_handover_that_fails_midway_changes_nothing(
    shop: Registry, handed: HandOver, monkeypatch: pytest.MonkeyPatch, make_release: Make
) -> None:
    before = keys_of(shop)

    def fails(*words: Any) -> int:
        raise OSError("the power went off")

    with monkeypatch.context() as patch:
        patch.setattr(Ceremony, "commit", fails)
        with pytest.raises(OSError, match="power"):
            handed()
    assert keys_of(shop) == before
    assert (await publish(shop, make_release(version="1.2.0"))).log_index == 3


def test_the_logs_key_hands_over_itself_or_not_at_all(shop: Registry, handed: HandOver, tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match="does not hand over"):
        handed("timestamp")
    (tmp_path / "registry" / "keys" / "online" / "log.pem").unlink()
    for role in ("log", "receipts"):
        with pytest.raises(KeyMissing):
            handed(role)
    with shop._tables.read() as connection:
        roles = handed_roles(connection, RepositoryKeys(tmp_path / "registry" / "keys"))
    assert [(role.role, len(role.at_hand)) for role in roles] == [("log", 0), ("receipts", 1)]


# ------------------------------------------------------------------------------ thieves


async def test_stolen_old_log_key_cannot_go_on_with_a_fork_after_the_handover(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path, clock: Any, make_release: Make
) -> None:
    old = client_at(road, shop, tmp_path / "old")
    await old.fetch("acme/guard", "1.0.0")
    thief = stolen_copy(tmp_path, clock)
    handed()
    for version in ("6.6.6", "6.6.7"):
        await publish(thief, make_release(version=version))
    road.log = thief
    for client in (old, client_at(road, shop, tmp_path / "new")):
        assert "had given up" in str(await refused(client.fetch("acme/guard", "1.0.0")))
    await thief.close()


async def test_stolen_old_log_key_cannot_hold_the_log_back_after_the_handover(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path, clock: Any
) -> None:
    """Short enough for the old key to count, but the newest is signed by the new one."""
    thief = stolen_copy(tmp_path, clock)
    handed()
    road.log = thief
    failed = await refused(client_at(road, shop, tmp_path / "new").fetch("acme/guard", "1.0.0"))
    assert "has given up" in str(failed)
    await thief.close()


async def test_stolen_old_log_key_cannot_prove_what_the_log_never_had(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path
) -> None:
    thief = shop._keys.online("log")
    handed()
    logbook = logbook_at(road, shop, tmp_path / "cache")
    logbook.audit()
    forged = forged_proof(shop, thief, "ab" * 32)
    assert read_proof(forged).verify(read_log_keys(keys_of(shop)).retired[0].key).size == 1
    with pytest.raises(LogInconsistent, match="does not begin"):
        logbook.check(forged)
    road.cut = True
    with pytest.raises(VerificationFailed, match="cannot be seen now"):
        logbook.check(forged)


async def test_what_a_thief_showed_before_the_handover_is_found_after_it(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path, clock: Any, make_release: Make
) -> None:
    """Deceived with the stolen key while it counted: the machine remembers, and tells."""
    thief = stolen_copy(tmp_path, clock)
    await publish(thief, make_release(version="6.6.6"))
    road.log = thief
    deceived = client_at(road, shop, tmp_path / "deceived")
    await deceived.fetch("acme/guard", "1.0.0")
    road.log = None
    handed()
    assert "somebody else has it" in str(await refused(deceived.fetch("acme/guard", "1.0.0")))
    await thief.close()


async def test_stolen_online_keys_cannot_replace_the_logs_key_without_its_own_word(
    shop: Registry, road: Road, tmp_path: Path
) -> None:
    old = client_at(road, shop, tmp_path / "old")
    await old.fetch("acme/guard", "1.0.0")
    said, thief = json.loads(keys_of(shop)), generate_key()
    origin, former = said["log"]["origin"], said["log"]["key"]
    present = read_checkpoint(shop.reader.log_file("checkpoint"))
    road.replaced = {"log/checkpoint": sign_checkpoint(origin, present.size, present.root, thief).to_bytes()}
    sign_as_registry(shop, {KEYS_TARGET: canonical_json({**said, "log": log_member(origin, thief)})})
    assert "did not say so" in str(await refused(old.fetch("acme/guard", "1.0.0")))
    # Nor by claiming a handover that the old key did not sign, which a newcomer, too, refuses.
    previous = shop._keys.online("log").id
    told = {"origin": origin, "previous": previous, "size": 3, "root": "00" * 32, "at": "2026-01-01T00:00:00Z"}
    claimed = {"key": former, "handover": json.loads(sign_statement(HANDOVER, {"log-2": thief.id}, told, thief))}
    sign_as_registry(shop, {KEYS_TARGET: canonical_json({**said, "log": log_member(origin, thief, [claimed])})})
    for client in (old, client_at(road, shop, tmp_path / "new")):
        assert "does not have the word" in str(await refused(client.fetch("acme/guard", "1.0.0")))


async def test_a_handover_that_the_marketplace_hides_is_found_by_an_audit(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path
) -> None:
    before = keys_of(shop)
    handed("receipts")
    sign_as_registry(shop, {KEYS_TARGET: before})
    (problem,) = logbook_at(road, shop, tmp_path / "cache").audit()[1].problems
    assert "does not list this key as its own" in problem


# ------------------------------------------------------------------------------ receipts


async def test_receipts_from_before_a_handover_stay_good_and_new_ones_have_the_new_key(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path, clock: Any, make_release: Make
) -> None:
    logbook = logbook_at(road, shop, tmp_path / "cache")
    first = make_release(version="1.0.0")
    old = (await publish(shop, first)).to_dict()
    for number in (2, 3):
        clock.advance(1)
        rotation = handed("receipts")
        new = make_release(version=f"1.{number}.0")
        receipt = (await publish(shop, new)).to_dict()
        assert [each["keyid"] for each in receipt["signed"]["signatures"]] == list(rotation.added)
        for said, digest in ((old, first.package.digest), (receipt, new.package.digest)):
            logbook.confirm(said, digest)


async def test_stolen_receipt_key_signs_nothing_about_what_came_after_the_handover(
    shop: Registry, road: Road, handed: HandOver, tmp_path: Path, clock: Any, make_release: Make
) -> None:
    thief, logbook = shop._keys.online("receipts"), logbook_at(road, shop, tmp_path / "cache")
    handed("receipts")
    clock.advance(1)
    late = make_release(version="1.2.0")
    genuine = (await publish(shop, late)).to_dict()
    values = {name: value for name, value in genuine.items() if name != "signed"}
    with pytest.raises(VerificationFailed, match="no longer counted then"):
        logbook.confirm(sign_receipt(thief, values).to_dict(), late.package.digest)
    backdated = sign_receipt(thief, {**values, "published": "2020-01-01T00:00:00Z"}).to_dict()
    with pytest.raises(VerificationFailed, match="when this was published"):
        logbook.confirm(backdated, late.package.digest)
    logbook.confirm(genuine, late.package.digest)
