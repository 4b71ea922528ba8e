"""What the operator's pages show of a registry: what must be signed when, revocations, sizes, newest releases.
Reading only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from marketplace.registry.changes import load_index
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.tables import Tables, log_entries, reach, releases, revocations, tuf_metadata
from marketplace.tuf_repository import BIN_PREFIX
from plugin_sdk.differences import Change, differences
from plugin_sdk.services import Revocation


@dataclass(frozen=True, slots=True)
class RoleState:
    """One role of the signed metadata: its newest version, and when it must be signed again (epoch seconds)."""

    role: str
    version: int
    expires: float
    documents: int = 1


@dataclass(frozen=True, slots=True)
class RevokedReach:
    """A revocation and how far it has come; times in seconds."""

    revocation: Revocation
    platforms: int
    had_it: int
    slowest: float | None


@dataclass(frozen=True, slots=True)
class NewRelease:
    """A release as the operator looks at it. ``first``: the plugin has none before it."""

    plugin: str
    version: str
    published: str
    size: int
    first: bool
    changes: tuple[Change, ...]
    """What it may do more, or less, than the version before."""
    findings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry of the transparency log."""

    position: int
    kind: str
    subject: str
    version: str
    at: str


class RegistryState:
    """Reads over one registry's database. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def log_tail(self, count: int = 25) -> list[LogLine]:
        """The newest entries of the log, newest first."""
        from marketplace.log.entry import read_entry

        query = sa.select(log_entries).order_by(log_entries.c.position.desc()).limit(count)
        with self._tables.read() as connection:
            rows = connection.execute(query).all()
        return [LogLine(r.position, r.kind, r.subject, r.version, read_entry(r.body).at) for r in rows]

    def roles(self) -> list[RoleState]:
        """The signed metadata's roles, the one that expires first among a role's documents."""
        from tuf.api.metadata import Metadata

        query = sa.select(tuf_metadata.c.name, tuf_metadata.c.expires).where(tuf_metadata.c.superseded.is_(None))
        found: dict[str, RoleState] = {}
        with self._tables.read() as connection:
            for name, expires in connection.execute(query):
                stem = str(name).removesuffix(".json")
                if stem == "timestamp":  # the one that is served without its version
                    body = MetadataRows(connection, 0).read(name) or b""
                    stem = f"{Metadata.from_bytes(body).signed.version}.{stem}"
                number, _, rest = stem.partition(".")
                role, version = (rest, int(number)) if number.isdigit() else (stem, 0)
                role = "bins" if role.startswith(BIN_PREFIX) else role
                known = found.get(role)
                if role == "root" and known is not None and known.version > version:
                    continue  # superseded roots stay, for clients that follow the rotation
                count = 1 if known is None or role == "root" else known.documents + 1
                first = expires if known is None or role == "root" else min(expires, known.expires)
                found[role] = RoleState(role, max(version, known.version if known else 0), first, count)
        order = ("root", "targets", "bins", "snapshot", "timestamp")
        return sorted(found.values(), key=lambda s: order.index(s.role) if s.role in order else len(order))

    def revoked(self) -> list[RevokedReach]:
        """Every revocation, newest first, with how many platforms have carried it out."""
        told = (
            sa.select(
                reach.c.digest,
                sa.func.count().label("platforms"),
                sa.func.sum(sa.cast(reach.c.installed, sa.Integer)).label("had_it"),
                sa.func.max(reach.c.seconds).label("slowest"),
            )
            .group_by(reach.c.digest)
            .subquery()
        )
        query = (
            sa.select(revocations, told.c.platforms, told.c.had_it, told.c.slowest)
            .outerjoin(told, told.c.digest == revocations.c.digest)
            .order_by(revocations.c.number.desc())
        )
        with self._tables.read() as connection:
            return [
                RevokedReach(
                    Revocation(row.digest, row.plugin, row.version, row.reason, row.at),
                    row.platforms or 0,
                    row.had_it or 0,
                    row.slowest,
                )
                for row in connection.execute(query)
            ]

    def sizes(self) -> dict[str, int]:
        """Bytes of all packages, and of the database."""
        with self._tables.read() as connection:
            packages = connection.execute(sa.select(sa.func.coalesce(sa.func.sum(releases.c.size), 0))).scalar_one()
            pages, each = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
            )
        return {"packages": int(packages), "database": pages * each}

    def newest_releases(self, count: int = 50) -> list[NewRelease]:
        """The newest releases of all plugins, newest first, each beside the version before it."""
        query = sa.select(releases).order_by(releases.c.published.desc(), releases.c.plugin).limit(count)
        found = []
        with self._tables.read() as connection:
            for row in connection.execute(query).all():
                index = load_index(connection, row.plugin)
                manifests = index.readable(index.releases)
                at = next((n for n, each in enumerate(manifests) if each.version == row.version), None)
                before = manifests[at + 1] if at is not None and at + 1 < len(manifests) else None
                changes = tuple(differences(before, manifests[at])) if at is not None and before else ()
                shown = (row.plugin, row.version, row.published, row.size)
                first = index.releases[-1].version == row.version
                found.append(NewRelease(*shown, first, changes, tuple(row.findings or ())))
        return found

    def checkpoint(self) -> tuple[str, int, str, list[str]]:
        """The log's name, its size, the root of its tree, and whose signatures its newest checkpoint has."""
        with self._tables.read() as connection:
            found = LogRows(connection).checkpoint()
        signers = [each.name for each in found.note.signatures]
        return found.origin, found.size, found.root.hex(), signers
