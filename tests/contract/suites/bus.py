"""What every bus must do (``kernel.ports.Bus``). Times are never asserted, only waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kernel.errors import BackendUnavailable
from kernel.ports import Bus, BusMessage

OpenBus = Callable[[], Awaitable[Bus]]
"""Opens the test's bus once more, as another process would."""

PATIENCE = 60.0


def messages(count: int, keys: int = 5, start: int = 0) -> list[BusMessage]:
    return [BusMessage(f"acme/s{i % keys}", f"e{i}", f'{{"n":{i}}}'.encode()) for i in range(start, start + count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 the servers ring no bell
            await asyncio.sleep(0.01)


class Collector:
    """A handler that keeps what it got."""

    def __init__(self) -> None:
        self.got: list[BusMessage] = []

    async def __call__(self, message: BusMessage) -> None:
        self.got.append(message)

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.got]

    def by_key(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for message in self.got:
            found.setdefault(message.key, []).append(int(message.id[1:]))
        return found


def in_order(numbers: list[int]) -> bool:
    """Whether the first copies of each number come in order (second copies may follow)."""
    first = list(dict.fromkeys(numbers))
    return first == sorted(first)


class BusSuite:
    async def test_messages_arrive_whole_and_in_order_by_key(self, open_bus: OpenBus) -> None:
        bus, seen = await open_bus(), Collector()
        sent = messages(200)
        await bus.consume("readers", seen)
        await bus.publish(sent[:120])
        await bus.publish(sent[120:])
        await until(lambda: len(set(seen.ids)) == 200)
        assert {m.id: m for m in seen.got} == {m.id: m for m in sent}
        assert all(in_order(numbers) for numbers in seen.by_key().values())

    async def test_any_bytes_pass(self, open_bus: OpenBus) -> None:
        bus, seen = await open_bus(), Collector()
        sent = BusMessage("acmé/sträm", "e1", bytes(range(256)) * 300)
        await bus.consume("readers", seen)
        await bus.publish([sent])
        await until(lambda: bool(seen.got))
        assert seen.got[0] == sent

    async def test_a_new_group_begins_at_the_oldest_message(self, open_bus: OpenBus) -> None:
        bus, seen = await open_bus(), Collector()
        await bus.publish(messages(20))
        await bus.consume("latecomers", seen)
        await until(lambda: len(set(seen.ids)) == 20)

    async def test_every_group_gets_every_message(self, open_bus: OpenBus) -> None:
        bus, one, two = await open_bus(), Collector(), Collector()
        await bus.consume("one", one)
        await bus.consume("two", two)
        await bus.publish(messages(20))
        await until(lambda: len(set(one.ids)) == len(set(two.ids)) == 20)

    async def test_a_message_whose_handler_fails_comes_again_and_nothing_of_its_key_overtakes_it(
        self, open_bus: OpenBus
    ) -> None:
        bus = await open_bus()
        handled: list[BusMessage] = []
        tries: list[str] = []

        async def fails_three_times(message: BusMessage) -> None:
            if message.id == "e3":
                tries.append(message.id)
                if len(tries) <= 3:
                    raise RuntimeError("not yet")
            handled.append(message)

        await bus.consume("readers", fails_three_times)
        await bus.publish(messages(10, keys=2))
        await until(lambda: len({m.id for m in handled}) == 10)
        assert len(tries) == 4
        for key in ("acme/s0", "acme/s1"):
            assert in_order([int(m.id[1:]) for m in handled if m.key == key])

    async def test_one_slow_key_does_not_hold_the_others_up(self, open_bus: OpenBus) -> None:
        bus, release, done = await open_bus(), asyncio.Event(), Collector()

        async def slow_for_one(message: BusMessage) -> None:
            if message.key == "acme/s0":
                await release.wait()
            await done(message)

        await bus.consume("readers", slow_for_one)
        await bus.publish(messages(40, keys=4))
        await until(lambda: len(set(done.ids)) == 30)
        assert not any(message.key == "acme/s0" for message in done.got)
        release.set()
        await until(lambda: len(set(done.ids)) == 40)
        assert all(in_order(numbers) for numbers in done.by_key().values())

    async def test_what_was_not_done_when_a_consumer_left_comes_again(self, open_bus: OpenBus) -> None:
        bus, first, second = await open_bus(), Collector(), Collector()

        async def stuck_after_five(message: BusMessage) -> None:
            if len(first.got) >= 5:
                await asyncio.sleep(3_600)
            await first(message)

        subscription = await bus.consume("readers", stuck_after_five)
        await bus.publish(messages(30, keys=1))
        await until(lambda: len(first.got) == 5)
        await subscription.close()
        await bus.consume("readers", second)
        await until(lambda: len(set(first.ids) | set(second.ids)) == 30)
        assert in_order([int(i[1:]) for i in second.ids])
        assert second.ids[-1] == "e29"

    async def test_a_listener_gets_everything_from_now_on_and_nothing_from_before(self, open_bus: OpenBus) -> None:
        bus, seen = await open_bus(), Collector()
        await bus.publish(messages(10))
        await bus.listen(seen)
        await bus.publish(messages(10, start=10))
        await until(lambda: len(seen.got) >= 10)
        assert sorted(seen.ids) == sorted(f"e{i}" for i in range(10, 20))

    async def test_a_failing_listener_goes_on_with_the_next_message(self, open_bus: OpenBus) -> None:
        bus, seen = await open_bus(), Collector()

        async def fails_on_two(message: BusMessage) -> None:
            await seen(message)
            if message.id == "e2":
                raise RuntimeError("no")

        await bus.listen(fails_on_two)
        await bus.publish(messages(5, keys=1))
        await until(lambda: len(seen.got) == 5)

    async def test_a_closed_subscription_gets_nothing_more(self, open_bus: OpenBus) -> None:
        bus, grouped, heard, other = await open_bus(), Collector(), Collector(), Collector()
        for subscription in (await bus.consume("readers", grouped), await bus.listen(heard)):
            await subscription.close()
        await bus.consume("others", other)
        await bus.publish(messages(5))
        await until(lambda: len(other.got) == 5)
        assert grouped.got == heard.got == []

    async def test_a_started_bus_answers_and_a_closed_one_does_not(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        await bus.ping()
        await bus.publish([])
        await bus.close()
        with pytest.raises(BackendUnavailable):
            await bus.publish(messages(1))


class SharedBusSuite(BusSuite):
    """What a bus with a server must do besides: several processes."""

    async def test_processes_share_the_work_of_a_group_in_order_by_key(self, open_bus: OpenBus) -> None:
        one, two = await open_bus(), await open_bus()
        first, second = Collector(), Collector()
        await one.consume("readers", first)
        await two.consume("readers", second)
        published = 0
        async with asyncio.timeout(PATIENCE):
            # Until the group has been dealt out, one process may get everything.
            while not (first.got and second.got):
                await one.publish(messages(50, keys=40, start=published))
                published += 50
                await asyncio.sleep(0.2)
        await until(lambda: len(set(first.ids) | set(second.ids)) == published)
        before = {message.id for message in first.got} | {message.id for message in second.got}
        first.got.clear()
        second.got.clear()
        await two.publish(messages(400, keys=40, start=published))
        await until(lambda: len((set(first.ids) | set(second.ids)) - before) == 400)
        assert first.got
        assert second.got
        assert all(in_order(numbers) for numbers in (first.by_key() | second.by_key()).values())

    async def test_another_process_takes_over_from_one_that_left_without_losing_order(self, open_bus: OpenBus) -> None:
        one, two = await open_bus(), await open_bus()
        first, second = Collector(), Collector()

        async def stuck_after_twenty(message: BusMessage) -> None:
            if len(first.got) >= 20:
                await asyncio.sleep(3_600)
            await first(message)

        await one.consume("readers", stuck_after_twenty)
        await one.publish(messages(100, keys=3))
        await until(lambda: len(first.got) >= 20)
        await two.consume("readers", second)
        await one.close()
        await until(lambda: len(set(first.ids) | set(second.ids)) == 100)
        for key, numbers in second.by_key().items():
            assert in_order(first.by_key().get(key, []) + numbers)

    async def test_every_process_hears_every_message(self, open_bus: OpenBus) -> None:
        one, two = await open_bus(), await open_bus()
        first, second = Collector(), Collector()
        await one.listen(first)
        await two.listen(second)
        await two.publish(messages(25))
        await until(lambda: len(first.got) == len(second.got) == 25)
