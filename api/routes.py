"""REST of the platform itself: health, metrics, events, dead letters, explain."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.bootstrap import Platform
from kernel.context import Context
from kernel.errors import NotFound
from kernel.events import Event
from kernel.explain import describe
from kernel.plain import Text
from kernel.ports import ALL_TENANTS, DeadLetter
from plugin_sdk.web import MAX_PAGE, requires

MAX_POSITION = 2**63 - 1
"""The largest position that a database can hold."""


class EventOut(BaseModel):
    """A committed event."""

    id: str
    type: str
    tenant: str
    stream: str
    version: int
    position: int
    time: datetime
    data: dict[str, Any]
    metadata: dict[str, Any]
    hash: str


class EventPage(BaseModel):
    """Events in order; ask for the next page with ``after=<next>``."""

    items: list[EventOut]
    next: int | None


class ChainReport(BaseModel):
    """Whether a stream's hash chain is whole."""

    stream: str
    whole: bool
    broken_at: int | None


class DeadLetterOut(BaseModel):
    """An event parked with the rest of its sequence."""

    consumer: str
    event: EventOut
    error: str
    attempts: int
    parked_at: datetime


class RetryIn(BaseModel):
    """The sequence to release."""

    consumer: Text
    stream: Text


def event_out(event: Event) -> EventOut:
    """An event as REST shows it."""
    return EventOut(
        id=event.id,
        type=event.type,
        tenant=event.tenant,
        stream=event.stream,
        version=event.version,
        position=event.position,
        time=event.time,
        data=dict(event.data),
        metadata=dict(event.metadata),
        hash=event.hash,
    )


def health_router(platform: Platform) -> APIRouter:
    """Liveness, readiness and metrics, outside /api."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="The process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive", "instance": platform.instance}

    @router.get("/readyz", summary="The platform can serve")
    async def readyz() -> JSONResponse:
        report = await platform.check()
        return JSONResponse(report, status_code=200 if report["ready"] else 503)

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(platform.telemetry.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def platform_router(platform: Platform) -> APIRouter:
    """Events, dead letters and explain, under /api/v1."""
    router = APIRouter()

    @router.get("/events", tags=["events"], summary="Events of the tenant")
    async def list_events(
        context: Annotated[Context, requires("events:read")],
        after: Annotated[int, Query(ge=0, le=MAX_POSITION)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        type: Annotated[list[str] | None, Query()] = None,
        stream: Annotated[str | None, Query(max_length=255)] = None,
        newest_first: bool = False,
    ) -> EventPage:
        if stream is not None:
            found = await platform.events.read_stream(context.tenant, stream, after=after, limit=limit)
            more = found[-1].version if len(found) == limit else None
        else:
            found = await platform.events.read_tenant(
                context.tenant, after=after, limit=limit, types=type or (), newest_first=newest_first
            )
            more = found[-1].position if len(found) == limit and not newest_first else None
        return EventPage(items=[event_out(e) for e in found], next=more)

    @router.get("/events/verify", tags=["events"], summary="Check a stream's hash chain")
    async def verify(
        context: Annotated[Context, requires("events:read")], stream: Annotated[str, Query(max_length=255)]
    ) -> ChainReport:
        broken = await platform.events.verify_stream(context.tenant, stream)
        return ChainReport(stream=stream, whole=broken is None, broken_at=broken.version if broken else None)

    @router.get("/dead-letters", tags=["events"], summary="Parked events")
    async def dead_letters(
        context: Annotated[Context, requires("dead-letters:manage")],
        consumer: Annotated[str | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    ) -> list[DeadLetterOut]:
        scope = (
            ALL_TENANTS
            if context.principal.is_operator and context.tenant == context.principal.tenant
            else context.tenant
        )
        return [_letter(x) for x in await platform.dead_letters.list(scope, consumer=consumer, limit=limit)]

    @router.post("/dead-letters/retry", tags=["events"], summary="Release a parked sequence")
    async def retry(context: Annotated[Context, requires("dead-letters:manage")], body: RetryIn) -> dict[str, int]:
        return {"handled": await platform.dead_letters.retry(context.tenant, body.consumer, body.stream)}

    @router.delete("/dead-letters/{event}", tags=["events"], status_code=204, summary="Let a parked event go")
    async def discard(
        context: Annotated[Context, requires("dead-letters:manage")], event: str, consumer: Annotated[str, Query()]
    ) -> None:
        await platform.dead_letters.discard(context.tenant, consumer, event)

    @router.post("/projections/{name}/rebuild", tags=["events"], summary="Build a read model anew from all events")
    async def rebuild(context: Annotated[Context, requires("projections:rebuild")], name: str) -> dict[str, int | str]:
        if name not in platform.projections.names():
            known = ", ".join(platform.projections.names()) or "none"
            raise NotFound(f"There is no projection {name}.", expected=known, found=name)
        return {"name": name, "events": await platform.projections.rebuild(name)}

    @router.get(
        "/hooks/{correlation_id}/explain", tags=["hooks"], summary="Which implementations ran, and what each did"
    )
    async def explain(
        context: Annotated[Context, requires("hooks:explain")], correlation_id: str
    ) -> list[dict[str, Any]]:
        own = None if context.principal.is_operator else context.tenant
        traces = platform.hooks.traces.find(correlation_id, own)
        if not traces:
            raise NotFound(
                f"No dispatch is remembered for {correlation_id}.",
                expected="a correlation id of the last 2,000 pieces of work of this process",
                found=correlation_id,
            )
        return [describe(t) for t in traces]

    return router


def _letter(letter: DeadLetter) -> DeadLetterOut:
    return DeadLetterOut(
        consumer=letter.consumer,
        event=event_out(letter.event),
        error=letter.error,
        attempts=letter.attempts,
        parked_at=letter.parked_at,
    )
