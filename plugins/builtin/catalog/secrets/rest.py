"""REST of a tenant's secrets for its plugins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, SecretStr

from plugin_sdk import Context
from plugin_sdk.web import requires
from plugins.builtin.catalog.secrets.application import PluginSecrets


class SecretIn(BaseModel):
    """A secret's value, which is never shown again."""

    model_config = ConfigDict(extra="forbid")
    value: SecretStr


class SecretOut(BaseModel):
    """A secret, without its value."""

    model_config = ConfigDict(from_attributes=True)
    name: str
    why: str
    hosts: list[str]
    places: list[str]
    entered: bool
    changed_at: datetime | None
    changed_by: str


Reads = Annotated[Context, requires("plugins:read")]
Activates = Annotated[Context, requires("plugins:activate")]


def secrets_router(secrets: PluginSecrets) -> APIRouter:
    """A tenant's secrets, by plugin."""
    router = APIRouter(prefix="/tenants/{tenant}/activations/{publisher}/{name}/secrets", tags=["activations"])

    @router.get("", summary="A plugin's secrets, without their values")
    async def list_secrets(context: Reads, publisher: str, name: str) -> list[SecretOut]:
        return [SecretOut.model_validate(s) for s in await secrets.list(context.tenant, f"{publisher}/{name}")]

    @router.put("/{secret}", status_code=204, summary="Enter or replace a secret")
    async def put_secret(context: Activates, publisher: str, name: str, secret: str, body: SecretIn) -> None:
        await secrets.put(context, f"{publisher}/{name}", secret, body.value.get_secret_value())

    @router.delete("/{secret}", status_code=204, summary="Delete a secret")
    async def remove_secret(context: Activates, publisher: str, name: str, secret: str) -> None:
        await secrets.remove(context, f"{publisher}/{name}", secret)

    return router
