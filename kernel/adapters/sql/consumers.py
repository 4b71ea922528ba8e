"""What consumers remember (``kernel.ports.ConsumerStore``): the ledger and the dead letters."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
from sqlalchemy import bindparam, delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from kernel.adapters.sql.schema import dead_letters, ledger
from kernel.errors import TenantMismatch
from kernel.events import Event, from_cloudevent, to_cloudevent
from kernel.ports import DeadLetter, Transaction

if TYPE_CHECKING:
    from kernel.adapters.sql.database import SqlDatabase

_STATE = select(
    exists().where(ledger.c.consumer == bindparam("b_consumer"), ledger.c.event_id == bindparam("b_event")).label("h"),
    exists()
    .where(dead_letters.c.consumer == bindparam("b_consumer"), dead_letters.c.stream == bindparam("b_stream"))
    .label("p"),
)


class SqlConsumerStore:
    """Ledger and dead letters in the relational database."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._insert: Any = postgresql.insert if database.dialect == "postgresql" else sqlite.insert

    async def state(self, consumer: str, event: Event) -> Literal["new", "handled", "parked"]:
        """Whether the consumer has handled the event, or its sequence is parked."""
        values = {"b_consumer": consumer, "b_event": event.id, "b_stream": event.stream}
        async with self._database.read(event.tenant) as transaction:
            row = (await transaction.execute(_STATE, values)).one()
        return "handled" if row.h else "parked" if row.p else "new"

    async def record(self, transaction: Transaction, consumer: str, event: Event) -> bool:
        """Note in the handler's own transaction that the event is handled; False if it already was."""
        _same_tenant(transaction, event)
        statement = self._insert(ledger).on_conflict_do_nothing()
        row = {"consumer": consumer, "event_id": event.id, "handled_at": datetime.now(UTC)}
        return int((await transaction.execute(statement, row)).rowcount) == 1

    async def park(
        self, transaction: Transaction, consumer: str, event: Event, error: str, attempts: int, *, behind: bool
    ) -> bool:
        """Park an event; with ``behind`` only if its sequence is parked already. False if it was not."""
        _same_tenant(transaction, event)
        await self._lock(transaction, consumer, event)
        if behind:
            query = select(dead_letters.c.event_id).where(
                dead_letters.c.consumer == consumer, dead_letters.c.stream == event.stream
            )
            if (await transaction.execute(query.limit(1))).first() is None:
                return False
        row = {
            "consumer": consumer,
            "event_id": event.id,
            "stream": event.stream,
            "version": event.version,
            "type": event.type,
            "document": orjson.dumps(to_cloudevent(event)).decode(),
            "error": error,
            "attempts": attempts,
            "parked_at": datetime.now(UTC),
        }
        await transaction.execute(self._insert(dead_letters).on_conflict_do_nothing(), row)
        return True

    async def unpark(self, transaction: Transaction, consumer: str, event: Event) -> bool:
        """Take an event out of the dead letters; False if it was not there."""
        _same_tenant(transaction, event)
        await self._lock(transaction, consumer, event)
        statement = delete(dead_letters).where(dead_letters.c.consumer == consumer, dead_letters.c.event_id == event.id)
        return int((await transaction.execute(statement)).rowcount) == 1

    async def note_failure(self, transaction: Transaction, consumer: str, event: Event, error: str) -> None:
        """Note one more failed attempt at a parked event."""
        _same_tenant(transaction, event)
        statement = (
            update(dead_letters)
            .where(dead_letters.c.consumer == consumer, dead_letters.c.event_id == event.id)
            .values(error=error, attempts=dead_letters.c.attempts + 1)
        )
        await transaction.execute(statement)

    async def dead_letters(
        self, tenant: str, *, consumer: str | None = None, stream: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """Parked events in order of consumer, stream and version; ``tenant`` may be ALL_TENANTS."""
        table = dead_letters
        query = select(table).order_by(table.c.tenant_id, table.c.consumer, table.c.stream, table.c.version)
        if consumer is not None:
            query = query.where(table.c.consumer == consumer)
        if stream is not None:
            query = query.where(table.c.stream == stream)
        async with self._database.read(tenant) as transaction:
            rows = (await transaction.execute(query.limit(limit))).all()
        return [
            DeadLetter(
                row.consumer, from_cloudevent(orjson.loads(row.document)), row.error, row.attempts, row.parked_at
            )
            for row in rows
        ]

    async def forget(self, transaction: Transaction, consumer: str) -> None:
        """Delete what a consumer remembers, when its plugin is purged (in the transaction's scope)."""
        await transaction.execute(delete(ledger).where(ledger.c.consumer == consumer))
        await transaction.execute(delete(dead_letters).where(dead_letters.c.consumer == consumer))

    async def _lock(self, transaction: Transaction, consumer: str, event: Event) -> None:
        # Parking behind and releasing the last letter of a sequence must not pass each other. SQLite has
        # one writer anyway.
        if self._database.dialect == "postgresql":
            digest = hashlib.blake2b(f"{event.tenant}\n{consumer}\n{event.stream}".encode(), digest_size=8).digest()
            await transaction.execute(select(func.pg_advisory_xact_lock(int.from_bytes(digest, "big", signed=True))))


def _same_tenant(transaction: Transaction, event: Event) -> None:
    if transaction.scope != event.tenant:
        raise TenantMismatch(
            "An event is handled in its tenant's scope only.",
            expected=event.tenant,
            found=transaction.scope,
        )
