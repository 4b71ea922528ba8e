"""A marketplace behind another: what is mirrored, verified along both chains, and how news of it arrive."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import BackendUnavailable, Conflict, NotFound, ValidationFailed
from marketplace.ceremony import Ceremony
from marketplace.client import MarketplaceClient
from marketplace.errors import ReleaseRevoked, ReleaseYanked
from marketplace.keys import SigningKey, generate_key
from marketplace.log.note import WITNESS
from marketplace.log.witness import cosign, witness_vkey
from marketplace.logbook import Logbook
from marketplace.mirror.evidence import read_state
from marketplace.namespaces import make_key_set, propose, sign_proposal
from marketplace.registry import Registry
from marketplace.registry.domains import DropDomain, VerifyDomain
from marketplace.registry.handover import hand_over
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.mirrored import TakeUpstream
from marketplace.registry.upstreams import AddUpstream
from marketplace.signing import sign_deprecation, sign_yank
from marketplace.transport import RegistryTransport
from marketplace.tuf_repository import RepositoryKeys
from plugin_sdk.services import ReleaseOrigin
from tests.support.sites import URL, Site, published

Make = Callable[..., Any]
Bind = Callable[..., Awaitable[None]]
ADVISORY: dict[str, Any] = {
    "schema_version": "1.6.0",
    "id": "ACME-2026-0001",
    "modified": "2026-11-01T00:00:00Z",
    "summary": "It lets everybody in",
    "affected": [
        {
            "package": {"ecosystem": "Keelstone", "name": "acme/guard"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.1.0"}]}],
        }
    ],
}


async def test_a_mirrored_release_comes_with_both_chains(site: Site, tmp_path: Path) -> None:
    await site.follow("acme/*")
    outcome = await site.sync()
    assert outcome.released == ["acme/guard 1.1.0", "acme/guard 1.0.0"]
    client = site.client(tmp_path / "cache")
    package = await client.fetch("acme/guard", "1.0.0")
    assert package.manifest.version == "1.0.0"
    mine = [line for line in package.chain if not line.startswith("upstream ")]
    theirs = [line.removeprefix("upstream central: ") for line in package.chain if line.startswith("upstream central")]
    assert mine[0].startswith("root v1")
    assert theirs[1].startswith("root v1")
    assert mine[0] != theirs[1]
    assert any(line.startswith("log entry") for line in mine)
    assert any(line.startswith("log entry") for line in theirs)
    file = site.registry.reader.package_path(package.digest)
    assert file is not None
    again = await client.verify(file.read_bytes(), offline=True)
    assert again.package.chain == package.chain
    walked = site.registry.reader.shelf.walk("acme/guard", "1.0.0", _read(file))
    assert walked.broken is None
    assert any(line.startswith("upstream central: log entry") for line in walked.links)


def _read(file: Path) -> Any:
    from marketplace.package import read_package

    return read_package(file.read_bytes())


async def test_a_package_comes_when_it_is_asked_for_and_then_is_there(site: Site, tmp_path: Path) -> None:
    await site.follow()
    await site.sync()
    digest = site.registry.reader.index("acme/guard").releases[0].digest
    assert site.registry.reader.package_path(digest) is None
    await site.client(tmp_path / "one").fetch("acme/guard", "1.1.0")
    site.road.blocked = True
    await site.client(tmp_path / "two").fetch("acme/guard", "1.1.0")
    with pytest.raises(BackendUnavailable, match="unplugged"):
        await site.client(tmp_path / "three").fetch("acme/guard", "1.0.0")


async def test_ahead_everything_is_fetched_and_found_by_its_text(
    site: Site, central: Registry, make_release: Make, tmp_path: Path
) -> None:
    await published(central, make_release(version="1.2.0", readme="# Guard\n\nIt knows porcupines.\n"))
    await site.follow()
    await site.sync()
    assert await site.client(tmp_path / "before").search("porcupines") == []
    await site.sync(ahead=True)
    site.road.blocked = True
    client = site.client(tmp_path / "cache")
    assert [each.id for each in await client.search("porcupines")] == ["acme/guard"]
    assert (await client.fetch("acme/guard", "1.2.0")).manifest.version == "1.2.0"


async def test_nothing_new_takes_nothing_over(site: Site) -> None:
    await site.follow()
    await site.sync()
    before = site.registry.reader.metadata("timestamp.json")
    site.road.asked.clear()
    outcome = await site.sync()
    assert (outcome.plugins, outcome.released) == ([], [])
    assert site.registry.reader.metadata("timestamp.json") == before
    # The log's growing end is read again; no document, proof or package is.
    assert {path.partition("/")[0] for path in site.road.asked} == {"metadata", "log"}
    assert not any(path.startswith("log/proof") for path in site.road.asked)


async def test_only_what_is_asked_for_is_mirrored_and_more_of_it_later(
    site: Site, central: Registry, register: Bind, make_release: Make
) -> None:
    await register(central, "zenith")
    await published(central, make_release("zenith/clock"))
    await published(central, make_release("acme/latch"))
    await site.follow("acme/guard")
    assert (await site.sync()).plugins == ["acme/guard"]
    await site.follow("acme/*")
    assert (await site.sync()).plugins == ["acme/latch"]
    await site.follow()
    assert (await site.sync()).plugins == ["zenith/clock"]


async def test_withdrawals_revocations_deprecations_and_advisories_reach_the_site(
    site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    await published(central, make_release("acme/latch"))
    await site.follow()
    await site.sync(ahead=True)
    client = site.client(tmp_path / "cache")
    releases = {each.version: each for each in central.reader.index("acme/guard").releases}
    await central.advise(json.dumps(ADVISORY).encode())
    await central.yank(sign_yank("acme/guard", "1.0.0", releases["1.0.0"].digest, "it bites", key))
    await central.revoke("acme/guard", "1.1.0", "It calls home.")
    said = sign_deprecation("acme/guard", "It is done for", "acme/latch", "2026-11-01T00:00:00Z", key)
    await central.deprecate(said)
    outcome = await site.sync()
    assert outcome.withdrawn == ["acme/guard 1.1.0", "acme/guard 1.0.0"]
    assert outcome.revoked == ["acme/guard 1.1.0"]
    assert (outcome.advisories, outcome.deprecated) == (["ACME-2026-0001"], ["acme/guard"])
    with pytest.raises(ReleaseYanked, match="it bites"):
        await client.fetch("acme/guard", "1.0.0")
    with pytest.raises(ReleaseRevoked, match="calls home"):
        await client.fetch("acme/guard", "1.1.0")
    assert [each.reason for each in await client.revocations()] == ["It calls home."]
    (advisory,) = await client.advisories()
    assert advisory.by == "central: marketplace"
    index = await client.index("acme/guard")
    assert index.deprecated is not None
    assert index.deprecated.successor == "acme/latch"
    assert (await site.sync()).plugins == []
    logged = site.registry.reader.shelf.log_indexes("acme/guard")
    assert {kind for kind, _ in logged} == {"publish", "yank", "kill", "deprecate", "advisory"}


async def test_a_deprecation_that_is_taken_back_is_gone_here_too(
    site: Site, central: Registry, key: SigningKey
) -> None:
    await central.deprecate(sign_deprecation("acme/guard", "No more", None, "2026-11-01T00:00:00Z", key))
    await site.follow()
    await site.sync()
    assert site.registry.reader.index("acme/guard").deprecated is not None
    await central.deprecate(sign_deprecation("acme/guard", None, None, "2026-11-02T00:00:00Z", key))
    assert (await site.sync()).deprecated == ["acme/guard"]
    assert site.registry.reader.index("acme/guard").deprecated is None


async def test_releases_from_before_a_change_of_keys_verify_by_the_upstreams_log(
    site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    await published(central, make_release("acme/latch"))
    await site.follow("acme/guard")
    await site.sync()
    fresh = generate_key()
    proposed = propose(central.reader.key_set("acme"), [fresh.public], threshold=1)
    await central.register_namespace(sign_proposal(proposed, [key, fresh]))
    await published(central, make_release(version="1.2.0", by=fresh))
    # acme/latch is taken after the new keys are known here, and was signed by the old ones long before.
    await site.follow("acme/*")
    await site.sync()
    client = site.client(tmp_path / "cache")
    signers = {}
    for plugin, version in (("acme/guard", "1.0.0"), ("acme/guard", "1.2.0"), ("acme/latch", "1.0.0")):
        origin = (await client.fetch(plugin, version)).origin
        assert origin is not None
        signers[plugin, version] = origin.signers
    assert signers["acme/guard", "1.0.0"] == signers["acme/latch", "1.0.0"] == (key.id,)
    assert signers["acme/guard", "1.2.0"] == (fresh.id,)


async def test_new_keys_without_a_release_reach_the_site_and_a_stolen_one_counts_no_more(
    site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path, clock: Any
) -> None:
    await site.follow()
    await site.sync(ahead=True)
    client, fresh = site.client(tmp_path / "cache"), generate_key()
    await client.fetch("acme/guard", "1.1.0")
    proposed = propose(
        central.reader.key_set("acme"), [fresh.public], threshold=1, stolen={key.id: "2020-01-01T00:00:00+00:00"}
    )
    await central.register_namespace(sign_proposal(proposed, [key, fresh]))
    await site.sync()
    from marketplace.errors import VerificationFailed

    with pytest.raises(VerificationFailed) as caught:
        await client.fetch("acme/guard", "1.1.0")
    assert caught.value.link == "signature"


async def test_a_new_owner_upstream_is_told_to_platforms_of_the_mirror_and_of_a_mirror_of_it(
    site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path, clock: Any
) -> None:
    await site.follow()
    await site.sync()
    outer = Site(tmp_path / "outer", site.registry, clock)
    await outer.follow()
    await outer.sync()
    clients = [site.client(tmp_path / "near"), outer.client(tmp_path / "far")]
    for client in clients:
        first = (await client.stand_behind(["acme/guard"]))["acme/guard"]
        assert isinstance(first, ReleaseOrigin)
        assert (first.owner, first.owned_since) == (1, None)
    buyer = generate_key()
    proposed = propose(central.reader.key_set("acme"), [buyer.public], threshold=1, owner="Globex Ltd")
    await central.register_namespace(sign_proposal(proposed, [key, buyer]))
    sold = clock.now()
    clock.advance(1)
    # No release comes with it, and the moment is that of the upstream's log and not when the mirrors heard of it.
    await site.sync()
    await outer.sync()
    for client in clients:
        found = (await client.stand_behind(["acme/guard"]))["acme/guard"]
        assert isinstance(found, ReleaseOrigin)
        assert (found.owner, found.signers, found.recovered) == (2, (buyer.id,), False)
        assert found.owned_since is not None
        assert found.owned_since.timestamp() <= sold + 1
        running = (await client.fetch("acme/guard", "1.0.0")).origin
        assert running is not None
        assert running.owner == 1, "what runs came from the owner before"
    await outer.registry.close()


async def test_a_recovery_upstream_is_told_to_platforms_of_the_mirror(
    site: Site, central: Registry, tmp_path: Path
) -> None:
    await site.follow()
    await site.sync()
    fresh = generate_key()
    proposed = propose(central.reader.key_set("acme"), [fresh.public], threshold=1)
    await central.recover_namespace(sign_proposal(proposed, [fresh]), "Their laptop burnt.")
    await site.sync()
    found = (await site.client(tmp_path / "cache").stand_behind(["acme/guard"]))["acme/guard"]
    assert isinstance(found, ReleaseOrigin)
    assert (found.owner, found.recovered, found.lineage) == (2, True, (fresh.id,))


async def test_an_upstream_that_changes_the_key_of_its_log_is_followed_and_what_came_before_still_verifies(
    site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path, clock: Any
) -> None:
    async def succeed(keys: list[SigningKey]) -> SigningKey:
        fresh = generate_key()
        proposed = propose(central.reader.key_set("acme"), [fresh.public], threshold=1)
        await central.register_namespace(sign_proposal(proposed, [*keys, fresh]))
        return fresh

    second = await succeed([key])
    await published(central, make_release("acme/latch", by=second))
    await site.follow()
    await site.sync()
    with central._tables.write() as connection:
        ceremony = Ceremony(RepositoryKeys(tmp_path / "registry" / "keys"), clock)
        hand_over(MetadataRows(connection, clock.now()), ceremony, "log")
    third = await succeed([second])
    await published(central, make_release("acme/latch", version="1.1.0", by=third))
    outcome = await site.sync()
    assert outcome.plugins == ["acme/latch"], "the other one is as it came, under the log's old key"
    assert outcome.problems == []
    client = site.client(tmp_path / "cache")
    signers = {"guard 1.0.0": key, "latch 1.0.0": second, "latch 1.1.0": third}
    for release, signer in signers.items():
        name, _, version = release.partition(" ")
        origin = (await client.fetch(f"acme/{name}", version)).origin
        assert origin is not None
        assert origin.signers == (signer.id,)


async def test_a_mirror_of_a_mirror_shows_all_three_chains(
    site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path, clock: Any
) -> None:
    fresh = generate_key()
    proposed = propose(central.reader.key_set("acme"), [fresh.public], threshold=1)
    await central.register_namespace(sign_proposal(proposed, [key, fresh]))
    await published(central, make_release(version="1.2.0", by=fresh))
    await site.follow()
    await site.sync()
    outer = Site(tmp_path / "outer", site.registry, clock)
    await outer.follow()
    assert len((await outer.sync()).released) == 3
    for version in ("1.0.0", "1.2.0"):
        package = await outer.client(tmp_path / "cache").fetch("acme/guard", version)
        assert sum(": taken at " in line for line in package.chain) == 2
        assert sum(" is of " in line or "root v1: trusted here" in line for line in package.chain) == 3
    await outer.registry.close()


async def test_what_the_site_publishes_itself_stays_beside_it(site: Site, make_release: Make, tmp_path: Path) -> None:
    mine = generate_key()
    await site.follow()
    await site.registry.register_namespace(make_key_set("homely", [mine]).document)
    await site.sync()
    await published(site.registry, make_release("homely/lamp", by=mine))
    client = site.client(tmp_path / "cache")
    assert {each.id for each in await client.search("")} == {"acme/guard", "homely/lamp"}
    package = await client.fetch("homely/lamp", "1.0.0")
    assert not any(line.startswith("upstream") for line in package.chain)


async def test_an_audit_of_the_sites_log_finds_no_contradiction(site: Site, key: SigningKey, tmp_path: Path) -> None:
    await site.follow()
    await site.sync()
    digest = site.central.reader.index("acme/guard").releases[0].digest
    await site.central.yank(sign_yank("acme/guard", "1.1.0", digest, "it bites", key))
    await site.central.revoke("acme/guard", "1.0.0", "It calls home.")
    await site.sync()
    transport = RegistryTransport(site.registry.reader)
    logbook = Logbook(transport, tmp_path / "cache", site.registry.trusted_root)
    _, found = logbook.audit("acme", whole=True)
    assert found.problems == []
    assert found.kinds == {"keys": 1, "publish": 2, "yank": 2, "kill": 1}


async def test_a_removed_upstream_is_followed_no_more_and_what_it_brought_stays(
    site: Site, central: Registry, make_release: Make, tmp_path: Path
) -> None:
    await site.follow()
    await site.sync(ahead=True)
    await site.mirror.remove("central")
    with pytest.raises(NotFound, match="no upstream central"):
        await site.sync()
    await site.client(tmp_path / "cache").fetch("acme/guard", "1.1.0")
    assert site.registry.reader.upstreams.claims() == {"acme": "central"}
    await published(central, make_release(version="1.2.0"))
    await site.follow()
    assert (await site.sync()).released == ["acme/guard 1.2.0"]


async def test_an_upstream_is_its_root_and_never_the_marketplace_itself(site: Site, central: Registry) -> None:
    with pytest.raises(Conflict, match="its own upstream"):
        await site.mirror.add(AddUpstream("self", site.registry.trusted_root, URL))
    await site.follow()
    with pytest.raises(Conflict, match="Another upstream"):
        await site.mirror.add(AddUpstream("central", site.registry.trusted_root + b" ", URL))
    for name in ("local", "Central", "", "a b"):
        with pytest.raises(ValidationFailed):
            await site.mirror.add(AddUpstream(name, central.trusted_root, URL))
    for pattern in ("acme", "Acme/*", "*/guard", "acme/guard/x"):
        with pytest.raises(ValidationFailed):
            await site.follow(pattern)


async def test_witnesses_of_the_upstream_are_waited_for(
    central: Registry, open_registry: Callable[..., Registry], site: Site, key: SigningKey
) -> None:
    from marketplace.log.checkpoint import read_checkpoint

    witness = generate_key()
    vkey = witness_vkey(witness)
    assert vkey.algorithm == WITNESS
    await site.follow(witnesses=(str(vkey),), needed=1)
    outcome = await site.sync()
    assert outcome.released == []
    assert "too few witnesses" in outcome.problems[0]
    seen = open_registry(witnesses=(vkey,))
    checkpoint = read_checkpoint(central.reader.log_file("checkpoint"))
    await seen.cosign(cosign(checkpoint, witness, vkey.name, central.now()).to_bytes())
    assert len((await site.sync()).released) == 2


async def test_killed_at_every_step_of_a_sync_nothing_is_half_taken(site: Site, tmp_path: Path) -> None:
    class Died(Exception):
        pass

    await site.follow()
    steps = ("transaction-begun", "changes-written", "documents-rendered", "logged", "metadata-signed", "committing")
    for wanted in steps:

        def die(step: str, wanted: str = wanted) -> None:
            if step == wanted:
                raise Died(step)

        await site.registry.close()
        site.open(on_step=die)
        with pytest.raises(Died):
            await site.sync()
        await site.registry.close()
        site.open()
        with pytest.raises(NotFound):
            site.registry.reader.index("acme/guard")
        assert site.registry.reader.upstreams.claims() == {}
    assert len((await site.sync()).released) == 2
    client = MarketplaceClient(RegistryTransport(site.registry.reader), tmp_path / "c", site.registry.trusted_root)
    await client.fetch("acme/guard", "1.0.0")


async def test_the_state_that_is_kept_is_no_more_than_the_shared_metadata(site: Site) -> None:
    await site.follow()
    await site.sync()
    mirrored = site.registry.reader.index("acme/guard").mirrored
    assert mirrored is not None
    target = _target(site.registry, f"mirrored-states/{mirrored.state}.json")
    assert sorted(read_state(target).metadata) == ["snapshot.json", "targets.json", "timestamp.json"]


def _target(registry: Registry, path: str) -> bytes:
    import sqlalchemy as sa

    from marketplace.registry.tables import tuf_targets

    with registry._tables.read() as connection:
        query = sa.select(tuf_targets.c.body).where(tuf_targets.c.path == path, tuf_targets.c.superseded.is_(None))
        found: bytes = connection.execute(query).scalar_one()
    return found


async def test_what_an_upstream_has_verified_of_a_publisher_comes_along_and_goes_again(
    site: Site, tmp_path: Path
) -> None:
    def verified() -> tuple[str | None, str | None]:
        found = site.registry.reader.index("acme/guard")
        assert found.mirrored is not None
        return found.domain, found.repository

    await site.follow()
    await site.sync()
    assert verified() == (None, None)
    # The log has no entry of a domain: it is seen by the index alone.
    await site.central.commit(VerifyDomain("acme", "acme.example", b"{}", 0.0))
    assert (await site.sync()).plugins == ["acme/guard"]
    assert verified() == ("acme.example", None)
    offered = (await site.client(tmp_path / "cache").index("acme/guard")).published()
    assert {each.domain for each in offered.values()} == {"acme.example"}
    assert (await site.sync()).plugins == []
    await site.central.commit(DropDomain("acme", "acme.example"))
    assert (await site.sync()).plugins == ["acme/guard"]
    assert verified() == (None, None)


async def test_an_older_sight_of_an_upstream_verifies_nobody_again(site: Site, central: Registry) -> None:
    await site.follow()
    await central.commit(VerifyDomain("acme", "acme.example", b"{}", 0.0))
    await site.sync()
    upstream = site.registry.reader.upstreams.find("central")
    changes: list[Any] = []
    commit = site.registry.commit

    async def spy(change: Any) -> Any:
        changes.append(change)
        return await commit(change)

    site.registry.commit = spy  # type: ignore[method-assign]
    await central.commit(DropDomain("acme", "acme.example"))
    await site.sync()
    (lapsed,) = [each for each in changes if isinstance(each, TakeUpstream)]
    assert lapsed.root == upstream.root
    stale = replace(
        lapsed,
        older=True,
        seen=replace(lapsed.seen, versions=dict.fromkeys(lapsed.seen.versions, 1)),
        plugins=[replace(each, index=replace(each.index, domain="acme.example")) for each in lapsed.plugins],
    )
    await commit(stale)
    assert site.registry.reader.index("acme/guard").domain is None


async def test_the_sites_own_word_about_a_publisher_counts_before_the_upstreams(site: Site) -> None:
    await site.follow()
    await site.central.commit(VerifyDomain("acme", "acme.example", b"{}", 0.0))
    await site.sync()
    await site.registry.commit(VerifyDomain("acme", "acme.test", b"{}", 0.0))
    assert site.registry.reader.index("acme/guard").domain == "acme.test"
