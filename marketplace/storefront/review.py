"""The review queue as pages: releases that wait for a person, each beside the version it follows, and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from kernel.errors import ValidationFailed
from marketplace.storefront.gate import check_same_site, private
from marketplace.storefront.rendering import Renderer
from plugin_sdk.asking import asked_for

if TYPE_CHECKING:
    from marketplace.registry import Registry

REVIEWER = "operator's pages"
"""Who gave the verdict, where nobody says a name."""


def add_review_pages(
    router: APIRouter, registry: Registry, renderer: Renderer, admitted: Callable[[Request], Awaitable[None]]
) -> None:
    """Add them below the operator's pages."""
    reviews = registry.reader.reviews

    @router.get("/review")
    async def queue(request: Request) -> Response:
        await admitted(request)
        return private(renderer.page(request, "desk_queue.html", queue=await asyncio.to_thread(reviews.queue)))

    @router.get("/review/{digest}")
    async def show(request: Request, digest: str) -> Response:
        await admitted(request)
        found, manifest = await asyncio.to_thread(reviews.look, digest)
        asks = list(asked_for(manifest))
        return private(renderer.page(request, "desk_review.html", review=found, manifest=manifest, asks=asks))

    @router.post("/review/{digest}")
    async def decide(request: Request, digest: str) -> Response:
        await admitted(request)
        check_same_site(request)
        form = await request.form(max_files=0, max_fields=4)
        verdict, reason = form.get("verdict"), " ".join(str(form.get("reason", "")).split())[:500]
        if verdict not in ("approve", "reject") or not reason:
            raise ValidationFailed("A verdict needs a reason.", expected="approve or reject, and why", fix="Go back.")
        reviewer = " ".join(str(form.get("reviewer", "")).split())[:100] or REVIEWER
        await registry.decide(digest, approved=verdict == "approve", reason=reason, reviewer=reviewer)
        root = str(request.scope.get("root_path", "")).rstrip("/")
        return private(RedirectResponse(f"{root}/desk/review", status_code=303))
