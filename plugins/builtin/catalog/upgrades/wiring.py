"""The parts of upgrades on trial, wired: use cases, what measures, what mirrors."""

from __future__ import annotations

from plugin_sdk import Routes
from plugin_sdk.services import ActivationControl, BreakerControl, Database
from plugins.builtin.catalog.application import TenantPlugins
from plugins.builtin.catalog.infrastructure import SqlCatalog
from plugins.builtin.catalog.moves import Mover
from plugins.builtin.catalog.operations import Operations
from plugins.builtin.catalog.upgrades.application import Upgrades
from plugins.builtin.catalog.upgrades.infrastructure import SqlUpgrades
from plugins.builtin.catalog.upgrades.mirror import Mirror
from plugins.builtin.catalog.upgrades.monitor import Monitor
from plugins.builtin.catalog.upgrades.rest import tenant_upgrades_router, upgrades_router


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
    ) -> None:
        stored = SqlUpgrades()
        self.upgrades = Upgrades(database, repository, stored, control, tenants, operations, mover)
        self.monitor = Monitor(database, stored, self.upgrades, breakers)
        self.mirror = Mirror(control, self.monitor.compared)
        control.watch_calls(self.monitor.note)
        control.mirror_calls(self.mirror.offer)

    def routes(self) -> list[Routes]:
        """REST of upgrades."""
        return [Routes(upgrades_router(self.upgrades)), Routes(tenant_upgrades_router(self.upgrades))]

    def start(self) -> None:
        """Begin to mirror and to measure."""
        self.mirror.start()
        self.monitor.start()

    async def stop(self) -> None:
        """Stop, and store what was measured."""
        await self.mirror.stop()
        await self.monitor.stop()
