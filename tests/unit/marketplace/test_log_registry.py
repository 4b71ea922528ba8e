"""The log in the registry: what is logged, once, with the change; and a registry that had none."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from kernel.errors import KeelstoneError, NotFound
from marketplace.client import MarketplaceClient
from marketplace.errors import KeyMissing, SignerUnknown, VerificationFailed
from marketplace.keys import SigningKey, generate_key
from marketplace.log.audit import Audit
from marketplace.log.checkpoint import Checkpoint, read_checkpoint
from marketplace.log.entry import Entry, read_entry, release_entry, statement_digest
from marketplace.log.proof import LogProof, read_proof
from marketplace.log.tiles import Tile, read_bundle
from marketplace.log.witness import cosign, witness_vkey
from marketplace.logbook import Logbook
from marketplace.namespaces import make_key_set
from marketplace.registry import Registry
from marketplace.registry.log import LogRows
from marketplace.service import create_app
from marketplace.signing import sign_deprecation, sign_yank
from marketplace.transport import RegistryTransport

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]
Open = Callable[..., Registry]
D = "ab" * 32


async def publish(registry: Registry, signed: Any) -> Any:
    return await registry.publish(signed.package.data, signed.envelope)


def checkpoint(registry: Registry) -> Checkpoint:
    return read_checkpoint(registry.reader.log_file("checkpoint"))


def proof_of(registry: Registry, plugin: str, version: str) -> LogProof:
    return read_proof(registry.reader.log_file(f"proof/{plugin}/{version}"))


def entries(registry: Registry) -> list[Entry]:
    size, found = checkpoint(registry).size, list[Entry]()
    for number in range(-(-size // 256)):
        place = Tile(None, number, min(256, size - number * 256))
        found += map(read_entry, read_bundle(registry.reader.log_file(place.path), place.width))
    return found


def logbook(registry: Registry, folder: Path, **options: Any) -> Logbook:
    return Logbook(RegistryTransport(registry.reader), folder, registry.trusted_root, **options)


def audit(registry: Registry, folder: Path) -> Audit:
    return logbook(registry, folder).audit()[1]


def said(registry: Registry) -> list[tuple[str, str]]:
    return [(entry.kind, " ".join(filter(None, (entry.plugin, entry.version)))) for entry in entries(registry)]


# ------------------------------------------------------------------------------ what is logged


async def test_every_change_is_an_entry_once(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, clock: Any, tmp_path: Path
) -> None:
    assert checkpoint(registry).size == 0
    await register(registry)
    signed, other = make_release(), make_release("acme/better")
    receipt = await publish(registry, signed)
    await publish(registry, other)
    at = datetime.fromtimestamp(clock.now(), UTC).isoformat()
    advice = sign_deprecation("acme/guard", "old", "acme/better", at, key)
    withdrawal = sign_yank("acme/guard", "1.0.0", signed.package.digest, "it bites", key)
    await registry.deprecate(advice)
    gone = await registry.yank(withdrawal)
    expected = [
        ("keys", "1"),
        ("publish", "acme/guard 1.0.0"),
        ("publish", "acme/better 1.0.0"),
        ("deprecate", "acme/guard"),
        ("yank", "acme/guard 1.0.0"),
    ]
    assert said(registry) == expected
    assert (receipt.log_index, gone.log_index) == (1, 4)
    # Asked again, nothing changes, and nothing is logged.
    await register(registry)
    assert await publish(registry, signed) == receipt
    await registry.deprecate(advice)
    assert await registry.yank(withdrawal) == gone
    assert said(registry) == expected

    keys, published, _, advised, yanked = entries(registry)
    assert keys.digest == keys.statement
    assert (published.digest, published.statement) == (
        signed.package.digest,
        statement_digest(json.loads(signed.envelope)),
    )
    assert (advised.statement, yanked.statement) == tuple(
        statement_digest(json.loads(each)) for each in (advice, withdrawal)
    )
    assert all(entry.publisher == "acme" for entry in entries(registry))
    assert "bites" not in json.dumps([entry.to_dict() for entry in entries(registry)])
    assert audit(registry, tmp_path / "cache").problems == []


async def test_the_signed_receipt_names_the_entry(registry: Registry, register: Bind, make_release: Make) -> None:
    from marketplace.log.key import KEYS_TARGET, open_receipt
    from marketplace.registry.receipts import keys_document

    await register(registry)
    receipt = await publish(registry, make_release())
    document = keys_document(registry._keys.online("receipts"), registry._keys.online("log"), "x")
    assert KEYS_TARGET == "registry/keys.json"
    assert open_receipt(receipt.to_dict(), document, receipt.digest)[0]["log_index"] == receipt.log_index == 1


async def test_a_batch_has_one_checkpoint_and_each_receipt_its_own_entry(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    releases = [make_release(f"acme/plugin-{n}") for n in range(12)]
    receipts = await asyncio.gather(*(publish(registry, each) for each in [*releases, releases[0]]))
    assert sorted({receipt.log_index for receipt in receipts}) == list(range(1, 13))
    for receipt in receipts:
        proof = proof_of(registry, receipt.plugin, receipt.version)
        assert (proof.index, proof.entry.digest) == (receipt.log_index, receipt.digest)
    with registry._tables.read() as connection:
        checkpoints = connection.exec_driver_sql("SELECT count(*) FROM log_checkpoints").scalar_one()
    assert checkpoints < 12


async def test_a_change_that_is_refused_logs_nothing_for_itself(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    rivals = [make_release(readme=f"# Number {n}\n") for n in range(4)]
    outcomes = await asyncio.gather(*(publish(registry, each) for each in rivals), return_exceptions=True)
    assert sum(not isinstance(each, KeelstoneError) for each in outcomes) == 1
    assert said(registry) == [("keys", "1"), ("publish", "acme/guard 1.0.0")]


async def test_a_change_that_dies_before_its_commit_is_not_logged(
    open_registry: Open, register: Bind, make_release: Make
) -> None:
    armed: list[str] = []

    def die(step: str) -> None:
        if step in armed:
            raise RuntimeError("the power fails")

    registry = open_registry(on_step=die)
    await register(registry)
    before = registry.reader.log_file("checkpoint")
    for step in ("logged", "metadata-signed", "committing"):
        armed[:] = [step]
        with pytest.raises(RuntimeError):
            await publish(registry, make_release())
        assert registry.reader.log_file("checkpoint") == before
    armed.clear()
    assert (await publish(registry, make_release())).log_index == 1


async def test_the_statement_behind_each_entry_is_kept_and_proved(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey, clock: Any, tmp_path: Path
) -> None:
    await register(registry)
    signed = make_release()
    await publish(registry, signed)
    at = datetime.fromtimestamp(clock.now(), UTC).isoformat()
    statements = [
        registry.reader.key_set("acme").document,
        signed.envelope,
        sign_deprecation("acme/guard", "old", None, at, key),
        sign_yank("acme/guard", "1.0.0", signed.package.digest, "it bites", key),
    ]
    await registry.deprecate(statements[2])
    await registry.yank(statements[3])
    book = logbook(registry, tmp_path / "cache")
    for index, statement in enumerate(statements):
        proof, checkpoint = book.entry(index)
        assert (proof.index, checkpoint.size, proof.statement) == (index, 4, json.loads(statement))
        assert book.check(proof.to_bytes()) == (proof, checkpoint)
    with pytest.raises(VerificationFailed, match="no entry 4"):
        book.entry(4)


async def test_a_batch_reads_and_writes_the_edge_of_a_long_log_only(registry: Registry) -> None:
    key, tiles = registry._keys.online("log"), list[str]()

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "log_" in statement:
            tiles.append(statement.split()[0])

    def lot(first: int, count: int) -> list[Entry]:
        return [release_entry("acme/x", f"{n}.0.0", D, D, "2026-01-01T00:00:00Z") for n in range(first, first + count)]

    with registry._tables.write() as connection:
        LogRows(connection).append(lot(0, 3_000), {}, key)
    with registry._tables.write() as connection:
        sa.event.listen(connection, "before_cursor_execute", note)
        assert LogRows(connection).append(lot(3_000, 256), {}, key) == 3_000
    # The newest checkpoint with its witnesses, and one tile for each of the two levels.
    assert tiles.count("SELECT") == 4
    assert tiles.count("INSERT") <= 5
    assert len(entries(registry)) == 3_256
    proof = proof_of(registry, "acme/x", "17.0.0")
    assert (proof.index, len(proof.hashes)) == (17, 12)
    assert read_checkpoint(proof_of(registry, "acme/x", "17.0.0/at/3000").checkpoint).size == 3_000


# ------------------------------------------------------------------------------ a registry that had no log


def forget_the_log(folder: Path) -> None:
    """Make the registry in ``folder`` what it was before there was a log."""
    connection = sqlite3.connect(folder / "registry.db")
    with connection:
        for table in ("log_entries", "log_tiles", "log_checkpoints", "log_cosignatures"):
            connection.execute(f"DROP TABLE {table}")
        old = connection.execute("SELECT plugin, version, receipt FROM releases").fetchall()
        for plugin, version, receipt in old:
            said = json.loads(receipt)
            del said["log_index"]
            connection.execute(
                "UPDATE releases SET receipt = ? WHERE plugin = ? AND version = ?", (json.dumps(said), plugin, version)
            )
    connection.close()
    (folder / "keys" / "online" / "log.pem").unlink()


async def test_a_registry_without_a_log_gets_one_with_its_past_in_order(
    open_registry: Open, register: Bind, make_release: Make, key: SigningKey, clock: Any, tmp_path: Path
) -> None:
    registry = open_registry()
    await register(registry)
    guard, better = make_release(), make_release("acme/better")
    await publish(registry, guard)
    clock.advance(1)
    await publish(registry, better)
    clock.advance(1)
    at = datetime.fromtimestamp(clock.now(), UTC).isoformat()
    await registry.deprecate(sign_deprecation("acme/guard", "old", "acme/better", at, key))
    clock.advance(0.01)
    await registry.yank(sign_yank("acme/guard", "1.0.0", guard.package.digest, "it bites", key))
    expected = said(registry)
    await registry.close()
    forget_the_log(tmp_path / "registry")
    # Its offline keys are away, as they should be.
    for file in (tmp_path / "registry" / "keys" / "offline").iterdir():
        file.unlink()

    registry = open_registry()
    assert said(registry) == expected
    assert [entry.statement is None for entry in entries(registry)] == [False, False, False, True, True]
    again = await publish(registry, better)
    assert again.log_index is None
    client = MarketplaceClient(RegistryTransport(registry.reader), tmp_path / "cache", registry.trusted_root)
    package = await client.fetch("acme/better", "1.0.0")
    assert package.chain[-1].startswith("log entry 2: publish acme/better 1.0.0")
    assert logbook(registry, tmp_path / "cache").confirm(again.to_dict(), again.digest)[0].index == 2
    assert not list((tmp_path / "registry" / "keys" / "offline").iterdir())
    before = registry.reader.log_file("checkpoint")
    await registry.close()
    assert open_registry().reader.log_file("checkpoint") == before


async def test_a_lost_log_key_is_missed_and_not_made_again(
    open_registry: Open, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    registry = open_registry()
    await register(registry)
    await registry.close()
    (tmp_path / "registry" / "keys" / "online" / "log.pem").unlink()
    registry = open_registry()
    with pytest.raises(KeyMissing, match="log"):
        await publish(registry, make_release())
    assert not (tmp_path / "registry" / "keys" / "online" / "log.pem").exists()


async def test_superseded_checkpoints_are_kept_a_day_or_as_long_as_witnesses_signed_them(
    open_registry: Open, register: Bind, make_release: Make, clock: Any
) -> None:
    key = generate_key()
    registry = open_registry(witnesses=[witness_vkey(key)])
    await register(registry)
    signed = cosign(checkpoint(registry), key, witness_vkey(key).name, clock.now())
    await registry.cosign(signed.to_bytes())
    for version in ("1.0.0", "1.1.0"):
        await publish(registry, make_release(version=version))
    assert read_checkpoint(proof_of(registry, "acme/guard", "1.0.0/at/2").checkpoint).size == 2
    clock.advance(1.5)
    await registry.renew()
    with pytest.raises(NotFound):
        proof_of(registry, "acme/guard", "1.0.0/at/2")
    assert read_checkpoint(registry.reader.log_file("witnessed/1")).to_bytes() == signed.to_bytes()
    assert checkpoint(registry).size == 3


async def test_of_what_witnesses_signed_the_newest_are_kept(
    open_registry: Open, register: Bind, make_release: Make, clock: Any
) -> None:
    key = generate_key()
    registry = open_registry(witnesses=[witness_vkey(key)])
    await register(registry)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        await registry.cosign(cosign(checkpoint(registry), key, witness_vkey(key).name, clock.now()).to_bytes())
        await publish(registry, make_release(version=version))
    clock.advance(1.5)
    with registry._tables.write() as connection:
        LogRows(connection, clock.now()).prune(keep_witnessed=2)
        assert list(connection.exec_driver_sql("SELECT size FROM log_checkpoints ORDER BY 1").scalars()) == [2, 3, 4]
        assert list(connection.exec_driver_sql("SELECT size FROM log_cosignatures ORDER BY 1").scalars()) == [2, 3]


# ------------------------------------------------------------------------------ witnesses


async def test_a_client_that_waits_for_witnesses_installs_what_they_saw(
    open_registry: Open, register: Bind, make_release: Make, clock: Any, tmp_path: Path
) -> None:
    keys = [generate_key(), generate_key()]
    vkeys = [witness_vkey(each) for each in keys]
    registry = open_registry(witnesses=vkeys)
    await register(registry)
    await publish(registry, make_release())
    road = RegistryTransport(registry.reader)
    client = MarketplaceClient(road, tmp_path / "cache", registry.trusted_root, witnesses=vkeys, witnesses_needed=2)
    with pytest.raises(VerificationFailed, match="too few witnesses"):
        await client.fetch("acme/guard", "1.0.0")
    for key, vkey in zip(keys, vkeys, strict=True):
        signed = logbook(registry, tmp_path / vkey.id.hex()).witness(key, vkey.name, clock.now())
        assert (await registry.cosign(signed.to_bytes()))[0] == 2
    assert (await client.fetch("acme/guard", "1.0.0")).manifest.version == "1.0.0"
    # The log goes on; the witnesses have not seen it yet.
    await publish(registry, make_release(version="1.1.0"))
    with pytest.raises(VerificationFailed, match="the witnesses must see it first"):
        await client.fetch("acme/guard", "1.1.0")
    package = await client.fetch("acme/guard", "1.0.0")
    assert "2 entries" in package.chain[-2]
    assert all(vkey.name in package.chain[-2] for vkey in vkeys)
    easy = MarketplaceClient(road, tmp_path / "cache", registry.trusted_root)
    assert (await easy.fetch("acme/guard", "1.1.0")).manifest.version == "1.1.0"
    assert (await client.fetch("acme/guard", "1.0.0")).chain == package.chain


async def test_a_witness_signs_nothing_but_this_logs_checkpoints(
    open_registry: Open, register: Bind, clock: Any, tmp_path: Path
) -> None:
    key = generate_key()
    vkey = witness_vkey(key)
    registry, stranger = open_registry(witnesses=[vkey]), Registry.open(tmp_path / "stranger", clock=clock)
    await register(registry)
    foreign = cosign(checkpoint(stranger), key, vkey.name, clock.now())
    with pytest.raises(NotFound, match="no such checkpoint"):
        await registry.cosign(foreign.to_bytes())
    mine = cosign(checkpoint(registry), generate_key(), "somebody", clock.now())
    with pytest.raises(SignerUnknown):
        await registry.cosign(mine.to_bytes())
    with pytest.raises(NotFound):
        registry.reader.log_file("witnessed/1")
    await stranger.close()


# ------------------------------------------------------------------------------ over HTTP


async def test_the_service_shows_the_log_and_takes_cosignatures(
    open_registry: Open, register: Bind, make_release: Make, clock: Any
) -> None:
    key = generate_key()
    registry = open_registry(witnesses=[witness_vkey(key)])
    await register(registry)
    await publish(registry, make_release())
    transport = httpx.ASGITransport(app=create_app(registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        newest = await http.get("/log/checkpoint")
        assert newest.headers["content-type"] == "text/plain; charset=utf-8"
        assert newest.headers["cache-control"] == "no-cache"
        for path in ("/log/tile/0/000.p/2", "/log/tile/entries/000.p/2", "/log/tile/0/000.p/1"):
            tile = await http.get(path)
            assert (tile.status_code, tile.headers["content-type"]) == (200, "application/octet-stream")
            assert "immutable" in tile.headers["cache-control"]
        proof = await http.get("/log/proof/acme/guard/1.0.0")
        assert read_proof(proof.content).to_dict() == proof.json()
        for path in ("proof/acme/guard/1.0.0/at/2", "entry/1", "entry/1/at/2"):
            assert (await http.get(f"/log/{path}")).json() == proof.json()
        tiles = ("tile/0/000", "tile/0/000.p/3", "tile/1/000.p/1", "tile/%2e%2e/checkpoint", "witnessed/1")
        proofs = ("acme/guard/2.0.0", "acme/guard/1.0.0/at/1", "acme/guard/1.0.0/at/99", "acme", "acme/guard")
        others = ("entry/2", "entry/1/at/1", "entry/1/at/99")
        for path in (*tiles, *others, *(f"proof/{each}" for each in proofs)):
            assert (await http.get(f"/log/{path}")).status_code == 404
        assert (await http.get("/log/witnessed/0")).status_code == 422

        signed = cosign(checkpoint(registry), key, witness_vkey(key).name, clock.now())
        taken = await http.post("/log/cosignatures", json={"checkpoint": signed.to_bytes().decode()})
        assert taken.json() == {"size": 2, "witnesses": [witness_vkey(key).name]}
        assert (await http.get("/log/witnessed/1")).content == signed.to_bytes()
        assert (await http.get("/log/checkpoint")).content == signed.to_bytes()
        refused = await http.post("/log/cosignatures", json={"checkpoint": newest.text})
        assert (refused.status_code, refused.json()["code"]) == (403, "signer-unknown")
        assert (await http.post("/log/cosignatures", json={"checkpoint": "x"})).status_code == 403
        assert (await http.post("/log/cosignatures", json={})).status_code == 422


# ------------------------------------------------------------------------------ following


async def test_an_audit_goes_on_where_the_last_one_ended(
    registry: Registry, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    await register(registry, "acme", "globex")
    await publish(registry, make_release())
    first = audit(registry, tmp_path / "cache")
    assert (first.before, first.entries, dict(first.kinds)) == (0, 3, {"keys": 2, "publish": 1})
    # What a client sees in between is not audited by that.
    await publish(registry, make_release(version="1.1.0"))
    client = MarketplaceClient(RegistryTransport(registry.reader), tmp_path / "cache", registry.trusted_root)
    await client.fetch("acme/guard", "1.1.0")
    await publish(registry, make_release("globex/gate"))
    second = audit(registry, tmp_path / "cache")
    assert (second.before, second.entries) == (3, 2)
    assert [index for index, _ in second.newest] == [3, 4]
    assert audit(registry, tmp_path / "cache").entries == 0
    book = logbook(registry, tmp_path / "cache")
    _, mine = book.audit("globex", whole=True)
    assert (mine.before, mine.entries, [index for index, _ in mine.newest]) == (0, 5, [1, 4])


async def test_an_audit_of_a_long_log_crosses_tiles(registry: Registry, tmp_path: Path) -> None:
    key, at = registry._keys.online("log"), "2026-01-01T00:00:00Z"
    for first, count in ((0, 255), (255, 1), (256, 1), (257, 700)):
        lot = [release_entry("acme/x", f"{n}.0.0", D, D, at) for n in range(first, first + count)]
        with registry._tables.write() as connection:
            LogRows(connection).append(lot, {}, key)
        found = audit(registry, tmp_path / "cache")
        assert (found.before, found.entries, found.kinds["publish"]) == (first, count, count)


async def test_an_audit_names_contradictions_and_does_not_get_past_them(registry: Registry, tmp_path: Path) -> None:
    key, at = registry._keys.online("log"), "2026-01-01T00:00:00Z"
    lot = [release_entry("acme/x", "1.0.0", digest, D, at) for digest in (D, D, "cd" * 32)]
    with registry._tables.write() as connection:
        LogRows(connection).append(lot, {}, key)
    for _ in range(2):
        found = audit(registry, tmp_path / "cache")
        assert found.problems == ["Entry 2 publishes acme/x 1.0.0 again, with other bytes."]
        assert found.entries == 3


async def test_a_namespaces_keys_are_logged_with_their_version(registry: Registry) -> None:
    document = make_key_set("acme", [generate_key()]).document
    await registry.register_namespace(document)
    (entry,) = entries(registry)
    assert (entry.kind, entry.publisher, entry.plugin, entry.version) == ("keys", "acme", None, "1")
