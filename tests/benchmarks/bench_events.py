"""``events.append``: the event store's group commit against a bare SQLAlchemy Core bulk insert of the same rows.

Both write the same 1,000 rows to the same kind of table on the same SQLite settings, in turns. The store
does what it always does: 1,000 concurrent callers over 100 streams, data checked against its type's
schema, hash chain, versions and positions, optimistic concurrency, one commit.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from kernel.adapters.sql import SqlDatabase
from kernel.adapters.sql.schema import events as table
from kernel.context import new_id, system_context, use_context
from kernel.events import EventType, EventTypes, NewEvent
from kernel.ports import ALL_TENANTS
from kernel.tables import use_scope

EVENTS = 1_000
STREAMS = 100
ROUNDS = 9
TARGET = 0.5

SCHEMA = {
    "type": "object",
    "properties": {
        "email": {"type": "string"},
        "name": {"type": "string", "maxLength": 200},
        "attributes": {"type": "object"},
    },
    "required": ["email", "name"],
}


def rows() -> list[dict[str, Any]]:
    """The row ``events.append`` in events per second, with its rounds."""
    return [asyncio.run(_measure())]


async def _measure() -> dict[str, Any]:
    types = EventTypes([EventType("bench.created", "bench", "A row of the benchmark.", SCHEMA)])
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="keelstone-bench-") as folder:
        for number in range(ROUNDS + 2):
            database = SqlDatabase(f"sqlite+aiosqlite:///{Path(folder) / f'{number}.db'}", types)
            other = SqlDatabase(f"sqlite+aiosqlite:///{Path(folder) / f'{number}-bare.db'}")
            for one in (database, other):
                await one.start()
                await one.migrate()
            # Both have written before: neither pays for the first connection.
            await _append(database, 10)
            seconds = await _append(database, EVENTS)
            copied = await _stored(database)
            bare_seconds = await _bulk_insert(other, copied)
            if number >= 2:
                ours.append(EVENTS / seconds)
                bare.append(EVENTS / bare_seconds)
            await database.close()
            await other.close()
    value, baseline = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return {
        "name": "events.append",
        "value": round(value),
        "unit": "events/s",
        "baseline": round(baseline),
        "ratio": round(ratio, 3),
        "target": f">= {TARGET}",
        "met": ratio >= TARGET,
        "raw": {"ours": [round(x) for x in ours], "baseline": [round(x) for x in bare]},
    }


async def _append(database: SqlDatabase, count: int) -> float:
    with use_context(system_context("acme")):
        batch = [
            NewEvent(
                "bench.created",
                {"email": f"person{i}@example.org", "name": f"Person {i}", "attributes": {"plan": "free", "seat": i}},
            )
            for i in range(count)
        ]
        began = time.perf_counter()
        await asyncio.gather(
            *(database.events.append("acme", f"person/{i % STREAMS}", [event]) for i, event in enumerate(batch))
        )
        return time.perf_counter() - began


async def _stored(database: SqlDatabase) -> list[dict[str, Any]]:
    async with database.read(ALL_TENANTS) as transaction:
        found = await transaction.execute(select(table).order_by(table.c.position.desc()).limit(EVENTS))
        return [dict(row._mapping) | {"id": new_id()} for row in found]


async def _bulk_insert(database: SqlDatabase, values: list[dict[str, Any]]) -> float:
    """What anyone would write: ``connection.execute(insert(table), rows)`` in one transaction."""
    engine = database._engines.writer
    values = sorted(values, key=lambda row: row["position"])
    async with engine.begin() as connection:
        await connection.execute(select(table.c.position).limit(1))
    with use_scope(ALL_TENANTS):
        began = time.perf_counter()
        async with engine.begin() as connection:
            await connection.execute(insert(table), values)
        return time.perf_counter() - began


if __name__ == "__main__":
    for row in rows():
        print(row)
