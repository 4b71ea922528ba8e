"""Engines: how the platform opens SQLite and PostgreSQL, and which role it runs under."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
from sqlalchemy import event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import LRUCache

from kernel.adapters.sql.guard import GuardedPostgresCompiler, GuardedSQLiteCompiler
from kernel.errors import BackendUnavailable, ConfigurationError

APP_ROLE = "keelstone_app"
"""The PostgreSQL role the platform runs under when the address names a superuser."""

BUSY_SECONDS = 15
"""How long SQLite waits for another process's write."""

# Keys of PostgreSQL's advisory locks; any constants will do, as long as nobody else uses them.
MIGRATION_LOCK = 0x6B65656C0001


@dataclass(frozen=True, slots=True)
class Engines:
    """``reader`` and ``writer`` run the platform; ``admin`` runs migrations and other DDL.

    On SQLite the reader is in autocommit and query-only, so that a read costs no BEGIN and no COMMIT,
    and the writer has one connection. On PostgreSQL reader and writer are the same.
    """

    dialect: str
    reader: AsyncEngine
    writer: AsyncEngine
    admin: AsyncEngine

    async def dispose(self) -> None:
        """Close every connection."""
        for engine in {id(e): e for e in (self.reader, self.writer, self.admin)}.values():
            await engine.dispose()


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


_CODEC: dict[str, Any] = {"json_serializer": _dumps, "json_deserializer": orjson.loads}


def open_engines(url: str, *, pool_size: int = 8) -> Engines:
    """Engines for an address. Raises ConfigurationError for one that can't be used."""
    parsed = make_url(url)
    name = parsed.get_backend_name()
    if name == "sqlite":
        return _open_sqlite(parsed, pool_size)
    if name == "postgresql":
        return _open_postgres(parsed, pool_size)
    raise ConfigurationError(
        "KEELSTONE_DATABASE_URL names a database that is not supported.",
        expected="postgresql://user:password@host/db, or nothing for SQLite",
        found=parsed.render_as_string(hide_password=True),
    )


def tenant_engine(engine: AsyncEngine, cache: Any) -> AsyncEngine:
    """The engine on which tenants' scopes run: with a statement cache of its own, since their statements
    are compiled differently."""
    return engine.execution_options(compiled_cache=cache)


def statement_cache() -> Any:
    """A cache of compiled statements."""
    return LRUCache(2_000)


# ---------------------------------------------------------------------------------- SQLite


def _open_sqlite(url: URL, pool_size: int) -> Engines:
    if not url.database or url.database == ":memory:" or "mode=memory" in url.database:
        raise ConfigurationError(
            "SQLite in memory can't be shared by readers and the writer.",
            expected="a file",
            found=url.render_as_string(),
            fix="Name a file in a temporary folder.",
        )
    # FULL, not NORMAL: an acknowledged commit survives loss of power. The store is the outbox, and what
    # was relayed to a shared bus must not vanish here; group commit pays for the fsync.
    query = dict(url.query)
    synchronous = str(query.pop("synchronous", "full")).lower()
    if synchronous not in ("full", "normal", "extra"):
        raise ConfigurationError(
            "The SQLite address has an unknown synchronous mode.", expected="full, normal or extra", found=synchronous
        )
    url = url.set(drivername="sqlite+aiosqlite", query=query)
    Path(cast(str, url.database)).parent.mkdir(parents=True, exist_ok=True)

    def engine(*, read_only: bool, size: int) -> AsyncEngine:
        made = create_async_engine(
            url,
            pool_size=size,
            max_overflow=0 if not read_only else 8,
            pool_reset_on_return=None if read_only else "rollback",
            **_CODEC,
        )
        made.sync_engine.dialect.statement_compiler = GuardedSQLiteCompiler

        def connect(connection: Any, _: Any) -> None:
            # The driver must not open transactions of its own: BEGIN is ours (see _begin).
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
            _wal(cursor)
            cursor.execute(f"PRAGMA synchronous={synchronous}")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute("PRAGMA temp_store=MEMORY")
            if read_only:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()

        event.listen(made.sync_engine, "connect", connect)
        if not read_only:
            event.listen(made.sync_engine, "begin", _begin_immediate)
        return made

    writer = engine(read_only=False, size=1)
    return Engines("sqlite", engine(read_only=True, size=pool_size), writer, writer)


