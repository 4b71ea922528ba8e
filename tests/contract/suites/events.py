"""What every event store must do (``kernel.ports.EventStore``)."""

from __future__ import annotations

import asyncio

from sqlalchemy import update

from kernel.adapters.sql import SqlDatabase
from kernel.adapters.sql.schema import events as table
from kernel.context import new_id
from kernel.errors import ConcurrencyConflict, ValidationFailed
from kernel.events import GENESIS_HASH, Event, NewEvent, from_cloudevent, to_cloudevent
from kernel.ports import ALL_TENANTS, EventStore


async def read_all(store: EventStore, limit: int = 500) -> list[Event]:
    found: list[Event] = []
    cursor = (0, 0)
    while True:
        events, cursor = await store.read_committed(after=cursor, limit=limit)
        if not events:
            return found
        found += events


class EventStoreSuite:
    async def test_appended_events_come_back_as_they_were_returned(self, database: SqlDatabase) -> None:
        store = database.events
        data = {"person": "ann", "unicode": "ünï\u0000", "n": 1.5, "list": [None, True, {"a": []}]}
        made = await store.append("acme", "person/ann", [NewEvent("demo.joined", data), NewEvent("demo.left", {})])
        assert await store.read_stream("acme", "person/ann") == made
        assert made[0].prev_hash == GENESIS_HASH
        assert made[1].prev_hash == made[0].hash
        assert [from_cloudevent(to_cloudevent(event)) for event in made] == made

    async def test_streams_are_each_tenants_own(self, database: SqlDatabase) -> None:
        await database.events.append("acme", "s", [NewEvent("demo.left", {"of": "acme"})])
        await database.events.append("globex", "s", [NewEvent("demo.left", {"of": "globex"})])
        assert [e.data["of"] for e in await database.events.read_stream("acme", "s")] == ["acme"]
        assert [e.data["of"] for e in await database.events.read_tenant("globex")] == ["globex"]
        assert [e.version for e in await read_all(database.events)] == [1, 1]

    async def test_pages_and_types_select_a_tenants_events(self, database: SqlDatabase) -> None:
        for number in range(6):
            kind = ("demo.joined", "demo.left", "other.happened")[number % 3]
            await database.events.append("acme", f"s{number}", [NewEvent(kind, {"person": str(number)})])
        everything = await database.events.read_tenant("acme")
        assert [e.data["person"] for e in everything] == list("012345")
        rest = await database.events.read_tenant("acme", after=everything[3].position)
        assert [e.data["person"] for e in rest] == list("45")
        demo = await database.events.read_tenant("acme", types=["demo.*"], newest_first=True, limit=3)
        assert [e.data["person"] for e in demo] == list("431")
        older = await database.events.read_tenant("acme", newest_first=True, after=everything[2].position)
        assert [e.data["person"] for e in older] == list("10")
        assert [e.type for e in await database.events.read_tenant("acme", types=["other.happened", "x.*"])] == [
            "other.happened",
            "other.happened",
        ]
        assert await database.events.read_tenant("acme", types=["d_mo.*"]) == []

    async def test_the_first_of_two_writers_with_the_same_view_wins(self, database: SqlDatabase) -> None:
        results = await asyncio.gather(
            *(
                database.events.append("acme", "s", [NewEvent("demo.left", {"by": i})], expected_version=0)
                for i in range(5)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(result, list) for result in results) == 1
        assert sum(isinstance(result, ConcurrencyConflict) for result in results) == 4
        assert len(await database.events.read_stream("acme", "s")) == 1

    async def test_one_callers_error_is_never_another_callers(self, database: SqlDatabase) -> None:
        store = database.events
        taken = (await store.append("acme", "taken", [NewEvent("demo.left", {})]))[0].id
        calls = [store.append("acme", f"s{i % 3}", [NewEvent("demo.left", {"i": i})]) for i in range(30)]
        calls.insert(10, store.append("acme", "s0", [NewEvent("demo.left", {}, id=taken)]))
        calls.insert(15, store.append("acme", "s1", [NewEvent("demo.left", {})], expected_version=99))
        calls.insert(20, store.append("acme", "s2", [NewEvent("demo.joined", {"person": 1})]))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(results[i]) for i in (10, 15, 20)] == [ConcurrencyConflict, ConcurrencyConflict, ValidationFailed]
        assert sum(isinstance(result, list) for result in results) == 30
        for stream in ("s0", "s1", "s2"):
            events = await store.read_stream("acme", stream)
            assert [e.version for e in events] == list(range(1, 11))
            assert await store.verify_stream("acme", stream) is None

    async def test_what_can_not_be_stored_is_refused_before_it_meets_the_others(self, database: SqlDatabase) -> None:
        store = database.events
        bad = [
            store.append("acme", "s", [NewEvent("demo.left", {"when": object()})]),
            store.append("acme", "s", [NewEvent("demo.left", {"text": "\ud800"})]),
            store.append("acme", "s", [NewEvent("demo.left", {"big": "x" * 1_100_000})]),
            store.append("acme", "", [NewEvent("demo.left", {})]),
            store.append("acme", "s" * 256, [NewEvent("demo.left", {})]),
            store.append("acme", "s", [NewEvent("demo.left", {}, id="i" * 65)]),
        ]
        good = [store.append("acme", "s", [NewEvent("demo.left", {"n": n})]) for n in range(5)]
        results = await asyncio.gather(*bad, *good, return_exceptions=True)
        assert [type(result) for result in results[:6]] == [ValidationFailed] * 6
        assert [event.version for event in await store.read_stream("acme", "s")] == [1, 2, 3, 4, 5]

    async def test_concurrent_callers_share_commits(self, database: SqlDatabase) -> None:
        commits = []
        stop = database.on_events(lambda: commits.append(1))
        await asyncio.gather(
            *(database.events.append("acme", f"s{i}", [NewEvent("demo.left", {})]) for i in range(200))
        )
        stop()
        assert len(commits) < 20
        assert len(await read_all(database.events, limit=37)) == 200

    async def test_a_reader_pages_through_everything_in_order(self, database: SqlDatabase) -> None:
        for _ in range(5):
            await database.events.append("acme", "s", [NewEvent("demo.left", {}) for _ in range(7)])
        found = await read_all(database.events, limit=4)
        assert [event.version for event in found] == list(range(1, 36))

    async def test_tampering_is_found(self, database: SqlDatabase) -> None:
        made = await database.events.append("acme", "s", [NewEvent("demo.left", {"n": n}) for n in range(5)])
        assert await database.events.verify_stream("acme", "s") is None
        async with database.write(ALL_TENANTS) as transaction:
            await transaction.execute(update(table).where(table.c.id == made[2].id).values(data='{"n":99}'))
        found = await database.events.verify_stream("acme", "s")
        assert found is not None
        assert found.id == made[2].id

    async def test_a_stolen_event_is_found(self, database: SqlDatabase) -> None:
        made = await database.events.append("acme", "s", [NewEvent("demo.left", {"n": n}) for n in range(5)])
        async with database.write(ALL_TENANTS) as transaction:
            await transaction.execute(table.delete().where(table.c.id == made[1].id))
        found = await database.events.verify_stream("acme", "s")
        assert found is not None
        assert found.id == made[2].id

    async def test_a_position_is_never_given_twice(self, database: SqlDatabase) -> None:
        made = await database.events.append("acme", "s", [NewEvent("demo.left", {}) for _ in range(3)])
        async with database.write(ALL_TENANTS) as transaction:
            await transaction.execute(table.delete().where(table.c.id == made[2].id))
        again = await database.events.append("acme", "other", [NewEvent("demo.left", {}, id=new_id())])
        assert again[0].position > made[2].position
