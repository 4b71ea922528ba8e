"""The plugins' tables on SQLite."""

from __future__ import annotations

from tests.contract.suites.metering import MeteringSuite
from tests.contract.suites.plugins import PluginTablesSuite


class TestPluginTables(PluginTablesSuite):
    pass


class TestMetering(MeteringSuite):
    pass
