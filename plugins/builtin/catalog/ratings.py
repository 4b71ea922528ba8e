"""Ratings: what a tenant's admin says of a plugin that really is on for the tenant, signed by the platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from plugin_sdk import Conflict, Context
from plugin_sdk.reporting import MOST_TEXT, RATING, platform_name, pseudonym
from plugin_sdk.services import Marketplace, StatementSigner
from plugin_sdk.web import requires
from plugins.builtin.catalog.application import TenantPlugins, utc_now

Activates = Annotated[Context, requires("plugins:activate")]


@dataclass(frozen=True, slots=True)
class Rated:
    """What was handed in. ``tenant`` and ``platform`` are the names that the marketplace sees."""

    plugin: str
    version: str
    stars: int
    text: str
    tenant: str
    platform: str


class TenantRatings:
    """Signs ratings and hands them to the marketplace, which keeps one for each tenant and plugin."""

    def __init__(
        self,
        tenants: TenantPlugins,
        marketplace: Callable[[], Marketplace],
        signer: Callable[[], StatementSigner],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tenants, self._marketplace, self._signer, self._now = tenants, marketplace, signer, now

    async def rate(self, context: Context, plugin: str, stars: int, text: str) -> Rated:
        """Rate the version that is on for the context's tenant, in the place of an earlier rating.

        Raises NotFound (never activated), Conflict (not on now), and what the marketplace answers.
        """
        activation = await self._tenants.activation(context.tenant, plugin)
        if not activation.running:
            raise Conflict(
                f"{plugin} is {activation.state.value} for {context.tenant}, so nothing can be said of how it runs.",
                plugin=plugin,
                tenant=context.tenant,
                fix=f"Switch it on: keelstone tenant enable {context.tenant} {plugin}",
            )
        release = await self._tenants.find(plugin, activation.version)
        signer, at = self._signer(), self._now()
        keys, tenant = signer.public_keys(), pseudonym(signer, plugin, context.tenant)
        statement = {
            "plugin": plugin,
            "version": activation.version,
            "digest": release.digest,
            "tenant": tenant,
            "stars": stars,
            "text": text.strip(),
            "at": at.isoformat(timespec="seconds"),
        }
        await self._marketplace().hand_in("ratings", signer.sign(RATING, statement), keys)
        return Rated(plugin, activation.version, stars, text.strip(), tenant, platform_name(keys))


class RatingIn(BaseModel):
    """1 to 5 stars, and why."""

    model_config = ConfigDict(extra="forbid")
    stars: int = Field(ge=1, le=5)
    text: str = Field(default="", max_length=MOST_TEXT)


class RatingOut(BaseModel):
    """What the marketplace was told: `tenant` and `platform` are names that it cannot trace back."""

    model_config = ConfigDict(from_attributes=True)
    plugin: str
    version: str
    stars: int
    text: str
    tenant: str
    platform: str


def ratings_router(ratings: TenantRatings) -> APIRouter:
    """A tenant's ratings."""
    router = APIRouter(prefix="/tenants/{tenant}/activations", tags=["activations"])

    @router.put("/{publisher}/{name}/rating", summary="Rate the version that is on, for everybody to read")
    async def rate(context: Activates, publisher: str, name: str, body: RatingIn) -> RatingOut:
        return RatingOut.model_validate(await ratings.rate(context, f"{publisher}/{name}", body.stars, body.text))

    return router
