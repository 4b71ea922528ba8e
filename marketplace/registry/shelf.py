"""What the storefront's pages show besides the catalogue: downloads by day, log entries, expiries, totals, and the
chain of trust as the registry itself would prove it. Reading only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

import sqlalchemy as sa

from kernel.errors import KeelstoneError
from marketplace.log.entry import Entry
from marketplace.mirror.evidence import backing_of
from marketplace.package import Package
from marketplace.registry.changes import load_index
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows, current_target
from marketplace.registry.search.catalogue import words_of
from marketplace.registry.search.spelling import corrected
from marketplace.registry.tables import (
    Tables,
    downloads,
    log_entries,
    namespaces,
    plugins,
    releases,
    revocations,
)
from marketplace.tuf_repository import read_metadata


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is."""

    plugins: int
    releases: int
    publishers: int
    log_entries: int
    revoked: int


@dataclass(frozen=True, slots=True)
class Walked:
    """The links of a release's chain, in order; ``broken`` says at which it breaks, if it does."""

    links: tuple[str, ...]
    broken: str | None = None


class Shelf:
    """Reads for pages, over one registry's database. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def suggestion(self, query: str) -> str | None:
        """The query with its words corrected, if no plugin has them as they are: what search then looks for."""
        words = words_of(query)[:8]
        if not words:
            return None
        wanted = " AND ".join([*(f'"{word}"' for word in words[:-1]), f'"{words[-1]}"*'])
        with self._tables.read() as connection:
            there = "SELECT 1 FROM plugin_text WHERE plugin_text MATCH ? LIMIT 1"
            if connection.exec_driver_sql(there, (wanted,)).first() is not None:
                return None
            right = [corrected(connection, word) for word in words]
        return " ".join(right) if right != words else None

    def downloads(self, wanted: Sequence[str], today: date, days: int = 90) -> list[int]:
        """Downloads of some plugins together, by day, oldest first; the last is today's."""
        first = today - timedelta(days=days - 1)
        counted = (
            sa.select(downloads.c.day, sa.func.sum(downloads.c.count))
            .where(downloads.c.plugin.in_(wanted), downloads.c.day >= first.isoformat())
            .group_by(downloads.c.day)
        )
        with self._tables.read() as connection:
            found = {day: int(count) for day, count in connection.execute(counted)}
        return [found.get((first + timedelta(days=each)).isoformat(), 0) for each in range(days)]

    def lately(self, wanted: Sequence[str]) -> dict[str, int]:
        """Downloads of the last 90 days of each plugin."""
        query = sa.select(downloads.c.plugin, sa.func.sum(downloads.c.count)).where(downloads.c.plugin.in_(wanted))
        with self._tables.read() as connection:
            return {plugin: int(count) for plugin, count in connection.execute(query.group_by(downloads.c.plugin))}

    def log_indexes(self, plugin: str) -> dict[tuple[str, str], int]:
        """Where the log has what happened to a plugin, by kind and version."""
        query = sa.select(log_entries).where(log_entries.c.subject == plugin).order_by(log_entries.c.position)
        with self._tables.read() as connection:
            return {(row.kind, row.version): row.position for row in connection.execute(query)}

    def released(self, wanted: Sequence[str]) -> dict[str, str]:
        """When each plugin's newest release was published (ISO 8601, UTC)."""
        query = sa.select(plugins.c.plugin, plugins.c.released).where(plugins.c.plugin.in_(wanted))
        with self._tables.read() as connection:
            return {row.plugin: row.released for row in connection.execute(query) if row.released}

    def registered(self, publisher: str) -> str | None:
        """When a namespace was registered (ISO 8601, UTC)."""
        query = sa.select(namespaces.c.registered).where(namespaces.c.publisher == publisher)
        with self._tables.read() as connection:
            return connection.execute(query).scalar()

    def publishers(self, most: int = 300) -> list[tuple[str, int]]:
        """Who has something to install, with how many plugins; those with most first."""
        name = sa.func.substr(plugins.c.plugin, 1, sa.func.instr(plugins.c.plugin, "/") - 1)
        number = sa.func.count()
        query = sa.select(name, number).where(plugins.c.slot.is_not(None)).group_by(name)
        with self._tables.read() as connection:
            found = connection.execute(query.order_by(number.desc(), name).limit(most))
            return [(str(publisher), int(count)) for publisher, count in found]

    def fetched(self) -> int:
        """Downloads of all plugins in the last 90 days. Adds up all days of all plugins: a second for very many."""
        with self._tables.read() as connection:
            return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(downloads.c.count), 0))).scalar_one())

    def totals(self) -> Totals:
        """How much there is."""

        def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
            query = sa.select(sa.func.count()).select_from(table).where(*where)
            return int(connection.execute(query).scalar_one())

        with self._tables.read() as connection:
            logged = connection.execute(sa.select(sa.func.max(log_entries.c.position))).scalar()
            return Totals(
                count(plugins, plugins.c.slot.is_not(None)),
                count(releases),
                count(namespaces),
                0 if logged is None else int(logged) + 1,
                count(revocations),
            )

    def walk(self, plugin: str, version: str, package: Package) -> Walked:
        """The chain from this registry's root to a package, checked as ``keelstone plugin verify`` checks it."""
        from marketplace.chain import ChainWalker

        with self._tables.read() as connection:
            rows = MetadataRows(connection, 0)
            current = _Current(rows)

            links: list[str] = []
            try:
                walker = ChainWalker(rows.read("1.root.json") or b"", current.read, partial(current_target, connection))
                links = walker.walk.links
                key_sets = walker.key_sets(package.manifest.publisher)
                index = walker.index(plugin)
                release = index.find(version) or load_index(connection, plugin).find(version)
                assert release is not None
                log = LogRows(connection)
                keys, proof = walker.log_keys(), log.proof("publish", plugin, version)

                def entry(index: int) -> Entry:
                    found = log.proof_of(index)
                    found.verify(keys.present)
                    return found.entry

                proved = proof, proof.verify(keys.present)
                backing_of(walker, key_sets, index, release, keys, proved, entry).prove(package, walker.walk)
            except KeelstoneError as error:
                return Walked(tuple(links), error.detail)
            return Walked(tuple(links))


class _Current:
    """The newest metadata by its plain name, as a client that has just refreshed would have it."""

    def __init__(self, rows: MetadataRows) -> None:
        self._rows = rows
        self._versions: dict[str, int] = {}

    def read(self, name: str) -> bytes | None:
        """``timestamp.json``, ``snapshot.json``, ``root_history/2.root.json`` ..."""
        from tuf.api.metadata import Metadata, Snapshot, Timestamp

        if name.startswith("root_history/"):
            return self._rows.read(name.removeprefix("root_history/"))
        known = self._versions.get(name)
        body = read_metadata(name if known is None else f"{known}.{name}", self._rows.read)
        if body is not None and name == "timestamp.json":
            self._versions["snapshot.json"] = Metadata[Timestamp].from_bytes(body).signed.snapshot_meta.version
        if body is not None and name == "snapshot.json":
            meta = Metadata[Snapshot].from_bytes(body).signed.meta
            self._versions |= {each: found.version for each, found in meta.items()}
        return body
