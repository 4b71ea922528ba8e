"""What projections promise: live and rebuilt are the same, and a rebuild loses and doubles nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, insert, select, update

from kernel.adapters.sql import SqlDatabase
from kernel.consumers import ConsumerRunner, RetryPolicy
from kernel.errors import Conflict, NotFound
from kernel.events import Event, NewEvent
from kernel.ports import ALL_TENANTS, Transaction
from kernel.projections import Projection, Projections
from plugin_sdk.data import Schema, tenant_table, unique_in_tenant
from tests.contract.suites.fixtures import DEMO

metadata = MetaData()
counts = tenant_table(
    metadata,
    "demo_counts",
    Column("stream", String(80), primary_key=True),
    Column("total", Integer, nullable=False, index=True),
    Column("trail", String(4_000), nullable=False),
    unique_in_tenant("stream", "total", name="uq_demo_counts"),
)
tenants = tenant_table(metadata, "demo_totals", Column("name", String(10), primary_key=True), Column("total", Integer))
COUNTS = Schema("counts", metadata)


async def count(event: Event, transaction: Transaction, tables: Any) -> None:
    """Counts events by stream and in all; the trail shows order, and any event lost or applied twice."""
    by_stream, in_all = tables["demo_counts"], tables["demo_totals"]
    row = (await transaction.execute(select(by_stream).where(by_stream.c.stream == event.stream))).first()
    if row is None:
        values = {"stream": event.stream, "total": 1, "trail": f"{event.version}"}
        await transaction.execute(insert(by_stream), values)
    else:
        statement = update(by_stream).where(by_stream.c.stream == event.stream)
        await transaction.execute(statement.values(total=row.total + 1, trail=f"{row.trail},{event.version}"))
    changed = await transaction.execute(update(in_all).values(total=in_all.c.total + 1))
    if not changed.rowcount:
        await transaction.execute(insert(in_all), {"name": "all", "total": 1})


def setup(database: SqlDatabase) -> tuple[Projections, ConsumerRunner]:
    projection = Projection("counts", ("demo.*",), (counts, tenants), count)
    projections = Projections(database, database.events, database.projections, database.leases, [projection])
    policy = RetryPolicy(attempts=50, first=0.001, most=0.05)
    return projections, ConsumerRunner(database, database.consumers, handlers=projections.handlers(), policy=policy)


async def rows(database: SqlDatabase) -> list[tuple[Any, ...]]:
    async with database.read(ALL_TENANTS) as transaction:
        query = select(counts).order_by(counts.c.tenant_id, counts.c.stream)
        totals = select(tenants).order_by(tenants.c.tenant_id)
        found = (await transaction.execute(query)).all() + (await transaction.execute(totals)).all()
        return [tuple(row) for row in found]


async def everything(database: SqlDatabase) -> list[Event]:
    events, _ = await database.events.read_committed(limit=10_000)
    return events


class ProjectionsSuite:
    async def test_rebuilt_and_live_are_the_same(self, database: SqlDatabase) -> None:
        await database.migrate([DEMO, COUNTS])
        projections, runner = setup(database)
        for number in range(60):
            tenant, stream = ("acme", "globex")[number % 2], f"s{number % 5}"
            kind = "other.happened" if number % 7 == 0 else "demo.left"
            await database.events.append(tenant, stream, [NewEvent(kind, {})])
        for event in await everything(database):
            await runner.deliver(event)
        live = await rows(database)
        assert len(live) == 12
        assert await projections.rebuild("counts", batch=7) == 60 - 9
        assert await rows(database) == live
        # A second time, over the first one's indexes and rows.
        assert await projections.rebuild("counts") == 51
        assert await rows(database) == live

    async def test_a_rebuild_repairs_a_broken_projection_and_its_dead_letters(self, database: SqlDatabase) -> None:
        await database.migrate([DEMO, COUNTS])
        projections, runner = setup(database)
        await database.events.append("acme", "s", [NewEvent("demo.left", {}) for _ in range(5)])
        for event in (await everything(database))[:3]:
            await runner.deliver(event)
        async with database.write("acme") as transaction:
            await transaction.execute(update(counts).values(total=99, trail="nonsense"))
            parked = (await everything(database))[3]
            await database.consumers.park(transaction, "projection:counts", parked, "x", 1, behind=False)
        await projections.rebuild("counts")
        assert await rows(database) == [("acme", "s", 5, "1,2,3,4,5"), ("acme", "all", 5)]
        assert await database.consumers.dead_letters(ALL_TENANTS) == []

    async def test_events_still_on_their_way_are_not_applied_twice(self, database: SqlDatabase) -> None:
        await database.migrate([DEMO, COUNTS])
        projections, runner = setup(database)
        await database.events.append("acme", "s", [NewEvent("demo.left", {}) for _ in range(10)])
        await projections.rebuild("counts")
        for event in await everything(database):
            await runner.deliver(event)
        assert await rows(database) == [("acme", "s", 10, "1,2,3,4,5,6,7,8,9,10"), ("acme", "all", 10)]

    async def test_live_events_go_on_during_a_rebuild_and_the_result_is_whole(self, database: SqlDatabase) -> None:
        await database.migrate([DEMO, COUNTS])
        projections, runner = setup(database)
        stop = asyncio.Event()
        delivered: set[str] = set()

        async def produce() -> None:
            number = 0
            while not stop.is_set():
                await database.events.append("acme", f"s{number % 3}", [NewEvent("demo.left", {})])
                number += 1

        async def consume() -> None:
            cursor = (0, 0)
            while True:
                events, cursor = await database.events.read_committed(after=cursor, limit=20)
                for event in events:
                    await runner.deliver(event)
                    delivered.add(event.id)
                if not events and stop.is_set():
                    return
                await asyncio.sleep(0)

        producer, consumer = asyncio.create_task(produce()), asyncio.create_task(consume())
        for _ in range(3):
            while len(delivered) < 20:  # noqa: ASYNC110 the consumer rings no bell
                await asyncio.sleep(0.005)
            delivered.clear()
            await projections.rebuild("counts", batch=25)
        stop.set()
        await asyncio.gather(producer, consumer)
        total = 0
        for stream in range(3):
            events = await database.events.read_stream("acme", f"s{stream}", limit=10_000)
            total += len(events)
            expected = ("acme", f"s{stream}", len(events), ",".join(str(event.version) for event in events))
            assert expected in await rows(database)
        assert ("acme", "all", total) in await rows(database)

    async def test_a_failing_rebuild_leaves_the_live_projection_alone(self, database: SqlDatabase) -> None:
        await database.migrate([DEMO, COUNTS])
        projections, runner = setup(database)
        await database.events.append("acme", "s", [NewEvent("demo.left", {}) for _ in range(3)])
        for event in await everything(database):
            await runner.deliver(event)
        live = await rows(database)

        async def fails(event: Event, transaction: Transaction, tables: Any) -> None:
            await count(event, transaction, tables)
            if event.version == 3:
                raise RuntimeError("no")

        broken = Projection("counts", ("demo.*",), (counts, tenants), fails)
        failing = Projections(database, database.events, database.projections, database.leases, [broken])
        with pytest.raises(RuntimeError, match="no"):
            await failing.rebuild("counts")
        assert await rows(database) == live
        assert await projections.rebuild("counts") == 3
        assert await rows(database) == live

    async def test_one_rebuild_at_a_time(self, database: SqlDatabase) -> None:
        await database.migrate([DEMO, COUNTS])
        projections, _ = setup(database)
        assert await database.leases.acquire("rebuild:counts", "somebody else", 60)
        with pytest.raises(Conflict, match="already"):
            await projections.rebuild("counts")
        with pytest.raises(NotFound):
            await projections.rebuild("unknown")
