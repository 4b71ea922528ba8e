"""REST of consent receipts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from plugin_sdk import Context
from plugin_sdk.web import requires
from plugins.builtin.catalog.consent.receipts import Receipts

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


def consents_router(receipts: Receipts) -> APIRouter:
    """A tenant's consent receipts."""
    router = APIRouter(prefix="/tenants/{tenant}/consents", tags=["consents"])

    @router.get("", summary="Consent receipts, newest first; `before` a number for older ones")
    async def list_receipts(
        context: Reads,
        plugin: Annotated[str | None, Query()] = None,
        before: Annotated[int | None, Query(ge=1)] = None,
    ) -> list[ReceiptOut]:
        return [ReceiptOut.model_validate(r) for r in await receipts.list(context.tenant, plugin, before)]

    @router.get("/export", summary="Every receipt, to keep and to check offline")
    async def export(context: Reads) -> ReceiptsExport:
        return ReceiptsExport.model_validate(await receipts.export(context.tenant))

    return router
