"""Rebuilding projections in SQL (``kernel.ports.ProjectionStore``)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, Table, delete, func, literal, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable

from kernel.adapters.sql.engine import grant_app_role
from kernel.adapters.sql.schema import dead_letters, events, ledger, projections
from kernel.adapters.sql.transactions import SqlTransaction
from kernel.errors import ConfigurationError, TenantMismatch
from kernel.events import NewEvent
from kernel.ports import ALL_TENANTS, Transaction
from kernel.tables import declare, owner_of, protection_sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kernel.adapters.sql.database import SqlDatabase


class ScopedTransaction:
    """A platform transaction seen from one tenant's scope (``kernel.ports.Transaction``)."""

    def __init__(self, transaction: SqlTransaction, tenant: str) -> None:
        self.scope = tenant
        self._transaction = transaction

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a statement under the tenant's guard."""
        return await self._transaction.execute_as(self.scope, statement, parameters)

    def emit(
        self, stream: str, *events: NewEvent, tenant: str | None = None, expected_version: int | None = None
    ) -> None:
        """Append the tenant's events at commit."""
        if tenant not in (None, self.scope):
            raise TenantMismatch("An event was emitted for another tenant.", expected=self.scope, found=tenant)
        self._transaction.emit(stream, *events, tenant=self.scope, expected_version=expected_version)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once committed."""
        self._transaction.after_commit(callback)


class SqlProjectionStore:
    """Shadows are tables beside the live ones. The swap replaces rows, not tables: names of indexes,
    policies and grants stay what the migrations made them, and readers see the old rows until the commit."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._postgres = database.dialect == "postgresql"

    async def share(self, transaction: Transaction, name: str) -> None:
        """Wait for a swap under way. SQLite has one writer anyway."""
        if self._postgres:
            await transaction.execute(select(func.pg_advisory_xact_lock_shared(_key(name))))

    async def make_shadows(self, tables: Sequence[Any]) -> dict[str, Any]:
        """Empty tables of the same columns and primary key."""
        await self.drop_shadows(tables)
        made = {table.name: _shadow(table) for table in tables}
        async with self._database.admin() as connection:
            for shadow in made.values():
                await connection.execute(CreateTable(shadow))
                if self._postgres:
                    for statement in protection_sql(shadow.name, owner_of(shadow) or "platform"):
                        await connection.exec_driver_sql(statement)
            if self._postgres:
                await grant_app_role(connection)
        return made

    async def drop_shadows(self, tables: Sequence[Any]) -> None:
        """Drop what :meth:`make_shadows` made."""
        async with self._database.admin() as connection:
            quote = connection.dialect.identifier_preparer.quote
            for table in tables:
                await connection.exec_driver_sql(f"DROP TABLE IF EXISTS {quote(_shadow_name(table))}")

    def scoped(self, transaction: Transaction, tenant: str) -> Transaction:
        """The same transaction, in one tenant's scope."""
        assert isinstance(transaction, SqlTransaction)
        return ScopedTransaction(transaction, tenant)

    def swap(self, name: str) -> AbstractAsyncContextManager[Transaction]:
        """A transaction over all tenants that keeps live events of the projection out."""
        return self._swap(name)

    @asynccontextmanager
    async def _swap(self, name: str) -> AsyncIterator[Transaction]:
        async with self._database.write(ALL_TENANTS) as transaction:
            # SQLite begins (and locks) at the first statement; that must be before history is read.
            lock = func.pg_advisory_xact_lock(_key(name)) if self._postgres else literal(1)
            await transaction.execute(select(lock))
            yield transaction

    async def replace(self, transaction: Transaction, tables: Sequence[Any], shadows: Mapping[str, Any]) -> None:
        """Put the shadows' rows in the place of the live ones."""
        for table in reversed(tables):
            await transaction.execute(delete(table))
        for table in tables:
            shadow = shadows[table.name]
            names = [column.name for column in table.columns]
            await transaction.execute(
                table.insert().from_select(names, select(*(shadow.c[n] for n in names)), include_defaults=False)
            )

    async def settle(
        self, transaction: Transaction, name: str, consumer: str, types: Sequence[str], through: tuple[int, int]
    ) -> None:
        """Count every event up to a cursor as handled by the consumer, and forget its dead letters."""
        insert: Any = postgresql.insert if self._postgres else sqlite.insert
        now = datetime.now(UTC)
        read = tuple_(events.c.xid, events.c.position) <= tuple_(literal(through[0]), literal(through[1]))
        query = select(
            events.c.tenant_id, literal(consumer), events.c.id, literal(now, ledger.c.handled_at.type)
        ).where(read, _of_types(types))
        names = ["tenant_id", "consumer", "event_id", "handled_at"]
        await transaction.execute(
            insert(ledger).from_select(names, query, include_defaults=False).on_conflict_do_nothing()
        )
        await transaction.execute(delete(dead_letters).where(dead_letters.c.consumer == consumer))
        statement = insert(projections).values(name=name, generation=1, rebuilt_at=now)
        await transaction.execute(
            statement.on_conflict_do_update(
                index_elements=["name"], set_={"generation": projections.c.generation + 1, "rebuilt_at": now}
            )
        )


def _of_types(types: Sequence[str]) -> Any:
    if "*" in types:
        return literal(True)
    return or_(
        *(
            events.c.type.startswith(name[:-1], autoescape=True) if name.endswith(".*") else events.c.type == name
            for name in types
        )
    )


def _shadow_name(table: Table) -> str:
    return f"{table.name}__shadow"


def _shadow(table: Table) -> Table:
    owner = owner_of(table)
    if owner is None:
        raise ConfigurationError(f"Table {table.name} says neither tenant nor platform.")
    # No indexes, unique constraints or references: the live table has them, and the rows end there.
    columns = [column._copy() for column in table.columns]
    for column in columns:
        column.index, column.unique = None, None
    return declare(Table(_shadow_name(table), MetaData(), *columns), owner)


def _key(name: str) -> int:
    digest = hashlib.blake2b(f"projection\n{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
