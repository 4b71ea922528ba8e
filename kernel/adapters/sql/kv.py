"""Guests' durable state (``kernel.ports.KvStore``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, LargeBinary, bindparam, cast, delete, func, insert, or_, select, update

from kernel.adapters.sql.schema import kv as table
from kernel.errors import Conflict, TenantMismatch
from kernel.ports import Effects, KvConflict, KvValue, Transaction

if TYPE_CHECKING:
    from kernel.adapters.sql.database import SqlDatabase

_MINE = (table.c.plugin == bindparam("b_plugin"), table.c.key == bindparam("b_key"))
_SEEN = (*_MINE, table.c.version == bindparam("b_version"))
_GET = select(table.c.value, table.c.version, table.c.expires_at).where(*_MINE)
_SET = (
    update(table)
    .where(*_SEEN)
    .values(value=bindparam("b_value"), version=table.c.version + 1, expires_at=bindparam("b_expires_at"))
)
_UNSET = delete(table).where(*_SEEN)
_VERSION = select(table.c.version, table.c.expires_at).where(*_MINE)
_PRUNED = 500
"""Ended keys that one writing call clears away."""


class SqlKvStore:
    """Keys of (tenant, plugin) with versions."""

    def __init__(self, database: SqlDatabase, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._now = now

    async def get(self, tenant: str, plugin: str, key: str) -> KvValue | None:
        """The value of a key with its version, or None."""
        async with self._database.read(tenant) as transaction:
            row = (await transaction.execute(_GET, {"b_plugin": plugin, "b_key": key})).first()
        return None if row is None or self._ended(row) else KvValue(row.value, row.version)

    async def get_many(self, tenant: str, plugin: str, keys: Sequence[str]) -> dict[str, KvValue]:
        """The values of those keys that there are, in one query."""
        query = select(table.c.key, table.c.value, table.c.version).where(
            table.c.plugin == plugin, table.c.key.in_(keys), self._lives()
        )
        async with self._database.read(tenant) as transaction:
            return {row.key: KvValue(row.value, row.version) for row in await transaction.execute(query)}

    def _ended(self, row: Any) -> bool:
        return row.expires_at is not None and row.expires_at <= self._now()

    def _lives(self) -> ColumnElement[bool]:
        return or_(table.c.expires_at.is_(None), table.c.expires_at > self._now())

    async def list_keys(self, tenant: str, plugin: str, prefix: str, limit: int) -> list[str]:
        """At most ``limit`` keys that begin with ``prefix``, in order."""
        query = select(table.c.key).where(table.c.plugin == plugin, self._lives()).order_by(table.c.key).limit(limit)
        if prefix:
            query = query.where(func.substr(table.c.key, 1, len(prefix)) == prefix)
        async with self._database.read(tenant) as transaction:
            return [str(key) for key in (await transaction.execute(query)).scalars()]

    async def usage(self, tenant: str, plugin: str) -> tuple[int, int]:
        """Keys and bytes in use (UTF-8 bytes of keys and values)."""
        size = func.octet_length if self._database.dialect == "postgresql" else _utf8_length
        query = select(func.count(), func.coalesce(func.sum(size(table.c.key) + size(table.c.value)), 0)).where(
            table.c.plugin == plugin, self._lives()
        )
        async with self._database.read(tenant) as transaction:
            row = (await transaction.execute(query)).one()
        return int(row[0]), int(row[1])

    async def apply(self, transaction: Transaction, tenant: str, plugin: str, effects: Effects) -> None:
        """Save a call's writes in the tenant's open transaction.

        Raises KvConflict if a key that was read, and is now written, has moved since. A key written
        without having been read is simply overwritten.
        """
        if transaction.scope != tenant:
            raise TenantMismatch(
                "A plugin's keys are saved in its tenant's scope only.",
                plugin=plugin,
                expected=tenant,
                found=transaction.scope,
            )
        for key in sorted(effects.kv_writes):
            value = effects.kv_writes[key]
            where = {"b_plugin": plugin, "b_key": key}
            row = (await transaction.execute(_VERSION, where)).first()
            if row is not None and self._ended(row):
                await transaction.execute(_UNSET, {**where, "b_version": row.version})
                row = None
            found = 0 if row is None else int(row.version)
            seen = effects.kv_reads.get(key, found)
            if seen != found:
                raise KvConflict(f"Key {key!r} of {plugin} was version {seen} and is {found}.")
            ttl = effects.kv_ttl.get(key)
            ends = None if ttl is None else self._now() + timedelta(seconds=ttl)
            if found == 0:
                if value is None:
                    continue
                new = {"plugin": plugin, "key": key, "value": value, "version": 1, "expires_at": ends}
                try:
                    await transaction.execute(insert(table), new)
                except Conflict as error:
                    raise KvConflict(f"Key {key!r} of {plugin} was made by somebody else meanwhile.") from error
                continue
            values = {**where, "b_version": found}
            if value is None:
                result = await transaction.execute(_UNSET, values)
            else:
                result = await transaction.execute(_SET, {**values, "b_value": value, "b_expires_at": ends})
            if result.rowcount != 1:
                raise KvConflict(f"Key {key!r} of {plugin} was changed by somebody else meanwhile.")
        if effects.kv_ttl:
            await self._prune(transaction, plugin)

    async def _prune(self, transaction: Transaction, plugin: str) -> None:
        """Delete ended keys. Who makes keys that end also clears them away: no job has to walk the table.

        Rows that somebody else works on are left for the next time, so that two calls cannot wait
        for each other.
        """
        ended = (
            select(table.c.key)
            .where(table.c.plugin == plugin, table.c.expires_at <= self._now())
            .limit(_PRUNED)
            .with_for_update(skip_locked=True)
        )
        keys = list((await transaction.execute(ended)).scalars())
        if keys:
            await transaction.execute(delete(table).where(table.c.plugin == plugin, table.c.key.in_(keys)))

    async def purge(self, transaction: Transaction, plugin: str, tenant: str | None = None) -> int:
        """Delete everything of a plugin (in one tenant, or in all); the number of keys."""
        statement = delete(table).where(table.c.plugin == plugin)
        if tenant is not None:
            statement = statement.where(table.c.tenant_id == tenant)
        result = await transaction.execute(statement)
        return int(result.rowcount)


def _utf8_length(column: Any) -> Any:
    # SQLite's length() counts characters of text and bytes of a blob.
    return func.length(cast(column, LargeBinary))
