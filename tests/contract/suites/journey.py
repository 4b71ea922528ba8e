"""An event's whole way: store, relay, bus, consumers; through crashes, with several processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import orjson
from sqlalchemy import insert, select

from kernel.adapters.sql import SqlDatabase
from kernel.consumers import ConsumerRunner, EventHandler, RetryPolicy
from kernel.events import Event, NewEvent, from_cloudevent
from kernel.ports import Bus, BusMessage, Transaction
from kernel.relay import Relay
from tests.contract.suites.bus import OpenBus, until
from tests.contract.suites.fixtures import DEMO, OpenDatabase, people


class Process:
    """One platform process: its own connections, relay and consumers."""

    def __init__(self, database: SqlDatabase, bus: Bus) -> None:
        self.database = database
        self.bus = bus
        self.handled: list[Event] = []
        self.heard: list[str] = []
        self.relay = Relay(
            database.events, bus, database.checkpoints, database.leases, poll=0.05, lease=1.0, save_every=0.05
        )
        handler = EventHandler("people", ("demo.*",), self._handle)
        self.runner = ConsumerRunner(
            database, database.consumers, handlers=[handler], policy=RetryPolicy(attempts=3, first=0.01)
        )
        self._stack = AsyncExitStack()

    async def _handle(self, event: Event, transaction: Transaction) -> None:
        row = {"id": event.id, "email": f"{event.stream}-{event.version}@x.example"}
        await transaction.execute(insert(people), row)
        transaction.after_commit(lambda: self.handled.append(event))

    async def _hear(self, message: BusMessage) -> None:
        self.heard.append(from_cloudevent(orjson.loads(message.value)).id)

    async def start(self) -> None:
        self.database.on_events(self.relay.wake)
        await self.runner.start(self.bus)
        await self.bus.listen(self._hear)
        await self.relay.start()

    async def stop(self) -> None:
        await self.relay.close()
        await self.runner.close()

    def kill(self) -> None:
        """Stop without saving or handing back anything."""
        for task in (self.relay._task, self.relay._keeper, self.relay._settling):
            if task is not None:
                task.cancel()


StartProcess = Callable[[], Awaitable[Process]]


async def emit(database: SqlDatabase, count: int, *, tenant: str = "acme", streams: int = 4) -> None:
    for number in range(count):
        async with database.write(tenant) as transaction:
            transaction.emit(f"s{number % streams}", NewEvent("demo.left", {"n": number}))


async def stored(database: SqlDatabase, tenant: str = "acme") -> set[str]:
    async with database.read(tenant) as transaction:
        return set((await transaction.execute(select(people.c.id))).scalars())


class JourneySuite:
    async def test_committed_events_reach_consumers_once_and_in_order(
        self, open_database: OpenDatabase, open_bus: OpenBus
    ) -> None:
        database = await open_database()
        await database.migrate([DEMO])
        process = Process(database, await open_bus())
        await process.start()
        await emit(database, 40)
        await until(lambda: len(process.handled) >= 40)
        await process.stop()
        assert len(await stored(database)) == len(process.handled) == 40
        for stream in range(4):
            versions = [event.version for event in process.handled if event.stream == f"s{stream}"]
            assert versions == list(range(1, 11))
        assert set(process.heard) == await stored(database)

    async def test_events_of_before_the_start_are_relayed_too(
        self, open_database: OpenDatabase, open_bus: OpenBus
    ) -> None:
        database = await open_database()
        await database.migrate([DEMO])
        await emit(database, 10)
        process = Process(database, await open_bus())
        await process.start()
        await until(lambda: len(process.handled) == 10)
        await process.stop()

    async def test_nothing_is_lost_when_the_process_dies_between_relay_and_handler(
        self, open_database: OpenDatabase, open_bus: OpenBus, reopen_bus: OpenBus
    ) -> None:
        database = await open_database()
        await database.migrate([DEMO])
        first = Process(database, await open_bus())
        stuck = asyncio.Event()

        async def never(event: Event, transaction: Transaction) -> None:
            stuck.set()
            await asyncio.sleep(3_600)

        first.runner._handlers = (EventHandler("people", ("demo.*",), never),)
        await first.start()
        await emit(database, 10)
        await stuck.wait()
        first.kill()
        await first.runner.close()
        second = Process(await open_database(), await reopen_bus())
        await second.start()
        await until(lambda: len(second.handled) == 10)
        await second.stop()
        assert len(await stored(database)) == 10


class SharedJourneySuite(JourneySuite):
    """Several processes on one database and one bus."""

    async def test_processes_share_the_work_and_hear_each_other(
        self, open_database: OpenDatabase, open_bus: OpenBus
    ) -> None:
        one = Process(await open_database(), await open_bus())
        await one.database.migrate([DEMO])
        two = Process(await open_database(), await open_bus())
        await one.start()
        await two.start()
        emitted = 0
        while not (one.handled and two.handled):
            await emit(one.database, 20, streams=20)
            await emit(two.database, 20, tenant="globex", streams=20)
            emitted += 40
            await until(lambda: len(one.handled) + len(two.handled) >= emitted)  # noqa: B023
        await until(lambda: len(set(one.heard)) == len(set(two.heard)) == emitted)
        await one.stop()
        await two.stop()
        ids = [event.id for event in one.handled + two.handled]
        assert len(set(ids)) == emitted
        assert await stored(one.database) | await stored(one.database, "globex") == set(ids)

    async def test_another_process_relays_when_the_first_dies(
        self, open_database: OpenDatabase, open_bus: OpenBus
    ) -> None:
        one = Process(await open_database(), await open_bus())
        await one.database.migrate([DEMO])
        two = Process(await open_database(), await open_bus())
        await one.start()
        await until(lambda: one.relay.leading)
        await two.start()
        await emit(one.database, 5)
        await until(lambda: len(one.handled) + len(two.handled) == 5)
        assert not two.relay.leading
        one.kill()
        await emit(two.database, 5)
        await until(lambda: len({e.id for e in one.handled + two.handled}) == 10)
        assert two.relay.leading
        await one.runner.close()
        await two.stop()
