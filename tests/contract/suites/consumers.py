"""What consumers promise: effectively once, in order, parked by sequence, released in order."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert, select

from kernel.adapters.sql import SqlDatabase
from kernel.consumers import ConsumerRunner, DeadLetters, EventHandler, RetryPolicy
from kernel.context import current_context
from kernel.errors import BackendUnavailable, NotFound
from kernel.events import Event, NewEvent
from kernel.ports import ALL_TENANTS, Transaction
from kernel.relay import to_message
from tests.contract.suites.fixtures import people

QUICK = RetryPolicy(attempts=2, first=0.001, most=0.001)


class Recorder:
    """A handler that writes a row for each event, and fails on those it is told to."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.seen: list[int] = []
        self.fails: set[int] = set()

    async def __call__(self, event: Event, transaction: Transaction) -> None:
        number = event.data["n"]
        self.seen.append(number)
        row = {"id": self.prefix + event.id, "email": f"{self.prefix}{event.stream}-{number}@x.example"}
        await transaction.execute(insert(people), row)
        if number in self.fails:
            raise RuntimeError(f"no {number}")

    def handler(self, consumer: str = "recorder", types: tuple[str, ...] = ("demo.*",)) -> EventHandler:
        return EventHandler(consumer, types, self)


async def some_events(
    database: SqlDatabase, count: int, tenant: str = "acme", stream: str = "s", start: int = 0
) -> list[Event]:
    return await database.events.append(
        tenant, stream, [NewEvent("demo.left", {"n": n}) for n in range(start, start + count)]
    )


async def emails(database: SqlDatabase, tenant: str = "acme") -> list[str]:
    async with database.read(tenant) as transaction:
        return list((await transaction.execute(select(people.c.email).order_by(people.c.email))).scalars())


def runner_of(database: SqlDatabase, *handlers: EventHandler) -> ConsumerRunner:
    return ConsumerRunner(database, database.consumers, handlers=handlers, policy=QUICK)


