"""The SQL suites on SQLite, in the process."""

from __future__ import annotations

from tests.contract.suites.database import DatabaseSuite
from tests.contract.suites.events import EventStoreSuite


class TestDatabase(DatabaseSuite):
    pass


class TestEventStore(EventStoreSuite):
    pass
