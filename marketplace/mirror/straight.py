"""A bundle as a marketplace of its own, where there is no registry: verified, and frozen at the moment it was made.

Nothing is signed anew here, so nothing says that it is fresh: every chain from it begins with the moment at which it
stands still.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from kernel.errors import BackendUnavailable, KeelstoneError, ManifestError, NotFound
from kernel.files import write_durably
from kernel.manifest import PluginManifest
from marketplace.chain import refuse_yanked
from marketplace.client import origin_of
from marketplace.errors import BundleOutdated, VerificationFailed
from marketplace.index import Index, checked_id, entry_of
from marketplace.log.entry import Entry
from marketplace.log.note import VerifierKey
from marketplace.log.proof import read_proof
from marketplace.mirror.bundle import BundleFile
from marketplace.mirror.evidence import Evidence, backing_of
from marketplace.mirror.reading import check_grown, check_valid, frozen, read_about, view_bundle
from marketplace.mirror.view import UpstreamView
from marketplace.package import Package, read_package, whole_package
from marketplace.tufcache import TrustedCache
from plugin_sdk.services import (
    Advisory,
    MarketplaceEntry,
    PublishedRelease,
    ReleaseOrigin,
    Revocation,
    SearchFilters,
    VerifiedPackage,
)

SEEN = "bundle-seen.json"


class BundleMarketplace:
    """A ``plugin_sdk.services.Marketplace`` over one open bundle; see :func:`open_bundle`."""

    def __init__(self, bundle: BundleFile, view: UpstreamView, max_package: int, refuse: Callable[[str], None]) -> None:
        self._bundle, self._view, self._limit, self._refuse = bundle, view, max_package, refuse
        self._plugins = sorted(read_about(bundle)["releases"])

    @property
    def at(self) -> str:
        """The moment at which it is frozen (ISO 8601, UTC)."""
        return self._view.at

    async def search(self, query: str, limit: int = 20, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """Its plugins whose id has the words, by name; filters are not applied."""
        words = query.lower().split()
        found = [plugin for plugin in self._plugins if all(word in plugin for word in words)]
        entries = []
        for plugin in found[:limit]:
            with suppress(NotFound, ManifestError):
                entries.append(await self.info(plugin))
        return entries

    async def info(self, plugin: str) -> MarketplaceEntry:
        """One plugin. Raises NotFound."""
        return entry_of((await self._read(plugin))[0])

    async def manifests(self, plugin: str) -> list[PluginManifest]:
        """Manifests of the installable versions in it. Raises NotFound."""
        index, _ = await self._read(plugin)
        return index.readable(index.installable())

    async def published(self, plugin: str) -> Mapping[str, PublishedRelease]:
        """The installable versions in it. Raises NotFound."""
        index, _ = await self._read(plugin)
        return index.published()

    async def fetch(self, plugin: str, version: str) -> VerifiedPackage:
        """One release with its chain, which says at which moment it stands still. Raises NotFound, ReleaseYanked,
        ReleaseRevoked or VerificationFailed."""
        index, _ = await self._read(plugin)
        release = index.find(version)
        if release is None:
            raise NotFound(f"There is no release {plugin} {version} in the bundle.", plugin=plugin, found=version)

        def read() -> VerifiedPackage:
            data = self._bundle.read(f"packages/{release.digest}")
            if data is None:
                raise NotFound(f"The bundle has no package of {plugin} {version}, only its proofs.", plugin=plugin)
            data = whole_package([data], release.digest, release.size, plugin)
            return prove_from(self._view, read_package(data, max_bytes=self._limit))

        return await asyncio.to_thread(read)

    async def revocations(self) -> tuple[Revocation, ...]:
        """Those that it knows of."""
        return await asyncio.to_thread(self._view.revocations)

    async def advisories(self) -> tuple[Advisory, ...]:
        """Those that it knows of."""
        return await asyncio.to_thread(self._view.advisories)

    async def stand_behind(self, plugins: Sequence[str]) -> Mapping[str, ReleaseOrigin | KeelstoneError]:
        """Nothing: a bundle says who stood behind what is in it, and nothing of later."""
        return {}

    async def await_revocations(self, known: int) -> int:
        """Raises BackendUnavailable: nothing new comes from a bundle."""
        raise _nobody()

    async def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        """Raises BackendUnavailable."""
        raise _nobody()

    async def hand_in(self, what: Literal["ratings", "figures"], statement: str, keys: Mapping[str, Any]) -> None:
        """Raises BackendUnavailable."""
        raise _nobody()

    async def _read(self, plugin: str) -> tuple[Index, Evidence]:
        publisher = checked_id(plugin).partition("/")[0]
        if plugin not in self._plugins:
            raise NotFound(f"There is no plugin {plugin} in the bundle.", plugin=plugin, found=", ".join(self._plugins))
        await asyncio.to_thread(self._refuse, publisher)
        return await asyncio.to_thread(lambda: self._view.plugin(plugin, *self._view.keys(publisher)))


def prove_from(view: UpstreamView, package: Package, envelope: bytes | None = None) -> VerifiedPackage:
    """Verify a package along the chain that ``view`` shows; its first link says at which moment that stands still.

    Raises NotFound, ReleaseYanked, ReleaseRevoked or VerificationFailed.
    """
    plugin, version = package.manifest.id, package.manifest.version
    fresh = replace(view)  # a walk of its own, with the links of this package alone
    walker = fresh.walker
    walker.walk.links.insert(0, frozen(view))
    key_sets, index = walker.key_sets(package.manifest.publisher), walker.index(plugin)
    release = index.find(version)
    body = view.source.proof(plugin, version)
    if release is None or body is None:
        raise NotFound(f"There is no release {plugin} {version} in the bundle.", plugin=plugin, found=version)
    walker.refuse_revoked(plugin, release.digest)
    refuse_yanked(plugin, release)
    keys, proof = walker.log_keys(), read_proof(body)

    def entry(index: int) -> Entry:
        kept = view.source.entry(index)
        if kept is None:
            raise VerificationFailed("log", f"there is no proof of entry {index} in the bundle.")
        read_proof(kept).verify(keys.present)
        return read_proof(kept).entry

    proved = proof, proof.verify(keys.present)
    backing = backing_of(walker, key_sets, index, release, keys, proved, entry)
    signers = backing.prove(package, walker.walk, envelope, view.witnesses)
    check_valid(fresh)
    vouched = package.vouched_for(walker.walk.links)
    origin = origin_of(backing.counted, signers, index)
    return replace(vouched, published=release.published_at, origin=origin)


@contextmanager
def open_bundle(
    file: Path,
    cache: Path,
    root: bytes,
    now: float,
    max_package: int,
    *,
    witnesses: tuple[VerifierKey, ...] = (),
    needed: int = 0,
    older: bool = False,
    refuse: Callable[[str], None] = lambda publisher: None,
) -> Iterator[BundleMarketplace]:
    """A bundle of the marketplace with the pinned ``root``, verified; ``cache`` is that of ``MarketplaceClient``.
    ``refuse`` raises for namespaces that nothing may be taken of.

    Raises BundleCorrupt, VerificationFailed, LogInconsistent, and BundleOutdated if this machine has seen a newer
    bundle or newer metadata, unless ``older`` lets it in.
    """
    folder = TrustedCache(_Unplugged(), cache, root).folder
    with BundleFile(file, max_package) as bundle:
        view = view_bundle(bundle, "marketplace", root, now, witnesses, needed)
        before = _seen(folder / SEEN)
        versions = view.walker.versions
        known = {**before.get("versions", {}), **_cached(folder, root)}
        behind = any(versions.get(name, 0) < version for name, version in known.items())
        if behind and not older:
            raise BundleOutdated(
                f"The bundle shows the marketplace as it was at {view.at}, before what is known here.",
                expected=f"timestamp v{known.get('timestamp')} or later",
                found=f"timestamp v{versions['timestamp']}",
                fix="Get a newer bundle. Or let it in with --older: what was withdrawn since is not known then.",
            )
        if before and not behind:
            check_grown(bundle, view, int(before["log_size"]), str(before["log_root"]))
        yield BundleMarketplace(bundle, view, max_package, refuse)
        if not behind and view.checkpoint is not None:
            newest = {"versions": versions, "log_size": view.checkpoint.size, "log_root": view.checkpoint.root.hex()}
            write_durably(folder / SEEN, json.dumps(newest).encode())


class _Unplugged:
    """No transport: what is cached answers."""

    def __getattr__(self, name: str) -> Any:
        raise _nobody()


def _seen(path: Path) -> dict[str, Any]:
    """How far a bundle was seen here; nothing if none was, or the disk lost it."""
    with suppress(FileNotFoundError, ValueError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict) and {"versions", "log_size", "log_root"} <= set(said):
            return said
    return {}


def _cached(folder: Path, root: bytes) -> dict[str, int]:
    """The versions that this machine saw over the network; none if it never was connected."""
    from marketplace.chain import ChainWalker

    def read(path: Path) -> bytes | None:
        with suppress(FileNotFoundError):
            return path.read_bytes()
        return None

    try:
        return ChainWalker(root, lambda name: read(folder / "metadata" / name), lambda path: None).versions
    except KeelstoneError:
        return {}


def _nobody() -> BackendUnavailable:
    return BackendUnavailable("There is no marketplace behind a bundle.", fix="Connect to one for that.")
