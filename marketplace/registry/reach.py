"""What was revoked, and which platforms have said that they carried it out."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from kernel.errors import NotFound
from marketplace.registry.tables import reach, revocations
from plugin_sdk.services import Revocation

MAX_HOSTS = 100_000
"""Reports kept of one revocation; nobody is identified who sends one."""


@dataclass(frozen=True, slots=True)
class Reached:
    """One platform that has carried out a revocation, ``seconds`` after it was made; whether it had the release."""

    host: str
    installed: bool
    seconds: float


def all_revocations(connection: sa.Connection) -> tuple[Revocation, ...]:
    """Every revocation, oldest first."""
    rows = connection.execute(sa.select(revocations).order_by(revocations.c.number))
    return tuple(Revocation(row.digest, row.plugin, row.version, row.reason, row.at) for row in rows)


def revocation_of(connection: sa.Connection, digest: str) -> Revocation | None:
    """The revocation of a package, if there is one."""
    row = connection.execute(sa.select(revocations).where(revocations.c.digest == digest)).one_or_none()
    return None if row is None else Revocation(row.digest, row.plugin, row.version, row.reason, row.at)


def count_revocations(connection: sa.Connection) -> int:
    """How many releases are revoked: the list only grows."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(revocations)).scalar_one())


def note_reach(connection: sa.Connection, digest: str, told: Reached, now: float) -> None:
    """Keep a platform's first report. Raises NotFound if nothing with this digest is revoked."""
    if revocation_of(connection, digest) is None:
        raise NotFound("No release with this digest is revoked.", found=digest)
    known = sa.select(sa.func.count()).select_from(reach).where(reach.c.digest == digest)
    if connection.execute(known).scalar_one() >= MAX_HOSTS:
        return
    values = {
        "digest": digest,
        "host": told.host,
        "installed": told.installed,
        "seconds": told.seconds,
        "reported": now,
    }
    connection.execute(insert(reach).values(values).on_conflict_do_nothing())


def reached_by(connection: sa.Connection, digest: str) -> list[Reached]:
    """Who has carried out the revocation of a package, quickest first."""
    rows = connection.execute(sa.select(reach).where(reach.c.digest == digest).order_by(reach.c.seconds, reach.c.host))
    return [Reached(row.host, row.installed, row.seconds) for row in rows]
