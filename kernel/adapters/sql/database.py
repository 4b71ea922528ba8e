"""The relational database as one object: scopes, migrations, and the stores that live in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.adapters.sql import migrate
from kernel.adapters.sql.breakers import SqlBreakerStore
from kernel.adapters.sql.checkpoints import SqlCheckpoints, SqlLeases
from kernel.adapters.sql.consumers import SqlConsumerStore
from kernel.adapters.sql.engine import (
    MIGRATION_LOCK,
    Engines,
    grant_app_role,
    open_engines,
    runtime_engines,
    statement_cache,
    tenant_engine,
    unavailable,
)
from kernel.adapters.sql.events import SqlEventStore
from kernel.adapters.sql.kv import SqlKvStore
from kernel.adapters.sql.log import EventLog
from kernel.adapters.sql.migrate import Standing
from kernel.adapters.sql.projections import SqlProjectionStore
from kernel.adapters.sql.schema import KERNEL_SCHEMA
from kernel.adapters.sql.transactions import SqlTransaction
from kernel.context import Context
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.event_data import EventData
from kernel.events import EventTypes, NewEvent
from kernel.ports import ALL_TENANTS
from kernel.tables import Schema, owner_of

WRITER_WAIT_SECONDS = 30.0

_PG_BEGIN = "SELECT set_config('keelstone.tenant', $1, true), set_config('keelstone.scope', $2, true)"
_PG_BEGIN_READ = _PG_BEGIN + ", set_config('transaction_read_only', 'on', true)"


class SqlDatabase:
    """SQLite or PostgreSQL behind ``kernel.ports.Database``; make it with :func:`open_database`.

    ``events``, ``kv``, ``breakers``, ``consumers``, ``checkpoints``, ``leases`` and ``projections`` are the stores that
    ``kernel.ports`` describes. Call :meth:`start`, then
    :meth:`migrate`, before anything else.
    """

    def __init__(self, url: str, types: EventTypes | None = None) -> None:
        self._engines: Engines = open_engines(url)
        self.dialect = self._engines.dialect
        self._route()
        self._data = EventData(types) if types is not None else None
        # One writer in the process: SQLite has one anyway, and a queue here is fair where SQLite's is not.
        self._writer_lock = asyncio.Lock() if self.dialect == "sqlite" else None
        self.event_listeners: list[Callable[[], None]] = []
        self.log = EventLog(self.dialect)
        self.events = SqlEventStore(self)
        self.kv = SqlKvStore(self)
        self.breakers = SqlBreakerStore(self)
        self.consumers = SqlConsumerStore(self)
        self.checkpoints = SqlCheckpoints(self)
        self.leases = SqlLeases(self)
        self.projections = SqlProjectionStore(self)

    def _route(self) -> None:
        reader, writer = self._engines.reader, self._engines.writer
        # One cache per dialect object: compiled statements belong to it.
        self.tenant_cache = statement_cache()
        read_cache = self.tenant_cache if reader is writer else statement_cache()
        self._read_engines: tuple[AsyncEngine, AsyncEngine] = (reader, tenant_engine(reader, read_cache))
        self._write_engines: tuple[AsyncEngine, AsyncEngine] = (writer, tenant_engine(writer, self.tenant_cache))

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Connect. Raises BackendUnavailable, or ConfigurationError for a role that row-level security
        would not bind."""
        try:
            self._engines = await runtime_engines(self._engines)
        except (DBAPIError, OSError, TimeoutError) as error:
            raise self.unavailable(error) from error
        self._route()
        await self.ping()

    async def close(self) -> None:
        """Finish queued appends and close every connection."""
        await self.events.close()
        await self._engines.dispose()

    async def ping(self) -> None:
        """Raises BackendUnavailable if the database does not answer."""
        try:
            async with self._engines.reader.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (DBAPIError, OSError, TimeoutError) as error:
            raise self.unavailable(error) from error

    async def migrate(self, schemas: Sequence[Schema] = ()) -> list[str]:
        """Bring the kernel's tables and ``schemas`` to their heads; which plugins' tables changed.

        Each schema is upgraded in a transaction of its own, so one that fails leaves the others as they
        were. Two processes that start at once do it one after the other. Raises ConfigurationError.
        """
        wanted = [KERNEL_SCHEMA, *schemas]
        _check_declared(wanted)
        async with self._engines.admin.connect() as connection:
            behind = await connection.run_sync(migrate.pending, wanted)
        done: list[str] = []
        for schema in behind:
            async with self.admin() as connection:
                # Somebody else may have done it while we waited for the lock.
                if await connection.run_sync(migrate.pending, [schema]):
                    await connection.run_sync(migrate.upgrade, schema)
                    done.append(schema.plugin)
                if self.dialect == "postgresql":
                    await grant_app_role(connection)
        return done

    async def standings(self, schemas: Sequence[Schema] = ()) -> list[Standing]:
        """How far the kernel's tables and ``schemas`` have come, and would be brought by :meth:`migrate`."""
        async with self._engines.admin.connect() as connection:
            return await connection.run_sync(migrate.standings, [KERNEL_SCHEMA, *schemas])

    def admin(self) -> _Admin:
        """A transaction for DDL, outside the guard, one at a time over all processes."""
        return _Admin(self)

    # ------------------------------------------------------------------ scopes

    def read(self, scope: str) -> SqlTransaction:
        """A transaction that only reads. Each statement sees what is committed when it begins."""
        return SqlTransaction(self, self._read_engines[scope != ALL_TENANTS], scope, writable=False, context=None)

    def write(self, scope: str, context: Context | None = None) -> SqlTransaction:
        """A transaction that may write and emit; ``context`` (or the one in hand) fills metadata."""
        return SqlTransaction(self, self._write_engines[scope != ALL_TENANTS], scope, writable=True, context=context)

    # ------------------------------------------------------------------ events

    def on_events(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each commit of this process that stored events; returns how to stop it."""
        self.event_listeners.append(listener)
        return lambda: self.event_listeners.remove(listener)

    def check_events(self, stream: str, events: Sequence[NewEvent]) -> None:
        """Raises ValidationFailed for events that may not be stored."""
        if self._data is not None:
            self._data.check(stream, events)

    def events_committed(self) -> None:
        """Tell the listeners that events were committed."""
        for listener in tuple(self.event_listeners):
            listener()

    # ------------------------------------------------------------------ for transactions

    async def begin(self, connection: AsyncConnection, scope: str, *, writable: bool) -> None:
        """Put the connection's transaction into ``scope``."""
        if self.dialect == "postgresql":
            platform = scope == ALL_TENANTS
            values = ("", "platform") if platform else (scope, "tenant")
            await connection.exec_driver_sql(_PG_BEGIN if writable else _PG_BEGIN_READ, values)

    async def lock_writer(self, context: Context | None) -> None:
        """Wait for the process's only writer (SQLite). Raises BackendUnavailable if it takes too long."""
        if self._writer_lock is None:
            return
        seconds = min(WRITER_WAIT_SECONDS, context.remaining() if context else WRITER_WAIT_SECONDS)
        try:
            if self._writer_lock.locked():
                await asyncio.wait_for(self._writer_lock.acquire(), max(seconds, 0.001))
            else:
                await self._writer_lock.acquire()
        except TimeoutError as error:
            raise BackendUnavailable(
                "Another write transaction of this process did not end in time.",
                expected=f"at most {seconds:.1f} seconds",
                fix="Keep write transactions short, and never open one inside another.",
            ) from error

    def unlock_writer(self) -> None:
        """Let the next writer in."""
        if self._writer_lock is not None:
            self._writer_lock.release()

    def unavailable(self, error: Exception) -> BackendUnavailable:
        """The clear error for a database that does not answer."""
        return unavailable(error, self._engines.admin.url)


class _Admin:
    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> AsyncConnection:
        await self._database.lock_writer(None)
        try:
            self._connection = connection = await self._database._engines.admin.connect()
            await connection.begin()
            if self._database.dialect == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                # Row-level security is forced on the tables' owner too; a migration of data needs all rows.
                await connection.execute(text("SELECT set_config('keelstone.scope', 'platform', true)"))
        except BaseException:
            await self._close()
            raise
        return connection

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None and self._connection is not None:
                await self._connection.commit()
        finally:
            await self._close()

    async def _close(self) -> None:
        try:
            if self._connection is not None:
                await self._connection.close()
        finally:
            self._database.unlock_writer()


def _check_declared(schemas: Sequence[Schema]) -> None:
    seen: dict[str, str] = {}
    for schema in schemas:
        for table in schema.metadata.tables.values():
            if owner_of(table) is None:
                raise ConfigurationError(
                    f"Table {table.name} says neither tenant nor platform.",
                    plugin=schema.plugin,
                    fix="Declare it with tenant_table() or platform_table() of plugin_sdk.data.",
                )
            if seen.setdefault(table.name, schema.plugin) != schema.plugin:
                raise ConfigurationError(
                    f"Table {table.name} is declared by {seen[table.name]} and by {schema.plugin}.",
                    plugin=schema.plugin,
                    fix="Begin table names with the plugin's name.",
                )
