"""What was revoked, and which platforms have said that they carried it out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from kernel.errors import NotFound
from marketplace.registry.tables import Tables, reach, revocations
from marketplace.revocations import check_report
from plugin_sdk.services import Revocation

LOOK_SECONDS = 0.25
"""How often those who wait for revocations look, all together."""
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
    return tuple(_revocation(row) for row in connection.execute(sa.select(revocations).order_by(revocations.c.number)))


def revocation_of(connection: sa.Connection, digest: str) -> Revocation | None:
    """The revocation of a package, if there is one."""
    row = connection.execute(sa.select(revocations).where(revocations.c.digest == digest)).one_or_none()
    return None if row is None else _revocation(row)


def _revocation(row: Any) -> Revocation:
    return Revocation(row.digest, row.plugin, row.version, row.reason, row.at)


class RevocationDesk:
    """What platforms ask and tell of revocations, over one registry's database. Safe from several threads, but for
    :meth:`wait`, which is for one event loop."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._looking, self._looked, self._known = asyncio.Lock(), -LOOK_SECONDS, 0

    def all(self) -> tuple[Revocation, ...]:
        """Every revoked release, oldest first."""
        with self._tables.read() as connection:
            return all_revocations(connection)

    def count(self) -> int:
        """How many releases are revoked: the list only grows."""
        with self._tables.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(revocations)).scalar_one())

    async def wait(self, known: int, seconds: float) -> int:
        """How many releases are revoked, as soon as they are more than ``known``, or after ``seconds``."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        # Another process may revoke, so there is nobody here who could tell.
        while (found := await self._lately(loop.time())) <= known and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(min(LOOK_SECONDS, max(end - loop.time(), 0.0)))
        return found

    async def _lately(self, now: float) -> int:
        """The count of a moment ago: however many wait, one of them asks the database."""
        async with self._looking:
            if now - self._looked >= LOOK_SECONDS:
                self._known = await asyncio.to_thread(self.count)
                self._looked = now
            return self._known

    def note(self, digest: str, told: Reached) -> None:
        """Keep a platform's first report of having carried out a revocation.

        Raises ValidationFailed, and NotFound if nothing with this digest is revoked.
        """
        check_report(told.host, told.seconds)
        with self._tables.write() as connection:
            _find(connection, digest)
            known = sa.select(sa.func.count()).select_from(reach).where(reach.c.digest == digest)
            if connection.execute(known).scalar_one() < MAX_HOSTS:
                values = {"digest": digest, **asdict(told), "reported": time.time()}
                connection.execute(insert(reach).values(values).on_conflict_do_nothing())

    def reach(self, digest: str) -> tuple[Revocation, list[Reached]]:
        """The revocation of a package, and who has carried it out, quickest first. Raises NotFound."""
        with self._tables.read() as connection:
            told = sa.select(reach).where(reach.c.digest == digest).order_by(reach.c.seconds, reach.c.host)
            rows = connection.execute(told).all()
            return _find(connection, digest), [Reached(row.host, row.installed, row.seconds) for row in rows]


def _find(connection: sa.Connection, digest: str) -> Revocation:
    found = revocation_of(connection, digest)
    if found is None:
        raise NotFound("No release with this digest is revoked.", found=digest)
    return found
