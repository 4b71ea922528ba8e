"""The SQL suites on PostgreSQL, and what only several writers at once can show."""

from __future__ import annotations

import pytest

from kernel.events import NewEvent
from kernel.ports import ALL_TENANTS, Effects
from tests.contract.suites.breakers import BreakerSuite
from tests.contract.suites.consumers import ConsumersSuite
from tests.contract.suites.database import DatabaseSuite
from tests.contract.suites.events import EventStoreSuite
from tests.contract.suites.fixtures import OpenDatabase
from tests.contract.suites.isolation import IsolationSuite
from tests.contract.suites.kv import KvSuite, SqlKvExpirySuite
from tests.contract.suites.migrations import MigrationsSuite
from tests.contract.suites.projections import ProjectionsSuite

pytestmark = pytest.mark.connected


class TestDatabase(DatabaseSuite):
    pass


class TestBreakers(BreakerSuite):
    pass


class TestEventStore(EventStoreSuite):
    async def test_an_event_that_commits_late_is_not_skipped(self, open_database: OpenDatabase) -> None:
        one, two = await open_database(), await open_database()
        await one.migrate()
        seen: list[str] = []
        cursor = (0, 0)

        async def look() -> None:
            nonlocal cursor
            events, cursor = await one.events.read_committed(after=cursor)
            seen.extend(str(event.data["n"]) for event in events)

        async with one.write(ALL_TENANTS) as early:
            # It has its transaction id and its position first, and commits last.
            early.emit("early", NewEvent("demo.left", {"n": "early"}), tenant="acme")
            await one.log.append(early.connection, early._appends)
            early._appends.clear()
            await two.events.append("acme", "late", [NewEvent("demo.left", {"n": "late"})])
            await look()
            assert seen == []
        await look()
        assert sorted(seen) == ["early", "late"]

    async def test_a_stream_stays_in_order_when_an_old_transaction_appends_last(
        self, open_database: OpenDatabase
    ) -> None:
        one, two, three = await open_database(), await open_database(), await open_database()
        await one.migrate()
        async with one.write("acme") as oldest:
            await one.kv.apply(oldest, "acme", "p", Effects(kv_writes={"a": "1"}))
            async with three.write("acme") as holder:
                await three.kv.apply(holder, "acme", "p", Effects(kv_writes={"b": "1"}))
                await two.events.append("acme", "s", [NewEvent("demo.left", {"n": 1})])
                oldest.emit("s", NewEvent("demo.left", {"n": 2}))
                await one.log.append(oldest.connection, oldest._appends)
                oldest._appends.clear()
                await oldest.connection.commit()
                # The younger transaction 'holder' is still open: what sorts before it could be read now.
                events, cursor = await two.events.read_committed()
                assert [event.data["n"] for event in events] == []
        events, _ = await two.events.read_committed(after=cursor)
        assert [event.data["n"] for event in events] == [1, 2]


class TestIsolation(IsolationSuite):
    pass


class TestKv(KvSuite):
    pass


class TestKvExpiry(SqlKvExpirySuite):
    pass


class TestMigrations(MigrationsSuite):
    pass


class TestConsumers(ConsumersSuite):
    pass


class TestProjections(ProjectionsSuite):
    pass
