"""Open breakers in SQL (``kernel.ports.BreakerStore``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from kernel.adapters.sql.schema import breakers as table
from kernel.ports import ALL_TENANTS, BreakerRecord

if TYPE_CHECKING:
    from kernel.adapters.sql.database import SqlDatabase

_KEY = ("tenant_id", "plugin", "version", "hook")
_REST = ("failures", "openings", "wait", "until", "since", "error")
_FORGET = delete(table).where(*(table.c[name] == bindparam(f"b_{name}") for name in _KEY))


class SqlBreakerStore:
    """One row for each breaker that is not closed. Of several processes the last one's word counts."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        insert: Any = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
        statement = insert(table)
        self._upsert = statement.on_conflict_do_update(
            index_elements=list(_KEY), set_={name: statement.excluded[name] for name in _REST}
        )

    async def load(self) -> list[BreakerRecord]:
        """Every breaker that is kept."""
        async with self._database.read(ALL_TENANTS) as transaction:
            rows = (await transaction.execute(select(table))).all()
        return [
            BreakerRecord(
                plugin=row.plugin,
                version=row.version,
                tenant=row.tenant_id,
                hook=row.hook,
                state="open",
                failures=row.failures,
                openings=row.openings,
                wait=row.wait,
                until=row.until.timestamp(),
                since=row.since.timestamp(),
                error=row.error,
            )
            for row in rows
        ]

    async def save(self, records: Sequence[BreakerRecord]) -> None:
        """Keep the open ones and forget the closed ones."""
        # In one order, so that two processes that save the same ones wait for each other and don't lock up.
        ordered = sorted(records, key=lambda r: (r.tenant, r.plugin, r.version, r.hook))
        kept = [_row(r) for r in ordered if r.state != "closed"]
        gone = [{f"b_{name}": _key(r)[name] for name in _KEY} for r in ordered if r.state == "closed"]
        async with self._database.write(ALL_TENANTS) as transaction:
            if kept:
                await transaction.execute(self._upsert, kept)
            if gone:
                await transaction.execute(_FORGET, gone)


def _key(record: BreakerRecord) -> dict[str, str]:
    return {"tenant_id": record.tenant, "plugin": record.plugin, "version": record.version, "hook": record.hook}


def _row(record: BreakerRecord) -> dict[str, Any]:
    return {
        **_key(record),
        "failures": record.failures,
        "openings": record.openings,
        "wait": record.wait,
        "until": datetime.fromtimestamp(record.until, UTC),
        "since": datetime.fromtimestamp(record.since, UTC),
        "error": record.error,
    }
