"""REST of upgrades: an operator's for all tenants, an admin's for the own tenant."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from plugin_sdk import PLATFORM_TENANT, Context, Text, ValidationFailed
from plugin_sdk.web import requires
from plugins.builtin.catalog.moves import Move
from plugins.builtin.catalog.rest import MoveOut
from plugins.builtin.catalog.upgrades.application import Status, Upgrades
from plugins.builtin.catalog.upgrades.domain import Upgrade
from plugins.builtin.catalog.upgrades.figures import Thresholds
from plugins.builtin.catalog.upgrades.preflight import Preflight, Preflights
from plugins.builtin.catalog.upgrades.windows import Window, parse_window

Reads = Annotated[Context, requires("plugins:read")]
Installs = Annotated[Context, requires("plugins:install")]
Activates = Annotated[Context, requires("plugins:activate")]
Percent = Annotated[float, Field(gt=0, le=100)]


class ThresholdsIn(BaseModel):
    """When a canary goes back by itself: beyond these differences to the stable version, and never on fewer
    calls than `min_calls`. `promote_after_minutes` 0: never promoted by itself."""

    model_config = ConfigDict(extra="forbid")
    min_calls: int = Field(default=100, ge=1, le=1_000_000)
    error_points: float = Field(default=1.0, ge=0, le=100)
    slower_percent: float = Field(default=50.0, ge=0, le=100_000)
    slower_ms: float = Field(default=5.0, ge=0, le=60_000)
    promote_after_minutes: float = Field(default=0.0, ge=0, le=525_600)


class TenantUpgradeIn(BaseModel):
    """A version to put on trial in the tenant, and the percentage of calls that takes part."""

    model_config = ConfigDict(extra="forbid")
    plugin: Text
    version: Text
    mode: Literal["shadow", "canary"] = "canary"
    calls: Percent = 100.0
    thresholds: ThresholdsIn = ThresholdsIn()


class UpgradeStartIn(TenantUpgradeIn):
    """A version to put on trial, and the percentages of tenants and of calls that take part. Without `tenants`,
    a canary begins with 10 % of them and a shadow with all."""

    tenants: Percent | None = None


class ShareIn(BaseModel):
    """Other percentages of tenants and calls; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    tenants: Percent | None = None
    calls: Percent | None = None


class RollBackIn(BaseModel):
    """Why, for the event and whoever reads it later."""

    model_config = ConfigDict(extra="forbid")
    reason: Text = "asked for"


class WindowIn(BaseModel):
    """When versions may change, in words."""

    model_config = ConfigDict(extra="forbid")
    days: Text = "mon-sun"
    hours: Text
    zone: Text = "UTC"


class WindowOut(BaseModel):
    """When versions may change; `open` says whether that is now."""

    window: str
    open: bool


class UpgradeOut(BaseModel):
    """An upgrade on trial, or one that has ended."""

    id: str
    owner: str
    plugin: str
    version: str
    mode: str
    state: str
    tenants: float
    calls: float
    thresholds: ThresholdsIn
    started_at: datetime
    started_by: str
    ended_at: datetime | None
    reason: str


class PlaceOut(BaseModel):
    """Where one tenant stands: on trial, on it, waits or stays, and why."""

    tenant: str
    version: str
    standing: str
    why: str
    needs_consent: list[str]


class UpgradeStatus(UpgradeOut):
    """An upgrade with its tenants and what was measured. Values in `report` are masked."""

    places: list[PlaceOut]
    report: dict[str, Any]


class UpgradeDone(UpgradeOut):
    """An upgrade after a change, and what the change did in each tenant."""

    moves: list[MoveOut]


def members(upgrade: Upgrade) -> dict[str, Any]:
    """An upgrade as REST and GraphQL show it."""
    names = ("id", "owner", "plugin", "version", "mode", "tenants", "calls", "started_at", "started_by", "ended_at")
    shown = {name: getattr(upgrade, name) for name in (*names, "reason")}
    return shown | {"state": str(upgrade.state), "thresholds": asdict(upgrade.thresholds)}


