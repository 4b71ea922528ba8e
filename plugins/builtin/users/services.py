"""What guests may ask of this plugin."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from plugin_sdk import Context, ServiceMethod
from plugins.builtin.users.application import Users
from plugins.builtin.users.domain import User


class FindUser(BaseModel):
    """Whom to look for: by id, or by address."""

    model_config = ConfigDict(extra="forbid")
    id: str | None = Field(default=None, min_length=1, max_length=64)
    email: str | None = Field(default=None, min_length=3, max_length=254)


class FoundUser(BaseModel):
    """A person of the caller's tenant."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    email: str
    name: str
    attributes: dict[str, Any]


def methods(users: Users) -> list[ServiceMethod]:
    """``find``: one person by id or address, or null."""

    async def find(context: Context, wanted: FindUser) -> FoundUser | None:
        found: User | None = None
        if wanted.id is not None:
            found = await users.lookup(context.tenant, wanted.id)
        elif wanted.email is not None:
            found = next(iter(await users.page(context, limit=1, email=wanted.email)), None)
        if found is None or (wanted.email is not None and found.email.lower() != wanted.email.lower()):
            return None
        return FoundUser.model_validate(found)

    return [ServiceMethod("find", "One person of the tenant by id or address, or null.", FindUser, find)]
