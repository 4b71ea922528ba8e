"""GraphQL of the catalog."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import strawberry
from strawberry.scalars import JSON

from plugin_sdk import GraphQL
from plugin_sdk.web import authorize, graphql_context
from plugins.builtin.catalog.application import TenantPlugins
from plugins.builtin.catalog.domain import Activation, Release


@strawberry.type(name="Build", description="The run of a CI job that made and signed a release.")
class BuildType:
    """A build, for GraphQL."""

    host: str
    repository: str
    workflow: str
    environment: str
    commit: str
    ref: str
    url: str


@strawberry.type(name="Plugin", description="An installed release of a plugin.")
class PluginType:
    """A release, for GraphQL."""

    id: strawberry.ID
    version: str
    name: str
    summary: str
    kind: str
    state: str
    capabilities: list[str]
    provenance: BuildType | None


@strawberry.type(name="Activation", description="One plugin for the tenant.")
class ActivationType:
    """An activation, for GraphQL."""

    plugin: strawberry.ID
    version: str
    state: str
    grants: list[str]
    denied: list[str]
    settings: JSON
    pinned: bool


def _plugin(release: Release) -> PluginType:
    manifest = release.manifest
    return PluginType(
        id=strawberry.ID(manifest.id),
        version=manifest.version,
        name=manifest.name,
        summary=manifest.summary,
        kind=manifest.kind,
        state=str(release.state),
        capabilities=list(manifest.capabilities.asked()),
        provenance=BuildType(**asdict(build)) if (build := release.origin and release.origin.build) else None,
    )


def _activation(activation: Activation) -> ActivationType:
    return ActivationType(
        plugin=strawberry.ID(activation.plugin),
        version=activation.version,
        state=str(activation.state),
        grants=sorted(activation.grants),
        denied=sorted(activation.denied),
        settings=JSON(dict(activation.settings)),
        pinned=activation.pinned,
    )


def types(tenants: TenantPlugins) -> GraphQL:
    """The catalog's part of the schema."""

    @strawberry.type
    class Query:
        @strawberry.field(description="Installed plugins.")
        async def plugins(self, info: strawberry.Info) -> list[PluginType]:
            await authorize(graphql_context(info), "plugins:read")
            return [_plugin(r) for r in await tenants.installed()]

        @strawberry.field(description="What is, or was, on for the tenant.")
        async def activations(self, info: strawberry.Info, tenant: str | None = None) -> list[ActivationType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            return [_activation(a) for a in await tenants.activations(context.tenant)]

    @strawberry.type
    class Mutation:
        @strawberry.mutation(description="Consent to a plugin and switch it on.")
        async def activate_plugin(
            self,
            info: strawberry.Info,
            plugin: str,
            grants: JSON | None = None,
            settings: JSON | None = None,
            version: str | None = None,
        ) -> ActivationType:
            context = await authorize(graphql_context(info), "plugins:activate")
            decisions: Any = grants
            given: Any = settings
            return _activation(
                await tenants.activate(context, plugin, version=version, decisions=decisions, settings=given)
            )

        @strawberry.mutation(description="Switch a plugin off.")
        async def deactivate_plugin(self, info: strawberry.Info, plugin: str) -> ActivationType:
            context = await authorize(graphql_context(info), "plugins:activate")
            return _activation(await tenants.deactivate(context, plugin))

    return GraphQL(query=Query, mutation=Mutation)
