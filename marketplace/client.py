"""The marketplace as the platform uses it: whatever comes back has been verified from the pinned root.

python-tuf's ``Updater`` keeps the cache current: one refresh an object, so each question makes one.
The chain is then walked over the cache (``marketplace.chain``), which gives the lines that people
read, and works the same with the cable unplugged.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from kernel.errors import BackendUnavailable, ManifestError, NotFound, ValidationFailed
from kernel.manifest import PluginManifest, check_plugin_id
from kernel.ports import Clock
from kernel.versions import parse_version
from marketplace.errors import PackageTooLarge, RegistryDamaged, VerificationFailed
from marketplace.filelock import locked
from marketplace.index import Index, entry_of, index_path, read_index
from marketplace.namespaces import target_path
from marketplace.package import DEFAULT_MAX_BYTES, read_package
from marketplace.transport import Transport
from plugin_sdk.services import MarketplaceEntry, PublishedRelease, VerifiedPackage

if TYPE_CHECKING:
    from tuf.ngclient import Updater

    from marketplace.chain import ChainWalker
    from marketplace.fetcher import TransportFetcher

_TAMPERED = "Somebody may be tampering with the connection or the marketplace. Install nothing; tell its operator."
_EXPIRED = "The marketplace must sign it anew: tell its operator, and check this machine's clock."
_ROLE = re.compile(r"\b(timestamp|snapshot|targets|root|bins-[0-9a-f]{3})\b")


@dataclass(frozen=True, slots=True)
class Verification:
    """A package's whole chain. ``notes`` say what limits it (metadata expired, marketplace not reached)."""

    package: VerifiedPackage
    notes: tuple[str, ...] = ()


