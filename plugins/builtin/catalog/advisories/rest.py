"""REST of known weaknesses in what is active."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from plugin_sdk import Context
from plugin_sdk.web import requires, scope_of
from plugins.builtin.catalog.advisories.keeper import AdvisoryKeeper, Affected

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
    fixed_in: list[str]


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
        fixed_in=list(found.fixed_in),
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

    return router
