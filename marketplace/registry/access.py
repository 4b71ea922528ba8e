"""Who may see the operator's pages: whoever was handed a link by the command line, which needs the data folder.

A link is used once, within minutes, and becomes a session of some hours. Only digests of both are stored.
"""

from __future__ import annotations

import hashlib
import secrets

import sqlalchemy as sa

from marketplace.registry.tables import Tables, schema

LINK_SECONDS = 600.0
SESSION_SECONDS = 8 * 3_600.0

desk_access = sa.Table(
    "desk_access",
    schema,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)


class DeskAccess:
    """Links and sessions, over one registry's database. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def make_link(self, now: float) -> str:
        """A secret that :meth:`enter` takes once. ``now`` in epoch seconds, as everywhere here."""
        return self._add("link", now + LINK_SECONDS, now)

    def enter(self, link: str, now: float) -> str | None:
        """A session in exchange for a link; None if it is no link, was used, or is too old."""
        with self._tables.write() as connection:
            used = sa.delete(desk_access).where(_is(link, "link"), desk_access.c.expires > now)
            if not connection.execute(used).rowcount:
                return None
        return self._add("session", now + SESSION_SECONDS, now)

    def holds(self, session: str, now: float) -> bool:
        """Whether a session is good."""
        query = sa.select(desk_access.c.digest).where(_is(session, "session"), desk_access.c.expires > now)
        with self._tables.read() as connection:
            return connection.execute(query).first() is not None

    def leave(self, session: str) -> None:
        """End a session."""
        with self._tables.write() as connection:
            connection.execute(sa.delete(desk_access).where(_is(session, "session")))

    def _add(self, kind: str, expires: float, now: float) -> str:
        secret = secrets.token_urlsafe(32)
        with self._tables.write() as connection:
            connection.execute(sa.delete(desk_access).where(desk_access.c.expires < now))
            connection.execute(sa.insert(desk_access).values(digest=_digest(secret), kind=kind, expires=expires))
        return secret


def _is(secret: str, kind: str) -> sa.ColumnElement[bool]:
    return (desk_access.c.digest == _digest(secret)) & (desk_access.c.kind == kind)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
