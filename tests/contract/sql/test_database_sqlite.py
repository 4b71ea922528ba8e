"""The SQL suites on SQLite, in the process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kernel.adapters.memory import MemoryBus
from kernel.ports import Bus
from kernel.resilience import Backoff
from tests.contract.suites.breakers import BreakerSuite
from tests.contract.suites.bus import OpenBus
from tests.contract.suites.consumers import ConsumersSuite
from tests.contract.suites.database import DatabaseSuite
from tests.contract.suites.events import EventStoreSuite
from tests.contract.suites.isolation import IsolationSuite
from tests.contract.suites.journey import JourneySuite
from tests.contract.suites.kv import KvSuite, SqlKvExpirySuite
from tests.contract.suites.migrations import MigrationsSuite
from tests.contract.suites.projections import ProjectionsSuite


class TestDatabase(DatabaseSuite):
    pass


class TestEventStore(EventStoreSuite):
    pass


class TestIsolation(IsolationSuite):
    pass


class TestKv(KvSuite):
    pass


class TestKvExpiry(SqlKvExpirySuite):
    pass


class TestBreakers(BreakerSuite):
    pass


class TestMigrations(MigrationsSuite):
    pass


class TestConsumers(ConsumersSuite):
    pass


class TestProjections(ProjectionsSuite):
    pass


class TestJourney(JourneySuite):
    """On SQLite with the bus inside the process: the embedded defaults."""

    @pytest.fixture
    async def reopen_bus(self) -> AsyncIterator[OpenBus]:
        """The bus of a process that starts anew: it remembers nothing."""
        opened: list[MemoryBus] = []

        async def open_one() -> Bus:
            bus = MemoryBus(redelivery=Backoff(first=0.005, most=0.05))
            opened.append(bus)
            await bus.start()
            return bus

        yield open_one
        for bus in opened:
            await bus.close()

    @pytest.fixture
    def open_bus(self, reopen_bus: OpenBus) -> OpenBus:
        return reopen_bus
