"""What guests may ask of this plugin."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from plugin_sdk import Context, ServiceMethod
from plugins.builtin.tenants.application import Tenants


class Nothing(BaseModel):
    """No parameters: the tenant is the caller's."""

    model_config = ConfigDict(extra="forbid")


class TenantFacts(BaseModel):
    """Who the caller's tenant is."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    plan: str
    created_at: datetime


class TenantNumbers(BaseModel):
    """What the caller's tenant has; a moment behind."""

    model_config = ConfigDict(from_attributes=True)
    users: int
    active_plugins: int
    events: int


def methods(tenants: Tenants) -> list[ServiceMethod]:
    """``get`` and ``overview`` of the caller's own tenant."""

    async def get(context: Context, _: Nothing) -> TenantFacts:
        return TenantFacts.model_validate(await tenants.get(context.tenant))

    async def overview(context: Context, _: Nothing) -> TenantNumbers:
        return TenantNumbers.model_validate(await tenants.overview(context.tenant))

    return [
        ServiceMethod("get", "The tenant's name and plan.", Nothing, get),
        ServiceMethod("overview", "How many people, active plugins and events the tenant has.", Nothing, overview),
    ]