class MarketplaceClient:
    """A ``plugin_sdk.services.Marketplace`` over any transport.

    ``cache`` is a folder of its own; several processes may share it (they take turns).
    ``trusted_root`` is the root metadata that the operator pinned. Blocking work runs in threads.
    """

    def __init__(
        self,
        transport: Transport,
        cache: Path,
        trusted_root: bytes,
        *,
        max_package_bytes: int = DEFAULT_MAX_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self._transport, self._root, self._max_bytes = transport, trusted_root, max_package_bytes
        self._now = clock.now if clock else time.time
        # A cache belongs to one root: after pinning another one, nothing old is taken for granted.
        self._cache = cache / hashlib.sha256(trusted_root).hexdigest()[:16]
        self._lock = threading.Lock()

    async def search(self, query: str, limit: int = 20) -> list[MarketplaceEntry]:
        """Entries for a query: the marketplace ranks, each entry is read from its verified index."""
        return await asyncio.to_thread(self._search, query, limit)

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
        return {r.version: PublishedRelease(r.digest, r.published_at) for r in index.installable()}

    async def index(self, plugin: str) -> Index:
        """All releases of a plugin, withdrawn ones included. Raises NotFound or VerificationFailed."""
        return await asyncio.to_thread(self._index, plugin)

    async def fetch(self, plugin: str, version: str) -> VerifiedPackage:
        """Download and verify one release. Raises NotFound, ReleaseYanked or VerificationFailed."""
        return await asyncio.to_thread(self._fetch, plugin, version)

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

    def _search(self, query: str, limit: int) -> list[MarketplaceEntry]:
        ids = self._transport.search(query, limit)
        entries = []
        with self._session() as updater:
            for plugin in ids:
                try:
                    entries.append(entry_of(self._read_index(updater, _checked_id(plugin))))
                except (NotFound, ManifestError, ValidationFailed):
                    continue  # the ranking is only a hint: what is not in the verified index is not there
        return entries

    def _index(self, plugin: str) -> Index:
        with self._session() as updater:
            return self._read_index(updater, _checked_id(plugin))

    def _fetch(self, plugin: str, version: str) -> VerifiedPackage:
        from marketplace.chain import prove_release, refuse_yanked

        publisher = _checked_id(plugin).partition("/")[0]
        parse_version(version)
        with self._session() as updater:
            self._read_index(updater, plugin)
            self._sync(updater, plugin, publisher)
            walker = self._walker()
            key_set, release = walker.key_set(publisher), walker.index(plugin).find(version)
        if release is None:
            raise NotFound(f"There is no release {plugin} {version}.", plugin=plugin, found=version)
        refuse_yanked(plugin, release)
        data = self._download(plugin, release.digest, release.size)
        package = read_package(data, max_bytes=self._max_bytes)
        prove_release(key_set, release, package, None, walker.walk)
        return replace(package.vouched_for(walker.walk.links), published=release.published_at)

    def _verify(self, data: bytes, envelope: bytes | None, offline: bool) -> Verification:
        from marketplace.chain import prove_release

        package = read_package(data, max_bytes=self._max_bytes)
        manifest, notes = package.manifest, []
        if not offline:
            try:
                with self._session() as updater:
                    self._sync(updater, manifest.id, manifest.publisher)
            except BackendUnavailable as error:
                notes.append(f"The marketplace was not reached; its last known metadata answered. {error.detail}")
        with self._exclusive():
            walker = self._walker()
            key_set = walker.key_set(manifest.publisher)
            index = walker.index(manifest.id)
        release = index.find(manifest.version)
        if release is None:
            raise VerificationFailed(
                "release",
                f"the marketplace never published {manifest.id} {manifest.version}.",
                plugin=manifest.id,
                fix="Publish it with `keelstone plugin publish`.",
            )
        prove_release(key_set, release, package, envelope, walker.walk)
        if index.deprecated is not None:
            notes.append(f"{manifest.id} is deprecated since {index.deprecated.at}: {index.deprecated.advice}")
        until = walker.walk.valid_until
        if until is not None and until.timestamp() < self._now():
            notes.append(
                f"The metadata here was valid until {until:%Y-%m-%d %H:%M} UTC: "
                "what was published or withdrawn since then is not known."
            )
        return Verification(package.vouched_for(walker.walk.links), tuple(notes))

    def _sync(self, updater: Updater, plugin: str, publisher: str) -> None:
        """Bring the cache up to date with what the chain of one plugin needs."""
        for path in (target_path(publisher), index_path(plugin)):
            self._target(updater, path)

    def _walker(self) -> ChainWalker:
        """The chain so far, from the cache; call it with the cache locked."""
        from marketplace.chain import ChainWalker

        def read(path: Path) -> bytes | None:
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

        return ChainWalker(
            self._root,
            lambda name: read(self._cache / "metadata" / name),
            lambda path: read(self._cache / "targets" / quote(path, "")),
        )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One user of the cache at a time, in this process and among processes."""
        self._cache.mkdir(parents=True, exist_ok=True)
        with self._lock, locked(self._cache / "lock"):
            yield

    @contextmanager
    def _session(self) -> Iterator[Updater]:
        """A refreshed updater, alone on the cache. TUF's refusals become VerificationFailed."""
        from tuf.ngclient import Updater

        from marketplace.fetcher import TransportFetcher

        fetcher = TransportFetcher(self._transport)
        with self._exclusive(), _translated(fetcher):
            for name in ("metadata", "targets"):
                (self._cache / name).mkdir(exist_ok=True)
            updater = Updater(
                metadata_dir=str(self._cache / "metadata"),
                metadata_base_url="metadata/",
                target_dir=str(self._cache / "targets"),
                target_base_url="targets/",
                fetcher=fetcher,
                bootstrap=self._root,
            )
            updater.refresh()
            yield updater

    def _target(self, updater: Updater, path: str) -> bytes | None:
        from tuf.api.exceptions import DownloadLengthMismatchError, LengthOrHashMismatchError

        info = updater.get_targetinfo(path)
        if info is None:
            return None
        try:
            return Path(updater.find_cached_target(info) or updater.download_target(info)).read_bytes()
        except (LengthOrHashMismatchError, DownloadLengthMismatchError) as error:
            link = "namespace" if path.startswith("namespaces/") else "release"
            raise VerificationFailed(
                link, f"{path} is not the document that its bin lists: {error}.", file=path
            ) from error

    def _read_index(self, updater: Updater, plugin: str) -> Index:
        body = self._target(updater, index_path(plugin))
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
        data = bytearray()
        try:
            for chunk in self._transport.stream(f"packages/{digest}"):
                data += chunk
                if len(data) > size:
                    raise VerificationFailed("package", "more bytes come than were published.", plugin=plugin)
        except (NotFound, RegistryDamaged) as error:
            raise VerificationFailed("package", f"the marketplace lists it but does not have it: {error}") from error
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise VerificationFailed(
                "package",
                "the bytes are not those that were published.",
                plugin=plugin,
                expected=f"sha256 {digest}",
                found=f"sha256 {found}, {len(data):,} bytes",
                fix="Try again; if it stays so, tell the marketplace's operator.",
            )
        return bytes(data)


@contextmanager
def _translated(fetcher: TransportFetcher) -> Iterator[None]:
    """python-tuf's errors as ours. The link that broke is the role named in the message, or fetched last."""
    from tuf.api.exceptions import (
        DownloadError,
        DownloadLengthMismatchError,
        ExpiredMetadataError,
        RepositoryError,
    )

    try:
        yield
    except DownloadLengthMismatchError as error:
        problem = f"more comes than any metadata has: {error}."
        raise VerificationFailed(_link(fetcher.last) or "metadata", problem, fix=_TAMPERED) from error
    except DownloadError as error:
        cause = error.__cause__
        if isinstance(cause, BackendUnavailable):
            raise cause from error
        raise BackendUnavailable(f"The marketplace's metadata could not be fetched: {error}.") from error
    except RepositoryError as error:
        link = _link(str(error)) or _link(fetcher.last) or "metadata"
        fix = _EXPIRED if isinstance(error, ExpiredMetadataError) else _TAMPERED
        raise VerificationFailed(link, f"{str(error).rstrip('.')}.", fix=fix) from error


def _link(text: str) -> str | None:
    match = _ROLE.search(text)
    return match.group(1) if match else None


def _checked_id(plugin: str) -> str:
    try:
        return check_plugin_id(plugin)
    except ValueError as error:
        raise ValidationFailed(str(error), found=plugin) from error
