"""GraphQL of known weaknesses in what is active."""

from __future__ import annotations

import strawberry

from plugin_sdk import GraphQL
from plugin_sdk.web import authorize, graphql_context, scope_of
from plugins.builtin.catalog.advisories.keeper import AdvisoryKeeper


@strawberry.type(name="AffectedPlugin", description="An active plugin with a known weakness.")
class AffectedType:
    """For GraphQL."""

    tenant: str
    plugin: str
    version: str
    advisory: str
    summary: str
    severity: str | None
    by: str
    aliases: list[str]
    fixed_in: list[str]


@strawberry.type(name="AffectedRelease", description="An installed release with a known weakness, and what mends it.")
class AffectedReleaseType:
    """For GraphQL."""

    plugin: str
    version: str
    state: str
    advisory: str
    summary: str
    severity: str | None
    by: str
    aliases: list[str]
    fixed_in: list[str]
    mends: list[str]
    tenants: list[str]


def advisory_types(keeper: AdvisoryKeeper) -> GraphQL:
    """The advisories' part of the schema."""

    @strawberry.type
    class Query:
        @strawberry.field(description="Active plugins with a known weakness: the tenant's; operators see everybody's.")
        async def affected_plugins(self, info: strawberry.Info, tenant: str | None = None) -> list[AffectedType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            return [
                AffectedType(
                    tenant=each.tenant,
                    plugin=each.plugin,
                    version=each.version,
                    advisory=each.advisory.id,
                    summary=each.advisory.summary,
                    severity=each.advisory.severity,
                    by=each.advisory.by,
                    aliases=list(each.advisory.aliases),
                    fixed_in=list(each.fixed_in),
                )
                for each in await keeper.affected(scope_of(context, tenant))
            ]

        @strawberry.field(description="Installed releases with a known weakness, and installed versions that mend it.")
        async def affected_releases(
            self, info: strawberry.Info, tenant: str | None = None
        ) -> list[AffectedReleaseType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            return [
                AffectedReleaseType(
                    plugin=each.plugin,
                    version=each.version,
                    state=str(each.state),
                    advisory=each.advisory.id,
                    summary=each.advisory.summary,
                    severity=each.advisory.severity,
                    by=each.advisory.by,
                    aliases=list(each.advisory.aliases),
                    fixed_in=list(each.fixed_in),
                    mends=list(each.mends),
                    tenants=list(each.tenants),
                )
                for each in await keeper.installed(scope_of(context, tenant))
            ]

    return GraphQL(query=Query)
