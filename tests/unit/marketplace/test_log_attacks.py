"""Attacks on the transparency log, each refused by what the client, the witness or the registry itself checks."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import KeelstoneError, NotFound
from marketplace.client import MarketplaceClient
from marketplace.errors import LogInconsistent, RegistryDamaged, SignerUnknown, VerificationFailed
from marketplace.index import Release, index_path, make_index
from marketplace.keys import SigningKey, generate_key
from marketplace.log.checkpoint import read_checkpoint
from marketplace.log.key import KEYS_TARGET, log_member
from marketplace.log.proof import LogProof, read_proof
from marketplace.log.witness import cosign, witness_vkey
from marketplace.logbook import Logbook
from marketplace.registry import Registry
from marketplace.registry.changes import YankRelease
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.receipts import keys_document
from marketplace.revocations import REVOCATIONS_TARGET, revocations_document
from marketplace.signing import canonical_json, sign_statement, sign_yank
from marketplace.transport import RegistryTransport

Make = Callable[..., Any]
Bind = Callable[..., Awaitable[None]]
Open = Callable[..., Registry]


class Road(RegistryTransport):
    """A transport on which somebody sits: answers with another registry, another file, or bytes of their own."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.reader)
        self.replaced: dict[str, bytes] = {}
        self.swapped: dict[str, str] = {}
        self.asked: list[str] = []

    def lead_to(self, registry: Registry) -> None:
        self._reader = registry.reader

    def stream(self, path: str) -> Iterator[bytes]:
        self.asked.append(path)
        if path in self.replaced:
            yield self.replaced[path]
        else:
            yield from super().stream(self.swapped.get(path, path))

    def read(self, path: str) -> bytes:
        return b"".join(super().stream(path))


@pytest.fixture
def road(shop: Registry) -> Road:
    return Road(shop)


@pytest.fixture
def client(road: Road, shop: Registry, tmp_path: Path) -> MarketplaceClient:
    return MarketplaceClient(road, tmp_path / "cache", shop.trusted_root)


@pytest.fixture
def logbook(road: Road, shop: Registry, tmp_path: Path) -> Logbook:
    """The log as the same machine sees it that ``client`` is on."""
    return Logbook(road, tmp_path / "cache", shop.trusted_root)


async def publish(registry: Registry, signed: Any) -> Any:
    return await registry.publish(signed.package.data, signed.envelope)


def release_proof(registry: Registry, version: str) -> LogProof:
    return read_proof(registry.reader.log_file(f"proof/acme/guard/{version}"))


def copied(tmp_path: Path, name: str, clock: Any) -> Registry:
    """The same registry a second time, with all its keys: what its operator, or a thief of everything, can do."""
    shutil.copytree(tmp_path / "registry", tmp_path / name)
    return Registry.open(tmp_path / name, clock=clock)


def change(tmp_path: Path, statement: str, *values: Any) -> None:
    """Somebody at the registry's database."""
    connection = sqlite3.connect(tmp_path / "registry" / "registry.db")
    with connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


async def refused(work: Awaitable[Any]) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        await work
    assert caught.value.link == "log"
    return caught.value


# ------------------------------------------------------------------------------ tampered log


def tampered(entry: bytes) -> bytes:
    said = json.loads(entry)
    return canonical_json({**said, "at": "1999-01-01T00:00:00Z"})


async def test_tampered_log_an_entry_changed_in_the_database_proves_nothing(
    shop: Registry, client: MarketplaceClient, logbook: Logbook, tmp_path: Path
) -> None:
    await client.fetch("acme/guard", "1.0.0")
    body = release_proof(shop, "1.1.0").entry.to_bytes()
    change(tmp_path, "UPDATE log_entries SET body = ? WHERE position = 2", tampered(body))
    assert "not number 2 of the log" in str(await refused(client.fetch("acme/guard", "1.1.0")))
    with pytest.raises(VerificationFailed, match="not those that its checkpoint was signed over"):
        logbook.audit()
    assert (await client.fetch("acme/guard", "1.0.0")).manifest.version == "1.0.0"


async def test_tampered_log_a_registry_does_not_sign_over_changed_tiles(
    shop: Registry, make_release: Make, tmp_path: Path
) -> None:
    before = shop.reader.log_file("checkpoint")
    change(tmp_path, "UPDATE log_tiles SET body = zeroblob(96)")
    with pytest.raises(RegistryDamaged, match="do not give the root"):
        await publish(shop, make_release(version="1.2.0"))
    assert shop.reader.log_file("checkpoint") == before
    assert shop.reader.index("acme/guard").find("1.2.0") is None


