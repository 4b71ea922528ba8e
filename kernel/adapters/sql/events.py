"""The event store (``kernel.ports.EventStore``), with group commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Select, or_, select, text
from sqlalchemy.exc import StatementError

from kernel.adapters.sql.log import Append
from kernel.adapters.sql.schema import events as table
from kernel.adapters.sql.transactions import event_metadata, translate
from kernel.context import current_context
from kernel.errors import BackendUnavailable, ConcurrencyConflict
from kernel.events import GENESIS_HASH, Event, NewEvent, event_hash
from kernel.ports import ALL_TENANTS

if TYPE_CHECKING:
    from kernel.adapters.sql.database import SqlDatabase

GROUP_EVENTS = 2_000
"""Most events committed as one group."""

_PG_COMMITTED = text(
    "SELECT * FROM keelstone_events WHERE (xid, position) > (:xid, :position)"
    " AND xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint ORDER BY xid, position LIMIT :limit"
).columns(*table.c)


@dataclass(slots=True)
class _Waiting:
    append: Append
    future: asyncio.Future[list[Event]]


class SqlEventStore:
    """The append-only log in the relational database."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._queue: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def append(
        self, tenant: str, stream: str, events: Sequence[NewEvent], *, expected_version: int | None = None
    ) -> list[Event]:
        """Append outside any transaction; concurrent calls are committed as one group.

        Raises ConcurrencyConflict, ValidationFailed or BackendUnavailable; another caller's error is
        never this caller's.
        """
        if not events:
            return []
        self._database.check_events(stream, events)
        append = Append.prepare(
            tenant, stream, events, expected_version, event_metadata(current_context(), len(events))
        )
        waiting = _Waiting(append, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._writer is None:
            self._writer = asyncio.create_task(self._drain(), name="keelstone-group-commit")
        return await waiting.future

    async def close(self) -> None:
        """Wait until what is queued has been written."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    # ------------------------------------------------------------------ group commit

    async def _drain(self) -> None:
        try:
            while self._queue:
                await self._commit_group(self._take())
        finally:
            self._writer = None

    def _take(self) -> list[_Waiting]:
        size, end = 0, 0
        for waiting in self._queue:
            size += len(waiting.append.events)
            end += 1
            if size >= GROUP_EVENTS:
                break
        group, self._queue = self._queue[:end], self._queue[end:]
        return group

    async def _commit_group(self, group: list[_Waiting]) -> None:
        try:
            async with self._database.write(ALL_TENANTS) as transaction:
                outcomes = await self._database.log.append(transaction.connection, [w.append for w in group])
                transaction.after_commit(self._database.events_committed)
        except asyncio.CancelledError:
            for waiting in group:
                waiting.future.cancel()
            raise
        except Exception as error:
            cause = translate(error, ALL_TENANTS) if isinstance(error, StatementError) else error
            if len(group) == 1 or isinstance(cause, BackendUnavailable):
                for waiting in group:
                    _fail(waiting, cause)
                return
            # An event's id is taken, another process won a stream, ...: find out whose it is, one by one.
            for waiting in group:
                await self._commit_group([waiting])
        else:
            for waiting, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, ConcurrencyConflict):
                    _fail(waiting, outcome)
                elif not waiting.future.done():
                    waiting.future.set_result(outcome)

    # ------------------------------------------------------------------ reading

    async def read_stream(self, tenant: str, stream: str, *, after: int = 0, limit: int = 500) -> list[Event]:
        """Events of one stream with a version above ``after``, in order."""
        query = select(table).where(table.c.stream == stream, table.c.version > after)
        return await self._read(tenant, query.order_by(table.c.version).limit(limit))

    async def read_tenant(
        self, tenant: str, *, after: int = 0, limit: int = 100, types: Sequence[str] = (), newest_first: bool = False
    ) -> list[Event]:
        """Events of one tenant in order of position.

        With ``newest_first`` ``after`` is the position below which to go on (0: from the newest).
        """
        query = select(table)
        if newest_first:
            query = query.order_by(table.c.position.desc())
            if after:
                query = query.where(table.c.position < after)
        else:
            query = query.order_by(table.c.position).where(table.c.position > after)
        if types and "*" not in types:
            query = query.where(
                or_(
                    *(
                        table.c.type.startswith(name[:-1], autoescape=True)
                        if name.endswith(".*")
                        else table.c.type == name
                        for name in types
                    )
                )
            )
        return await self._read(tenant, query.limit(limit))

    async def read_committed(
        self, *, after: tuple[int, int] = (0, 0), limit: int = 500
    ) -> tuple[list[Event], tuple[int, int]]:
        """Events of all tenants after a cursor (transaction id, position); see :mod:`kernel.adapters.sql.log`."""
        async with self._database.read(ALL_TENANTS) as transaction:
            if self._database.dialect == "postgresql":
                values = {"xid": after[0], "position": after[1], "limit": limit}
                rows = (await transaction.execute(_PG_COMMITTED, values)).all()
            else:
                query = select(table).where(table.c.position > after[1]).order_by(table.c.position).limit(limit)
                rows = (await transaction.execute(query)).all()
        cursor = (int(rows[-1].xid), int(rows[-1].position)) if rows else after
        return [to_event(row) for row in rows], cursor

    async def verify_stream(self, tenant: str, stream: str) -> Event | None:
        """The first event whose hash or link is wrong, or None if the chain is whole."""
        previous, version = GENESIS_HASH, 0
        while True:
            async with self._database.read(tenant) as transaction:
                query = select(table).where(table.c.stream == stream, table.c.version > version)
                rows = (await transaction.execute(query.order_by(table.c.version).limit(500))).all()
            for row in rows:
                digest = event_hash(
                    previous, tenant, stream, version + 1, row.id, row.type, row.data.encode(), row.metadata.encode()
                )
                if row.version != version + 1 or row.prev_hash != previous or row.hash != digest:
                    return to_event(row)
                previous, version = row.hash, row.version
            if len(rows) < 500:
                return None

    async def _read(self, scope: str, query: Select[Any]) -> list[Event]:
        async with self._database.read(scope) as transaction:
            return [to_event(row) for row in await transaction.execute(query)]


def to_event(row: Any) -> Event:
    """The event in a row of ``keelstone_events``."""
    return Event(
        id=row.id,
        type=row.type,
        tenant=row.tenant_id,
        stream=row.stream,
        version=row.version,
        position=row.position,
        time=row.time,
        data=orjson.loads(row.data),
        metadata=orjson.loads(row.metadata),
        prev_hash=row.prev_hash,
        hash=row.hash,
    )


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
