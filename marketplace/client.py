"""The marketplace as the platform uses it: whatever comes back has been verified from the pinned root.

python-tuf's ``Updater`` keeps the cache current: one refresh an object, so each question makes one.
The chain is then walked over the cache (``marketplace.chain``), which gives the lines that people
read, and works the same with the cable unplugged.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kernel.errors import BackendUnavailable, KeelstoneError, ManifestError, NotFound, ValidationFailed
from kernel.files import write_durably
from kernel.manifest import PluginManifest
from kernel.ports import Clock
from kernel.versions import parse_version
from marketplace.advisories import ADVISORIES_TARGET, read_advisories
from marketplace.errors import PackageTooLarge, RegistryDamaged, VerificationFailed
from marketplace.index import Index, checked_id, entry_of, index_path, read_index
from marketplace.jobs import read_lists
from marketplace.log.key import KEYS_TARGET, LogKeys, read_log_keys
from marketplace.log.note import VerifierKey
from marketplace.mirror.evidence import backing_of, evidence_of, paths_of
from marketplace.namespaces import target_path
from marketplace.package import DEFAULT_MAX_BYTES, read_package, whole_package
from marketplace.revocations import REVOCATIONS_TARGET, read_revocations
from marketplace.succession import InForce, Succession, places_of, read_succession
from marketplace.transport import Transport
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

if TYPE_CHECKING:
    from tuf.ngclient import Updater

    from marketplace.chain import ChainWalker
    from marketplace.log.follow import LogFollower


@dataclass(frozen=True, slots=True)
class Verification:
    """A package's whole chain. ``notes`` say what limits it (metadata expired, marketplace not reached)."""

    package: VerifiedPackage
    notes: tuple[str, ...] = ()


