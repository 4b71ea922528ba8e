"""GraphQL of known weaknesses in what is active."""

from __future__ import annotations

import strawberry

from plugin_sdk import GraphQL
from plugin_sdk.web import authorize, graphql_context
from plugins.builtin.catalog.advisories.keeper import AdvisoryKeeper


@strawberry.type(name="AffectedPlugin", description="An active plugin with a known weakness.")
class AffectedType:
    """For GraphQL."""

    plugin: str
    version: str
    advisory: str
    summary: str
    severity: str | None
    by: str
    fixed_in: list[str]


def advisory_types(keeper: AdvisoryKeeper) -> GraphQL:
    """The advisories' part of the schema."""

    @strawberry.type
    class Query:
        @strawberry.field(description="The tenant's active plugins with a known weakness.")
        async def affected_plugins(self, info: strawberry.Info, tenant: str | None = None) -> list[AffectedType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            return [
                AffectedType(
                    plugin=each.plugin,
                    version=each.version,
                    advisory=each.advisory.id,
                    summary=each.advisory.summary,
                    severity=each.advisory.severity,
                    by=each.advisory.by,
                    fixed_in=list(each.fixed_in),
                )
                for each in await keeper.affected(context.tenant)
            ]

    return GraphQL(query=Query)
