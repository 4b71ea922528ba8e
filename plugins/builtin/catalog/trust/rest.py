"""REST of held updates."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from plugin_sdk import PLATFORM_TENANT, Context, Text
from plugin_sdk.web import requires, scope_of
from plugins.builtin.catalog.trust.application import Trust
from plugins.builtin.catalog.trust.domain import Hold
from plugins.builtin.catalog.trust.owners import OwnerKeeper

Reads = Annotated[Context, requires("plugins:read")]
Installs = Annotated[Context, requires("plugins:install")]
Activates = Annotated[Context, requires("plugins:activate")]


class AllowIn(BaseModel):
    """Which held version to let through, and why, for whoever reads it later."""

    model_config = ConfigDict(extra="forbid")
    plugin: Text
    version: Text
    reason: Text


class DoubtOut(BaseModel):
    """One thing that changed: `signer`, `provenance` or `owner`. Nobody can allow it before `until`, if that is set."""

    kind: str
    words: str
    until: datetime | None


class HoldOut(BaseModel):
    """An update behind which somebody else stands than behind what runs: `held`, or `allowed` by a person."""

    tenant: str
    plugin: str
    before: str
    version: str
    digest: str
    doubts: list[DoubtOut]
    state: str
    at: datetime
    decided_by: str
    decided_at: datetime | None
    reason: str


def hold_out(hold: Hold) -> HoldOut:
    """A hold as REST shows it."""
    found = [DoubtOut(kind=doubt.kind, words=doubt.words, until=doubt.until) for doubt in hold.doubts]
    names = ("tenant", "plugin", "before", "version", "digest", "state", "at", "decided_by", "decided_at", "reason")
    return HoldOut(doubts=found, **{name: getattr(hold, name) for name in names})


class NewOwnerOut(BaseModel):
    """A plugin that runs and belongs to somebody else by now. Its updates wait until `until`, whoever allows them.
    `recovered`: the marketplace's operator put new keys in place of lost ones."""

    tenant: str
    plugin: str
    version: str
    why: str
    recovered: bool
    until: datetime | None


def owners_router(owners: OwnerKeeper) -> APIRouter:
    """For everybody: operators see every tenant's, others their own."""
    router = APIRouter(prefix="/plugins", tags=["held updates"])

    @router.get("/new-owners", summary="Active plugins that belong to somebody else than when they came")
    async def new_owners(
        context: Reads,
        tenant: Annotated[str | None, Query(max_length=64, description="One tenant's (operators).")] = None,
    ) -> list[NewOwnerOut]:
        return [
            NewOwnerOut(
                tenant=each.tenant,
                plugin=each.plugin,
                version=each.version,
                why=each.doubt.words,
                recovered=each.recovered,
                until=each.doubt.until,
            )
            for each in await owners.new_owners(scope_of(context, tenant))
        ]

    return router


def operator_holds_router(trust: Trust) -> APIRouter:
    """Held updates of all tenants, for operators."""
    router = APIRouter(prefix="/held-updates", tags=["held updates"])

    @router.get("", summary="Updates that are held, or were allowed, newest first")
    async def list_holds(context: Installs) -> list[HoldOut]:
        return [hold_out(hold) for hold in await trust.list(PLATFORM_TENANT)]

    @router.post("/allow", summary="Let a held update through in every tenant")
    async def allow(context: Installs, body: AllowIn) -> HoldOut:
        return hold_out(await trust.allow(context, PLATFORM_TENANT, body.plugin, body.version, body.reason))

    return router


def tenant_holds_router(trust: Trust) -> APIRouter:
    """A tenant's held updates."""
    router = APIRouter(prefix="/tenants/{tenant}/held-updates", tags=["held updates"])

    @router.get("", summary="Updates that are held, or were allowed, newest first")
    async def list_holds(context: Reads) -> list[HoldOut]:
        return [hold_out(hold) for hold in await trust.list(context.tenant)]

    @router.post("/allow", summary="Let a held update through in this tenant")
    async def allow(context: Activates, body: AllowIn) -> HoldOut:
        return hold_out(await trust.allow(context, context.tenant, body.plugin, body.version, body.reason))

    return router
