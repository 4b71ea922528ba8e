"""GraphQL of held updates."""

from __future__ import annotations

from datetime import datetime

import strawberry

from plugin_sdk import GraphQL
from plugin_sdk.web import authorize, graphql_context, scope_of
from plugins.builtin.catalog.trust.application import Trust
from plugins.builtin.catalog.trust.domain import Hold
from plugins.builtin.catalog.trust.owners import OwnerKeeper


@strawberry.type(name="UpdateDoubt", description="What changed behind an update: its signer, provenance or owner.")
class DoubtType:
    """A doubt, for GraphQL."""

    kind: str
    words: str
    until: datetime | None


@strawberry.type(name="HeldUpdate", description="An update that waits until a person allows it, or was allowed.")
class HeldUpdateType:
    """A hold, for GraphQL."""

    plugin: strawberry.ID
    before: str
    version: str
    digest: str
    doubts: list[DoubtType]
    state: str
    at: datetime
    decided_by: str
    reason: str


@strawberry.type(name="NewOwner", description="An active plugin that belongs to somebody else than when it came.")
class NewOwnerType:
    """A plugin with a new owner, for GraphQL."""

    tenant: str
    plugin: strawberry.ID
    version: str
    why: str
    recovered: bool
    until: datetime | None


def _hold(hold: Hold) -> HeldUpdateType:
    return HeldUpdateType(
        plugin=strawberry.ID(hold.plugin),
        before=hold.before,
        version=hold.version,
        digest=hold.digest,
        doubts=[DoubtType(kind=d.kind, words=d.words, until=d.until) for d in hold.doubts],
        state=hold.state,
        at=hold.at,
        decided_by=hold.decided_by,
        reason=hold.reason,
    )


def held_types(trust: Trust, owners: OwnerKeeper) -> GraphQL:
    """The held updates' part of the schema."""

    @strawberry.type
    class Query:
        @strawberry.field(description="The tenant's updates that are held, or were allowed, newest first.")
        async def held_updates(self, info: strawberry.Info, tenant: str | None = None) -> list[HeldUpdateType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            return [_hold(hold) for hold in await trust.list(context.tenant)]

        @strawberry.field(
            description="Active plugins that belong to somebody else than when they came: the tenant's; operators see "
            "everybody's."
        )
        async def new_owners(self, info: strawberry.Info, tenant: str | None = None) -> list[NewOwnerType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            return [
                NewOwnerType(
                    tenant=each.tenant,
                    plugin=strawberry.ID(each.plugin),
                    version=each.version,
                    why=each.doubt.words,
                    recovered=each.recovered,
                    until=each.doubt.until,
                )
                for each in await owners.new_owners(scope_of(context, tenant))
            ]

    @strawberry.type
    class Mutation:
        @strawberry.mutation(description="Let a held update through in the tenant.")
        async def allow_update(self, info: strawberry.Info, plugin: str, version: str, reason: str) -> HeldUpdateType:
            context = await authorize(graphql_context(info), "plugins:activate")
            return _hold(await trust.allow(context, context.tenant, plugin, version, reason))

    return GraphQL(query=Query, mutation=Mutation)