def _done(upgrade: Upgrade, moves: list[Move]) -> UpgradeDone:
    return UpgradeDone(**members(upgrade), moves=[MoveOut(**asdict(m)) for m in moves])


def _status(status: Status) -> UpgradeStatus:
    places = [PlaceOut(**asdict(p)) for p in status.places]
    return UpgradeStatus(**members(status.upgrade), places=places, report=dict(status.report))


def _thresholds(given: ThresholdsIn) -> Thresholds:
    return Thresholds(**given.model_dump())


def upgrades_router(upgrades: Upgrades) -> APIRouter:
    """An operator's upgrades, for every tenant on a plugin."""
    router = APIRouter(prefix="/upgrades", tags=["upgrades"])

    @router.get("", summary="Upgrades on trial and ended ones, newest first")
    async def list_upgrades(context: Installs, plugin: Annotated[str | None, Query()] = None) -> list[UpgradeOut]:
        return [UpgradeOut(**members(u)) for u in await upgrades.owned(None, plugin)]

    @router.post("", summary="Put a version on trial for a share of the tenants")
    async def start(context: Installs, body: UpgradeStartIn) -> UpgradeDone:
        done = await upgrades.start(
            context,
            body.plugin,
            body.version,
            mode=body.mode,
            tenants=body.tenants,
            calls=body.calls,
            thresholds=_thresholds(body.thresholds),
        )
        return _done(*done)

    @router.get("/{upgrade}", summary="One upgrade: where tenants stand, what was measured")
    async def get_upgrade(context: Installs, upgrade: str) -> UpgradeStatus:
        return _status(await upgrades.status(await upgrades.get(upgrade, PLATFORM_TENANT)))

    @router.put("/{upgrade}/share", summary="Another share of tenants or calls; a larger one only adds")
    async def share(context: Installs, upgrade: str, body: ShareIn) -> UpgradeDone:
        found = await upgrades.get(upgrade, PLATFORM_TENANT)
        return _done(*await upgrades.share(context, found, tenants=body.tenants, calls=body.calls))

    @router.post("/{upgrade}/promote", summary="The new version for everybody who follows")
    async def promote(context: Installs, upgrade: str) -> UpgradeDone:
        return _done(*await upgrades.promote(context, await upgrades.get(upgrade, PLATFORM_TENANT)))

    @router.post("/{upgrade}/rollback", summary="Only the version from before, at once")
    async def roll_back(context: Installs, upgrade: str, body: RollBackIn) -> UpgradeDone:
        found = await upgrades.get(upgrade, PLATFORM_TENANT)
        return _done(*await upgrades.roll_back(context, found, body.reason))

    return router


