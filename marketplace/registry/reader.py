"""The reading side of a registry: blocking, side-effect free, safe from several threads.

It does not need the service to run: ``keelstone plugin verify`` opens it on the embedded
marketplace's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kernel.errors import NotFound
from marketplace.errors import NamespaceUnknown
from marketplace.index import Index
from marketplace.namespaces import KeySet, read_key_set
from marketplace.package import Package
from marketplace.registry.blobs import DIGEST, FolderBlobs
from marketplace.registry.changes import find_receipt, load_index
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows, read_target
from marketplace.registry.reach import RevocationDesk
from marketplace.registry.receipts import Receipt
from marketplace.registry.search import Facets, count_facets, search
from marketplace.registry.tables import FILE_NAME, Tables, namespaces, plugins, releases
from marketplace.rules import Submission
from marketplace.tuf_repository import read_metadata
from plugin_sdk.services import MarketplaceEntry, SearchFilters


class RegistryReader:
    """Reads one registry's folder."""

    def __init__(self, tables: Tables, blobs: FolderBlobs) -> None:
        self._tables, self._blobs = tables, blobs
        self.revocations = RevocationDesk(tables)

    @classmethod
    def open(cls, folder: Path) -> RegistryReader | None:
        """A reader of the registry in ``folder``, or None if there is none."""
        if not (folder / FILE_NAME).exists():
            return None
        return cls(Tables(folder), FolderBlobs(folder / "packages"))

    def close(self) -> None:
        """Close the database."""
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
        with self._tables.read() as connection:
            return search(connection, query[:200], max(1, min(limit, 100)), filters)

    def facets(self, query: str, filters: SearchFilters | None = None) -> Facets:
        """What a query's best matches could be narrowed down to."""
        with self._tables.read() as connection:
            return count_facets(connection, query[:200], filters)

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

    def submission(self, package: Package) -> Submission:
        """A package beside what is published already, as the rules look at it."""
        manifest = package.manifest
        with self._tables.read() as connection:
            published = load_index(connection, manifest.id)
        history = published.readable(each for each in published.releases if each.version != manifest.version)
        return Submission(package, history, lambda: self._others(manifest.publisher))

    def _others(self, publisher: str) -> list[str]:
        with self._tables.read() as connection:
            query = sa.select(plugins.c.plugin).where(~plugins.c.plugin.startswith(f"{publisher}/", autoescape=True))
            return list(connection.execute(query).scalars())

    def findings(self, plugin: str, version: str) -> list[dict[str, Any]]:
        """What monitored rules found in a release when it was published."""
        with self._tables.read() as connection:
            key = (releases.c.plugin == plugin) & (releases.c.version == version)
            return list(connection.execute(sa.select(releases.c.findings).where(key)).scalar() or [])

    def receipt(self, plugin: str, version: str, digest: str) -> Receipt | None:
        """The receipt of a release that is there already. Raises VersionTaken if it has other bytes."""
        with self._tables.read() as connection:
            return find_receipt(connection, plugin, version, digest)

    def key_set(self, publisher: str) -> KeySet:
        """The keys of a namespace. Raises NamespaceUnknown."""
        with self._tables.read() as connection:
            document = connection.execute(
                sa.select(namespaces.c.document).where(namespaces.c.publisher == publisher)
            ).scalar()
        if document is None:
            raise NamespaceUnknown(
                f"The namespace {publisher} is not registered in this marketplace.",
                found=publisher,
                fix="`keelstone plugin publish` registers it with your key.",
            )
        return read_key_set(document)
