"""GraphQL of upgrades: what is to be seen of them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from plugin_sdk import GraphQL
from plugin_sdk.web import authorize, graphql_context
from plugins.builtin.catalog.upgrades.application import Status, Upgrades
from plugins.builtin.catalog.upgrades.preflight import Finding, Preflights


@strawberry.type(name="UpgradePlace", description="Where one tenant stands in an upgrade, and why.")
class PlaceType:
    """A place, for GraphQL."""

    tenant: str
    version: str
    standing: str
    why: str
    needs_consent: list[str]


@strawberry.type(name="Upgrade", description="A version on trial, or one that was. Values in the report are masked.")
class UpgradeType:
    """An upgrade, for GraphQL."""

    id: strawberry.ID
    plugin: str
    version: str
    mode: str
    state: str
    tenants: float
    calls: float
    started_at: datetime
    ended_at: datetime | None
    reason: str
    places: list[PlaceType]
    report: JSON


@strawberry.type(name="UpgradeFinding", description="One thing that an upgrade would meet in a tenant.")
class FindingType:
    """A finding, for GraphQL."""

    tenant: str
    plugin: str
    kind: str
    severity: str
    detail: str
    fix: str


def _upgrade(status: Status) -> UpgradeType:
    upgrade = status.upgrade
    return UpgradeType(
        id=strawberry.ID(upgrade.id),
        plugin=upgrade.plugin,
        version=upgrade.version,
        mode=upgrade.mode,
        state=str(upgrade.state),
        tenants=upgrade.tenants,
        calls=upgrade.calls,
        started_at=upgrade.started_at,
        ended_at=upgrade.ended_at,
        reason=upgrade.reason,
        places=[PlaceType(**(asdict(p) | {"needs_consent": list(p.needs_consent)})) for p in status.places],
        report=JSON(dict(status.report)),
    )


def _finding(finding: Finding) -> FindingType:
    return FindingType(**asdict(finding))


def upgrade_types(upgrades: Upgrades, preflights: Preflights) -> GraphQL:
    """Queries of upgrades: an operator sees every tenant, an admin the own."""

    @strawberry.type
    class Query:
        @strawberry.field(description="The tenant's upgrades; for operators, those of all tenants.")
        async def upgrades(self, info: strawberry.Info, tenant: str | None = None) -> list[UpgradeType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            if context.principal.is_operator and tenant is None:
                return [_upgrade(await upgrades.status(u)) for u in (await upgrades.owned())[:20]]
            found = await upgrades.of_tenant(context.tenant)
            return [_upgrade(await upgrades.status(u, context.tenant)) for u in found[:20]]

        @strawberry.field(description="What a plugin's upgrade would break in the tenant; for operators, in all.")
        async def upgrade_preflight(
            self, info: strawberry.Info, plugin: str, version: str, tenant: str | None = None
        ) -> list[FindingType]:
            context = await authorize(graphql_context(info), "plugins:activate", tenant=tenant)
            only = None if context.principal.is_operator and tenant is None else context.tenant
            return [_finding(f) for f in (await preflights.plugin(plugin, version, only)).findings]

    return GraphQL(query=Query)
