"""REST of consent receipts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from plugin_sdk import Context
from plugin_sdk.web import requires, scope_of
from plugins.builtin.catalog.consent.receipts import Receipts
from plugins.builtin.catalog.consent.runs import Runs
from plugins.builtin.catalog.domain import MOST_NUMBER

Reads = Annotated[Context, requires("plugins:read")]


class ReceiptOut(BaseModel):
    """One decision on what a plugin may do. `statement` is a JWS that says all of it; `digest` is its SHA-256, which
    the next receipt names."""

    model_config = ConfigDict(from_attributes=True)
    number: int
    plugin: str
    version: str
    at: datetime
    by: str
    digest: str
    statement: str


class ReceiptsExport(BaseModel):
    """Every receipt of the tenant, oldest first, with the public keys that check them."""

    format: int
    tenant: str
    exported_at: datetime
    receipts: list[str]
    keys: dict[str, Any]


class RunOut(BaseModel):
    """A tenant ran a release with these grants; `until` is null if it still does. `receipt` is the SHA-256 of the
    signed receipt of the decision."""

    model_config = ConfigDict(from_attributes=True)
    tenant: str
    plugin: str
    version: str
    digest: str
    since: datetime
    until: datetime | None
    granted: tuple[str, ...]
    by: str
    receipt: str


def runs_router(runs: Runs) -> APIRouter:
    """Who ran what: operators see every tenant, others their own."""
    router = APIRouter(prefix="/runs", tags=["consents"])

    @router.get("/{digest}", summary="Who ran a package, with which grants, and when")
    async def of(context: Reads, digest: str) -> list[RunOut]:
        found = await runs.of(digest, scope_of(context, None))
        return [RunOut.model_validate(each) for each in found]

    return router


def consents_router(receipts: Receipts) -> APIRouter:
    """A tenant's consent receipts."""
    router = APIRouter(prefix="/tenants/{tenant}/consents", tags=["consents"])

    @router.get("", summary="Consent receipts, newest first; `before` a number for older ones")
    async def list_receipts(
        context: Reads,
        plugin: Annotated[str | None, Query()] = None,
        before: Annotated[int | None, Query(ge=1, le=MOST_NUMBER)] = None,
    ) -> list[ReceiptOut]:
        return [ReceiptOut.model_validate(r) for r in await receipts.list(context.tenant, plugin, before)]

    @router.get("/export", summary="Every receipt, to keep and to check offline")
    async def export(context: Reads) -> ReceiptsExport:
        return ReceiptsExport.model_validate(await receipts.export(context.tenant))

    return router
