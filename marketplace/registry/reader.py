"""The reading side of a registry: blocking, side-effect free, safe from several threads.

It does not need the service to run: ``keelstone plugin verify`` opens it on the embedded
marketplace's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kernel.errors import NotFound
from marketplace.errors import NamespaceUnknown
from marketplace.index import Index, Release
from marketplace.namespaces import KeySet
from marketplace.osv.index import WeaknessIndex
from marketplace.osv.severity import Severity
from marketplace.package import Package, read_package
from marketplace.registry.access import DeskAccess
from marketplace.registry.advisories import AdvisoryDesk
from marketplace.registry.blobs import DIGEST, FolderBlobs
from marketplace.registry.changes import find_receipt, load_index
from marketplace.registry.claims import refuse_mirrored
from marketplace.registry.domains import DomainDesk
from marketplace.registry.figures import FiguresDesk
from marketplace.registry.jobs import JobsDesk
from marketplace.registry.log import LogRows
from marketplace.registry.memory import KeySets, TakenNames
from marketplace.registry.metadata import MetadataRows, read_target
from marketplace.registry.parts import THRESHOLD, PartsDesk
from marketplace.registry.profiles import HookCost, hook_costs, newest_profile
from marketplace.registry.publishers import moments_of, succession_of
from marketplace.registry.ratings import RatingsDesk
from marketplace.registry.reach import RevocationDesk
from marketplace.registry.receipts import Receipt
from marketplace.registry.reviews import ReviewDesk
from marketplace.registry.search import Facets, SearchIndex, SqliteIndex
from marketplace.registry.shelf import Shelf
from marketplace.registry.state import RegistryState
from marketplace.registry.submissions import refused_by
from marketplace.registry.tables import FILE_NAME, Tables, ask, releases
from marketplace.registry.upstreams import UpstreamDesk
from marketplace.rules import Submission
from marketplace.succession import Succession
from marketplace.tuf_repository import read_metadata
from plugin_sdk.profile import HookProfile
from plugin_sdk.services import MarketplaceEntry, SearchFilters


class RegistryReader:
    """Reads one registry's folder."""

    def __init__(self, tables: Tables, blobs: FolderBlobs, threshold: Severity = THRESHOLD) -> None:
        self._tables, self._blobs = tables, blobs
        self._names, self._key_sets = TakenNames(tables), KeySets()
        self.revocations = RevocationDesk(tables)
        self.shelf, self.ratings, self.figures = Shelf(tables), RatingsDesk(tables), FiguresDesk(tables)
        self.access, self.state = DeskAccess(tables), RegistryState(tables)
        self.reviews = ReviewDesk(tables, blobs)
        self.parts = PartsDesk(tables, WeaknessIndex(tables.folder), threshold)
        self.advisories, self.domains = AdvisoryDesk(tables), DomainDesk(tables)
        self.jobs = JobsDesk(tables)
        self.upstreams = UpstreamDesk(tables, blobs)
        self.search_index: SearchIndex = SqliteIndex(tables)

    @classmethod
    def open(cls, folder: Path, threshold: Severity = THRESHOLD) -> RegistryReader | None:
        """A reader of the registry in ``folder``, or None if there is none. From ``threshold`` on a weakness of a part
        is grave."""
        if not (folder / FILE_NAME).exists():
            return None
        return cls(Tables(folder), FolderBlobs(folder / "packages"), threshold)

    def close(self) -> None:
        """Close the databases."""
        self.parts.index.close()
        self._tables.close()

    def metadata(self, name: str) -> bytes | None:
        """TUF metadata by its served name, e.g. ``timestamp.json`` or ``7.bins-3a2.json``."""
        with self._tables.read() as connection:
            return read_metadata(name, MetadataRows(connection, 0).read)

    def target(self, file: str) -> bytes | None:
        """A target document by its served name, ``plugins/acme/<sha256>.guard.json``."""
        with self._tables.read() as connection:
            return read_target(connection, file)

    def log_file(self, path: str) -> bytes:
        """What the transparency log serves under ``log/``, see ``LogRows.file``. Raises NotFound."""
        with self._tables.read() as connection:
            return LogRows(connection).file(path)

    def package_path(self, digest: str) -> Path | None:
        """The file of a published package: None unless a release names the digest."""
        if not DIGEST.match(digest):
            return None
        with self._tables.read() as connection:
            known = connection.execute(sa.select(releases.c.digest).where(releases.c.digest == digest)).scalar()
        path = self._blobs.path(digest)
        return path if known and path.exists() else None

    def search(self, query: str, limit: int = 20, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """The best entries for a query."""
        return self.search_index.search(query[:200], max(1, min(limit, 100)), filters)

    def facets(self, query: str, filters: SearchFilters | None = None) -> Facets:
        """What a query's best matches could be narrowed down to."""
        return self.search_index.facets(query[:200], filters)

    def index(self, plugin: str) -> Index:
        """All releases of a plugin. Raises NotFound."""
        with self._tables.read() as connection:
            found = load_index(connection, plugin)
        if not found.releases:
            raise NotFound(
                f"There is no plugin {plugin} in this marketplace.",
                plugin=plugin,
                fix="See `keelstone marketplace search`.",
            )
        return found

    def one_view(self) -> AbstractContextManager[None]:
        """Whatever this thread reads in the body is of one view."""
        return self._tables.one_view()

    def submission(self, package: Package) -> Submission:
        """A package beside what is published already, as the rules look at it."""
        manifest = package.manifest
        with self._tables.read() as connection:
            published = load_index(connection, manifest.id)
        history = published.readable(each for each in published.releases if each.version != manifest.version)

        def schema_of(version: str) -> Mapping[str, Any] | None:
            known = published.find(version)
            data = None if known is None else self._blobs.read(known.digest)
            return None if data is None else read_package(data, max_bytes=len(data)).settings_schema

        def profile_before() -> tuple[str, Mapping[str, HookProfile]] | None:
            with self._tables.read() as connection:
                return newest_profile(connection, published.before(manifest.version))

        return Submission(
            package,
            history,
            lambda: self._names.near(manifest.id),
            schema_of=schema_of,
            weak_parts=self.parts.of(package),
            profile_before=profile_before,
        )

    def findings(self, plugin: str, version: str) -> list[dict[str, Any]]:
        """What monitored rules found in a release when it was published."""
        with self._tables.read() as connection:
            key = (releases.c.plugin == plugin) & (releases.c.version == version)
            return list(connection.execute(sa.select(releases.c.findings).where(key)).scalar() or [])

    def costs(self, index: Index, release: Release) -> tuple[HookCost, ...]:
        """What a release's hooks needed when they were tried, beside the version before."""
        with self._tables.read() as connection:
            return hook_costs(connection, release.digest, index.before(release.version))

    def receipt(self, plugin: str, version: str, digest: str) -> Receipt | None:
        """The receipt of a release that is there already, or waits. Raises VersionTaken if it has other bytes."""
        with self._tables.read() as connection:
            return find_receipt(connection, plugin, version, digest)

    def refuse_mirrored(self, publisher: str) -> None:
        """Raise NamespaceMirrored if a namespace is an upstream's: nothing of it is changed from here."""
        with self._tables.read() as connection:
            refuse_mirrored(connection, publisher)

    def refused_by(self, digest: str) -> str | None:
        """The fingerprint of the rules by which a package was refused, if it was."""
        with self._tables.read() as connection:
            return refused_by(connection, digest)

    def key_set(self, publisher: str) -> KeySet:
        """The keys of a namespace. Raises NamespaceUnknown."""
        with self._tables.read() as connection:
            query = "SELECT document FROM namespaces WHERE publisher = ?"
            found = ask(connection, query, (publisher,))
        if not found:
            raise NamespaceUnknown(
                f"The namespace {publisher} is not registered in this marketplace.",
                found=publisher,
                fix="`keelstone plugin publish` registers it with your key.",
            )
        return self._key_sets.read(found[0][0])

    def key_sets(self, publisher: str) -> tuple[Succession, Mapping[int, str]]:
        """All key sets of a namespace, and when each came if there is more than one. Raises NamespaceUnknown."""
        with self._tables.read() as connection:
            return succession_of(connection, publisher), moments_of(connection, publisher)
