"""Tenants: provisioning, configuration, overview. Wiring, REST and GraphQL."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from strawberry.scalars import JSON

from plugin_sdk import (
    ALL_TENANTS,
    Context,
    GraphQL,
    PluginContext,
    Projection,
    Routes,
    ServiceMethod,
    TenantDraft,
    Text,
    hookimpl,
)
from plugin_sdk.data import Schema
from plugin_sdk.services import Database, TenantDirectory, TenantPlans
from plugin_sdk.web import MAX_PAGE, Page, authorize, graphql_context, requires
from plugins.builtin.tenants import services
from plugins.builtin.tenants.application import Tenants
from plugins.builtin.tenants.domain import Tenant
from plugins.builtin.tenants.infrastructure import OVERVIEW, SCHEMA, SqlTenants


class TenantPatch(BaseModel):
    """What to change; configuration is merged, null removes a key."""

    model_config = ConfigDict(extra="forbid")
    name: Text | None = Field(default=None, min_length=1, max_length=200)
    plan: Text | None = Field(default=None, min_length=1, max_length=60)
    configuration: dict[str, Any] | None = None


class TenantOut(BaseModel):
    """A tenant."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    plan: str
    configuration: dict[str, Any]
    version: int
    created_at: datetime


class OverviewOut(BaseModel):
    """What a tenant has and does; a moment behind."""

    model_config = ConfigDict(from_attributes=True)
    users: int
    active_plugins: int
    events: int
    last_event_at: datetime | None


@strawberry.type(name="Tenant", description="An isolated customer.")
class TenantType:
    """A tenant, for GraphQL."""

    id: strawberry.ID
    name: str
    plan: str
    configuration: JSON
    created_at: datetime


def _graphql(tenant: Tenant) -> TenantType:
    return TenantType(
        id=strawberry.ID(tenant.id),
        name=tenant.name,
        plan=tenant.plan,
        configuration=JSON(dict(tenant.configuration)),
        created_at=tenant.created_at,
    )


def _scope(context: Context) -> str:
    return ALL_TENANTS if context.principal.is_operator else context.tenant


class TenantsPlugin:
    """Hook implementations."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    @hookimpl
    def contribute_tables(self) -> Schema:
        return SCHEMA

    @hookimpl
    def contribute_projections(self) -> Projection:
        return OVERVIEW

    @hookimpl
    def contribute_routes(self) -> Routes:
        return Routes(_router(self._tenants))

    @hookimpl
    def contribute_graphql(self) -> GraphQL:
        return _graphql_types(self._tenants)

    @hookimpl
    def contribute_services(self) -> list[ServiceMethod]:
        return services.methods(self._tenants)


def _router(tenants: Tenants) -> APIRouter:
    router = APIRouter(prefix="/tenants", tags=["tenants"])

    @router.get("", summary="Tenants: all for operators, one's own for others")
    async def list_tenants(
        context: Annotated[Context, requires("tenants:read")],
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str, Query(max_length=64)] = "",
    ) -> Page[TenantOut]:
        found = await tenants.page(_scope(context), after, limit)
        more = found[-1].id if len(found) == limit else None
        return Page(items=[TenantOut.model_validate(t) for t in found], next=more)

    @router.post("", status_code=201, summary="Provision a tenant")
    async def provision(context: Annotated[Context, requires("tenants:provision")], body: TenantDraft) -> TenantOut:
        return TenantOut.model_validate(await tenants.create(context, body))

    @router.get("/{tenant}", summary="One tenant")
    async def get_tenant(context: Annotated[Context, requires("tenants:read")]) -> TenantOut:
        return TenantOut.model_validate(await tenants.get(context.tenant))

    @router.patch("/{tenant}", summary="Change name, plan or configuration")
    async def configure(context: Annotated[Context, requires("tenants:configure")], body: TenantPatch) -> TenantOut:
        changed = await tenants.configure(context, name=body.name, plan=body.plan, configuration=body.configuration)
        return TenantOut.model_validate(changed)

    @router.get("/{tenant}/overview", summary="What the tenant has and does")
    async def overview(context: Annotated[Context, requires("tenants:read")]) -> OverviewOut:
        return OverviewOut.model_validate(await tenants.overview(context.tenant))

    return router


def _graphql_types(tenants: Tenants) -> GraphQL:
    @strawberry.type
    class Query:
        @strawberry.field(description="Tenants: all for operators, one's own for others.")
        async def tenants(self, info: strawberry.Info, limit: int = 50, after: str = "") -> list[TenantType]:
            context = await authorize(graphql_context(info), "tenants:read")
            found = await tenants.page(_scope(context), after, max(1, min(limit, MAX_PAGE)))
            return [_graphql(t) for t in found]

        @strawberry.field(description="One tenant.")
        async def tenant(self, info: strawberry.Info, id: strawberry.ID) -> TenantType:
            context = await authorize(graphql_context(info), "tenants:read", tenant=str(id))
            return _graphql(await tenants.get(context.tenant))

    return GraphQL(query=Query)


def start(platform: PluginContext) -> TenantsPlugin:
    """Wire the plugin and publish TenantDirectory and TenantPlans."""
    tenants = Tenants(platform.services.get(Database), SqlTenants(), platform.hooks)
    platform.services.publish(TenantDirectory, tenants)
    platform.services.publish(TenantPlans, tenants)
    return TenantsPlugin(tenants)
