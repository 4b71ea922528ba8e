"""The operator's pages: the state of the registry, what was revoked, what people say. ``gate`` says who sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import RedirectResponse, Response

from kernel.errors import ValidationFailed
from marketplace.errors import DeskClosed
from marketplace.storefront.gate import COOKIE, check_local, check_same_site, gate, private
from marketplace.storefront.rendering import Renderer, page_route
from marketplace.storefront.review import add_review_pages
from marketplace.storefront.weak import add_weakness_page

if TYPE_CHECKING:
    from marketplace.registry import Registry

SOON_SECONDS = 3 * 86_400.0
"""What must be signed again within so long is shown as a warning."""


def add_desk(app: FastAPI, registry: Registry, renderer: Renderer) -> None:
    """Add the operator's pages to the service."""
    router = APIRouter(prefix="/desk", route_class=page_route(renderer), include_in_schema=False)
    access, reader, admitted = registry.reader.access, registry.reader, gate(registry)

    @router.get("/enter")
    def door(request: Request, link: Annotated[str, Query(max_length=100)] = "") -> Response:
        # Only the press of the button uses the link up: browsers and chat programs look at addresses by themselves.
        check_local(request)
        return private(renderer.page(request, "enter.html", link=link))

    @router.post("/enter")
    async def enter(request: Request) -> Response:
        check_local(request)
        check_same_site(request)
        form = await request.form(max_files=0, max_fields=4)
        session = await asyncio.to_thread(access.enter, str(form.get("link", ""))[:100], registry.now())
        if session is None:
            raise DeskClosed(
                "This link was used already, or is older than ten minutes.",
                fix="`keelstone marketplace pages` prints another.",
            )
        root = str(request.scope.get("root_path", "")).rstrip("/")
        answer = RedirectResponse(f"{root}/desk", status_code=303)
        answer.set_cookie(COOKIE, session, path=f"{root}/desk", httponly=True, samesite="strict")
        return private(answer)

    @router.post("/leave")
    async def leave(request: Request) -> Response:
        check_same_site(request)
        await asyncio.to_thread(access.leave, request.cookies.get(COOKIE, ""))
        root = str(request.scope.get("root_path", "")).rstrip("/")
        answer = RedirectResponse(f"{root}/", status_code=303)
        answer.delete_cookie(COOKIE, path=f"{root}/desk")
        return private(answer)

    @router.get("")
    async def desk(request: Request) -> Response:
        await admitted(request)
        values = await asyncio.to_thread(_state, registry)
        return private(renderer.page(request, "desk.html", **values))

    @router.get("/releases")
    async def releases(request: Request) -> Response:
        await admitted(request)
        found = await asyncio.to_thread(reader.state.newest_releases)
        return private(renderer.page(request, "desk_releases.html", releases=found))

    @router.get("/ratings")
    async def ratings(request: Request) -> Response:
        await admitted(request)
        found = await asyncio.to_thread(reader.ratings.newest, 100)
        return private(renderer.page(request, "desk_ratings.html", ratings=found))

    @router.post("/ratings/{rating}")
    async def moderate(request: Request, rating: str) -> Response:
        await admitted(request)
        check_same_site(request)
        form = await request.form(max_files=0, max_fields=4)
        reason = " ".join(str(form.get("reason", "")).split())[:500]
        if form.get("show") is None and not reason:
            raise ValidationFailed("Say why the rating is hidden.", expected="a reason", fix="Go back and add one.")
        await asyncio.to_thread(reader.ratings.hide, rating, None if form.get("show") is not None else reason)
        root = str(request.scope.get("root_path", "")).rstrip("/")
        return private(RedirectResponse(f"{root}/desk/ratings", status_code=303))

    add_review_pages(router, registry, renderer, admitted)
    add_weakness_page(router, registry, renderer, admitted)
    app.include_router(router)


def _state(registry: Registry) -> Mapping[str, Any]:
    state, now = registry.reader.state, registry.now()
    origin, size, root_hash, signers = state.checkpoint()
    return {
        "totals": asdict(registry.reader.shelf.totals()),
        "fetched": registry.reader.shelf.fetched(),
        "sizes": state.sizes(),
        "roles": state.roles(),
        "soon": now + SOON_SECONDS,
        "clock": now,
        "warnings": registry.warnings,
        "log": {"name": origin, "size": size, "root": root_hash, "signers": signers},
        "tail": state.log_tail(15),
        "revoked": state.revoked(),
        "reporting": registry.reader.figures.platforms_lately(now),
        "rules": registry.rules(),
    }
