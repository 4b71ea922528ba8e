"""GraphQL of metering."""

from __future__ import annotations

import strawberry

from plugin_sdk import GraphQL, ValidationFailed
from plugin_sdk.web import MAX_PAGE, authorize, graphql_context, scope_of
from plugins.builtin.metering.application import Metering
from plugins.builtin.metering.domain import LENGTH_OF, Budget, Usage, UsageQuery
from plugins.builtin.metering.rest import bucket_in


@strawberry.type(name="Usage", description="What one plugin version used for one tenant in one hook.")
class UsageType:
    """A sum, for GraphQL. Counts are floats: GraphQL's Int has 32 bits."""

    period: str
    tenant: str
    plugin: strawberry.ID
    version: str
    hook: str
    calls: float
    failures: float
    refused: float
    wall_us: float
    cpu_us: float
    memory_mib_seconds: float
    host_calls: float
    http_bytes: float
    kv_bytes: float
    ai_tokens: float


@strawberry.type(name="Budget", description="A tenant's bound over a day or month, with what is spent of it.")
class BudgetType:
    """A budget, for GraphQL."""

    plugin: strawberry.ID
    period: str
    owner: str
    calls: float | None
    wall_ms: float | None
    ai_tokens: float | None
    http_bytes: float | None
    used_calls: float
    used_wall_ms: float
    used_ai_tokens: float
    used_http_bytes: float


def _usage(u: Usage) -> UsageType:
    return UsageType(
        period=u.period,
        tenant=u.tenant,
        plugin=strawberry.ID(u.plugin),
        version=u.version,
        hook=u.hook,
        calls=u.calls,
        failures=u.failures,
        refused=u.refused,
        wall_us=u.wall_us,
        cpu_us=u.cpu_us,
        memory_mib_seconds=u.memory_mib_seconds,
        host_calls=u.host_calls,
        http_bytes=u.http_bytes,
        kv_bytes=u.kv_bytes,
        ai_tokens=u.ai_tokens,
    )


def _budget(budget: Budget, used: tuple[int, ...]) -> BudgetType:
    return BudgetType(
        plugin=strawberry.ID(budget.plugin),
        period=budget.period,
        owner=budget.owner,
        calls=budget.calls,
        wall_ms=budget.wall_ms,
        ai_tokens=budget.ai_tokens,
        http_bytes=budget.http_bytes,
        used_calls=used[0],
        used_wall_ms=used[1] // 1_000,
        used_ai_tokens=used[2],
        used_http_bytes=used[3],
    )


def types(metering: Metering) -> GraphQL:
    """Metering's part of the schema."""

    @strawberry.type
    class Query:
        @strawberry.field(description="What plugins used, by hour, day, month or in total.")
        async def usage(
            self,
            info: strawberry.Info,
            tenant: str | None = None,
            plugin: str | None = None,
            version: str | None = None,
            hook: str | None = None,
            since: str | None = None,
            until: str | None = None,
            by: str = "total",
            limit: int = 100,
        ) -> list[UsageType]:
            context = await authorize(graphql_context(info), "usage:read")
            scope = scope_of(context, tenant)
            if by not in LENGTH_OF:
                raise ValidationFailed("That is no period.", expected=", ".join(LENGTH_OF), found=by[:40])
            query = UsageQuery(
                scope,
                plugin,
                version,
                hook,
                bucket_in(since) or "",
                bucket_in(until) or "~",
                by,  # type: ignore[arg-type]
            )
            found = await metering.usage(scope, query, None, max(1, min(limit, MAX_PAGE)))
            return [_usage(u) for u in found]

        @strawberry.field(description="A tenant's budgets.")
        async def budgets(self, info: strawberry.Info, tenant: str | None = None) -> list[BudgetType]:
            context = await authorize(graphql_context(info), "usage:read", tenant=tenant)
            return [_budget(b, used) for b, used in await metering.budgets(context.tenant)]

    return GraphQL(query=Query)
