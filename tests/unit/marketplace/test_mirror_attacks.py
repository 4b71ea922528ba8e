"""What an upstream, somebody on the way to it, or a namesake cannot do to a marketplace that mirrors it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import NotFound
from marketplace.errors import LogInconsistent, NamespaceMirrored, VerificationFailed
from marketplace.index import index_path, make_index, read_index
from marketplace.keys import SigningKey, generate_key
from marketplace.log.checkpoint import read_checkpoint
from marketplace.log.entry import Entry, keys_entry, owner_entry
from marketplace.log.key import KEYS_TARGET
from marketplace.mirror.evidence import KeyProofs, evidence_path, keys_path, read_plugin
from marketplace.namespaces import make_key_set, propose, read_key_set, sign_proposal, target_path
from marketplace.registry import Registry
from marketplace.registry.change import Touched
from marketplace.signing import sign_deprecation, sign_yank
from tests.support.sites import Site, fork_of, published

Make = Callable[..., Any]
Bind = Callable[..., Awaitable[None]]


class Said:
    """A change by which whoever runs a marketplace lets it say anything."""

    def __init__(self, documents: dict[str, bytes], *entries: Entry, statement: Any = None) -> None:
        self._documents, self._entries, self._statement = documents, entries, statement

    def apply(self, connection: Any, now: str, touched: Touched) -> None:
        for path, document in self._documents.items():
            touched.put(path, document)
        for entry in self._entries:
            touched.log(entry, self._statement)


def target(registry: Registry, path: str) -> bytes:
    import sqlalchemy as sa

    from marketplace.registry.tables import tuf_targets

    with registry._tables.read() as connection:
        query = sa.select(tuf_targets.c.body).where(tuf_targets.c.path == path, tuf_targets.c.superseded.is_(None))
        found: bytes = connection.execute(query).scalar_one()
    return found


# ------------------------------------------------------------- dependency confusion, both ways


async def test_dependency_confusion_an_upstream_namespace_never_takes_the_place_of_a_local_one(
    site: Site, central: Registry, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    mine = generate_key()
    await site.registry.register_namespace(make_key_set("corp", [mine]).document)
    await published(site.registry, make_release("corp/lib", by=mine))
    await register(central, "corp")
    await published(central, make_release("corp/lib", "9.0.0"))
    await published(central, make_release("corp/other", "9.0.0"))
    await site.follow()
    outcome = await site.sync()
    assert outcome.held == {"corp": "The namespace corp is this marketplace's own."}
    assert "acme/guard" in outcome.plugins
    client = site.client(tmp_path / "cache")
    assert (await client.info("corp/lib")).latest == "1.0.0"
    with pytest.raises(NotFound):
        await client.info("corp/other")
    assert site.registry.reader.upstreams.package(central.reader.index("corp/lib").releases[0].digest) is None


async def test_dependency_confusion_a_local_namespace_never_takes_the_place_of_an_upstream_one(
    site: Site, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    await site.follow()
    await site.sync()
    stranger = generate_key()
    with pytest.raises(NamespaceMirrored, match="is the upstream central's"):
        await site.registry.register_namespace(make_key_set("acme", [stranger]).document)
    with pytest.raises(NamespaceMirrored):
        await site.registry.register_namespace(make_key_set("acme", [stranger]).document, by_operator=True)
    proposed = propose(site.registry.reader.key_set("acme"), [stranger.public], threshold=1)
    with pytest.raises(NamespaceMirrored):
        await site.registry.recover_namespace(sign_proposal(proposed, [stranger]), "lost")
    for by, version in ((stranger, "9.0.0"), (key, "9.0.0"), (key, "1.0.0")):
        with pytest.raises(NamespaceMirrored):
            await published(site.registry, make_release(version=version, by=by))
    assert [each.version for each in (await site.client(tmp_path / "cache").index("acme/guard")).releases] == [
        "1.1.0",
        "1.0.0",
    ]


async def test_dependency_confusion_publishers_statements_about_mirrored_plugins_count_upstream_only(
    site: Site, key: SigningKey
) -> None:
    await site.follow()
    await site.sync()
    digest = site.registry.reader.index("acme/guard").releases[0].digest
    with pytest.raises(NamespaceMirrored):
        await site.registry.yank(sign_yank("acme/guard", "1.1.0", digest, "no", key))
    with pytest.raises(NamespaceMirrored):
        await site.registry.deprecate(sign_deprecation("acme/guard", "no", None, "2026-11-01T00:00:00Z", key))


async def test_dependency_confusion_a_namespace_reserved_here_stays_free_whatever_the_upstream_has_by_then(
    site: Site, central: Registry, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    await site.follow(local=("corp",))
    await register(central, "corp")
    await published(central, make_release("corp/lib", "9.0.0"))
    assert list((await site.sync()).held) == ["corp"]
    mine = generate_key()
    await site.registry.register_namespace(make_key_set("corp", [mine]).document)
    await published(site.registry, make_release("corp/lib", by=mine))
    assert list((await site.sync()).held) == []  # said once; the log has nothing new of it
    assert (await site.client(tmp_path / "cache").info("corp/lib")).latest == "1.0.0"


async def test_dependency_confusion_a_namespace_registered_here_later_stays_local_when_more_is_mirrored(
    site: Site, central: Registry, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    await register(central, "corp")
    await published(central, make_release("corp/lib", "9.0.0"))
    await site.follow("acme/*")
    await site.sync()
    mine = generate_key()
    await site.registry.register_namespace(make_key_set("corp", [mine]).document)
    await published(site.registry, make_release("corp/lib", by=mine))
    await site.follow()
    assert list((await site.sync()).held) == ["corp"]
    assert (await site.client(tmp_path / "cache").info("corp/lib")).latest == "1.0.0"
    with pytest.raises(NamespaceMirrored, match="this marketplace's own"):
        await site.mirror.claim("corp", "central")


async def test_dependency_confusion_a_namespace_is_not_moved_once_it_is_decided(site: Site) -> None:
    await site.follow()
    await site.sync()
    with pytest.raises(NamespaceMirrored, match="the upstream central's"):
        await site.mirror.claim("acme", "local")
    await site.mirror.remove("central")
    with pytest.raises(NamespaceMirrored):
        await site.registry.register_namespace(make_key_set("acme", [generate_key()]).document)


async def test_dependency_confusion_two_upstreams_do_not_share_a_namespace(
    site: Site, make_release: Make, tmp_path: Path, clock: Any
) -> None:
    await site.follow()
    await site.sync()
    rival = Registry.open(tmp_path / "rival", clock=clock)
    stranger = generate_key()
    await rival.register_namespace(make_key_set("acme", [stranger]).document)
    await published(rival, make_release("acme/guard", "9.0.0", by=stranger))
    other = Site.__new__(Site)
    other.folder, other.central, other.clock = site.folder, rival, clock
    from marketplace.registry.upstreams import AddUpstream
    from tests.support.sites import URL, Road

    other.registry, other.mirror, other.road = site.registry, site.mirror, Road(rival)
    site.registry.reader.upstreams.connect = lambda url: other.road  # type: ignore[assignment,return-value]
    await site.mirror.add(AddUpstream("rival", rival.trusted_root, URL))
    outcome = await site.mirror.sync("rival")
    assert outcome.held == {"acme": "The namespace acme is the upstream central's."}
    assert (await site.client(tmp_path / "cache").info("acme/guard")).latest == "1.1.0"
    await rival.close()


async def test_dependency_confusion_an_upstream_neither_warns_of_nor_ends_nor_points_to_what_is_local(
    site: Site, central: Registry, register: Bind, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    mine = generate_key()
    await site.registry.register_namespace(make_key_set("corp", [mine]).document)
    signed = make_release("corp/lib", by=mine)
    await published(site.registry, signed)
    # The very same package, published upstream as well, is ended and warned of there.
    await central.register_namespace(make_key_set("corp", [mine]).document)
    await published(central, signed)
    await central.deprecate(sign_deprecation("acme/guard", "Old", "corp/lib", "2026-11-01T00:00:00Z", key))
    warned = {
        "id": "CORP-2026-0001",
        "modified": "2026-11-01T00:00:00Z",
        "summary": "It is bad",
        "affected": [
            {
                "package": {"ecosystem": "Keelstone", "name": "corp/lib"},
                "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
            }
        ],
    }
    await central.advise(json.dumps(warned).encode())
    await central.revoke("corp/lib", "1.0.0", "We say so.")
    await site.follow()
    outcome = await site.sync()
    assert (outcome.revoked, outcome.advisories) == ([], [])
    client = site.client(tmp_path / "cache")
    await client.fetch("corp/lib", "1.0.0")
    advised = (await client.index("acme/guard")).deprecated
    assert advised is not None
    assert (advised.reason, advised.successor) == ("Old", None)


async def test_dependency_confusion_a_registration_that_comes_between_look_and_commit_wins(
    site: Site, make_release: Make, tmp_path: Path
) -> None:
    await site.follow()
    mine, commit = generate_key(), site.registry.commit

    async def late(change: Any) -> Any:
        site.registry.commit = commit  # type: ignore[method-assign]
        await site.registry.register_namespace(make_key_set("acme", [mine]).document)
        return await commit(change)

    site.registry.commit = late  # type: ignore[method-assign]
    outcome = await site.sync()
    assert list(outcome.held) == ["acme"]
    with pytest.raises(NotFound):
        site.registry.reader.index("acme/guard")


# ------------------------------------------------------------- names


@pytest.mark.parametrize("plugin", ["Acme/guard", "\u0430cme/guard", "acme/Guard", "acme/gu\u0430rd", "../acme/guard"])
async def test_unicode_and_case_confusion_in_names_an_upstream_cannot_bring_such_a_name(
    site: Site, central: Registry, plugin: str
) -> None:
    index = read_index(target(central, index_path("acme/guard")))
    release = index.releases[0]
    forged = make_index(plugin, [release]).to_bytes()
    publisher = plugin.partition("/")[0]
    entry = Entry("publish", publisher, plugin, "1.1.0", release.digest, release.digest, "2026-11-23T00:00:00Z")
    await central.commit(Said({index_path(plugin): forged}, entry))
    await site.follow()
    outcome = await site.sync()
    assert outcome.plugins == ["acme/guard"]
    assert set(site.registry.reader.upstreams.claims()) == {"acme"}


async def test_typosquat_an_upstream_namespace_that_looks_like_a_local_one_waits_for_the_operator(
    site: Site, central: Registry, register: Bind, make_release: Make
) -> None:
    await site.registry.register_namespace(make_key_set("harbour", [generate_key()]).document)
    await register(central, "harb0ur")
    await published(central, make_release("harb0ur/gate"))
    await site.follow()
    outcome = await site.sync()
    assert list(outcome.held) == ["harb0ur"]
    assert "could be taken for harbour" in outcome.held["harb0ur"]
    await site.mirror.claim("harb0ur", "central")
    await site.follow("*")  # what is followed was named anew: the log is read from its beginning
    assert "harb0ur/gate" in (await site.sync()).plugins


async def test_typosquat_a_local_plugin_that_looks_like_a_mirrored_one_is_refused(
    site: Site, central: Registry, make_release: Make
) -> None:
    from marketplace.errors import ReleaseRefused

    await site.follow()
    await site.sync()
    mine = generate_key()
    await site.registry.register_namespace(make_key_set("other-house", [mine]).document)
    with pytest.raises(ReleaseRefused, match="could be taken for acme/guard"):
        await published(site.registry, make_release("other-house/guarb", by=mine))


# ------------------------------------------------------------- the way to the upstream


async def broken_link(site: Site) -> str:
    with pytest.raises(VerificationFailed) as caught:
        await site.sync()
    return caught.value.link


async def test_wrong_root_of_an_upstream_lets_nothing_in(site: Site, tmp_path: Path, clock: Any) -> None:
    stranger = Registry.open(tmp_path / "stranger", clock=clock)
    await site.follow(root=stranger.trusted_root)
    assert await broken_link(site) == "timestamp"
    assert site.registry.reader.upstreams.claims() == {}
    await stranger.close()


async def test_rollback_of_an_upstream_is_refused(site: Site, central: Registry, make_release: Make) -> None:
    old = site.road.read("metadata/timestamp.json")
    await published(central, make_release(version="1.2.0"))
    await site.follow()
    await site.sync()
    site.road.replaced["metadata/timestamp.json"] = old
    assert await broken_link(site) == "timestamp"


async def test_rollback_of_an_upstream_is_refused_even_if_the_cache_was_lost(
    site: Site, central: Registry, make_release: Make
) -> None:
    import shutil

    old = {path: site.road.read(path) for path in ("metadata/timestamp.json", "log/checkpoint")}
    await published(central, make_release(version="1.2.0"))
    await site.follow()
    await site.sync()
    shutil.rmtree(site.folder / "upstreams")
    site.road.replaced = old
    from marketplace.errors import BundleOutdated

    with pytest.raises((BundleOutdated, VerificationFailed)):
        await site.sync()


async def test_freeze_of_an_upstream_is_refused(site: Site, open_registry: Callable[..., Registry], clock: Any) -> None:
    await site.follow()
    stale = clock.at
    clock.at = stale - 8 * 86_400
    await site.central.renew()
    clock.at = stale
    import marketplace.tufcache  # the metadata of the fixture is a moment old; what is expired is shown instead

    assert marketplace.tufcache.CLOCK_SLACK == 300.0
    old = json.loads(site.road.read("metadata/timestamp.json"))
    old["signed"]["expires"] = "2020-01-01T00:00:00Z"
    site.road.replaced["metadata/timestamp.json"] = json.dumps(old).encode()
    assert await broken_link(site) == "timestamp"


@pytest.mark.parametrize("which", ["metadata/timestamp.json", "targets/", "log/checkpoint", "log/tile", "log/proof"])
async def test_endless_data_from_an_upstream_is_cut_off(site: Site, which: str) -> None:
    await site.follow()
    site.road.endless = {which}
    try:
        outcome = await site.sync()
    except VerificationFailed:
        outcome = None
    assert outcome is None or (outcome.released == [] and outcome.problems != [])


async def test_endless_data_for_a_package_is_cut_off(site: Site, tmp_path: Path) -> None:
    await site.follow()
    await site.sync()
    site.road.endless = {"packages/"}
    with pytest.raises(VerificationFailed, match="more bytes come"):
        await site.client(tmp_path / "cache").fetch("acme/guard", "1.0.0")
    assert list((site.folder / "packages").rglob("*")) == [
        path for path in (site.folder / "packages").rglob("*") if path.is_dir()
    ]


async def test_a_package_with_other_bytes_is_not_kept(site: Site, tmp_path: Path) -> None:
    await site.follow()
    await site.sync()
    digest = site.registry.reader.index("acme/guard").releases[0].digest
    site.road.replaced[f"packages/{digest}"] = b"something else"
    with pytest.raises(VerificationFailed, match="not those that were published"):
        await site.client(tmp_path / "cache").fetch("acme/guard", "1.1.0")
    assert site.registry.reader.package_path(digest) is None


async def test_forked_log_of_an_upstream_is_refused(
    site: Site, central: Registry, tmp_path: Path, clock: Any, make_release: Make
) -> None:
    await site.follow()
    await site.sync()
    # Somebody with the upstream's keys writes another history.
    fork = fork_of(tmp_path / "registry", tmp_path / "fork", clock)
    await published(fork, make_release(version="1.2.0"))
    from tests.support.sites import Road

    site.road = Road(fork)
    with pytest.raises(LogInconsistent):
        await site.sync()
    await fork.close()


async def test_other_keys_of_a_namespace_than_were_shown_before_are_refused(
    site: Site, central: Registry, make_release: Make
) -> None:
    await site.follow()
    await site.sync()
    thief = make_key_set("acme", [generate_key()])
    await central.commit(Said({target_path("acme"): thief.document}))
    await published(central, make_release(version="1.2.0"))
    with pytest.raises(LogInconsistent, match="other keys of acme"):
        await site.sync()


async def test_a_release_with_other_bytes_than_before_is_refused(
    site: Site, central: Registry, make_release: Make, key: SigningKey
) -> None:
    await site.follow()
    await site.sync()
    before = site.registry.reader.index("acme/guard")
    index = read_index(target(central, index_path("acme/guard")))
    from dataclasses import replace

    from marketplace.log.entry import release_entry, statement_digest

    other = make_release(version="1.1.0", readme="# Other\n\nIt lets thieves in.\n")
    envelope = json.loads(other.envelope)
    forged = replace(index.releases[0], digest=other.package.digest, size=len(other.package.data), envelope=envelope)
    entry = release_entry(
        "acme/guard", "1.1.0", other.package.digest, statement_digest(envelope), "2026-11-23T00:00:00Z"
    )
    said = make_index("acme/guard", [forged, index.releases[1]]).to_bytes()
    await central.commit(Said({index_path("acme/guard"): said}, entry, statement=envelope))
    outcome = await site.sync()
    assert "something else than this release" in outcome.problems[0]
    assert site.registry.reader.index("acme/guard") == before
    # Even with the publisher's and the log's word for both, the first one stays.
    for proof in (site.folder / "upstreams").rglob("proofs/*"):
        proof.unlink()
    with pytest.raises(VerificationFailed, match="other bytes than it did before"):
        await site.sync()
    assert site.registry.reader.index("acme/guard") == before


async def test_a_release_that_its_publisher_did_not_sign_is_refused(
    site: Site, central: Registry, make_release: Make
) -> None:
    thief = generate_key()
    index = read_index(target(central, index_path("acme/guard")))
    from dataclasses import replace

    from marketplace.log.entry import release_entry, statement_digest

    other = make_release(version="2.0.0", by=thief)
    envelope = json.loads(other.envelope)
    forged = replace(
        index.releases[0],
        version="2.0.0",
        digest=other.package.digest,
        size=len(other.package.data),
        envelope=envelope,
    )
    entry = release_entry(
        "acme/guard", "2.0.0", other.package.digest, statement_digest(envelope), "2026-11-23T00:00:00Z"
    )
    said = make_index("acme/guard", [forged, *index.releases]).to_bytes()
    await central.commit(Said({index_path("acme/guard"): said}, entry))
    await site.follow()
    outcome = await site.sync()
    assert outcome.released == []
    assert "not one of the namespace's" in outcome.problems[0]


# ------------------------------------------------------------- the site itself


async def test_evidence_that_the_site_changed_is_refused_by_platforms(
    site: Site, central: Registry, key: SigningKey, tmp_path: Path
) -> None:
    await site.follow()
    await site.sync(ahead=True)
    own = read_plugin(target(site.registry, evidence_path("acme/guard")))
    proofs = {**own.proofs, "1.0.0": own.proofs["1.1.0"]}
    changed = type(own)(own.plugin, own.bins, own.targets, proofs)
    await site.registry.commit(Said({evidence_path("acme/guard"): changed.to_bytes()}))
    with pytest.raises(VerificationFailed) as caught:
        await site.client(tmp_path / "cache").fetch("acme/guard", "1.0.0")
    assert caught.value.link == "log"


async def test_evidence_from_another_root_than_the_pinned_one_is_refused_by_platforms(
    site: Site, tmp_path: Path
) -> None:
    from marketplace.log.entry import sha256_of
    from marketplace.mirror.evidence import read_state, state_path

    await site.follow()
    await site.sync(ahead=True)
    mirrored = site.registry.reader.index("acme/guard").mirrored
    assert mirrored is not None
    state = read_state(target(site.registry, state_path(mirrored.state)))
    forged = type(state)(site.registry.trusted_root, state.metadata).to_bytes()
    from dataclasses import replace

    index = read_index(target(site.registry, index_path("acme/guard")))
    other = replace(index, mirrored=replace(mirrored, state=sha256_of(forged)))
    documents = {state_path(sha256_of(forged)): forged, index_path("acme/guard"): other.to_bytes()}
    await site.registry.commit(Said(documents))
    with pytest.raises(VerificationFailed) as caught:
        await site.client(tmp_path / "cache").fetch("acme/guard", "1.0.0")
    assert caught.value.link == "upstream"


async def test_keys_that_the_site_puts_in_place_of_the_upstreams_are_refused_by_platforms(
    site: Site, central: Registry, key: SigningKey, tmp_path: Path
) -> None:
    await site.follow()
    await site.sync(ahead=True)
    thief = make_key_set("acme", [generate_key()])
    await site.registry.commit(Said({target_path("acme"): thief.document}))
    with pytest.raises(VerificationFailed) as caught:
        await site.client(tmp_path / "cache").fetch("acme/guard", "1.0.0")
    assert caught.value.link == "upstream"


async def test_half_written_cache_of_an_upstream_mends_itself(
    site: Site, central: Registry, make_release: Make
) -> None:
    await site.follow()
    await site.sync()
    for path in (site.folder / "upstreams").rglob("*"):
        if path.is_file() and "root" not in path.name and path.name != "lock":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    await published(central, make_release(version="1.2.0"))
    outcome = await site.sync()
    assert (outcome.released, outcome.problems) == (["acme/guard 1.2.0"], [])


async def test_keys_that_changed_upstream_do_not_let_an_old_signer_publish_here(
    site: Site, central: Registry, make_release: Make, key: SigningKey
) -> None:
    fresh = generate_key()
    await site.follow()
    await site.sync()
    proposed = propose(central.reader.key_set("acme"), [fresh.public], threshold=1)
    document = sign_proposal(proposed, [key, fresh])
    with pytest.raises(NamespaceMirrored):
        await site.registry.register_namespace(document)
    await central.register_namespace(document)
    await site.sync()
    assert list(site.registry.reader.key_set("acme").keys) == [fresh.id]


async def test_a_new_owner_that_only_the_site_says_is_refused_by_platforms(
    site: Site, central: Registry, tmp_path: Path
) -> None:
    from marketplace.succession import Step, Succession, read_succession

    await site.follow()
    await site.sync()
    first = read_succession(target(site.registry, target_path("acme"))).steps[0]
    fresh, at = generate_key(), "2026-11-01T00:00:00Z"
    invented = read_key_set(sign_proposal(propose(first.key_set, [fresh.public], threshold=1), [fresh]))
    said = keys_entry("acme", 2, invented.document, at)
    place = read_checkpoint(site.registry.reader.log_file("checkpoint")).size
    listed = Succession((Step(first.key_set, 0), Step(invented, place, place + 1, True)))
    owner = owner_entry("acme", 2, said.digest, said.digest, at)
    await site.registry.commit(Said({target_path("acme"): listed.to_bytes()}, said, owner))
    found = (await site.client(tmp_path / "one").stand_behind(["acme/guard"]))["acme/guard"]
    assert isinstance(found, VerificationFailed)
    assert found.link == "upstream"
    # Its own log has it, but that is not the log that the namespace's keys are in.
    own = {index: site.registry.reader.log_file(f"entry/{index}") for index in (0, place, place + 1)}
    proofs = KeyProofs(target(site.registry, KEYS_TARGET), own)
    await site.registry.commit(Said({keys_path("acme"): proofs.to_bytes()}))
    found = (await site.client(tmp_path / "two").stand_behind(["acme/guard"]))["acme/guard"]
    assert isinstance(found, VerificationFailed)
    assert found.link == "log"


async def test_a_new_owner_whose_proof_the_site_withholds_is_no_owner_as_before(
    site: Site, central: Registry, key: SigningKey, tmp_path: Path
) -> None:
    await site.follow()
    await site.sync()
    buyer = generate_key()
    proposed = propose(central.reader.key_set("acme"), [buyer.public], threshold=1, owner="Globex Ltd")
    await central.register_namespace(sign_proposal(proposed, [key, buyer]))
    await site.sync()
    await site.registry.commit(Said({keys_path("acme"): KeyProofs().to_bytes()}))
    found = (await site.client(tmp_path / "cache").stand_behind(["acme/guard"]))["acme/guard"]
    assert isinstance(found, VerificationFailed)
    assert found.link == "upstream"