def tenant_upgrades_router(upgrades: Upgrades) -> APIRouter:
    """A tenant's own upgrades and upgrade window; it sees an operator's that are on trial there."""
    router = APIRouter(prefix="/tenants/{tenant}", tags=["upgrades"])

    @router.get("/upgrades", summary="The tenant's upgrades, with what was measured in it")
    async def list_upgrades(context: Reads) -> list[UpgradeStatus]:
        found = await upgrades.of_tenant(context.tenant)
        return [_status(await upgrades.status(u, context.tenant)) for u in found[:20]]

    @router.post("/upgrades", summary="Put a version on trial in the tenant")
    async def start(context: Activates, body: TenantUpgradeIn) -> UpgradeDone:
        done = await upgrades.start(
            context,
            body.plugin,
            body.version,
            owner=context.tenant,
            mode=body.mode,
            calls=body.calls,
            thresholds=_thresholds(body.thresholds),
        )
        return _done(*done)

    @router.put("/upgrades/{upgrade}/share", summary="Another share of calls")
    async def share(context: Activates, upgrade: str, body: ShareIn) -> UpgradeDone:
        found = await upgrades.get(upgrade, context.tenant)
        return _done(*await upgrades.share(context, found, tenants=body.tenants, calls=body.calls))

    @router.post("/upgrades/{upgrade}/promote", summary="The version on trial becomes the tenant's")
    async def promote(context: Activates, upgrade: str) -> UpgradeDone:
        return _done(*await upgrades.promote(context, await upgrades.get(upgrade, context.tenant)))

    @router.post("/upgrades/{upgrade}/rollback", summary="End the tenant's own trial")
    async def roll_back(context: Activates, upgrade: str, body: RollBackIn) -> UpgradeDone:
        found = await upgrades.get(upgrade, context.tenant)
        return _done(*await upgrades.roll_back(context, found, body.reason))

    @router.get("/upgrade-window", summary="When the versions of the tenant's plugins may change")
    async def window(context: Reads) -> WindowOut:
        return _window(upgrades, await upgrades.window(context.tenant))

    @router.put("/upgrade-window", summary="Let versions change only in these hours")
    async def set_window(context: Activates, body: WindowIn) -> WindowOut:
        window = parse_window(body.days, body.hours, body.zone)
        await upgrades.set_window(context, window)
        return _window(upgrades, window)

    @router.delete("/upgrade-window", summary="Let versions change at any time")
    async def clear_window(context: Activates) -> WindowOut:
        await upgrades.set_window(context, None)
        return _window(upgrades, None)

    return router


def _window(upgrades: Upgrades, window: Window | None) -> WindowOut:
    return WindowOut(window="always" if window is None else str(window), open=upgrades.is_open(window))


class FindingOut(BaseModel):
    """One thing that an upgrade would meet. `tenant` is empty for the whole platform."""

    tenant: str
    plugin: str
    kind: str
    severity: str
    detail: str
    fix: str


class ChangedOut(BaseModel):
    """What the version may do that the one before may not, and the other way round, in plain words."""

    model_config = ConfigDict(from_attributes=True)
    before: str
    after: str
    changes: list[str]


class PreflightOut(BaseModel):
    """What an upgrade would meet; `breaks` says whether something would not work. `changes` are for those on each
    version that runs now."""

    breaks: bool
    tenants: int
    findings: list[FindingOut]
    changes: list[ChangedOut]


def _preflight(found: Preflight) -> PreflightOut:
    findings = [FindingOut(**asdict(f)) for f in found.findings]
    changes = [ChangedOut.model_validate(c) for c in found.changes]
    return PreflightOut(breaks=found.breaks, tenants=found.tenants, findings=findings, changes=changes)


def preflight_router(preflights: Preflights) -> APIRouter:
    """What an upgrade would break, before anything is touched."""
    router = APIRouter(tags=["upgrades"])

    @router.get("/upgrade-preflight", summary="What a plugin's or the kernel's upgrade would break, by tenant")
    async def preflight(
        context: Installs,
        plugin: Annotated[str | None, Query()] = None,
        version: Annotated[str | None, Query()] = None,
        kernel: Annotated[str | None, Query()] = None,
        serves: Annotated[list[str] | None, Query()] = None,
    ) -> PreflightOut:
        if kernel is not None and plugin is None and version is None:
            return _preflight(await preflights.kernel(kernel, serves or ()))
        if plugin is None or version is None or kernel is not None:
            raise ValidationFailed("A preflight is of one upgrade.", expected="plugin and version, or kernel")
        return _preflight(await preflights.plugin(plugin, version))

    @router.get("/tenants/{tenant}/upgrade-preflight", summary="What a plugin's upgrade would break in the tenant")
    async def tenant_preflight(
        context: Activates, plugin: Annotated[str, Query()], version: Annotated[str, Query()]
    ) -> PreflightOut:
        return _preflight(await preflights.plugin(plugin, version, context.tenant))

    return router
