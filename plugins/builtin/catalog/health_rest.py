"""REST of plugins' health: breakers, quarantine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from plugin_sdk import Context, Text
from plugin_sdk.services import BreakerRecord
from plugin_sdk.web import requires, scope_of
from plugins.builtin.catalog.health import Health, HealthKeeper
from plugins.builtin.catalog.operations import describe
from plugins.builtin.catalog.rest import PluginOut

Reads = Annotated[Context, requires("plugins:read")]
Installs = Annotated[Context, requires("plugins:install")]
Activates = Annotated[Context, requires("plugins:activate")]


OneTenant = Annotated[str | None, Query(max_length=64, description="One tenant's (operators).")]


class BreakerOut(BaseModel):
    """A breaker that is not at peace. ``wait`` is the rest it takes, in seconds; ``until`` its end."""

    hook: str
    state: str
    failures: int
    openings: int
    wait: float
    until: datetime
    since: datetime
    error: str


class HealthOut(BaseModel):
    """How one plugin fares for one tenant."""

    tenant: str
    plugin: str
    version: str
    state: str
    breakers: list[BreakerOut]


class QuarantineIn(BaseModel):
    """Which release, and why; the reason is told to the tenants that run it."""

    model_config = ConfigDict(extra="forbid")
    version: Text
    reason: Text = Field(default="withdrawn by the operator", min_length=3, max_length=500)


class ReleaseIn(BaseModel):
    """Which release is good again."""

    model_config = ConfigDict(extra="forbid")
    version: Text


def _breaker(record: BreakerRecord) -> BreakerOut:
    return BreakerOut(
        hook=record.hook,
        state=record.state,
        failures=record.failures,
        openings=record.openings,
        wait=record.wait,
        until=datetime.fromtimestamp(record.until, UTC),
        since=datetime.fromtimestamp(record.since, UTC),
        error=record.error,
    )


def _health(health: Health) -> HealthOut:
    return HealthOut(
        tenant=health.tenant,
        plugin=health.plugin,
        version=health.version,
        state=health.state,
        breakers=[_breaker(b) for b in health.breakers],
    )


def health_router(keeper: HealthKeeper) -> APIRouter:
    """How plugins fare, for everybody; quarantine, for operators."""
    router = APIRouter(prefix="/plugins", tags=["plugins"])

    @router.get("/health", summary="How active plugins fare: state and breakers")
    async def get_health(context: Reads, tenant: OneTenant = None) -> list[HealthOut]:
        return [_health(h) for h in await keeper.health(scope_of(context, tenant))]

    @router.post("/{publisher}/{name}/quarantine", summary="Withdraw a release: no call reaches it any more")
    async def quarantine(context: Installs, publisher: str, name: str, body: QuarantineIn) -> PluginOut:
        held = await keeper.quarantine(context, f"{publisher}/{name}", body.version, body.reason)
        return PluginOut(**describe(held))

    @router.post("/{publisher}/{name}/release", summary="Let a quarantined release back in, verified anew")
    async def release(context: Installs, publisher: str, name: str, body: ReleaseIn) -> PluginOut:
        return PluginOut(**describe(await keeper.release(context, f"{publisher}/{name}", body.version)))

    return router


def reset_router(keeper: HealthKeeper) -> APIRouter:
    """A tenant's breakers."""
    router = APIRouter(prefix="/tenants/{tenant}/activations", tags=["activations"])

    @router.post("/{publisher}/{name}/reset", summary="Close the plugin's breakers: the next call goes through")
    async def reset(context: Activates, publisher: str, name: str) -> dict[str, int]:
        return {"closed": await keeper.reset(context, f"{publisher}/{name}")}

    return router
