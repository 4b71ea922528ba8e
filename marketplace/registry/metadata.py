"""TUF metadata and target documents as rows, inside one transaction of the registry."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from marketplace.registry.tables import in_parts, tuf_metadata, tuf_targets

KEEP_SECONDS = 86_400.0
"""How long superseded documents are still served, for clients under way (a day)."""

_TARGET_FILE = re.compile(r"^(?P<folder>.+/)(?P<hash>[0-9a-f]{64})\.(?P<name>[^/]+)$")


class MetadataRows:
    """A ``tuf_repository.MetadataTable`` over an open connection. ``now`` is in epoch seconds."""

    def __init__(self, connection: sa.Connection, now: float) -> None:
        self._connection, self._now = connection, now

    @property
    def connection(self) -> sa.Connection:
        """What it is over, for what else is in the transaction."""
        return self._connection

    @property
    def now(self) -> float:
        """The transaction's moment, in epoch seconds."""
        return self._now

    def read(self, name: str) -> bytes | None:
        """The stored metadata of that name."""
        row: bytes | None = self._connection.execute(
            sa.select(tuf_metadata.c.body).where(tuf_metadata.c.name == name)
        ).scalar()
        return row

    def write(self, name: str, body: bytes, expires: float) -> None:
        """Add or replace metadata."""
        values = {"name": name, "body": body, "expires": expires, "superseded": None}
        self._connection.execute(
            insert(tuf_metadata).values(values).on_conflict_do_update(index_elements=["name"], set_=values)
        )

    def supersede(self, name: str) -> None:
        """Mark metadata as no longer current."""
        self._connection.execute(
            sa.update(tuf_metadata).where(tuf_metadata.c.name == name).values(superseded=self._now)
        )

    def expiring(self, before: float) -> list[str]:
        """Current metadata that expires before a moment."""
        current = tuf_metadata.c.superseded.is_(None) & (tuf_metadata.c.expires < before)
        return list(self._connection.execute(sa.select(tuf_metadata.c.name).where(current)).scalars())

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Those of ``names`` that there are."""
        found: dict[str, bytes] = {}
        for some, marks in in_parts(names):
            query = f"SELECT name, body FROM tuf_metadata WHERE name IN ({marks})"  # noqa: S608 - question marks only
            found |= {row.name: row.body for row in self._connection.exec_driver_sql(query, some)}
        return found

    def write_many(self, written: Mapping[str, bytes], expires: float, superseding: Sequence[str]) -> None:
        """Add what is new, and supersede what it takes the place of."""
        if not written:
            return
        self._connection.exec_driver_sql(
            "INSERT INTO tuf_metadata(name, body, expires) VALUES (?, ?, ?)",
            [(name, body, expires) for name, body in written.items()],
        )
        self._connection.exec_driver_sql(
            "UPDATE tuf_metadata SET superseded = ? WHERE name = ?", [(self._now, name) for name in superseding]
        )

    def write_targets(self, changed: Mapping[str, bytes]) -> None:
        """Make each document the current one at its path."""
        if not changed:
            return
        rows = [(path, hashlib.sha256(body).hexdigest(), body) for path, body in changed.items()]
        self._connection.exec_driver_sql(
            "UPDATE tuf_targets SET superseded = ? WHERE path = ? AND sha256 != ? AND superseded IS NULL",
            [(self._now, path, digest) for path, digest, _ in rows],
        )
        self._connection.exec_driver_sql(
            "INSERT INTO tuf_targets(path, sha256, body) VALUES (?, ?, ?) "
            "ON CONFLICT(path, sha256) DO UPDATE SET body = excluded.body, superseded = NULL",
            rows,
        )

    def prune(self) -> int:
        """Delete what was superseded over a day ago; the number of rows."""
        count = 0
        for table in (tuf_metadata, tuf_targets):
            count += self._connection.execute(
                sa.delete(table).where(table.c.superseded < self._now - KEEP_SECONDS)
            ).rowcount
        return count


def current_target(connection: sa.Connection, path: str) -> bytes | None:
    """The target document that is at ``path`` now."""
    current = (tuf_targets.c.path == path) & tuf_targets.c.superseded.is_(None)
    body: bytes | None = connection.execute(sa.select(tuf_targets.c.body).where(current)).scalar()
    return body


def read_target(connection: sa.Connection, file: str) -> bytes | None:
    """The target document served as ``<folder>/<sha256>.<name>`` (TUF's consistent snapshots)."""
    match = _TARGET_FILE.match(file)
    if match is None:
        return None
    body: bytes | None = connection.execute(
        sa.select(tuf_targets.c.body).where(
            tuf_targets.c.path == match["folder"] + match["name"], tuf_targets.c.sha256 == match["hash"]
        )
    ).scalar()
    return body
