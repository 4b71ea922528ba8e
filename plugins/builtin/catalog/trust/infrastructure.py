"""Held updates in SQL. A row belongs to the tenant where the update waits; the platform's tenant has what an operator
allowed for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, String, Text, delete, insert, select

from plugin_sdk.data import UtcDateTime, json_type, tenant_table
from plugin_sdk.services import Transaction
from plugins.builtin.catalog.infrastructure import metadata
from plugins.builtin.catalog.trust.domain import Doubt, Hold

table = tenant_table(
    metadata,
    "catalog_holds",
    Column("plugin", String(110), primary_key=True),
    Column("version", String(80), primary_key=True),
    Column("before", String(80), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("doubts", json_type(), nullable=False),
    Column("state", String(10), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("decided_by", String(64), nullable=False),
    Column("decided_at", UtcDateTime),
    Column("reason", Text, nullable=False),
)
MOST_LISTED = 500


class SqlHolds:
    """Where holds are kept."""

    async def put(self, transaction: Transaction, hold: Hold) -> None:
        """Insert or replace, in the scope of its tenant."""
        mine = (table.c.plugin == hold.plugin, table.c.version == hold.version)
        await transaction.execute(delete(table).where(*mine))
        values = {
            "plugin": hold.plugin,
            "version": hold.version,
            "before": hold.before,
            "digest": hold.digest,
            "doubts": [_plain(doubt) for doubt in hold.doubts],
            "state": hold.state,
            "at": hold.at,
            "decided_by": hold.decided_by,
            "decided_at": hold.decided_at,
            "reason": hold.reason,
        }
        await transaction.execute(insert(table).values(**values))

    async def of(self, transaction: Transaction, tenants: list[str], plugin: str, version: str) -> list[Hold]:
        """Those of one release, in some tenants of the scope."""
        wanted = (table.c.plugin == plugin, table.c.version == version, table.c.tenant_id.in_(tenants))
        return [_hold(row) for row in await transaction.execute(select(table).where(*wanted))]

    async def find(self, transaction: Transaction) -> list[Hold]:
        """Those of the scope, newest first."""
        query = select(table).order_by(table.c.at.desc(), table.c.plugin, table.c.version).limit(MOST_LISTED)
        return [_hold(row) for row in await transaction.execute(query)]


def _plain(doubt: Doubt) -> dict[str, Any]:
    until = None if doubt.until is None else doubt.until.isoformat()
    return {"kind": doubt.kind, "words": doubt.words, "until": until}


def _doubt(said: Mapping[str, Any]) -> Doubt:
    until = None if said["until"] is None else datetime.fromisoformat(said["until"])
    return Doubt(said["kind"], said["words"], until)


def _hold(row: Any) -> Hold:
    return Hold(
        tenant=row.tenant_id,
        plugin=row.plugin,
        before=row.before,
        version=row.version,
        digest=row.digest,
        doubts=tuple(_doubt(each) for each in row.doubts),
        state=row.state,
        at=row.at,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        reason=row.reason,
    )
