"""The bus suite on Redis and Kafka."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from kernel.adapters.kafka import KafkaBus
from kernel.adapters.redis import RedisBus
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import Bus
from kernel.resilience import Backoff
from tests.contract.suites.bus import Collector, OpenBus, SharedBusSuite, messages, until
from tests.services import Server
from tests.services.base import free_port

pytestmark = pytest.mark.connected
QUICK = Backoff(first=0.005, most=0.05)


class TestRedisBus(SharedBusSuite):
    @pytest.fixture
    async def open_bus(self, redis: Server) -> AsyncIterator[OpenBus]:
        prefix = f"test-{secrets.token_hex(4)}"
        opened: list[RedisBus] = []

        async def open_one() -> Bus:
            bus = RedisBus.from_url(f"{redis.url}?prefix={prefix}&partitions=4")
            bus.redelivery, bus.lock_seconds = QUICK, 2.0
            opened.append(bus)
            await bus.start()
            return bus

        yield open_one
        for bus in opened:
            await bus.close()

    async def test_a_dead_consumers_pending_messages_are_claimed(self, open_bus: OpenBus) -> None:
        one, two = await open_bus(), await open_bus()
        first, second = Collector(), Collector()

        async def never(_: object) -> None:
            await asyncio.sleep(3_600)

        group = await one.consume("readers", never)
        await one.publish(messages(12, keys=3))
        await until(lambda: group._runner.under_way == 12)  # type: ignore[attr-defined]
        # It dies: no more heartbeats, nothing handed back.
        for task in group._tasks:  # type: ignore[attr-defined]
            task.cancel()
        await two.consume("readers", second)
        await until(lambda: len(set(second.ids)) == 12)
        assert all(in_key == sorted(in_key) for in_key in second.by_key().values())
        assert first.got == []

    async def test_trimming_stays_below_every_groups_position(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        assert isinstance(bus, RedisBus)
        bus.retain_seconds = 0.0
        done, release = Collector(), asyncio.Event()

        async def waits(message: object) -> None:
            await release.wait()

        await bus.consume("quick", done)
        await bus.consume("slow", waits)
        await bus.publish(messages(30, keys=1))
        await until(lambda: len(done.got) == 30)
        partition = bus.partition_of("acme/s0")
        assert await bus.trim(partition) == 0
        release.set()
        stream = bus.stream(partition)

        async def pending() -> int:
            return sum(group["pending"] for group in await bus.client.xinfo_groups(stream))

        async with asyncio.timeout(30):
            while await pending():  # noqa: ASYNC110 the servers ring no bell
                await asyncio.sleep(0.02)
        assert await bus.trim(partition) == 29
        assert await bus.client.xlen(stream) == 1

    async def test_another_number_of_partitions_is_refused(self, redis: Server, open_bus: OpenBus) -> None:
        bus = await open_bus()
        assert isinstance(bus, RedisBus)
        other = RedisBus.from_url(f"{redis.url}?prefix={bus.prefix}&partitions=5")
        with pytest.raises(ConfigurationError, match="partitions"):
            await other.start()
        await other.close()


class TestKafkaBus(SharedBusSuite):
    @pytest.fixture
    async def open_bus(self, kafka: Server) -> AsyncIterator[OpenBus]:
        topic = f"test-{secrets.token_hex(4)}"
        opened: list[KafkaBus] = []

        async def open_one() -> Bus:
            idempotent = "true" if kafka.idempotent else "false"
            bus = KafkaBus.from_url(f"{kafka.url}?topic={topic}&partitions=4&idempotent={idempotent}")
            bus.redelivery = QUICK
            opened.append(bus)
            await bus.start()
            return bus

        yield open_one
        for bus in opened:
            await bus.close()

    async def test_a_big_message_passes(self, open_bus: OpenBus) -> None:
        bus, seen = await open_bus(), Collector()
        (small,) = messages(1)
        big = type(small)(small.key, small.id, b"x" * (3 * 1024 * 1024))
        await bus.consume("readers", seen)
        await bus.publish([big])
        await until(lambda: bool(seen.got))
        assert seen.got == [big]


async def test_a_redis_that_does_not_answer_is_said_to_be_unavailable() -> None:
    bus = RedisBus.from_url(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(BackendUnavailable, match="Redis"):
        await bus.start()
    await bus.close()


async def test_a_kafka_that_does_not_answer_is_said_to_be_unavailable() -> None:
    bus = KafkaBus.from_url(f"kafka://127.0.0.1:{free_port()}")
    with pytest.raises(BackendUnavailable, match="Kafka"):
        await bus.start()
    await bus.close()
