"""The SQL suites on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.contract.suites.database import DatabaseSuite
from tests.contract.suites.events import EventStoreSuite

pytestmark = pytest.mark.connected


class TestDatabase(DatabaseSuite):
    pass


class TestEventStore(EventStoreSuite):
    pass
