"""TUF metadata and target documents as rows, inside one transaction of the registry."""

from __future__ import annotations

import hashlib
import re

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from marketplace.registry.tables import tuf_metadata, tuf_targets

KEEP_SECONDS = 86_400.0
"""How long superseded documents are still served, for clients under way (a day)."""

_TARGET_FILE = re.compile(r"^(?P<folder>.+/)(?P<hash>[0-9a-f]{64})\.(?P<name>[^/]+)$")


class MetadataRows:
    """A ``tuf_repository.MetadataTable`` over an open connection. ``now`` is in epoch seconds."""

    def __init__(self, connection: sa.Connection, now: float) -> None:
        self._connection, self._now = connection, now

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

    def write_target(self, path: str, body: bytes) -> None:
        """Make ``body`` the current document at ``path``."""
        digest = hashlib.sha256(body).hexdigest()
        old = (tuf_targets.c.path == path) & (tuf_targets.c.sha256 != digest) & tuf_targets.c.superseded.is_(None)
        self._connection.execute(sa.update(tuf_targets).where(old).values(superseded=self._now))
        values = {"path": path, "sha256": digest, "body": body, "superseded": None}
        self._connection.execute(
            insert(tuf_targets).values(values).on_conflict_do_update(index_elements=["path", "sha256"], set_=values)
        )

    def prune(self) -> int:
        """Delete what was superseded over a day ago; the number of rows."""
        count = 0
        for table in (tuf_metadata, tuf_targets):
            count += self._connection.execute(
                sa.delete(table).where(table.c.superseded < self._now - KEEP_SECONDS)
            ).rowcount
        return count


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
