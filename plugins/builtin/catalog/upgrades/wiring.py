"""The parts of upgrades on trial, wired: use cases, what measures, what mirrors."""

from __future__ import annotations

from collections.abc import Callable

from plugin_sdk import Dispatcher, GraphQL, Routes
from plugin_sdk.services import ActivationControl, BlobStore, BreakerControl, Database, Marketplace
from plugins.builtin.catalog.application import TenantPlugins
from plugins.builtin.catalog.consent.updates import Updates
from plugins.builtin.catalog.infrastructure import SqlCatalog
from plugins.builtin.catalog.moves import Mover
from plugins.builtin.catalog.operations import Operations
from plugins.builtin.catalog.policy.gate import PolicyGate
from plugins.builtin.catalog.upgrades.application import Upgrades
from plugins.builtin.catalog.upgrades.graphql import upgrade_types
from plugins.builtin.catalog.upgrades.infrastructure import SqlUpgrades
from plugins.builtin.catalog.upgrades.mirror import Mirror
from plugins.builtin.catalog.upgrades.monitor import Monitor
from plugins.builtin.catalog.upgrades.preflight import Preflights
from plugins.builtin.catalog.upgrades.rest import preflight_router, tenant_upgrades_router, upgrades_router


class Trials:
    """Upgrades on trial in this process, from start to stop."""

    def __init__(
        self,
        database: Database,
        repository: SqlCatalog,
        control: ActivationControl,
        tenants: TenantPlugins,
        operations: Operations,
        mover: Mover,
        breakers: BreakerControl,
        hooks: Dispatcher,
        blobs: BlobStore,
        marketplace: Callable[[], Marketplace],
        gate: PolicyGate,
        updates: Updates,
    ) -> None:
        stored = SqlUpgrades()
        self.upgrades = Upgrades(database, repository, stored, control, tenants, operations, mover, gate)
        self.monitor = Monitor(database, stored, self.upgrades, breakers)
        self.mirror = Mirror(control, self.monitor.compared)
        self.preflights = Preflights(database, repository, stored, operations, hooks, blobs, marketplace, gate, updates)
        control.watch_calls(self.monitor.note)
        control.listen("plugin.upgrade_started", self.monitor.heard)
        control.mirror_calls(self.mirror.offer)

    def routes(self) -> list[Routes]:
        """REST of upgrades."""
        return [
            Routes(upgrades_router(self.upgrades)),
            Routes(tenant_upgrades_router(self.upgrades)),
            Routes(preflight_router(self.preflights)),
        ]

    def graphql(self) -> GraphQL:
        """The read side in GraphQL."""
        return upgrade_types(self.upgrades, self.preflights)

    def start(self) -> None:
        """Begin to mirror and to measure."""
        self.mirror.start()
        self.monitor.start()

    async def stop(self) -> None:
        """Stop, and store what was measured."""
        await self.mirror.stop()
        await self.monitor.stop()
