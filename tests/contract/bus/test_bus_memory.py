"""The bus inside the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kernel.adapters import open_bus as open_configured_bus
from kernel.adapters.memory import MemoryBus
from kernel.errors import ConfigurationError
from kernel.ports import Bus, BusMessage, VolatileBus
from kernel.resilience import Backoff
from kernel.settings import Settings
from tests.contract.suites.bus import BusSuite, Collector, OpenBus, messages, until


@pytest.fixture
async def open_bus() -> AsyncIterator[OpenBus]:
    bus = MemoryBus(redelivery=Backoff(first=0.005, most=0.05))
    await bus.start()

    async def the_same() -> Bus:
        return bus

    yield the_same
    await bus.close()


class TestMemoryBus(BusSuite):
    async def test_it_settles_when_every_group_has_handled_everything(self, open_bus: OpenBus) -> None:
        bus, release, seen = await open_bus(), asyncio.Event(), Collector()
        assert isinstance(bus, VolatileBus)

        async def waits(message: BusMessage) -> None:
            await release.wait()
            await seen(message)

        await bus.consume("quick", Collector())
        await bus.consume("slow", waits)
        await bus.publish(messages(10))
        settled = asyncio.create_task(bus.settled())
        await asyncio.sleep(0)
        await bus.publish(messages(1, start=10))
        assert not settled.done()
        release.set()
        await settled
        assert len(seen.got) >= 10

    async def test_two_members_of_a_group_handle_each_message_once(self, open_bus: OpenBus) -> None:
        bus, one, two = await open_bus(), Collector(), Collector()
        subscription = await bus.consume("readers", one)
        await bus.consume("readers", two)
        await bus.publish(messages(20))
        await until(lambda: len(one.got) + len(two.got) == 20)
        await subscription.close()
        await bus.publish(messages(20, start=20))
        await until(lambda: len(one.got) + len(two.got) == 40)


def test_the_address_chooses_the_bus() -> None:
    assert isinstance(open_configured_bus(Settings(bus_url=None)), MemoryBus)
    kafka = open_configured_bus(Settings(bus_url="kafka://h1:1,h2:2?topic=t&partitions=3&idempotent=false"))
    assert (kafka.servers, kafka.topic, kafka.partitions, kafka.idempotent) == ("h1:1,h2:2", "t", 3, False)  # type: ignore[attr-defined]
    redis = open_configured_bus(Settings(bus_url="redis://h:1/3?prefix=p&partitions=2"))
    assert (redis.prefix, redis.partitions) == ("p", 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url", ["nats://h:1", "kafka://", "kafka://h:1?color=red", "redis://h:1/0?partitions=many", "redis://h:x/0"]
)
def test_an_unusable_address_is_refused_with_what_was_expected(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_configured_bus(Settings(bus_url=url))
    assert caught.value.expected
