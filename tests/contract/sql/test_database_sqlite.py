"""The SQL suites on SQLite, in the process."""

from __future__ import annotations

from tests.contract.suites.database import DatabaseSuite
from tests.contract.suites.events import EventStoreSuite
from tests.contract.suites.isolation import IsolationSuite


class TestDatabase(DatabaseSuite):
    pass


class TestEventStore(EventStoreSuite):
    pass


class TestIsolation(IsolationSuite):
    pass
