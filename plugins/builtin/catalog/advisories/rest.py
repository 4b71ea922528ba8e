"""REST of known weaknesses in what is active."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from plugin_sdk import Context
from plugin_sdk.web import requires, scope_of
from plugins.builtin.catalog.advisories.keeper import AdvisoryKeeper, Affected, AffectedRelease

Reads = Annotated[Context, requires("plugins:read")]


class AffectedOut(BaseModel):
    """An active plugin with a known weakness, and the versions without it. `by` is `marketplace`, or the publisher."""

    tenant: str
    plugin: str
    version: str
    advisory: str
    summary: str
    severity: str | None
    by: str
    aliases: list[str]
    fixed_in: list[str]


class AffectedReleaseOut(BaseModel):
    """An installed release with a known weakness. `fixed_in` are the versions that mend it, `mends` the later versions
    without it that are installed already, `tenants` who runs it: everybody for operators, oneself for others."""

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


def affected_out(found: Affected) -> AffectedOut:
    """As REST shows it."""
    said = found.advisory
    return AffectedOut(
        tenant=found.tenant,
        plugin=found.plugin,
        version=found.version,
        advisory=said.id,
        summary=said.summary,
        severity=said.severity,
        by=said.by,
        aliases=list(said.aliases),
        fixed_in=list(found.fixed_in),
    )


def affected_release_out(found: AffectedRelease) -> AffectedReleaseOut:
    """As REST shows it."""
    said = found.advisory
    return AffectedReleaseOut(
        plugin=found.plugin,
        version=found.version,
        state=str(found.state),
        advisory=said.id,
        summary=said.summary,
        severity=said.severity,
        by=said.by,
        aliases=list(said.aliases),
        fixed_in=list(found.fixed_in),
        mends=list(found.mends),
        tenants=list(found.tenants),
    )


def advisories_router(keeper: AdvisoryKeeper) -> APIRouter:
    """For everybody: operators see every tenant's, others their own."""
    router = APIRouter(prefix="/plugins", tags=["plugins"])

    @router.get("/advisories", summary="Active plugins with a known weakness")
    async def affected(
        context: Reads,
        tenant: Annotated[str | None, Query(max_length=64, description="One tenant's (operators).")] = None,
    ) -> list[AffectedOut]:
        return [affected_out(each) for each in await keeper.affected(scope_of(context, tenant))]

    @router.get("/affected", summary="Installed releases with a known weakness, and what mends them")
    async def affected_releases(
        context: Reads,
        tenant: Annotated[str | None, Query(max_length=64, description="One tenant's sight (operators).")] = None,
    ) -> list[AffectedReleaseOut]:
        return [affected_release_out(each) for each in await keeper.installed(scope_of(context, tenant))]

    return router
