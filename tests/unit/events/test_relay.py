"""The relay over fakes: order, failures, the lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from kernel.errors import BackendUnavailable
from kernel.events import Event, from_cloudevent
from kernel.ports import BusMessage
from kernel.relay import Relay, to_message


def event(position: int) -> Event:
    return Event(
        id=f"e{position}",
        type="a.b",
        tenant="acme",
        stream=f"s{position % 3}",
        version=position,
        position=position,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data={"n": position},
        metadata={"correlation_id": "c"},
        prev_hash="0",
        hash="1",
    )


class FakeStore:
    def __init__(self, count: int) -> None:
        self.events = [event(position) for position in range(1, count + 1)]
        self.failures = 0

    async def read_committed(self, *, after: tuple[int, int], limit: int) -> tuple[list[Event], tuple[int, int]]:
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("database away")
        found = [e for e in self.events if e.position > after[1]][:limit]
        return found, (0, found[-1].position) if found else after


class FakeBus:
    def __init__(self) -> None:
        self.messages: list[BusMessage] = []
        self.failures = 0

    async def publish(self, messages: Sequence[BusMessage]) -> None:
        if self.failures:
            self.failures -= 1
            # Half of it got through: the relay can't know.
            self.messages += messages[: len(messages) // 2]
            raise BackendUnavailable("bus away")
        self.messages += messages


class FakeCheckpoints:
    def __init__(self) -> None:
        self.cursor = (0, 0)

    async def load(self, name: str) -> tuple[int, int]:
        return self.cursor

    async def save(self, name: str, cursor: tuple[int, int]) -> None:
        self.cursor = cursor


class FakeLeases:
    def __init__(self) -> None:
        self.holder: str | None = None

    async def acquire(self, name: str, holder: str, seconds: float) -> bool:
        if self.holder in (None, holder):
            self.holder = holder
        return self.holder == holder

    async def release(self, name: str, holder: str) -> None:
        if self.holder == holder:
            self.holder = None


def relay(store: FakeStore, bus: FakeBus, checkpoints: FakeCheckpoints, leases: FakeLeases, **more: Any) -> Relay:
    return Relay(store, bus, checkpoints, leases, poll=0.01, lease=0.2, **more)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 fakes ring no bell
            await asyncio.sleep(0.002)


async def test_batches_go_in_order_and_the_checkpoint_follows() -> None:
    store, bus, checkpoints, leases = FakeStore(25), FakeBus(), FakeCheckpoints(), FakeLeases()
    one = relay(store, bus, checkpoints, leases, batch=10)
    await one.start()
    await until(lambda: len(bus.messages) == 25)
    store.events.append(event(26))
    one.wake()
    await until(lambda: len(bus.messages) == 26)
    await one.close()
    assert [m.id for m in bus.messages] == [f"e{n}" for n in range(1, 27)]
    assert checkpoints.cursor == (0, 26)
    assert leases.holder is None


async def test_a_failing_bus_or_database_delays_and_loses_nothing() -> None:
    store, bus, checkpoints = FakeStore(10), FakeBus(), FakeCheckpoints()
    store.failures, bus.failures = 1, 1
    one = relay(store, bus, checkpoints, FakeLeases())
    await one.start()
    await until(lambda: checkpoints.cursor == (0, 10))
    await one.close()
    first_copies = list(dict.fromkeys(m.id for m in bus.messages))
    assert first_copies == [f"e{n}" for n in range(1, 11)]


async def test_only_the_holder_of_the_lease_relays_and_the_next_goes_on_where_it_was() -> None:
    store, checkpoints, leases = FakeStore(5), FakeCheckpoints(), FakeLeases()
    first, second = FakeBus(), FakeBus()
    one, two = relay(store, first, checkpoints, leases), relay(store, second, checkpoints, leases)
    await one.start()
    await until(lambda: one.leading)
    await two.start()
    await until(lambda: len(first.messages) == 5)
    assert second.messages == []
    await one.close()
    store.events += [event(6), event(7)]
    await until(lambda: len(second.messages) == 2)
    await two.close()
    assert [m.id for m in second.messages] == ["e6", "e7"]


def test_a_message_carries_the_whole_event_ordered_by_tenant_and_stream() -> None:
    original = event(4)
    message = to_message(original)
    assert (message.key, message.id) == ("acme/s1", "e4")
    assert from_cloudevent(orjson.loads(message.value)) == original
