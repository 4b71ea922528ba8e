"""Every table of every plugin that ships with us, under the generated isolation check."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable

from kernel.adapters.sql import SqlDatabase
from kernel.discovery import find_plugins
from kernel.tables import Schema, owner_of
from tests.contract.suites.isolation import check_isolation

Open = Callable[[], Awaitable[SqlDatabase]]


def plugin_schemas() -> list[Schema]:
    """The schemas of the plugins found by entry point that have tables."""
    found = []
    for plugin in find_plugins():
        package = plugin.load().__module__.rpartition(".")[0]
        try:
            module = importlib.import_module(f"{package}.infrastructure")
        except ModuleNotFoundError:
            continue
        found.append(module.SCHEMA)
    return found


class PluginTablesSuite:
    async def test_no_table_of_any_plugin_can_be_reached_across_tenants(self, open_database: Open) -> None:
        schemas = plugin_schemas()
        assert {s.plugin for s in schemas} == {
            "keelstone/catalog",
            "keelstone/identity",
            "keelstone/metering",
            "keelstone/tenants",
            "keelstone/users",
        }
        database = await open_database()
        await database.migrate(schemas)
        tried = set(await check_isolation(database, schemas))
        declared = {t.name for s in schemas for t in s.metadata.tables.values() if owner_of(t) == "tenant"}
        assert declared <= tried
