"""GraphQL of a tenant's secrets for its plugins."""

from __future__ import annotations

from datetime import datetime

import strawberry

from plugin_sdk import GraphQL
from plugin_sdk.web import authorize, graphql_context
from plugins.builtin.catalog.secrets.application import PluginSecrets, SecretState


@strawberry.type(name="PluginSecret", description="A secret kept for a plugin, without its value.")
class SecretType:
    """A secret, for GraphQL."""

    name: str
    why: str
    hosts: list[str]
    places: list[str]
    entered: bool
    changed_at: datetime | None


def _graphql(state: SecretState) -> SecretType:
    return SecretType(
        name=state.name,
        why=state.why,
        hosts=[*state.hosts],
        places=[*state.places],
        entered=state.entered,
        changed_at=state.changed_at,
    )


def secret_types(secrets: PluginSecrets) -> GraphQL:
    """The secrets' part of the schema."""

    @strawberry.type
    class Query:
        @strawberry.field(description="A plugin's secrets in the tenant, without their values.")
        async def plugin_secrets(self, info: strawberry.Info, plugin: str) -> list[SecretType]:
            context = await authorize(graphql_context(info), "plugins:read")
            return [_graphql(s) for s in await secrets.list(context.tenant, plugin)]

    @strawberry.type
    class Mutation:
        @strawberry.mutation(description="Enter or replace a plugin's secret.")
        async def set_plugin_secret(self, info: strawberry.Info, plugin: str, name: str, value: str) -> bool:
            context = await authorize(graphql_context(info), "plugins:activate")
            await secrets.put(context, plugin, name, value)
            return True

        @strawberry.mutation(description="Delete a plugin's secret.")
        async def remove_plugin_secret(self, info: strawberry.Info, plugin: str, name: str) -> bool:
            context = await authorize(graphql_context(info), "plugins:activate")
            await secrets.remove(context, plugin, name)
            return True

    return GraphQL(query=Query, mutation=Mutation)
