"""The client believes nothing: each attack is refused at the link that it breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import BackendUnavailable, KeelstoneError, NotFound, ValidationFailed
from marketplace.client import MarketplaceClient
from marketplace.errors import PackageTooLarge, ReleaseYanked, VerificationFailed
from marketplace.index import index_path, make_index
from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set, target_path
from marketplace.registry import Registry
from marketplace.registry.metadata import MetadataRows
from marketplace.signing import sign_yank
from marketplace.transport import RegistryTransport
from plugin_sdk.services import SearchFilters, VerifiedPackage

Make = Callable[..., Any]
Bind = Callable[..., Awaitable[None]]


class Road:
    """A transport on which somebody sits: replaces, drops, prolongs or blocks what comes by."""

    def __init__(self, registry: Registry) -> None:
        self._inner = RegistryTransport(registry.reader)
        self.replaced: dict[str, bytes] = {}
        self.swapped: dict[str, str] = {}
        self.endless: set[str] = set()
        self.blocked = False
        self.found: list[str] | None = None
        self.asked: list[str] = []

    def stream(self, path: str) -> Iterator[bytes]:
        self.asked.append(path)
        if self.blocked:
            raise BackendUnavailable("The cable is unplugged.")
        if path in self.endless:
            while True:
                yield b" " * 65_536
        if path in self.replaced:
            yield self.replaced[path]
            return
        yield from self._inner.stream(self.swapped.get(path, path))

    def search(self, query: str, limit: int, filters: SearchFilters) -> list[str]:
        return self.found if self.found is not None else self._inner.search(query, limit, filters)

    def close(self) -> None:
        self._inner.close()

    def read(self, path: str) -> bytes:
        return b"".join(self._inner.stream(path))


@pytest.fixture
async def shop(registry: Registry, register: Bind, make_release: Make) -> Registry:
    """A registry with acme/guard 1.0.0 and 1.1.0."""
    await register(registry)
    for version in ("1.0.0", "1.1.0"):
        signed = make_release(version=version)
        await registry.publish(signed.package.data, signed.envelope)
    return registry


@pytest.fixture
def road(shop: Registry) -> Road:
    return Road(shop)


@pytest.fixture
def client(road: Road, shop: Registry, tmp_path: Path) -> MarketplaceClient:
    return MarketplaceClient(road, tmp_path / "cache", shop.trusted_root)


async def broken_link(work: Awaitable[Any]) -> str:
    with pytest.raises(VerificationFailed) as caught:
        await work
    assert caught.value.code == "verification"
    assert caught.value.status == 422
    return caught.value.link


# ------------------------------------------------------------------------------ the good way


async def test_a_release_comes_back_with_its_whole_chain(client: MarketplaceClient) -> None:
    package = await client.fetch("acme/guard", "1.1.0")
    assert isinstance(package, VerifiedPackage)
    assert package.manifest.version == "1.1.0"
    links = [line.split()[0].rstrip(":") for line in package.chain]
    assert links[:4] == ["root", "timestamp", "snapshot", "targets"]
    assert links[-6:] == ["release", "signature", "package", "manifest", "log", "log"]
    assert "namespace" in links
    assert sum(link.startswith("bins-") for link in links) >= 3


async def test_search_and_info_read_verified_indexes(client: MarketplaceClient) -> None:
    (entry,) = await client.search("guard")
    assert entry == await client.info("acme/guard")
    assert (entry.latest, entry.versions, entry.publisher) == ("1.1.0", ("1.1.0", "1.0.0"), "acme")
    assert [m.version for m in await client.manifests("acme/guard")] == ["1.1.0", "1.0.0"]


async def test_a_prerelease_is_latest_only_if_there_is_nothing_else(
    shop: Registry, client: MarketplaceClient, make_release: Make
) -> None:
    for plugin in ("acme/guard", "acme/fresh"):
        signed = make_release(plugin, "2.0.0-rc.1")
        await shop.publish(signed.package.data, signed.envelope)
    assert (await client.info("acme/guard")).latest == "1.1.0"
    assert (await client.info("acme/fresh")).latest == "2.0.0-rc.1"


async def test_nothing_new_costs_two_small_requests(client: MarketplaceClient, road: Road) -> None:
    await client.info("acme/guard")
    road.asked.clear()
    await client.info("acme/guard")
    assert road.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


async def test_what_is_not_there_is_not_found(client: MarketplaceClient) -> None:
    for work in (
        client.info("acme/nothing"),
        client.fetch("acme/nothing", "1.0.0"),
        client.fetch("acme/guard", "9.0.0"),
    ):
        with pytest.raises(NotFound):
            await work
    for plugin in ("nonsense", "../../etc/passwd", "Acme/Guard"):
        with pytest.raises(ValidationFailed):
            await client.info(plugin)


async def test_a_withdrawn_release_is_not_fetched(shop: Registry, client: MarketplaceClient, key: SigningKey) -> None:
    digest = (await client.fetch("acme/guard", "1.1.0")).digest
    await shop.yank(sign_yank("acme/guard", "1.1.0", digest, "it bites", key))
    with pytest.raises(ReleaseYanked, match="it bites"):
        await client.fetch("acme/guard", "1.1.0")
    assert [m.version for m in await client.manifests("acme/guard")] == ["1.0.0"]


async def test_two_clients_may_share_a_cache(road: Road, shop: Registry, tmp_path: Path) -> None:
    clients = [MarketplaceClient(road, tmp_path / "shared", shop.trusted_root) for _ in range(4)]
    packages = await asyncio.gather(*(c.fetch("acme/guard", v) for c in clients for v in ("1.0.0", "1.1.0")))
    assert len({p.digest for p in packages}) == 2


async def test_a_half_written_cache_mends_itself(client: MarketplaceClient, tmp_path: Path) -> None:
    await client.fetch("acme/guard", "1.0.0")
    for path in (tmp_path / "cache").rglob("*.json"):
        if path.is_file() and "root" not in path.name:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert (await client.fetch("acme/guard", "1.0.0")).manifest.version == "1.0.0"


async def test_a_rotated_root_is_followed(shop: Registry, client: MarketplaceClient, clock: Any) -> None:
    await client.info("acme/guard")
    clock.advance(600)
    assert "root" in (await shop.renew()).renewed
    package = await client.fetch("acme/guard", "1.0.0")
    assert "followed to v2" in package.chain[0]


# ------------------------------------------------------------------------------ attacks on the way


async def test_rollback_an_older_timestamp_is_refused(
    shop: Registry, client: MarketplaceClient, road: Road, make_release: Make
) -> None:
    old = road.read("metadata/timestamp.json")
    signed = make_release(version="1.2.0")
    await shop.publish(signed.package.data, signed.envelope)
    await client.info("acme/guard")
    road.replaced["metadata/timestamp.json"] = old
    assert await broken_link(client.info("acme/guard")) == "timestamp"


async def test_freeze_an_expired_timestamp_is_refused(
    open_registry: Callable[..., Registry], tmp_path: Path, clock: Any
) -> None:
    clock.advance(-8)
    stale = open_registry()
    client = MarketplaceClient(Road(stale), tmp_path / "cache", stale.trusted_root)
    with pytest.raises(VerificationFailed, match="expired") as caught:
        await client.info("acme/guard")
    assert caught.value.link == "timestamp"
    assert "clock" in str(caught.value.fix)


async def test_clock_set_back_does_not_bring_expired_metadata_back_to_life(client: MarketplaceClient) -> None:
    await client.index("acme/guard")
    real = client._trusted._now
    client._trusted._now = lambda: real() - 86_400
    with pytest.raises(VerificationFailed, match="clock was set back") as caught:
        await client.index("acme/guard")
    assert caught.value.link == "clock"
    client._trusted._now = lambda: real() - 60  # a clock that is put right a little is no attack
    await client.index("acme/guard")
    client._trusted._now = lambda: real() + 86_400
    await client.index("acme/guard")
    client._trusted._now = real
    with pytest.raises(VerificationFailed, match="clock was set back"):
        await client.index("acme/guard")
    (client._trusted.folder / "latest-time").unlink()
    await client.index("acme/guard")


async def test_mix_and_match_one_bin_does_not_pass_for_another(
    client: MarketplaceClient, road: Road, shop: Registry, tmp_path: Path
) -> None:
    await client.fetch("acme/guard", "1.0.0")
    mine, other, *_ = (path for path in road.asked if ".bins-" in path)
    # Both are signed by the same key, and neither carries its name: only the version tells them apart.
    road.swapped = {mine: other, other: mine}
    fresh = MarketplaceClient(road, tmp_path / "other-cache", shop.trusted_root)
    assert (await broken_link(fresh.info("acme/guard"))).startswith("bins-")


async def test_metadata_of_another_registry_is_refused(
    client: MarketplaceClient, road: Road, tmp_path: Path, clock: Any
) -> None:
    stranger = Registry.open(tmp_path / "stranger", clock=clock)
    current = json.loads(road.read("metadata/timestamp.json"))["signed"]["meta"]["snapshot.json"]["version"]
    for ours, theirs, link in (
        ("timestamp.json", "timestamp.json", "timestamp"),
        (f"{current}.snapshot.json", "2.snapshot.json", "snapshot"),
        ("1.targets.json", "1.targets.json", "targets"),
    ):
        road.replaced = {f"metadata/{ours}": stranger.reader.metadata(theirs) or b""}
        assert await broken_link(client.info("acme/guard")) == link
    await stranger.close()


async def test_the_wrong_root_trusts_nothing(road: Road, tmp_path: Path, clock: Any) -> None:
    stranger = Registry.open(tmp_path / "stranger", clock=clock)
    client = MarketplaceClient(road, tmp_path / "cache", stranger.trusted_root)
    assert await broken_link(client.fetch("acme/guard", "1.0.0")) == "timestamp"
    await stranger.close()


async def test_a_root_signed_by_too_few_keys_is_refused(road: Road, shop: Registry, tmp_path: Path) -> None:
    root = json.loads(shop.trusted_root)
    root["signatures"] = root["signatures"][:1]
    client = MarketplaceClient(road, tmp_path / "cache", json.dumps(root).encode())
    assert await broken_link(client.info("acme/guard")) == "root"


async def test_garbage_for_metadata_is_refused(client: MarketplaceClient, road: Road) -> None:
    for garbage in (b"", b"{}", b"\xff\xff", b"[" * 1_000, b'{"signed": {"_type": "root"}, "signatures": []}'):
        road.replaced["metadata/timestamp.json"] = garbage
        assert await broken_link(client.info("acme/guard")) in ("timestamp", "metadata")


@pytest.mark.parametrize("which", ["metadata/timestamp.json", "metadata/2.root.json", "targets/", "log/", "packages/"])
async def test_endless_data_is_cut_off(
    client: MarketplaceClient, road: Road, shop: Registry, tmp_path: Path, which: str
) -> None:
    await client.fetch("acme/guard", "1.0.0")
    road.endless = {path for path in road.asked if path.startswith(which)}
    assert road.endless
    fresh = MarketplaceClient(road, tmp_path / "other-cache", shop.trusted_root)
    assert await broken_link(fresh.fetch("acme/guard", "1.0.0"))


async def test_a_tampered_document_is_refused_at_its_link(
    client: MarketplaceClient, road: Road, shop: Registry, tmp_path: Path
) -> None:
    await shop.revoke("acme/guard", "1.1.0", "It misbehaves.")
    await client.fetch("acme/guard", "1.0.0")
    folders = {"plugins/": "release", "namespaces/": "namespace", "registry/": "revocations"}
    for prefix, link in ((f"targets/{folder}", link) for folder, link in folders.items()):
        path = next(p for p in road.asked if p.startswith(prefix))
        road.replaced = {path: road.read(path)[:-1] + b" "}
        fresh = MarketplaceClient(road, tmp_path / link, shop.trusted_root)
        assert await broken_link(fresh.fetch("acme/guard", "1.0.0")) == link


async def test_a_package_changed_on_the_marketplaces_disk_is_refused(shop: Registry, client: MarketplaceClient) -> None:
    digest = shop.reader.index("acme/guard").releases[0].digest
    path = shop.reader.package_path(digest)
    assert path is not None
    whole = path.read_bytes()
    for tampered in (whole[:-1] + b"X", whole + b"X", b""):
        path.write_bytes(tampered)
        assert await broken_link(client.fetch("acme/guard", "1.1.0")) == "package"
    path.unlink()
    assert await broken_link(client.fetch("acme/guard", "1.1.0")) == "package"
    assert (await client.fetch("acme/guard", "1.0.0")).manifest.version == "1.0.0"


async def test_a_marketplace_that_finds_what_it_does_not_have_is_not_believed(
    client: MarketplaceClient, road: Road
) -> None:
    road.found = ["acme/ghost", "../../etc/passwd", "acme/guard"]
    assert [e.id for e in await client.search("guard")] == ["acme/guard"]


async def test_a_package_larger_than_this_platform_takes_is_not_downloaded(
    road: Road, shop: Registry, tmp_path: Path
) -> None:
    client = MarketplaceClient(road, tmp_path / "cache", shop.trusted_root, max_package_bytes=100)
    with pytest.raises(PackageTooLarge):
        await client.fetch("acme/guard", "1.0.0")
    assert not any(path.startswith("packages/") for path in road.asked)


# ------------------------------------------------------------------------------ a marketplace gone bad


def sign_as_registry(registry: Registry, documents: dict[str, bytes]) -> None:
    """What a thief of the online keys could do: sign any document into the repository."""
    with registry._tables.write() as connection:
        registry._repository.commit(MetadataRows(connection, registry._clock.now()), documents)


async def test_stolen_online_keys_do_not_make_a_publishers_signature(
    shop: Registry, client: MarketplaceClient, make_release: Make
) -> None:
    bad = make_release(version="1.1.0", by=generate_key(), readme="# Evil\n").package
    await shop._blobs.put(bad.data)
    index = shop.reader.index("acme/guard")
    forged = [replace(r, digest=bad.digest, size=len(bad.data)) if r.version == "1.1.0" else r for r in index.releases]
    sign_as_registry(shop, {index_path("acme/guard"): make_index("acme/guard", forged).to_bytes()})
    with shop._tables.write() as connection:
        connection.exec_driver_sql("UPDATE releases SET digest = ? WHERE version = '1.1.0'", (bad.digest,))
    assert await broken_link(client.fetch("acme/guard", "1.1.0")) == "signature"


async def test_an_index_cannot_dress_up_a_manifest(shop: Registry, client: MarketplaceClient) -> None:
    index = shop.reader.index("acme/guard")
    dressed = [replace(r, manifest={**r.manifest, "name": "Something nicer"}) for r in index.releases]
    sign_as_registry(shop, {index_path("acme/guard"): make_index("acme/guard", dressed).to_bytes()})
    assert await broken_link(client.fetch("acme/guard", "1.1.0")) == "manifest"


async def test_another_namespaces_key_set_or_index_does_not_count(
    shop: Registry, client: MarketplaceClient, key: SigningKey
) -> None:
    index = shop.reader.index("acme/guard")
    sign_as_registry(shop, {index_path("acme/guard"): make_index("acme/other", list(index.releases)).to_bytes()})
    with pytest.raises(NotFound):
        await client.fetch("acme/guard", "1.1.0")
    sign_as_registry(shop, {index_path("acme/guard"): index.to_bytes()})
    sign_as_registry(shop, {target_path("acme"): make_key_set("globex", [key]).document})
    assert await broken_link(client.fetch("acme/guard", "1.1.0")) == "namespace"


async def test_an_index_from_a_newer_marketplace_says_so(shop: Registry, client: MarketplaceClient) -> None:
    sign_as_registry(shop, {index_path("acme/guard"): b'{"format": 2, "plugin": "acme/guard", "releases": []}'})
    with pytest.raises(KeelstoneError, match="Update this platform"):
        await client.info("acme/guard")


async def test_a_manifest_for_a_newer_kernel_does_not_hide_the_others(
    shop: Registry, client: MarketplaceClient
) -> None:
    index = shop.reader.index("acme/guard")
    newer = [replace(r, manifest={**r.manifest, "gravity": 9}) if r.version == "1.1.0" else r for r in index.releases]
    sign_as_registry(shop, {index_path("acme/guard"): make_index("acme/guard", newer).to_bytes()})
    assert [m.version for m in await client.manifests("acme/guard")] == ["1.0.0"]


# ------------------------------------------------------------------------------ verifying a file


@pytest.fixture
async def published(shop: Registry, make_release: Make) -> Any:
    signed = make_release(version="1.5.0")
    await shop.publish(signed.package.data, signed.envelope)
    return signed


async def test_verify_says_the_same_with_the_cable_unplugged(
    client: MarketplaceClient, road: Road, published: Any
) -> None:
    online = await client.verify(published.package.data, published.envelope)
    assert online.notes == ()
    road.blocked = True
    unplugged = await client.verify(published.package.data, published.envelope)
    assert unplugged.package == online.package
    assert "not reached" in unplugged.notes[0]
    road.asked.clear()
    offline = await client.verify(published.package.data, published.envelope, offline=True)
    assert offline.package == online.package
    assert offline.notes == ()
    assert road.asked == []


async def test_verify_works_without_the_signature_file(client: MarketplaceClient, published: Any) -> None:
    assert (await client.verify(published.package.data)).package.chain


async def test_verify_refuses_a_changed_package_and_a_foreign_signature(
    client: MarketplaceClient, published: Any, make_release: Make
) -> None:
    changed = make_release(version="1.5.0", readme="# Changed\n")
    assert await broken_link(client.verify(changed.package.data, published.envelope)) == "release"
    foreign = make_release(version="1.5.0", by=generate_key())
    assert foreign.package.data == published.package.data
    assert await broken_link(client.verify(published.package.data, foreign.envelope)) == "signature"
    with pytest.raises(KeelstoneError) as caught:
        await client.verify(published.package.data[:-5], published.envelope)
    assert caught.value.code == "package-corrupt"


async def test_verify_refuses_what_was_signed_but_never_published(
    client: MarketplaceClient, make_release: Make
) -> None:
    unpublished, elsewhere = make_release(version="7.0.0"), make_release("globex/thing")
    assert await broken_link(client.verify(unpublished.package.data, unpublished.envelope)) == "release"
    assert await broken_link(client.verify(elsewhere.package.data, elsewhere.envelope)) == "namespace"


async def test_verify_shows_that_a_release_was_withdrawn(
    shop: Registry, client: MarketplaceClient, published: Any, key: SigningKey
) -> None:
    await shop.yank(sign_yank("acme/guard", "1.5.0", published.package.digest, "it bites", key))
    verification = await client.verify(published.package.data, published.envelope)
    assert any("withdrawn on" in line and "it bites" in line for line in verification.package.chain)


async def test_offline_on_a_machine_that_never_asked_says_what_is_missing(
    client: MarketplaceClient, published: Any
) -> None:
    with pytest.raises(VerificationFailed, match="Connect to the marketplace once") as caught:
        await client.verify(published.package.data, published.envelope, offline=True)
    assert caught.value.link == "timestamp"


async def test_offline_a_tampered_cache_is_refused(client: MarketplaceClient, published: Any, tmp_path: Path) -> None:
    await client.verify(published.package.data)
    (index,) = (tmp_path / "cache").rglob("plugins%2F*")
    index.write_bytes(index.read_bytes().replace(b"1.5.0", b"1.5.1"))
    assert await broken_link(client.verify(published.package.data, offline=True)) == "release"
    (timestamp,) = (tmp_path / "cache").rglob("timestamp.json")
    timestamp.write_bytes(timestamp.read_bytes().replace(b'"version":', b'"version":1'))
    assert await broken_link(client.verify(published.package.data, offline=True)) == "timestamp"


async def test_offline_after_the_metadata_expired_it_answers_and_says_so(
    road: Road, shop: Registry, published: Any, tmp_path: Path, clock: Any
) -> None:
    client = MarketplaceClient(road, tmp_path / "cache", shop.trusted_root, clock=clock)
    fresh = await client.verify(published.package.data)
    clock.advance(8)
    late = await client.verify(published.package.data, offline=True)
    assert late.package == fresh.package
    assert fresh.notes == ()
    assert "not known" in late.notes[0]
