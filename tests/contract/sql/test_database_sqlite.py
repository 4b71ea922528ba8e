"""The SQL suites on SQLite, in the process."""

from __future__ import annotations

from tests.contract.suites.consumers import ConsumersSuite
from tests.contract.suites.database import DatabaseSuite
from tests.contract.suites.events import EventStoreSuite
from tests.contract.suites.isolation import IsolationSuite
from tests.contract.suites.kv import KvSuite
from tests.contract.suites.migrations import MigrationsSuite


class TestDatabase(DatabaseSuite):
    pass


class TestEventStore(EventStoreSuite):
    pass


class TestIsolation(IsolationSuite):
    pass


class TestKv(KvSuite):
    pass


class TestMigrations(MigrationsSuite):
    pass


class TestConsumers(ConsumersSuite):
    pass
