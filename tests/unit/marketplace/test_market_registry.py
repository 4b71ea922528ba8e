"""The registry: what it takes in, what it refuses, and that it never shows half a publish."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import Conflict, KeelstoneError, NotFound, ValidationFailed
from marketplace.errors import (
    KeyMissing,
    NamespacesClosed,
    NamespaceTaken,
    NamespaceUnknown,
    RegistryDamaged,
    ReleaseRefused,
    SignatureInvalid,
    SignatureMissing,
    SignerUnknown,
    VersionTaken,
)
from marketplace.index import read_index
from marketplace.keys import SigningKey, generate_key, public_key
from marketplace.namespaces import make_key_set
from marketplace.registry import Receipt, Registry
from marketplace.registry.receipts import KEYS_TARGET
from marketplace.signing import RECEIPT, canonical_json, open_statement, sign_deprecation, sign_yank
from plugin_sdk.profile import Trial

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]
Open = Callable[..., Registry]


async def outcome_code(work: Awaitable[Any]) -> str:
    with pytest.raises(KeelstoneError) as caught:
        await work
    return caught.value.code


# ------------------------------------------------------------------------------ publishing


async def test_a_published_release_is_installable_at_once(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    signed = make_release()
    receipt = await registry.publish(signed.package.data, signed.envelope)
    assert (receipt.plugin, receipt.version, receipt.state) == ("acme/guard", "1.0.0", "live")
    index = registry.reader.index("acme/guard")
    assert [r.digest for r in index.releases] == [signed.package.digest]
    assert index.releases[0].parsed_manifest() == signed.package.manifest
    path = registry.reader.package_path(receipt.digest)
    assert path is not None
    assert path.read_bytes() == signed.package.data


async def test_asking_again_gives_the_same_receipt(registry: Registry, register: Bind, make_release: Make) -> None:
    await register(registry)
    signed = make_release()
    first = await registry.publish(signed.package.data, signed.envelope)
    before = registry.reader.metadata("timestamp.json")
    assert await registry.publish(signed.package.data, signed.envelope) == first
    assert registry.reader.metadata("timestamp.json") == before


async def test_a_receipt_is_signed_by_the_registry(registry: Registry, register: Bind, make_release: Make) -> None:
    from marketplace.keys import KeyFolder

    await register(registry)
    signed = make_release()
    receipt = await registry.publish(signed.package.data, signed.envelope)
    assert KEYS_TARGET == "registry/keys.json"
    folder = registry.reader._blobs._folder.parent  # the keys lie beside the packages
    key = public_key(KeyFolder(folder / "keys" / "online").load("receipts").public.to_dict())
    statement = open_statement(canonical_json(receipt.signed), RECEIPT, {key.keyid: key})
    assert statement.predicate["snapshot"] == receipt.snapshot
    assert set(statement.subjects.values()) == {receipt.digest}


async def test_a_version_never_changes(registry: Registry, register: Bind, make_release: Make) -> None:
    await register(registry)
    first = make_release()
    await registry.publish(first.package.data, first.envelope)
    other = make_release(readme="# Other bytes\n")
    with pytest.raises(VersionTaken) as caught:
        await registry.publish(other.package.data, other.envelope)
    assert first.package.digest in str(caught.value.expected)
    assert registry.reader.package_path(other.package.digest) is None


async def test_a_yanked_version_name_is_not_free_again(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey
) -> None:
    await register(registry)
    first = make_release()
    await registry.publish(first.package.data, first.envelope)
    await registry.yank(sign_yank("acme/guard", "1.0.0", first.package.digest, "broken", key))
    other = make_release(readme="# Other bytes\n")
    assert await outcome_code(registry.publish(other.package.data, other.envelope)) == "version-taken"


async def test_of_two_publishers_racing_for_a_version_one_wins(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    rivals = [make_release(readme=f"# Number {n}\n") for n in range(8)]
    outcomes = await asyncio.gather(
        *(registry.publish(r.package.data, r.envelope) for r in rivals), return_exceptions=True
    )
    winners = [o for o in outcomes if isinstance(o, Receipt)]
    assert len(winners) == 1
    assert all(isinstance(o, (Receipt, VersionTaken)) for o in outcomes)
    assert [r.digest for r in registry.reader.index("acme/guard").releases] == [winners[0].digest]


async def test_the_same_package_sent_twice_at_once_is_one_release(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    signed = make_release()
    receipts = await asyncio.gather(*(registry.publish(signed.package.data, signed.envelope) for _ in range(5)))
    assert len({canonical_json(r.to_dict()) for r in receipts}) == 1


async def test_concurrent_publishes_share_commits(open_registry: Open, register: Bind, make_release: Make) -> None:
    steps: list[str] = []
    registry = open_registry(on_step=steps.append)
    await register(registry)
    releases = [make_release(f"acme/plugin-{n}") for n in range(20)]
    steps.clear()
    await asyncio.gather(*(registry.publish(r.package.data, r.envelope) for r in releases))
    assert steps.count("committed") < 20
    assert len(registry.reader.search("", 100)) == 20


async def test_two_processes_on_one_folder_see_each_other(
    open_registry: Open, register: Bind, make_release: Make
) -> None:
    one, other = open_registry(), open_registry()
    await register(one)
    first, second = make_release(), make_release("acme/other")
    await asyncio.gather(
        one.publish(first.package.data, first.envelope), other.publish(second.package.data, second.envelope)
    )
    assert (
        {e.id for e in one.reader.search("")} == {e.id for e in other.reader.search("")} == {"acme/guard", "acme/other"}
    )


async def test_a_caller_who_leaves_takes_nobody_along(registry: Registry, register: Bind, make_release: Make) -> None:
    await register(registry)
    first, second = make_release(), make_release("acme/other")
    leaving = asyncio.create_task(registry.publish(first.package.data, first.envelope))
    staying = asyncio.create_task(registry.publish(second.package.data, second.envelope))
    await asyncio.sleep(0.02)
    leaving.cancel()
    assert (await staying).plugin == "acme/other"


# ------------------------------------------------------------------------------ refusing


async def test_what_is_refused_leaves_no_trace(registry: Registry, register: Bind, make_release: Make) -> None:
    await register(registry)
    before = registry.reader.metadata("timestamp.json")
    good, stranger = make_release(), generate_key()
    foreign, broken = make_release(by=stranger), make_release(hook="user_vanishing")
    with pytest.raises(SignatureMissing):
        await registry.publish(good.package.data, None)
    with pytest.raises(SignerUnknown):
        await registry.publish(good.package.data, foreign.envelope)
    with pytest.raises(SignatureInvalid):
        await registry.publish(good.package.data, make_release("acme/other").envelope)
    with pytest.raises(ReleaseRefused):
        await registry.publish(broken.package.data, broken.envelope)
    assert await outcome_code(registry.publish(good.package.data[:-1], good.envelope)) == "package-corrupt"
    assert registry.reader.metadata("timestamp.json") == before
    assert registry.reader.search("") == []


async def test_a_capability_smuggled_in_with_a_fix_is_refused(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    first = make_release()
    await registry.publish(first.package.data, first.envelope)
    grown = make_release(version="1.0.1", more='[capabilities.log]\nwhy = "says what it did"\n')
    with pytest.raises(ReleaseRefused, match="now asks for log"):
        await registry.publish(grown.package.data, grown.envelope)
    assert [r.version for r in registry.reader.index("acme/guard").releases] == ["1.0.0"]


async def test_a_name_that_passes_for_anothers_is_refused(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry, "acme", "globex")
    first, squatter = make_release("acme/email-guard"), make_release("globex/emall-guard")
    await registry.publish(first.package.data, first.envelope)
    with pytest.raises(ReleaseRefused, match="could be taken for acme/email-guard"):
        await registry.publish(squatter.package.data, squatter.envelope)


async def test_an_operator_can_let_a_rule_only_watch(open_registry: Open, register: Bind, make_release: Make) -> None:
    registry = open_registry(rules={"similar-name": "monitored"})
    await register(registry, "acme", "globex")
    for signed in (make_release("acme/email-guard"), make_release("globex/emall-guard")):
        await registry.publish(signed.package.data, signed.envelope)
    (finding,) = registry.reader.findings("globex/emall-guard", "1.0.0")
    assert (finding["rule"], finding["enforced"]) == ("similar-name", False)


async def test_looking_stores_nothing_and_runs_nothing(open_registry: Open, register: Bind, make_release: Make) -> None:
    tried: list[bytes] = []

    def check(component: bytes, manifest: object, schema: object) -> Trial:
        tried.append(component)
        return Trial()

    registry = open_registry(check_contract=check)
    await register(registry)
    before = registry.reader.metadata("timestamp.json")
    seen = await registry.validate(make_release(hook="user_vanishing").package.data)
    assert [each.rule for each in seen.findings] == ["hooks"]
    assert "contract" in seen.unseen
    assert tried == []
    assert registry.reader.metadata("timestamp.json") == before


def _take_back(connection: sqlite3.Connection, schema: int) -> None:
    """The database as an older version left it."""
    texts = connection.execute("SELECT p.id, t.about, t.body FROM plugins p JOIN plugin_text t ON t.rowid = p.slot")
    kept = texts.fetchall()
    for table in ("plugin_about", "plugin_text", "plugin_trigrams", "plugin_openings", "downloads", "spellings"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("DROP INDEX ix_plugins_name_key")
    for column in ("slot", "name_key", "kernels", "released", "findings"):
        connection.execute(f"ALTER TABLE plugins DROP COLUMN {column}")
    connection.execute("CREATE VIRTUAL TABLE plugin_text USING fts5(title, keywords, summary, body)")
    connection.execute("CREATE VIRTUAL TABLE plugin_words USING fts5vocab(plugin_text, 'col')")
    connection.execute("CREATE VIRTUAL TABLE plugin_trigrams USING fts5(title, tokenize = 'trigram')")
    connection.executemany("INSERT INTO plugin_text(rowid, title, body) VALUES (?, ?, ?)", kept)
    if schema == 1:
        connection.execute("ALTER TABLE releases DROP COLUMN findings")
        connection.execute("ALTER TABLE plugins DROP COLUMN deprecation")
    connection.execute(f"PRAGMA user_version = {schema}")


@pytest.mark.parametrize("schema", [1, 3])
async def test_a_registry_of_an_older_schema_is_brought_along(
    open_registry: Open, register: Bind, make_release: Make, tmp_path: Path, schema: int
) -> None:
    registry = open_registry()
    await register(registry)
    signed = make_release()
    receipt = await registry.publish(signed.package.data, signed.envelope)
    await registry.close()
    with sqlite3.connect(tmp_path / "registry" / "registry.db") as connection:
        before = connection.execute("SELECT rowid, * FROM plugin_about").fetchall()
        _take_back(connection, schema)
    connection.close()
    registry = open_registry()
    with sqlite3.connect(tmp_path / "registry" / "registry.db") as connection:
        assert connection.execute("SELECT rowid, * FROM plugin_about").fetchall() == before
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name LIKE '%before%'").fetchall() == []
    connection.close()
    assert [found.id for found in registry.reader.search("guard")] == ["acme/guard"]
    assert registry.reader.findings("acme/guard", "1.0.0") == []
    assert await registry.publish(signed.package.data, signed.envelope) == receipt
    silent = make_release("acme/other")
    await registry.publish(silent.package.data, silent.envelope)


async def test_a_package_over_the_operators_size_is_refused(
    open_registry: Open, register: Bind, make_release: Make
) -> None:
    registry = open_registry(max_package_bytes=200)
    await register(registry)
    signed = make_release()
    assert await outcome_code(registry.publish(signed.package.data, signed.envelope)) == "package-too-large"


async def test_a_component_that_takes_more_than_it_says_is_refused(
    open_registry: Open, register: Bind, make_release: Make
) -> None:
    registry = open_registry(inspect_component=lambda component, manifest: [f"{manifest.id} imports http"])
    await register(registry)
    signed = make_release()
    with pytest.raises(ReleaseRefused, match="imports http"):
        await registry.publish(signed.package.data, signed.envelope)


async def test_a_namespace_nobody_registered_takes_no_release(registry: Registry, make_release: Make) -> None:
    signed = make_release()
    with pytest.raises(NamespaceUnknown):
        await registry.publish(signed.package.data, signed.envelope)


async def test_a_namespaces_key_signs_for_no_other_namespace(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry, "acme")
    owner = generate_key()
    await registry.register_namespace(make_key_set("globex", [owner]).document)
    stolen = make_release("globex/guard")
    with pytest.raises(SignerUnknown):
        await registry.publish(stolen.package.data, stolen.envelope)


async def test_a_namespace_with_a_threshold_wants_that_many_signatures(registry: Registry, make_release: Make) -> None:
    one, two = generate_key(), generate_key()
    await registry.register_namespace(make_key_set("acme", [one, two], threshold=2).document)
    alone = make_release(by=one)
    with pytest.raises(SignatureInvalid):
        await registry.publish(alone.package.data, alone.envelope)


# ------------------------------------------------------------------------------ namespaces


async def test_first_come_first_served(registry: Registry, register: Bind, key: SigningKey) -> None:
    await register(registry)
    with pytest.raises(NamespaceTaken):
        await registry.register_namespace(make_key_set("acme", [generate_key()]).document)
    assert set(registry.reader.key_set("acme").keys) == {key.id}


async def test_registering_again_with_the_same_key_changes_nothing(registry: Registry, key: SigningKey) -> None:
    document = make_key_set("acme", [key]).document
    first = await registry.register_namespace(document)
    spaced = document.replace(b",", b" , ")
    assert await registry.register_namespace(spaced) == first


async def test_of_two_who_want_a_namespace_at_once_one_gets_it(registry: Registry) -> None:
    documents = [make_key_set("acme", [generate_key()]).document for _ in range(6)]
    outcomes = await asyncio.gather(
        *(registry.register_namespace(document) for document in documents), return_exceptions=True
    )
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1


async def test_the_operator_can_close_namespaces_and_still_open_one(open_registry: Open, key: SigningKey) -> None:
    registry = open_registry(open_namespaces=False)
    document = make_key_set("acme", [key]).document
    with pytest.raises(NamespacesClosed):
        await registry.register_namespace(document)
    assert (await registry.register_namespace(document, by_operator=True)).publisher == "acme"


async def test_a_namespace_document_must_be_one(registry: Registry) -> None:
    with pytest.raises(SignatureInvalid):
        await registry.register_namespace(b"not json")
    with pytest.raises((SignatureInvalid, SignerUnknown, ValidationFailed)):
        await registry.register_namespace(sign_yank("acme/x", "1.0.0", "0" * 64, "x", generate_key()))


# ------------------------------------------------------------------------------ yanking


async def test_a_yanked_release_stays_listed_but_is_not_offered(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey
) -> None:
    await register(registry)
    for version in ("1.0.0", "1.1.0"):
        signed = make_release(version=version)
        await registry.publish(signed.package.data, signed.envelope)
    envelope = sign_yank("acme/guard", "1.1.0", signed.package.digest, "it bites", key)
    receipt = await registry.yank(envelope)
    assert receipt.state == "yanked"
    assert await registry.yank(envelope) == receipt
    index = registry.reader.index("acme/guard")
    assert [r.version for r in index.releases] == ["1.1.0", "1.0.0"]
    assert [r.version for r in index.installable()] == ["1.0.0"]
    (entry,) = registry.reader.search("watches")
    assert (entry.latest, entry.versions) == ("1.0.0", ("1.0.0",))


async def test_a_plugin_without_offered_releases_is_not_found_by_search(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey
) -> None:
    await register(registry)
    signed = make_release()
    await registry.publish(signed.package.data, signed.envelope)
    await registry.yank(sign_yank("acme/guard", "1.0.0", signed.package.digest, "gone", key))
    assert registry.reader.search("guard") == []
    again = make_release(version="1.0.1")
    await registry.publish(again.package.data, again.envelope)
    assert [e.latest for e in registry.reader.search("guard")] == ["1.0.1"]


async def test_only_the_publisher_yanks(
    registry: Registry, register: Bind, make_release: Make, key: SigningKey
) -> None:
    await register(registry)
    signed = make_release()
    await registry.publish(signed.package.data, signed.envelope)
    with pytest.raises(SignerUnknown):
        await registry.yank(sign_yank("acme/guard", "1.0.0", signed.package.digest, "spite", generate_key()))
    with pytest.raises(NotFound):
        await registry.yank(sign_yank("acme/guard", "1.0.0", "0" * 64, "wrong digest", key))
    with pytest.raises(SignatureInvalid):
        await registry.yank(signed.envelope)
    assert registry.reader.index("acme/guard").installable()


# ------------------------------------------------------------------------------ advising against


@pytest.fixture
async def two_plugins(registry: Registry, register: Bind, make_release: Make) -> Registry:
    await register(registry)
    for plugin in ("acme/guard", "acme/better"):
        signed = make_release(plugin)
        await registry.publish(signed.package.data, signed.envelope)
    return registry


def moment(clock: Any, seconds: float = 0) -> str:
    return datetime.fromtimestamp(clock.now() + seconds, UTC).isoformat()


async def test_a_deprecated_plugin_stays_installable_says_why_and_ranks_lower(
    two_plugins: Registry, key: SigningKey, clock: Any
) -> None:
    envelope = sign_deprecation("acme/guard", "nobody looks after it", "acme/better", moment(clock), key)
    record = await two_plugins.deprecate(envelope)
    assert (record.plugin, record.successor) == ("acme/guard", "acme/better")
    assert await two_plugins.deprecate(envelope) == record
    index = two_plugins.reader.index("acme/guard")
    assert index.installable()
    assert index.deprecated is not None
    assert index.deprecated.advice == "nobody looks after it. Use acme/better instead."
    assert read_index(index.to_bytes()) == index
    found = two_plugins.reader.search("door")
    assert [e.id for e in found] == ["acme/better", "acme/guard"]
    assert (found[1].deprecated, found[1].successor) == ("nobody looks after it", "acme/better")


async def test_it_outlives_a_new_release_and_can_be_taken_back(
    two_plugins: Registry, make_release: Make, key: SigningKey, clock: Any
) -> None:
    old = sign_deprecation("acme/guard", "resting", None, moment(clock), key)
    await two_plugins.deprecate(old)
    newer = make_release(version="1.0.1")
    await two_plugins.publish(newer.package.data, newer.envelope)
    assert two_plugins.reader.index("acme/guard").deprecated is not None
    await two_plugins.deprecate(sign_deprecation("acme/guard", None, None, moment(clock, 1), key))
    assert two_plugins.reader.index("acme/guard").deprecated is None
    # The statement that was taken back does not come back when somebody sends it again.
    with pytest.raises(Conflict, match="newer statement"):
        await two_plugins.deprecate(old)
    assert two_plugins.reader.index("acme/guard").deprecated is None


async def test_only_the_publisher_advises_and_only_about_what_is_here(
    two_plugins: Registry, key: SigningKey, clock: Any
) -> None:
    at = moment(clock)
    with pytest.raises(SignerUnknown):
        await two_plugins.deprecate(sign_deprecation("acme/guard", "spite", None, at, generate_key()))
    with pytest.raises(NotFound):
        await two_plugins.deprecate(sign_deprecation("acme/gone", "x", None, at, key))
    for successor in ("acme/gone", "acme/guard"):
        with pytest.raises(NotFound, match="cannot succeed"):
            await two_plugins.deprecate(sign_deprecation("acme/guard", "x", successor, at, key))
    for when in ("soon", "2026-01-01T00:00:00", moment(clock, 3_600)):
        with pytest.raises(SignatureInvalid):
            await two_plugins.deprecate(sign_deprecation("acme/guard", "x", None, when, key))
    with pytest.raises(SignatureInvalid):
        await two_plugins.deprecate(sign_yank("acme/guard", "1.0.0", "0" * 64, "x", key))
    assert two_plugins.reader.index("acme/guard").deprecated is None


# ------------------------------------------------------------------------------ killed


class Killed(BaseException):
    """Stands for the process dying: not an Exception, so nothing in the way handles it."""


STEPS = (
    "examined",
    "blob-stored",
    "transaction-begun",
    "changes-written",
    "documents-rendered",
    "metadata-signed",
    "committing",
    "committed",
)


@pytest.mark.parametrize("step", STEPS)
async def test_stopped_at_any_step_nothing_is_half_published_and_asking_again_completes_it(
    open_registry: Open, register: Bind, make_release: Make, step: str
) -> None:
    registry = open_registry()
    await register(registry)
    first, second = make_release(), make_release(version="2.0.0")
    await registry.publish(first.package.data, first.envelope)
    before = registry.reader.metadata("timestamp.json")

    class Stopped(Exception):
        pass

    def stop(at: str) -> None:
        if at == step:
            raise Stopped(at)

    dying = open_registry(on_step=stop)
    with pytest.raises(Stopped):
        await dying.publish(second.package.data, second.envelope)

    recovered = open_registry()
    versions = [r.version for r in recovered.reader.index("acme/guard").releases]
    live = step == "committed"
    assert versions == (["2.0.0", "1.0.0"] if live else ["1.0.0"])
    assert (recovered.reader.metadata("timestamp.json") == before) is not live
    assert (recovered.reader.package_path(second.package.digest) is not None) is live

    receipt = await recovered.publish(second.package.data, second.envelope)
    assert receipt.version == "2.0.0"
    assert [r.version for r in recovered.reader.index("acme/guard").releases] == ["2.0.0", "1.0.0"]


async def test_killed_in_the_middle_of_its_first_start_it_starts_again(open_registry: Open) -> None:
    def stop(at: str) -> None:
        raise Killed(at)

    with pytest.raises(Killed):
        open_registry(on_step=stop)
    again = open_registry()
    assert again.trusted_root
    assert again.reader.metadata("timestamp.json")


async def test_a_blob_that_a_killed_publish_left_is_swept_when_old(
    open_registry: Open, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    registry = open_registry()
    await register(registry)
    signed = make_release()
    await registry.publish(signed.package.data, signed.envelope)
    packages = tmp_path / "registry" / "packages"
    orphan, young = packages / "aa" / ("a" * 64), packages / "bb" / ("b" * 64)
    for path in (orphan, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left over")
    old = time.time() - 7_200
    os.utime(orphan, (old, old))
    live = registry.reader.package_path(signed.package.digest)
    assert live is not None
    os.utime(live, (old, old))
    open_registry()
    assert (orphan.exists(), young.exists(), live.exists()) == (False, True, True)


async def test_a_package_changed_on_disk_is_noticed_and_mended_by_publishing_again(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    signed = make_release()
    receipt = await registry.publish(signed.package.data, signed.envelope)
    path = registry.reader.package_path(receipt.digest)
    assert path is not None
    path.write_bytes(b"tampered")
    with pytest.raises(RegistryDamaged, match="changed on disk"):
        await registry._blobs.get(receipt.digest)
    assert await registry.publish(signed.package.data, signed.envelope) == receipt
    assert path.read_bytes() == signed.package.data


# ------------------------------------------------------------------------------ metadata


async def test_metadata_is_renewed_before_it_expires(open_registry: Open, register: Bind, clock: Any) -> None:
    registry = open_registry()
    await register(registry)
    assert (await registry.renew()).renewed == []
    clock.advance(5)
    assert (await registry.renew()).renewed == ["timestamp"]
    clock.advance(20)
    assert (await registry.renew()).renewed == ["snapshot", "timestamp"]
    clock.advance(300)
    renewed = (await registry.renew()).renewed
    assert {"targets", "bins", "snapshot", "timestamp"} <= set(renewed)
    assert sum(name.startswith("bins-") for name in renewed) == 2
    clock.advance(300)
    assert "root" in (await registry.renew()).renewed
    assert registry.reader.metadata("2.root.json")


async def test_an_old_registry_is_fresh_after_a_start(open_registry: Open, clock: Any) -> None:
    open_registry()
    before = clock.now()
    clock.advance(400)
    again = open_registry()
    from tuf.api.metadata import Metadata

    body = again.reader.metadata("timestamp.json")
    assert body is not None
    assert Metadata.from_bytes(body).signed.expires.timestamp() > before + 400 * 86_400


async def test_without_the_offline_keys_it_warns_in_time_and_then_says_what_is_needed(
    open_registry: Open, tmp_path: Path, clock: Any
) -> None:
    registry = open_registry()
    (tmp_path / "registry" / "keys" / "offline").rename(tmp_path / "safe")
    clock.advance(300)
    assert any("targets" in warning for warning in (await registry.renew()).warnings)
    clock.advance(100)
    again = open_registry()
    assert any("expired" in warning and "keys/offline" in warning for warning in again.warnings)
    heard: list[str] = []
    keeper = asyncio.create_task(again.keep_fresh(heard.append))
    await asyncio.sleep(0)
    keeper.cancel()
    assert heard == list(again.warnings)


async def test_publishing_needs_no_offline_key(
    open_registry: Open, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    open_registry()
    (tmp_path / "registry" / "keys" / "offline").rename(tmp_path / "safe")
    registry = open_registry()
    await register(registry)
    signed = make_release()
    assert (await registry.publish(signed.package.data, signed.envelope)).state == "live"


async def test_without_its_online_keys_it_says_which_is_missing(
    open_registry: Open, tmp_path: Path, clock: Any
) -> None:
    open_registry()
    (tmp_path / "registry" / "keys" / "online" / "timestamp.pem").unlink()
    clock.advance(6)
    with pytest.raises(KeyMissing, match="timestamp"):
        open_registry()


async def test_only_touched_bins_are_signed_anew(registry: Registry, register: Bind, make_release: Make) -> None:
    from tuf.api.metadata import Metadata, Snapshot, Timestamp

    def versions() -> dict[str, int]:
        timestamp = Metadata[Timestamp].from_bytes(registry.reader.metadata("timestamp.json") or b"").signed
        name = f"{timestamp.snapshot_meta.version}.snapshot.json"
        snapshot = Metadata[Snapshot].from_bytes(registry.reader.metadata(name) or b"").signed
        return {name: meta.version for name, meta in snapshot.meta.items()}

    await register(registry)
    before = versions()
    signed = make_release()
    await registry.publish(signed.package.data, signed.envelope)
    after = versions()
    changed = [name for name in after if after[name] != before[name]]
    assert len(after) == 1_025
    assert len(changed) == 1
    assert after[changed[0]] > max(v for name, v in before.items() if name != "targets.json")


async def test_superseded_documents_are_kept_a_day_and_then_forgotten(
    registry: Registry, register: Bind, make_release: Make, clock: Any
) -> None:
    await register(registry)
    for version in ("1.0.0", "1.1.0"):
        signed = make_release(version=version)
        await registry.publish(signed.package.data, signed.envelope)
    assert registry.reader.metadata("3.snapshot.json")
    clock.advance(0.5)
    await registry.renew()
    assert registry.reader.metadata("3.snapshot.json")
    clock.advance(1)
    await registry.renew()
    assert registry.reader.metadata("3.snapshot.json") is None
    assert registry.reader.metadata("1.root.json")
    assert registry.reader.index("acme/guard").find("1.1.0")


async def test_a_database_from_the_future_is_left_alone(open_registry: Open, tmp_path: Path) -> None:
    import sqlite3

    registry = open_registry()
    await registry.close()
    with sqlite3.connect(tmp_path / "registry" / "registry.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RegistryDamaged, match="newer version"):
        open_registry()
