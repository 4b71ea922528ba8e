"""What platforms and publishers say about releases over HTTP: ratings, answers to them, and figures.

Nobody signs in: each statement carries the signature that it counts by.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request

from marketplace.registry.figures import PluginFigures
from marketplace.registry.platforms import Told
from marketplace.registry.ratings import Rating, RatingSummary

if TYPE_CHECKING:
    from marketplace.registry import Registry

_ENVELOPE = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "description": "A DSSE envelope."}}},
    }
}


@dataclass(frozen=True)
class Ratings:
    """A plugin's ratings, newest first, and all of them together."""

    summary: RatingSummary
    ratings: list[Rating]


@dataclass(frozen=True)
class Kept:
    """How many lines of a report are about releases of this marketplace."""

    kept: int


def add_report_routes(app: FastAPI, registry: Registry) -> None:
    """Add them to the service."""
    reader = registry.reader

    @app.post("/ratings", status_code=201, summary="Hand in a tenant's rating, signed by its platform")
    async def rate(told: Told) -> Rating:
        return await asyncio.to_thread(reader.ratings.take, told, registry.now())

    @app.post("/ratings/answers", status_code=204, summary="A publisher's answer to a rating", openapi_extra=_ENVELOPE)
    async def answer(request: Request) -> None:
        said = await asyncio.to_thread(registry.read_answer, await request.body())
        await asyncio.to_thread(reader.ratings.answer, *said)

    @app.get("/plugins/{publisher}/{name}/ratings", summary="What tenants say who run it")
    def ratings(publisher: str, name: str) -> Ratings:
        plugin = reader.index(f"{publisher}/{name}").plugin
        summary = reader.ratings.summaries([plugin]).get(plugin, RatingSummary())
        return Ratings(summary, reader.ratings.of(plugin))

    @app.post("/figures", status_code=201, summary="Hand in a platform's figures of a day, signed by it")
    async def report(told: Told) -> Kept:
        return Kept(await asyncio.to_thread(reader.figures.take, told, registry.now()))

    @app.get("/plugins/{publisher}/{name}/figures", summary="What platforms report of its versions, many together")
    def figures(publisher: str, name: str) -> PluginFigures:
        plugin = reader.index(f"{publisher}/{name}").plugin
        return reader.figures.of(plugin, datetime.fromtimestamp(registry.now(), UTC).date())