def _begin_immediate(connection: Any) -> None:
    # busy_timeout does not cover the upgrade of a read lock to a write lock, so take it at the start.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _wal(cursor: Any) -> None:
    """Switch to WAL; two processes that make the file at once collide here without the busy timeout."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


# ---------------------------------------------------------------------------------- PostgreSQL


def _open_postgres(url: URL, pool_size: int) -> Engines:
    try:
        import asyncpg  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "PostgreSQL needs a driver that is not installed.",
            fix='Install the extra: pip install "keelstone[postgres]".',
        ) from error
    url = url.set(drivername="postgresql+asyncpg")
    admin = create_async_engine(url, pool_size=1, max_overflow=2, **_CODEC)
    admin.sync_engine.dialect.statement_compiler = GuardedPostgresCompiler
    return Engines("postgresql", admin, admin, admin)


async def runtime_engines(engines: Engines, *, pool_size: int = 10) -> Engines:
    """On PostgreSQL: engines whose role row-level security binds. Raises ConfigurationError if none can be had."""
    if engines.dialect != "postgresql":
        return engines
    server_settings = {"application_name": "keelstone"}
    async with engines.admin.connect() as connection:
        role = await _role(connection)
    if role.bypasses:
        try:
            async with engines.admin.begin() as connection:
                await _make_app_role(connection)
        except ProgrammingError as error:
            # It bypasses row-level security and may not make a role that does not.
            raise _bypasses(role) from error
        server_settings["role"] = APP_ROLE
    runtime = create_async_engine(
        engines.admin.url,
        # Each consumer may hold a transaction and read beside it: leave room, or they wait for each other.
        pool_size=pool_size,
        max_overflow=3 * pool_size,
        connect_args={"server_settings": server_settings},
        **_CODEC,
    )
    runtime.sync_engine.dialect.statement_compiler = GuardedPostgresCompiler
    try:
        async with runtime.connect() as connection:
            role = await _role(connection)
    except Exception:
        await runtime.dispose()
        raise
    if role.bypasses:
        await runtime.dispose()
        raise _bypasses(role)
    return Engines("postgresql", runtime, runtime, engines.admin)


@dataclass(frozen=True, slots=True)
class _Role:
    name: str
    bypasses: bool


def _bypasses(role: _Role) -> ConfigurationError:
    return ConfigurationError(
        f"The PostgreSQL role {role.name} bypasses row-level security.",
        expected="a role without SUPERUSER and BYPASSRLS",
        found=role.name,
        fix=f"ALTER ROLE {role.name} NOSUPERUSER NOBYPASSRLS, or name another role in KEELSTONE_DATABASE_URL.",
    )


async def _role(connection: AsyncConnection) -> _Role:
    row = (
        await connection.execute(
            text("SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        )
    ).one()
    return _Role(str(row[0]), bool(row[1]))


async def _make_app_role(connection: AsyncConnection) -> None:
    # Two processes may start at once, and roles are shared by all databases of the server.
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    known = await connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = :role"), {"role": APP_ROLE})
    if not known:
        await connection.exec_driver_sql(
            f"CREATE ROLE {APP_ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB"
        )
    await connection.exec_driver_sql(f"GRANT {APP_ROLE} TO current_user")
    await grant_app_role(connection)


async def grant_app_role(connection: AsyncConnection) -> None:
    """Let the application role use every table there is; nothing if the role is not in use."""
    role = await _role(connection)
    if not role.bypasses:
        return
    schema = await connection.scalar(text("SELECT quote_ident(current_schema())"))
    for statement in _grants(str(schema)):
        await connection.exec_driver_sql(statement)


def _grants(schema: str) -> Sequence[str]:
    return (
        f"GRANT USAGE ON SCHEMA {schema} TO {APP_ROLE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {APP_ROLE}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {APP_ROLE}",
    )


def unavailable(error: Exception, url: URL) -> BackendUnavailable:
    """The clear error for a database that does not answer."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return BackendUnavailable(
        "The database does not answer.",
        expected=url.render_as_string(hide_password=True),
        found=f"{type(cause).__name__}: {cause}",
        fix="Start it, or correct KEELSTONE_DATABASE_URL.",
    )
