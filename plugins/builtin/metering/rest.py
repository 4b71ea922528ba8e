"""REST of metering: usage, budgets, advice, recordings."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from plugin_sdk import Context, Text, ValidationFailed
from plugin_sdk.web import MAX_PAGE, Page, requires, scope_of
from plugins.builtin.metering.advising import Advisor
from plugins.builtin.metering.application import Metering
from plugins.builtin.metering.domain import (
    ALL_PLUGINS,
    Budget,
    By,
    Owner,
    Period,
    Usage,
    UsageQuery,
    bucket_of,
)
from plugins.builtin.metering.keeping import Choice, Kept, Recordings

Reads = Annotated[Context, requires("usage:read")]
Manages = Annotated[Context, requires("budgets:manage")]
Records = Annotated[Context, requires("recordings:manage")]
TenantName = Annotated[str | None, Query(max_length=64, description="One tenant's (operators).")]
_PREFIX = re.compile(r"\d{4}(-\d{2}(-\d{2}(T\d{2})?)?)?")
_MOST = 2**53


class UsageOut(BaseModel):
    """What one plugin version used for one tenant in one hook. Times in microseconds."""

    period: str
    tenant: str
    plugin: str
    version: str
    hook: str
    calls: int
    failures: int
    refused: int
    wall_us: int
    cpu_us: int
    memory_mib_seconds: float
    host_calls: int
    http_bytes: int
    kv_bytes: int
    ai_tokens: int


class BudgetIn(BaseModel):
    """A bound for a day or month (UTC); what is left out is not bounded. ``plugin`` ``*``: all together."""

    model_config = ConfigDict(extra="forbid")
    plugin: Text = ALL_PLUGINS
    period: Period = "month"
    calls: int | None = Field(default=None, ge=0, le=_MOST)
    wall_ms: int | None = Field(default=None, ge=0, le=_MOST)
    ai_tokens: int | None = Field(default=None, ge=0, le=_MOST)
    http_bytes: int | None = Field(default=None, ge=0, le=_MOST)


class SpentOut(BaseModel):
    """What was used of a budget in its present period."""

    calls: int
    wall_ms: int
    ai_tokens: int
    http_bytes: int


class BudgetOut(BaseModel):
    """A budget; the operator's and the admin's both hold."""

    tenant: str
    plugin: str
    period: Period
    owner: Owner
    calls: int | None
    wall_ms: int | None
    ai_tokens: int | None
    http_bytes: int | None
    used: SpentOut
    changed_at: datetime | None
    changed_by: str


class FindingOut(BaseModel):
    """One thing that could be narrower, or was too tight."""

    what: str
    asked: Any
    used: Any
    proposed: Any
    advice: str
    direction: Literal["less", "more"]


class AdviceOut(BaseModel):
    """What a plugin asks for against what it used."""

    plugin: str
    version: str
    tenant: str | None
    calls: int
    first_at: datetime | None
    last_at: datetime | None
    enough: bool
    findings: list[FindingOut]
    deny: list[str]
    manifest: str


class KeptOut(BaseModel):
    """A recording of a failed call, without its content. ``size`` in bytes."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    tenant: str
    plugin: str
    version: str
    hook: str
    code: str
    detail: str
    correlation_id: str
    recorded_at: datetime
    size: int