class ConsumersSuite:
    async def test_an_event_that_comes_twice_is_handled_once(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        runner = runner_of(database, recorder.handler())
        for event in await some_events(database, 2):
            await runner.deliver(event)
            await runner.deliver(event)
        assert recorder.seen == [0, 1]
        assert await emails(database) == ["s-0@x.example", "s-1@x.example"]

    async def test_two_processes_handling_one_event_at_once_commit_once(self, database: SqlDatabase) -> None:
        arrived: list[int] = []
        both = asyncio.Event()

        async def slow(event: Event, transaction: Transaction) -> None:
            arrived.append(1)
            if len(arrived) == 2:
                both.set()
            await both.wait()
            row = {"id": f"{event.id}-{len(arrived)}-{id(transaction)}"[:40], "email": f"{id(transaction)}@x.example"}
            await transaction.execute(insert(people), row)

        handler = EventHandler("slow", ("demo.*",), slow)
        (event,) = await some_events(database, 1)
        await asyncio.gather(*(runner_of(database, handler).deliver(event) for _ in range(2)))
        assert len(arrived) == 2
        assert len(await emails(database)) == 1

    async def test_a_failing_handler_leaves_nothing_and_is_tried_again(self, database: SqlDatabase) -> None:
        tries: list[int] = []

        async def second_time(event: Event, transaction: Transaction) -> None:
            tries.append(1)
            await transaction.execute(insert(people), {"id": "same", "email": "same@x.example"})
            transaction.emit("echo", NewEvent("other.happened", {}))
            if len(tries) < 2:
                raise RuntimeError("first time")

        (event,) = await some_events(database, 1)
        await runner_of(database, EventHandler("c", ("demo.left",), second_time)).deliver(event)
        assert await emails(database) == ["same@x.example"]
        echoed = await database.events.read_stream("acme", "echo")
        assert len(echoed) == 1

    async def test_what_a_handler_emits_names_its_cause_and_correlation(self, database: SqlDatabase) -> None:
        seen: list[tuple[str, str]] = []

        async def echo(event: Event, transaction: Transaction) -> None:
            context = current_context()
            assert context is not None
            seen.append((context.tenant, context.correlation_id))
            transaction.emit("echo", NewEvent("other.happened", {}))

        async with database.write("acme") as transaction:
            transaction.emit("s", NewEvent("demo.left", {}, metadata={"correlation_id": "c-7"}))
        (event,) = await database.events.read_stream("acme", "s")
        await runner_of(database, EventHandler("echo", ("demo.left",), echo)).deliver(event)
        (echoed,) = await database.events.read_stream("acme", "echo")
        assert seen == [("acme", "c-7")]
        assert echoed.metadata == {
            "correlation_id": "c-7",
            "principal": "system",
            "causation_id": event.id,
            "hops": 1,
        }

    async def test_a_chain_of_consequences_ends_where_its_handler_says(self, database: SqlDatabase) -> None:
        async def again(event: Event, transaction: Transaction) -> None:
            transaction.emit("echo", NewEvent("demo.left", {"n": event.data["n"] + 1}))

        handler = EventHandler("again", ("demo.left",), again, max_hops=3)
        runner = runner_of(database, handler)
        begun = await some_events(database, 1)
        for _ in range(5):
            newest = (await database.events.read_stream("acme", "echo") or begun)[-1]
            await runner.deliver(newest)
        assert [e.hops for e in await database.events.read_stream("acme", "echo")] == [1, 2, 3, 4]
        (letter,) = await database.consumers.dead_letters("acme")
        assert (letter.event.hops, letter.attempts) == (4, 0)
        assert "EventChainTooLong" in letter.error
        # An operator who wants it lets it go on, by one event.
        assert await DeadLetters(database, database.consumers, [runner]).retry("acme", "again", "echo") == 1
        (*_, newest) = await database.events.read_stream("acme", "echo")
        await runner.deliver(newest)
        assert [x.event.hops for x in await database.consumers.dead_letters("acme")] == [5]

    async def test_events_that_multiply_come_to_their_end_sooner(self, database: SqlDatabase) -> None:
        async def twice(event: Event, transaction: Transaction) -> None:
            transaction.emit("echo", *(NewEvent("demo.left", {"n": n}) for n in range(4)))

        (event,) = await some_events(database, 1)
        await runner_of(database, EventHandler("twice", ("demo.left",), twice)).deliver(event)
        assert [e.hops for e in await database.events.read_stream("acme", "echo")] == [3] * 4

    async def test_a_handler_sees_and_writes_its_tenants_rows_only(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        runner = runner_of(database, recorder.handler())
        for tenant in ("acme", "globex"):
            for event in await some_events(database, 1, tenant):
                await runner.deliver(event)
        assert await emails(database, "acme") == await emails(database, "globex") == ["s-0@x.example"]

    async def test_one_consumers_failure_is_not_anothers(self, database: SqlDatabase) -> None:
        good, bad = Recorder(), Recorder("bad")
        bad.fails = {0}
        runner = runner_of(database, good.handler("good", ("demo.left",)), bad.handler("bad", ("*",)))
        (event,) = await some_events(database, 1)
        await runner.deliver(event)
        assert await emails(database) == ["s-0@x.example"]
        letters = await database.consumers.dead_letters("acme")
        assert [(letter.consumer, letter.attempts) for letter in letters] == [("bad", 2)]
        assert letters[0].error == "RuntimeError: no 0"
        assert letters[0].event == event

    async def test_a_parked_event_parks_the_rest_of_its_sequence_and_no_other(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        recorder.fails = {1}
        runner = runner_of(database, recorder.handler())
        for event in [*await some_events(database, 4), *await some_events(database, 2, stream="t", start=10)]:
            await runner.deliver(event)
        letters = await DeadLetters(database, database.consumers, [runner]).list("acme")
        assert [(letter.event.data["n"], letter.attempts) for letter in letters] == [(1, 2), (2, 0), (3, 0)]
        assert recorder.seen == [0, 1, 1, 10, 11]
        # Redelivery changes nothing.
        await runner.deliver(letters[0].event)
        assert recorder.seen == [0, 1, 1, 10, 11]

    async def test_retry_releases_the_whole_sequence_in_order(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        recorder.fails = {1}
        runner = runner_of(database, recorder.handler())
        dead = DeadLetters(database, database.consumers, [runner])
        events = await some_events(database, 4)
        for event in events:
            await runner.deliver(event)
        with pytest.raises(RuntimeError, match="no 1"):
            await dead.retry("acme", "recorder", "s")
        assert [letter.attempts for letter in await dead.list("acme")] == [3, 0, 0]
        recorder.seen.clear()
        recorder.fails = {3}
        with pytest.raises(RuntimeError, match="no 3"):
            await dead.retry("acme", "recorder", "s")
        assert recorder.seen == [1, 2, 3]
        recorder.fails = set()
        assert await dead.retry("acme", "recorder", "s") == 1
        assert await dead.list() == []
        with pytest.raises(NotFound):
            await dead.retry("acme", "recorder", "s")
        for event in [*events, *await some_events(database, 1, start=4)]:
            await runner.deliver(event)
        assert recorder.seen == [1, 2, 3, 3, 4]
        assert len(await emails(database)) == 5

    async def test_two_retries_at_once_handle_each_event_once(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        recorder.fails = {0}
        runner = runner_of(database, recorder.handler())
        dead = DeadLetters(database, database.consumers, [runner])
        for event in await some_events(database, 5):
            await runner.deliver(event)
        recorder.fails = set()
        await asyncio.gather(*(dead.retry("acme", "recorder", "s") for _ in range(3)), return_exceptions=True)
        assert await dead.list() == []
        assert len(await emails(database)) == 5

    async def test_an_event_that_comes_while_its_sequence_is_released_is_handled_in_order(
        self, database: SqlDatabase
    ) -> None:
        recorder = Recorder()
        recorder.fails = {0}
        runner = runner_of(database, recorder.handler())
        dead = DeadLetters(database, database.consumers, [runner])
        events = await some_events(database, 40)
        for event in events[:20]:
            await runner.deliver(event)
        recorder.fails = set()
        recorder.seen.clear()

        async def go_on() -> None:
            for event in events[20:]:
                await runner.deliver(event)

        await asyncio.gather(dead.retry("acme", "recorder", "s"), go_on())
        while await dead.list():
            await dead.retry("acme", "recorder", "s")
        assert recorder.seen == list(range(40))

    async def test_discard_lets_one_event_go_and_the_rest_follow(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        recorder.fails = {0}
        runner = runner_of(database, recorder.handler())
        dead = DeadLetters(database, database.consumers, [runner])
        events = await some_events(database, 3)
        for event in events:
            await runner.deliver(event)
        await dead.discard("acme", "recorder", events[0].id)
        assert await dead.retry("acme", "recorder", "s") == 2
        await runner.deliver(events[0])
        assert recorder.seen == [0, 0, 1, 2]
        with pytest.raises(NotFound):
            await dead.discard("acme", "recorder", events[0].id)

    async def test_dead_letters_are_each_tenants_own(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        recorder.fails = {0}
        runner = runner_of(database, recorder.handler())
        for tenant in ("acme", "globex"):
            for event in await some_events(database, 1, tenant):
                await runner.deliver(event)
        dead = DeadLetters(database, database.consumers, [runner])
        assert [letter.event.tenant for letter in await dead.list("acme")] == ["acme"]
        assert len(await dead.list(ALL_TENANTS)) == 2
        with pytest.raises(NotFound):
            await dead.discard("acme", "recorder", (await dead.list("globex"))[0].event.id)

    async def test_an_event_nobody_handles_any_more_stays_parked(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        recorder.fails = {0}
        for event in await some_events(database, 1):
            await runner_of(database, recorder.handler()).deliver(event)
        dead = DeadLetters(database, database.consumers, [runner_of(database)])
        with pytest.raises(NotFound, match="any more"):
            await dead.retry("acme", "recorder", "s")
        assert len(await dead.list("acme")) == 1

    async def test_dynamic_handlers_are_asked_for_each_event(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        on: set[str] = {"acme"}

        def guests(event: Event) -> list[EventHandler]:
            return [recorder.handler("plugin:acme/scorer", ("demo.left",))] if event.tenant in on else []

        runner = ConsumerRunner(database, database.consumers, group="guests", dynamic=guests, policy=QUICK)
        for tenant in ("acme", "globex"):
            for event in await some_events(database, 1, tenant):
                await runner.deliver(event)
        assert await emails(database, "acme") == ["s-0@x.example"]
        assert await emails(database, "globex") == []

    async def test_a_database_that_is_away_parks_nothing(self, database: SqlDatabase) -> None:
        async def away(event: Event, transaction: Transaction) -> None:
            raise BackendUnavailable("gone")

        (event,) = await some_events(database, 1)
        with pytest.raises(BackendUnavailable):
            await runner_of(database, EventHandler("c", ("*",), away)).deliver(event)
        assert await database.consumers.dead_letters("acme") == []

    async def test_slow_work_before_the_first_statement_holds_no_lock(self, database: SqlDatabase) -> None:
        inside, release = asyncio.Event(), asyncio.Event()

        async def guest(event: Event, transaction: Transaction) -> None:
            inside.set()
            await release.wait()
            await transaction.execute(insert(people), {"id": "g", "email": "g@x.example"})

        (event,) = await some_events(database, 1)
        work = asyncio.create_task(runner_of(database, EventHandler("guest", ("*",), guest)).deliver(event))
        await inside.wait()
        await some_events(database, 1, stream="meanwhile")
        release.set()
        await work
        assert await emails(database) == ["g@x.example"]

    async def test_a_message_that_is_no_event_is_let_go(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        runner = runner_of(database, recorder.handler())
        (event,) = await some_events(database, 1)
        message = to_message(event)
        await runner.receive(type(message)(message.key, message.id, b"{not json"))
        await runner.receive(type(message)(message.key, message.id, b'{"specversion": "0.3"}'))
        await runner.receive(message)
        assert recorder.seen == [0]

    async def test_purging_a_plugin_forgets_what_it_handled(self, database: SqlDatabase) -> None:
        recorder = Recorder()
        runner = runner_of(database, recorder.handler())
        (event,) = await some_events(database, 1)
        await runner.deliver(event)
        assert await database.consumers.state("recorder", event) == "handled"
        async with database.write(ALL_TENANTS) as transaction:
            await database.consumers.forget(transaction, "recorder")
        assert await database.consumers.state("recorder", event) == "new"

    async def test_a_lease_is_one_holders_until_it_ends_or_is_released(self, database: SqlDatabase) -> None:
        leases = database.leases
        assert await leases.acquire("relay", "one", 60)
        assert await leases.acquire("relay", "one", 60)
        assert not await leases.acquire("relay", "two", 60)
        await leases.release("relay", "two")
        assert not await leases.acquire("relay", "two", 60)
        await leases.release("relay", "one")
        assert await leases.acquire("relay", "two", -1)
        assert await leases.acquire("relay", "one", 60)

    async def test_checkpoints_are_kept_by_name(self, database: SqlDatabase) -> None:
        assert await database.checkpoints.load("a") == (0, 0)
        await database.checkpoints.save("a", (3, 4))
        await database.checkpoints.save("a", (5, 2**40))
        await database.checkpoints.save("b", (1, 1))
        assert await database.checkpoints.load("a") == (5, 2**40)