async def test_tampered_log_changed_tiles_are_refused_by_who_follows(
    shop: Registry, client: MarketplaceClient, road: Road, make_release: Make, logbook: Logbook
) -> None:
    await client.fetch("acme/guard", "1.0.0")
    await publish(shop, make_release(version="1.2.0"))
    whole = road.read("log/tile/0/000.p/4")
    for wrong in (bytes(32) + whole[32:], whole[:-1], b"", whole + b"x"):
        road.replaced = {"log/tile/0/000.p/4": wrong}
        with pytest.raises(LogInconsistent, match=r"forked|damaged"):
            logbook.audit()
        with pytest.raises(LogInconsistent):
            await client.fetch("acme/guard", "1.2.0")


async def test_tampered_log_an_entry_taken_out_of_a_bundle_is_missed(road: Road, logbook: Logbook) -> None:
    whole = road.read("log/tile/entries/000.p/3")
    for wrong in (whole[: len(whole) // 2], b"", whole + b"\0\0", whole.replace(b"1.1.0", b"1.1.1")):
        road.replaced = {"log/tile/entries/000.p/3": wrong}
        with pytest.raises(VerificationFailed):
            logbook.audit()
    road.replaced = {}
    assert logbook.audit()[1].entries == 3


async def test_tampered_log_a_proof_forged_in_the_cache_is_refused_offline(
    client: MarketplaceClient, make_release: Make, tmp_path: Path
) -> None:
    data = make_release(version="1.1.0").package.data
    await client.verify(data)
    (file,) = (tmp_path / "cache").rglob("proofs/*")
    whole = file.read_bytes()
    for wrong in (whole.replace(b'"index": 2', b'"index": 1'), whole[:-9], b"", whole.replace(b"2026", b"2025")):
        file.write_bytes(wrong)
        await refused(client.verify(data, offline=True))
    file.unlink()
    assert "no proof here" in str(await refused(client.verify(data, offline=True)))
    assert (await client.verify(data)).package.chain


# ------------------------------------------------------------------------------ forked log


async def test_forked_log_shown_to_two_clients_is_refused_by_the_one_that_saw_the_other(
    shop: Registry, client: MarketplaceClient, road: Road, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    evil = copied(tmp_path, "evil", clock)
    await publish(shop, make_release(version="1.2.0"))
    assert (await client.fetch("acme/guard", "1.2.0")).manifest.version == "1.2.0"
    # The fork is longer, so TUF sees nothing wrong with it: newer metadata, by the right keys.
    for version in ("1.2.1", "1.2.2"):
        await publish(evil, make_release(version=version))
    victim = MarketplaceClient(RegistryTransport(evil.reader), tmp_path / "victim", shop.trusted_root)
    assert (await victim.fetch("acme/guard", "1.2.2")).manifest.version == "1.2.2"
    road.lead_to(evil)
    with pytest.raises(LogInconsistent, match="does not begin with what was shown") as caught:
        await client.fetch("acme/guard", "1.2.2")
    assert caught.value.code == "log-inconsistent"
    await evil.close()


async def test_forked_log_of_the_same_size_is_refused(
    shop: Registry, logbook: Logbook, road: Road, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    evil = copied(tmp_path, "evil", clock)
    await publish(shop, make_release(version="1.2.0"))
    assert logbook.audit()[1].entries == 4
    await publish(evil, make_release(version="1.2.1"))
    clock.advance(5)
    assert "timestamp" in (await evil.renew()).renewed  # newer to TUF, and nothing else
    road.lead_to(evil)
    with pytest.raises(LogInconsistent, match="one size, two roots"):
        logbook.audit()
    await evil.close()


async def test_forked_log_a_proof_of_the_fork_is_refused_by_who_saw_the_log(
    shop: Registry, logbook: Logbook, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    evil = copied(tmp_path, "evil", clock)
    await publish(shop, make_release(version="1.2.0"))
    await publish(evil, make_release(version="1.2.1"))
    logbook.audit()
    forged = release_proof(evil, "1.2.1").to_bytes()
    with pytest.raises(LogInconsistent, match="another log"):
        logbook.check(forged)
    await evil.close()


async def test_forked_log_shown_to_a_newcomer_lacks_the_witness(
    open_registry: Open, register: Bind, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    key = generate_key()
    vkey = witness_vkey(key)
    shop = open_registry(witnesses=[vkey])
    await register(shop)
    await publish(shop, make_release())
    evil = copied(tmp_path, "evil", clock)
    await publish(evil, make_release(version="1.0.1"))
    await publish(shop, make_release(version="1.1.0"))
    road = Road(shop)
    witness = Logbook(road, tmp_path / "witness", shop.trusted_root)
    signed = witness.witness(key, vkey.name, clock.now())
    await shop.cosign(signed.to_bytes())

    def newcomer(registry: Registry, folder: str) -> MarketplaceClient:
        transport = RegistryTransport(registry.reader)
        return MarketplaceClient(transport, tmp_path / folder, shop.trusted_root, witnesses=[vkey], witnesses_needed=1)

    package = await newcomer(shop, "one").fetch("acme/guard", "1.1.0")
    assert f"seen by {vkey.name}" in package.chain[-2]
    assert "too few witnesses" in str(await refused(newcomer(evil, "two").fetch("acme/guard", "1.0.1")))
    # Neither does the witness sign the fork, nor does the fork's registry take a signature of the other log.
    road.lead_to(evil)
    with pytest.raises(VerificationFailed):
        witness.witness(key, vkey.name, clock.now())
    with pytest.raises((NotFound, SignerUnknown)):
        await evil.cosign(signed.to_bytes())
    await evil.close()


async def test_forked_log_a_witnessed_checkpoint_of_the_fork_is_refused_beside_the_log(
    shop: Registry, road: Road, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    """Somebody has the log's key and got a witness to sign a fork; the newest checkpoint is the real log's."""
    key = generate_key()
    vkey = witness_vkey(key)
    evil = copied(tmp_path, "evil", clock)
    await publish(evil, make_release(version="1.2.1"))
    await publish(shop, make_release(version="1.2.0"))
    await publish(shop, make_release(version="1.3.0"))
    forged = cosign(read_checkpoint(evil.reader.log_file("checkpoint")), key, vkey.name, clock.now())
    road.replaced = {"log/witnessed/1": forged.to_bytes()}
    client = MarketplaceClient(road, tmp_path / "cache", shop.trusted_root, witnesses=[vkey], witnesses_needed=1)
    with pytest.raises(LogInconsistent, match="forked"):
        await client.fetch("acme/guard", "1.0.0")
    await evil.close()


# ------------------------------------------------------------------------------ log rolled back


async def test_log_rolled_back_behind_fresh_metadata_is_refused(
    shop: Registry, client: MarketplaceClient, logbook: Logbook, road: Road, make_release: Make
) -> None:
    old = road.read("log/checkpoint")
    await publish(shop, make_release(version="1.2.0"))
    await client.fetch("acme/guard", "1.2.0")
    road.replaced = {"log/checkpoint": old}
    with pytest.raises(LogInconsistent, match="shorter than it was"):
        await client.fetch("acme/guard", "1.0.0")
    with pytest.raises(LogInconsistent, match="shorter than it was"):
        logbook.audit()


async def test_log_rolled_back_a_missing_or_foreign_log_is_refused(
    client: MarketplaceClient, road: Road, tmp_path: Path, clock: Any
) -> None:
    stranger = Registry.open(tmp_path / "stranger", clock=clock)
    road.replaced = {"log/checkpoint": stranger.reader.log_file("checkpoint")}
    assert "another log's" in str(await refused(client.fetch("acme/guard", "1.0.0")))
    road.replaced, road.swapped = {}, {"log/checkpoint": "log/nothing"}
    assert "does not serve its log" in str(await refused(client.fetch("acme/guard", "1.0.0")))
    road.swapped = {"log/proof/acme/guard/1.0.0/at/3": "log/nothing"}
    assert "not among the log's first 3 entries" in str(await refused(client.fetch("acme/guard", "1.0.0")))
    await stranger.close()


async def test_log_rolled_back_to_before_it_had_a_key_is_refused(shop: Registry, client: MarketplaceClient) -> None:
    await client.fetch("acme/guard", "1.0.0")
    sign_as_registry(shop, {KEYS_TARGET: canonical_json({"format": 1, "receipts": []})})
    assert "names no key" in str(await refused(client.fetch("acme/guard", "1.0.0")))


# ------------------------------------------------------------------------------ another release's proof


async def test_inclusion_proof_of_another_release_is_refused(
    client: MarketplaceClient, road: Road, make_release: Make, tmp_path: Path
) -> None:
    road.swapped = {"log/proof/acme/guard/1.1.0/at/3": "log/proof/acme/guard/1.0.0/at/3"}
    assert "something else" in str(await refused(client.fetch("acme/guard", "1.1.0")))
    data = make_release(version="1.1.0").package.data
    assert "something else" in str(await refused(client.verify(data)))
    assert "something else" in str(await refused(client.verify(data, offline=True)))
    road.swapped = {}
    assert (await client.verify(data)).package.chain


def sign_as_registry(registry: Registry, documents: dict[str, bytes]) -> None:
    """What a thief of the online keys could do: sign any document into the repository."""
    with registry._tables.write() as connection:
        registry._repository.commit(MetadataRows(connection, registry._clock.now()), documents)


async def test_a_release_listed_without_being_logged_is_refused(
    shop: Registry, client: MarketplaceClient, make_release: Make
) -> None:
    """Genuinely signed by its publisher, and shown to a few only: the log is there to make that impossible."""
    hidden = make_release(version="1.1.1")
    await shop._blobs.put(hidden.package.data)
    known = shop.reader.index("acme/guard").releases
    listed = Release(
        "1.1.1", hidden.package.digest, len(hidden.package.data), known[0].kernel, known[0].published, None,
        {**known[0].manifest, "version": "1.1.1"}, json.loads(hidden.envelope),
    )  # fmt: skip
    sign_as_registry(shop, {index_path("acme/guard"): make_index("acme/guard", [*known, listed]).to_bytes()})
    assert "not among the log's first 3 entries" in str(await refused(client.fetch("acme/guard", "1.1.1")))
    assert "not among" in str(await refused(client.verify(hidden.package.data, hidden.envelope)))


async def test_a_release_logged_with_another_statement_than_is_listed_is_refused(
    shop: Registry, client: MarketplaceClient
) -> None:
    """A poisoned old release: the index has another statement than was logged when it was published."""
    first, *others = shop.reader.index("acme/guard").releases
    stranger = {"keyid": "ab" * 32, "sig": "AAAA"}
    other_words = replace(first, envelope={**first.envelope, "signatures": [*first.envelope["signatures"], stranger]})
    sign_as_registry(shop, {index_path("acme/guard"): make_index("acme/guard", [other_words, *others]).to_bytes()})
    failed = await refused(client.fetch("acme/guard", first.version))
    assert "something else" in str(failed)


async def test_a_thief_of_the_logs_key_alone_cannot_replace_the_key(
    shop: Registry, client: MarketplaceClient, road: Road, tmp_path: Path
) -> None:
    """The key's place is a TUF target: a document with another key is not the one that its bin lists."""
    await client.fetch("acme/guard", "1.0.0")
    path = next(p for p in road.asked if p.startswith("targets/registry/"))
    thief = generate_key()
    said = json.loads(road.read(path))
    road.replaced = {path: canonical_json({**said, "log": log_member(said["log"]["origin"], thief)})}
    fresh = MarketplaceClient(road, tmp_path / "fresh", shop.trusted_root)
    await refused(fresh.fetch("acme/guard", "1.0.0"))


async def test_a_withdrawal_that_the_marketplace_hides_is_found_by_an_audit(
    shop: Registry, logbook: Logbook, make_release: Make, key: SigningKey
) -> None:
    """Logged for all to see, but taken out of the index again: new installs would get what its publisher withdrew."""
    before = shop.reader.index("acme/guard")
    digest = make_release(version="1.0.0").package.digest
    await shop.yank(sign_yank("acme/guard", "1.0.0", digest, "it bites", key))
    assert logbook.audit(whole=True)[1].problems == []
    sign_as_registry(shop, {index_path("acme/guard"): before.to_bytes()})
    for _ in range(2):
        _, found = logbook.audit(whole=True)
        (problem,) = found.problems
        assert problem.startswith("Entry 3 says yank acme/guard 1.0.0")
        assert "offers it for new installs" in problem


async def test_a_revocation_that_the_marketplace_hides_is_found_by_an_audit(shop: Registry, logbook: Logbook) -> None:
    """Logged for all to see, but no longer on the list that platforms carry out."""
    await shop.revoke("acme/guard", "1.0.0", "It sends secrets out.")
    assert logbook.audit(whole=True)[1].problems == []
    sign_as_registry(shop, {REVOCATIONS_TARGET: revocations_document([])})
    _, found = logbook.audit(whole=True)
    (problem,) = found.problems
    assert problem.startswith("Entry 3 says kill acme/guard 1.0.0")
    assert "does not list it as revoked" in problem


async def test_a_release_that_its_publisher_logged_and_the_marketplace_changed_is_found_by_the_publisher(
    shop: Registry, logbook: Logbook
) -> None:
    first, second = shop.reader.index("acme/guard").releases
    poisoned = replace(first, digest="cd" * 32)
    sign_as_registry(shop, {index_path("acme/guard"): make_index("acme/guard", [poisoned]).to_bytes()})
    assert logbook.audit(whole=True)[1].problems == []
    _, found = logbook.audit("acme", whole=True)
    assert [problem.partition("but ")[2] for problem in found.problems] == [
        "the marketplace does not list it.",
        "the marketplace lists other bytes (sha256 cdcdcdcdcdcdcdcd).",
    ]
    assert second.version in found.problems[0]


async def test_an_audit_beside_a_change_under_way_finds_no_contradiction(
    shop: Registry, road: Road, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    """The index is fetched, then a release is withdrawn, then the log is."""
    digest, late = make_release(version="1.0.0").package.digest, list[Any]()

    class Busy(Road):
        def stream(self, path: str) -> Iterator[bytes]:
            if path == "log/checkpoint" and not late:
                change = YankRelease("acme/guard", "1.0.0", digest, "it bites", withdrawal)
                late.extend(shop._committer._apply([change]))
            yield from super().stream(path)

    withdrawal = sign_yank("acme/guard", "1.0.0", digest, "it bites", key)
    book = Logbook(Busy(shop), tmp_path / "cache", shop.trusted_root)
    _, found = book.audit()
    assert late
    assert (found.kinds["yank"], found.problems) == (1, [])
    assert book.audit()[1].entries == 0


# ------------------------------------------------------------------------------ replayed receipt


async def test_replayed_receipt_of_another_release_confirms_nothing(
    shop: Registry, logbook: Logbook, make_release: Make, key: SigningKey
) -> None:
    old, new = make_release(version="1.0.0"), make_release(version="1.2.0")
    receipt = (await publish(shop, old)).to_dict()
    proof, _ = logbook.confirm(receipt, old.package.digest)
    assert proof.index == receipt["log_index"] == 1
    for replayed in (receipt, {**receipt, "version": "1.2.0", "digest": new.package.digest}):
        with pytest.raises(VerificationFailed, match="another package") as caught:
            logbook.confirm(replayed, new.package.digest)
        assert caught.value.link == "receipt"


async def test_replayed_receipt_from_another_marketplace_confirms_nothing(
    shop: Registry, logbook: Logbook, register: Bind, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    stranger = Registry.open(tmp_path / "stranger", clock=clock)
    await register(stranger)
    signed = make_release(version="1.0.0")
    receipt = (await publish(stranger, signed)).to_dict()
    for replayed in (receipt, {**receipt, "signed": {}}, {}):
        with pytest.raises(VerificationFailed, match="not signed by the marketplace"):
            logbook.confirm(replayed, signed.package.digest)
    await stranger.close()


async def test_replayed_receipt_from_a_fork_does_not_fit_the_log(
    shop: Registry, logbook: Logbook, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    """Signed by the right key, for a publish that the log knows at another place."""
    evil = copied(tmp_path, "evil", clock)
    signed = make_release(version="1.2.1")
    await publish(evil, make_release(version="1.2.0"))
    receipt = (await publish(evil, signed)).to_dict()
    await publish(shop, signed)
    with pytest.raises(VerificationFailed, match="does not have at this index"):
        logbook.confirm(receipt, signed.package.digest)
    with pytest.raises(VerificationFailed, match="not among"):
        logbook.confirm(
            (await publish(evil, make_release(version="1.2.0"))).to_dict(), make_release(version="1.2.0").package.digest
        )
    await evil.close()


async def test_replayed_receipt_of_a_withdrawal_is_no_receipt_of_a_publish(
    shop: Registry, logbook: Logbook, make_release: Make, key: SigningKey
) -> None:
    digest = make_release(version="1.0.0").package.digest
    receipt = (await shop.yank(sign_yank("acme/guard", "1.0.0", digest, "it bites", key))).to_dict()
    assert receipt["log_index"] == 3
    with pytest.raises(VerificationFailed, match="does not have at this index"):
        logbook.confirm(receipt, digest)


async def test_a_receipt_with_names_that_are_paths_asks_for_no_file(
    shop: Registry, logbook: Logbook, road: Road
) -> None:
    values = {"plugin": "../../etc", "version": "1.0.0", "log_index": 1}
    signed = sign_statement("urn:keelstone:receipt:v1", {"x": "0" * 64}, values, shop._keys.online("receipts"))
    with pytest.raises(KeelstoneError, match="etc"):
        logbook.confirm({"signed": json.loads(signed)}, "0" * 64)
    assert not any("etc" in path for path in road.asked)


def test_the_keys_of_receipts_and_of_the_log_are_different(shop: Registry) -> None:
    receipts, log = shop._keys.online("receipts"), shop._keys.online("log")
    said = json.loads(keys_document(receipts, log, "x"))
    assert said["receipts"][0]["keyval"] != said["log"]["key"]["keyval"]
    assert read_checkpoint(shop.reader.log_file("checkpoint")).size == 3