class MarketplaceClient:
    """A ``plugin_sdk.services.Marketplace`` over any transport.

    ``cache`` is a folder of its own; several processes may share it (they take turns).
    ``trusted_root`` is the root metadata that the operator pinned. ``witnesses_needed`` of ``witnesses`` must
    have signed the log's checkpoint that proves a release. Blocking work runs in threads.
    """

    def __init__(
        self,
        transport: Transport,
        cache: Path,
        trusted_root: bytes,
        *,
        max_package_bytes: int = DEFAULT_MAX_BYTES,
        clock: Clock | None = None,
        witnesses: Sequence[VerifierKey] = (),
        witnesses_needed: int = 0,
    ) -> None:
        self._transport, self._max_bytes = transport, max_package_bytes
        self._now = clock.now if clock else time.time
        self._trusted = TrustedCache(transport, cache, trusted_root)
        self._witnesses, self._needed = tuple(witnesses), witnesses_needed

    async def search(self, query: str, limit: int = 20, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """Entries for a query: the marketplace ranks, each entry is read from its verified index."""
        return await asyncio.to_thread(self._search, query, limit, filters or SearchFilters())

    async def info(self, plugin: str) -> MarketplaceEntry:
        """One plugin. Raises NotFound."""
        return entry_of(await self.index(plugin))

    async def manifests(self, plugin: str) -> list[PluginManifest]:
        """Manifests of all installable versions that this kernel can read. Raises NotFound."""
        index = await self.index(plugin)
        return index.readable(index.installable())

    async def published(self, plugin: str) -> dict[str, PublishedRelease]:
        """All installable versions, with when each was published. Raises NotFound."""
        index = await self.index(plugin)
        return index.published()

    async def index(self, plugin: str) -> Index:
        """All releases of a plugin, withdrawn ones included. Raises NotFound or VerificationFailed."""
        return await asyncio.to_thread(self._index, plugin)

    async def fetch(self, plugin: str, version: str) -> VerifiedPackage:
        """Download and verify one release. Raises NotFound, ReleaseYanked or VerificationFailed."""
        return await asyncio.to_thread(self._fetch, plugin, version)

    async def revocations(self) -> tuple[Revocation, ...]:
        """All revoked releases, oldest first. Raises VerificationFailed or BackendUnavailable."""
        return await asyncio.to_thread(self._revocations)

    async def advisories(self) -> tuple[Advisory, ...]:
        """Every advisory, withdrawn ones included. Raises VerificationFailed or BackendUnavailable."""
        return await asyncio.to_thread(self._advisories)

    async def stand_behind(self, plugins: Sequence[str]) -> dict[str, ReleaseOrigin | KeelstoneError]:
        """Who would stand behind a release of each that came now, or why that cannot be told. Left out is what is not
        here. Of what a mirror brought, the log of where it was published says it, as far as the mirror has followed
        that. Raises VerificationFailed or BackendUnavailable."""
        return await asyncio.to_thread(self._stand_behind, plugins)

    async def await_revocations(self, known: int) -> int:
        """Wait until more than ``known`` releases are revoked, or some time has passed; how many there seem to be.

        The number is only a hint to ask :meth:`revocations`. Raises BackendUnavailable.
        """
        return await self._transport.await_revocations(known)

    async def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        """Tell the marketplace that ``host`` has carried out a revocation. Raises BackendUnavailable."""
        await asyncio.to_thread(self._transport.report_reach, digest, host, installed, seconds)

    async def hand_in(self, what: Literal["ratings", "figures"], statement: str, keys: Mapping[str, Any]) -> None:
        """Hand in a statement of this platform. Raises BackendUnavailable, or ValidationFailed if it is not taken."""
        await asyncio.to_thread(self._transport.hand_in, what, statement, keys)

    async def verify(self, data: bytes, envelope: bytes | None = None, *, offline: bool = False) -> Verification:
        """Verify a package file. ``envelope`` is the signature beside it, if there is one.

        The cache is refreshed first unless ``offline``; a marketplace that cannot be reached is
        noted, and the cached metadata answers. Raises VerificationFailed and read_package's errors.
        """
        return await asyncio.to_thread(self._verify, data, envelope, offline)

    async def close(self) -> None:
        """Close the transport."""
        await asyncio.to_thread(self._transport.close)

    # -------------------------------------------------------------------------- blocking

    def _search(self, query: str, limit: int, filters: SearchFilters) -> list[MarketplaceEntry]:
        ids = self._transport.search(query, limit, filters)
        entries = []
        with self._trusted.session() as updater:
            for plugin in ids:
                try:
                    entries.append(entry_of(self._read_index(updater, checked_id(plugin))))
                except (NotFound, ManifestError, ValidationFailed):
                    continue  # the ranking is only a hint: what is not in the verified index is not there
        return entries

    def _revocations(self) -> tuple[Revocation, ...]:
        with self._trusted.session() as updater:
            return read_revocations(self._trusted.target(updater, REVOCATIONS_TARGET))

    def _advisories(self) -> tuple[Advisory, ...]:
        with self._trusted.session() as updater:
            return read_advisories(self._trusted.target(updater, ADVISORIES_TARGET))

    def _stand_behind(self, plugins: Sequence[str]) -> dict[str, ReleaseOrigin | KeelstoneError]:
        found: dict[str, ReleaseOrigin | KeelstoneError] = {}
        with self._trusted.session() as updater:
            for plugin in plugins:
                try:
                    index = self._read_index(updater, checked_id(plugin))
                    found[plugin] = self._present_owner(updater, index)
                except NotFound:
                    continue
                except BackendUnavailable:
                    raise
                except KeelstoneError as error:
                    found[plugin] = error
        return found

    def _present_owner(self, updater: Updater, index: Index) -> ReleaseOrigin:
        publisher = index.plugin.partition("/")[0]
        held, keys = (self._trusted.target(updater, path) for path in (target_path(publisher), KEYS_TARGET))
        for path in paths_of(index):
            self._trusted.target(updater, path)
        follower = self._follower(read_log_keys(keys or b""))
        # The key sets of what was published elsewhere are in the log of there.
        if held is not None and index.mirrored is None:
            follower.fetch_entries(places_of(held))
        walker = self._trusted.walker()
        key_sets, evidence = self._key_sets(walker, publisher), evidence_of(walker, index)
        # Whatever comes next is logged after everything that is there.
        now = datetime.fromtimestamp(self._now(), UTC).isoformat()
        if evidence is not None:
            counted = evidence.present(key_sets, now)
        else:
            counted = key_sets.in_force(sys.maxsize, now, follower.kept_entry)
        return origin_of(counted, list(counted.key_set.keys), index)

    def _index(self, plugin: str) -> Index:
        with self._trusted.session() as updater:
            return self._read_index(updater, checked_id(plugin))

    def _fetch(self, plugin: str, version: str) -> VerifiedPackage:
        from marketplace.chain import refuse_yanked

        publisher = checked_id(plugin).partition("/")[0]
        parse_version(version)
        with self._trusted.session() as updater:
            self._read_index(updater, plugin)
            self._sync(updater, plugin, publisher, version)
            walker = self._trusted.walker()
            key_sets, index = self._key_sets(walker, publisher), walker.index(plugin)
            self._check_jobs(index)
            release = index.find(version)
            if release is None:
                raise NotFound(f"There is no release {plugin} {version}.", plugin=plugin, found=version)
            walker.refuse_revoked(plugin, release.digest)
            refuse_yanked(plugin, release)
            log = walker.log_keys()
            follower = self._follower(log)
            proved = follower.proof(plugin, version)
            backing = backing_of(walker, key_sets, index, release, log, proved, follower.kept_entry)
        data = self._download(plugin, release.digest, release.size)
        package = read_package(data, max_bytes=self._max_bytes)
        signers = backing.prove(package, walker.walk, witnesses=self._witnesses)
        vouched = package.vouched_for(walker.walk.links)
        origin = origin_of(backing.counted, signers, index)
        return replace(vouched, published=release.published_at, origin=origin)

    def _verify(self, data: bytes, envelope: bytes | None, offline: bool) -> Verification:
        package = read_package(data, max_bytes=self._max_bytes)
        manifest, notes = package.manifest, []
        if not offline:
            try:
                with self._trusted.session() as updater:
                    self._sync(updater, manifest.id, manifest.publisher, manifest.version)
            except BackendUnavailable as error:
                notes.append(f"The marketplace was not reached; its last known metadata answered. {error.detail}")
        with self._trusted.exclusive():
            walker = self._trusted.walker()
            key_sets = self._key_sets(walker, manifest.publisher)
            index = walker.index(manifest.id)
            self._check_jobs(index)
            release = index.find(manifest.version)
            if release is None:
                raise VerificationFailed(
                    "release",
                    f"the marketplace never published {manifest.id} {manifest.version}.",
                    plugin=manifest.id,
                    fix="Publish it with `keelstone plugin publish`.",
                )
            walker.refuse_revoked(manifest.id, release.digest)
            log = walker.log_keys()
            follower = self._follower(log)
            proved = follower.proof(manifest.id, manifest.version)
            backing = backing_of(walker, key_sets, index, release, log, proved, follower.kept_entry)
            signers = backing.prove(package, walker.walk, envelope, self._witnesses)
        if index.deprecated is not None:
            notes.append(f"{manifest.id} is deprecated since {index.deprecated.at}: {index.deprecated.advice}")
        until = walker.walk.valid_until
        if until is not None and until.timestamp() < self._now():
            notes.append(
                f"The metadata here was valid until {until:%Y-%m-%d %H:%M} UTC: "
                "what was published or withdrawn since then is not known."
            )
        vouched = package.vouched_for(walker.walk.links)
        origin = origin_of(backing.counted, signers, index)
        verified = replace(vouched, published=release.published_at, origin=origin)
        return Verification(verified, tuple(notes))

    def _sync(self, updater: Updater, plugin: str, publisher: str, version: str) -> None:
        """Bring the cache up to date with what the chain of one release needs."""
        held = self._trusted.target(updater, target_path(publisher))
        self._trusted.target(updater, REVOCATIONS_TARGET)
        keys, body = (self._trusted.target(updater, path) for path in (KEYS_TARGET, index_path(plugin)))
        # What the marketplace never published is refused further on, at the link that says so.
        if body is not None and (index := read_index(body)).find(version) is not None:
            follower = self._follower(read_log_keys(keys or b""))
            follower.fetch_proof(plugin, version)
            for path in paths_of(index):
                self._trusted.target(updater, path)
            # The key sets of what was published elsewhere are in the log of there.
            if held is not None and index.mirrored is None:
                follower.fetch_entries(sorted({*places_of(held), *index.places(version)}))

    def _key_sets(self, walker: ChainWalker, publisher: str) -> Succession:
        """The namespace's key sets, which only grow: a list that lacks one that was seen here, or has another in its
        place, is refused whoever signed it. Call it with the cache locked."""
        found, seen = walker.key_sets(publisher), self._trusted.folder / "namespaces" / f"{publisher}.json"
        known = None
        # What cannot be read is as good as never seen: a disk that lost it must not stop everything for ever.
        with suppress(FileNotFoundError, KeelstoneError):
            known = read_succession(seen.read_bytes())
        if known is not None and not found.extends(known):
            raise VerificationFailed(
                "namespace",
                f"the marketplace shows other keys of {publisher} than it did before.",
                expected=f"key set v{known.newest.version}, sha256 {known.newest.digest[:16]}, or what follows it",
                found=f"key set v{found.newest.version}, sha256 {found.newest.digest[:16]}",
                fix="Keep the cache as it is, and tell the publisher and the marketplace's operator.",
            )
        if known is None or len(known.steps) < len(found.steps):
            write_durably(seen, found.to_bytes())
        return found

    def _check_jobs(self, index: Index) -> None:
        """A namespace's lists of CI jobs only grow, as its key sets do: who leaves one out that was seen here could let
        a job release that its publisher has removed. Raises VerificationFailed. Call it with the cache locked."""
        if not index.jobs or index.mirrored is not None:
            return  # no job has released it; or it shows the state of when it was taken over
        publisher = index.plugin.partition("/")[0]
        seen = self._trusted.folder / "namespaces" / f"{publisher}.jobs.json"
        found, known = [each.digest for each in read_lists(index.jobs, publisher)], list[str]()
        with suppress(FileNotFoundError, ValueError):
            known = list(json.loads(seen.read_bytes()))
        if found[: len(known)] != known:
            raise VerificationFailed(
                "job",
                f"the marketplace shows other lists of {publisher}'s jobs than it did before.",
                plugin=index.plugin,
                expected=f"{len(known)} lists, the last of sha256 {known[-1][:16]}, or what follows it",
                found=f"{len(found)} lists",
                fix="Keep the cache as it is, and tell the publisher and the marketplace's operator.",
            )
        if len(found) > len(known):
            write_durably(seen, json.dumps(found).encode())

    def _follower(self, keys: LogKeys) -> LogFollower:
        from marketplace.log.follow import LogFollower

        return LogFollower(self._transport, self._trusted.folder / "log", keys, self._witnesses, self._needed)

    def _read_index(self, updater: Updater, plugin: str) -> Index:
        body = self._trusted.target(updater, index_path(plugin))
        index = read_index(body) if body is not None else None
        if index is None or index.plugin != plugin:
            raise NotFound(
                f"There is no plugin {plugin} in the marketplace.",
                plugin=plugin,
                fix="See `keelstone marketplace search`.",
            )
        return index

    def _download(self, plugin: str, digest: str, size: int) -> bytes:
        if size > self._max_bytes:
            raise PackageTooLarge(
                "The package is larger than this platform takes.",
                plugin=plugin,
                expected=f"at most {self._max_bytes:,} bytes",
                found=f"{size:,} bytes",
            )
        try:
            return whole_package(self._transport.stream(f"packages/{digest}"), digest, size, plugin)
        except (NotFound, RegistryDamaged) as error:
            raise VerificationFailed("package", f"the marketplace lists it but does not have it: {error}") from error


def origin_of(counted: InForce, signers: Sequence[str], index: Index) -> ReleaseOrigin:
    """Whose release it is, as the platform compares it with what it runs."""
    since = None if counted.owned_since is None else datetime.fromisoformat(counted.owned_since)
    # Behind a CI job's key, which is new each time, are the keys of those who let it release.
    by, built = tuple(sorted(counted.behind or signers)), None if counted.run is None else counted.run.build
    source = None if counted.run is None else counted.run.source
    about = (by, counted.lineage, counted.owner, since, counted.recovered, source)
    return ReleaseOrigin(*about, domain=index.domain, build=built, repository=index.repository)
