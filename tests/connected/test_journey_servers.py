"""An event's whole way on PostgreSQL, with Redis and with Kafka between several processes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from kernel.adapters.kafka import KafkaBus
from kernel.adapters.redis import RedisBus
from kernel.ports import Bus
from tests.contract.suites.bus import OpenBus
from tests.contract.suites.journey import SharedJourneySuite
from tests.services import Server

pytestmark = pytest.mark.connected


class TestOverRedis(SharedJourneySuite):
    @pytest.fixture
    async def open_bus(self, redis: Server) -> AsyncIterator[OpenBus]:
        prefix, opened = f"journey-{secrets.token_hex(4)}", []

        async def open_one() -> Bus:
            bus = RedisBus.from_url(f"{redis.url}?prefix={prefix}")
            bus.lock_seconds = 2.0
            opened.append(bus)
            await bus.start()
            return bus

        yield open_one
        for bus in opened:
            await bus.close()

    @pytest.fixture
    def reopen_bus(self, open_bus: OpenBus) -> OpenBus:
        return open_bus


class TestOverKafka(SharedJourneySuite):
    @pytest.fixture
    async def open_bus(self, kafka: Server) -> AsyncIterator[OpenBus]:
        topic, opened = f"journey-{secrets.token_hex(4)}", []

        async def open_one() -> Bus:
            idempotent = "true" if kafka.idempotent else "false"
            bus = KafkaBus.from_url(f"{kafka.url}?topic={topic}&partitions=6&idempotent={idempotent}")
            opened.append(bus)
            await bus.start()
            return bus

        yield open_one
        for bus in opened:
            await bus.close()

    @pytest.fixture
    def reopen_bus(self, open_bus: OpenBus) -> OpenBus:
        return open_bus
