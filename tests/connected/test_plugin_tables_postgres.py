"""The plugins' tables on PostgreSQL, with the real role and raw SQL."""

from __future__ import annotations

import pytest

from tests.contract.suites.metering import MeteringSuite
from tests.contract.suites.plugins import PluginTablesSuite

pytestmark = pytest.mark.connected


class TestPluginTables(PluginTablesSuite):
    pass


class TestMetering(MeteringSuite):
    pass