class ChoiceIO(BaseModel):
    """Whether failed calls of the tenant are kept, and whether personal data in them is masked."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)
    keep: bool
    mask: bool = True


def usage_out(usage: Usage) -> UsageOut:
    """A sum as REST shows it."""
    values = asdict(usage)
    del values["memory_kib_ms"]
    return UsageOut(**values, memory_mib_seconds=usage.memory_mib_seconds)


def budget_out(budget: Budget, used: Sequence[int]) -> BudgetOut:
    """A budget as REST shows it."""
    values = asdict(budget)
    del values["told"], values["told_seq"]
    spent = SpentOut(calls=used[0], wall_ms=used[1] // 1_000, ai_tokens=used[2], http_bytes=used[3])
    return BudgetOut(**values, used=spent)


def bucket_in(text: str | None, *, end: bool = False) -> str | None:
    """A bucket from ``2026``, ``2026-11``, ``2026-11-22``, ``2026-11-22T23`` or a moment with its zone.

    Raises ValidationFailed.
    """
    if text is None:
        return None
    if _PREFIX.fullmatch(text):
        return text
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return bucket_of(moment)
    except ValueError:
        pass
    raise ValidationFailed(
        f"{text[:40]!r} is not a time.",
        expected="2026-11, 2026-11-22, 2026-11-22T23 (UTC), or a moment with its time zone",
        found=text[:40],
    )


def usage_router(metering: Metering) -> APIRouter:
    """What was used."""
    router = APIRouter(tags=["usage"])

    @router.get("/usage", summary="What plugins used")
    async def get_usage(
        context: Reads,
        tenant: TenantName = None,
        plugin: Annotated[str | None, Query(max_length=110)] = None,
        version: Annotated[str | None, Query(max_length=80)] = None,
        hook: Annotated[str | None, Query(max_length=80)] = None,
        since: Annotated[str | None, Query(max_length=40, description="From this hour, day or month on (UTC).")] = None,
        until: Annotated[str | None, Query(max_length=40, description="Before this hour, day or month (UTC).")] = None,
        by: Annotated[By, Query(description="Sums by hour, day, month, or in total.")] = "total",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        after: Annotated[str | None, Query(max_length=1_000)] = None,
    ) -> Page[UsageOut]:
        scope = scope_of(context, tenant)
        query = UsageQuery(scope, plugin, version, hook, bucket_in(since) or "", bucket_in(until) or "~", by)
        found = await metering.usage(scope, query, _cursor(after), limit)
        last = found[-1] if len(found) == limit else None
        more = None if last is None else _mark(last)
        return Page(items=[usage_out(u) for u in found], next=more)

    return router


def _mark(usage: Usage) -> str:
    key = [usage.period, usage.tenant, usage.plugin, usage.version, usage.hook]
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _cursor(after: str | None) -> list[str] | None:
    if after is None:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        if isinstance(key, list) and len(key) == 5 and all(isinstance(k, str) and "\0" not in k for k in key):
            for part in key:
                part.encode()
            return key
    except (ValueError, RecursionError):
        pass
    raise ValidationFailed("That is not a place in this list.", expected="`next` of the page before", found=after[:40])


def budgets_router(metering: Metering) -> APIRouter:
    """Budgets of a tenant: an operator's bind the admin too, an admin's only save."""
    router = APIRouter(prefix="/tenants/{tenant}/budgets", tags=["usage"])

    @router.get("", summary="Budgets, with what is spent")
    async def list_budgets(context: Reads) -> list[BudgetOut]:
        return [budget_out(b, used) for b, used in await metering.budgets(context.tenant)]

    @router.put("", summary="Set a budget")
    async def set_budget(context: Manages, body: BudgetIn) -> list[BudgetOut]:
        await metering.set_budget(context, Budget(tenant=context.tenant, owner=_owner(context), **body.model_dump()))
        return [budget_out(b, used) for b, used in await metering.budgets(context.tenant)]

    @router.delete("", status_code=204, summary="Lift a budget")
    async def lift_budget(
        context: Manages,
        plugin: Annotated[str, Query(max_length=110)] = ALL_PLUGINS,
        period: Annotated[Period, Query()] = "month",
    ) -> None:
        await metering.remove_budget(context, plugin, period, _owner(context))

    return router


def _owner(context: Context) -> Owner:
    return "operator" if context.principal.is_operator else "admin"


def advice_router(advisor: Advisor) -> APIRouter:
    """Least privilege."""
    router = APIRouter(prefix="/plugins", tags=["usage"])

    @router.get("/{publisher}/{name}/advice", summary="What a plugin asks for against what it used")
    async def get_advice(
        context: Reads,
        publisher: str,
        name: str,
        tenant: TenantName = None,
        version: Annotated[str | None, Query(max_length=80)] = None,
    ) -> AdviceOut:
        advice = await advisor.advise(f"{publisher}/{name}", scope_of(context, tenant), version)
        return AdviceOut.model_validate(asdict(advice))

    return router


def recordings_router(recordings: Recordings) -> APIRouter:
    """Failed calls that were kept."""
    router = APIRouter(prefix="/recordings", tags=["recordings"])

    @router.get("", summary="Recordings of failed calls, newest first")
    async def list_recordings(
        context: Records,
        tenant: TenantName = None,
        plugin: Annotated[str | None, Query(max_length=110)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Page[KeptOut]:
        found = await recordings.page(scope_of(context, tenant), plugin, after, limit)
        return Page(items=[_kept(k) for k in found], next=found[-1].id if len(found) == limit else None)

    @router.get("/policy", summary="Whether failed calls are kept, and masked")
    async def get_choice(context: Records) -> ChoiceIO:
        return ChoiceIO.model_validate(await recordings.choice(context.tenant))

    @router.put("/policy", summary="Decide whether failed calls are kept, and masked")
    async def choose(context: Records, body: ChoiceIO) -> ChoiceIO:
        return ChoiceIO.model_validate(await recordings.choose(context, Choice(body.keep, body.mask)))

    @router.get("/{recording}", summary="A recording, as `keelstone plugin replay` reads it", response_model=None)
    async def get_recording(context: Records, recording: str) -> Response:
        kept, text = await recordings.get(scope_of(context, None), recording)
        name = f"{kept.plugin.replace('/', '.')}-{kept.id}.json"
        return Response(
            text, media_type="application/json", headers={"content-disposition": f'attachment; filename="{name}"'}
        )

    @router.delete("/{recording}", status_code=204, summary="Delete a recording")
    async def delete_recording(context: Records, recording: str) -> None:
        await recordings.delete(context, scope_of(context, None), recording)

    return router


def _kept(kept: Kept) -> KeptOut:
    return KeptOut.model_validate(kept)
