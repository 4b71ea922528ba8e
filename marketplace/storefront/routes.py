"""The storefront's addresses. Reading only, open to everybody; every address can be shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.responses import Response

from kernel.errors import NotFound
from marketplace.http import FOREVER
from marketplace.storefront.asked import FACETS, MOST, PAGE, SORTS, Asked
from marketplace.storefront.desk import add_desk
from marketplace.storefront.pages import Pages
from marketplace.storefront.rendering import Renderer, page_route

if TYPE_CHECKING:
    from marketplace.registry import Registry

Word = Annotated[str, Query(max_length=100)]
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""A picture opened by itself can do nothing; an icon's shapes may have colours."""


def add_pages(app: FastAPI, registry: Registry) -> None:
    """Add the storefront to the service."""
    renderer = Renderer()
    pages = Pages(registry.reader, renderer.now)
    router = APIRouter(route_class=page_route(renderer), include_in_schema=False)

    @router.get("/")
    def home(
        request: Request,
        q: Annotated[str, Query(max_length=200)] = "",
        publisher: Word = "",
        capability: Word = "",
        keyword: Word = "",
        license: Word = "",
        all: bool = False,
        sort: str = "best",
        show: Annotated[int, Query(ge=1, le=MOST)] = PAGE,
    ) -> Response:
        narrowed = dict(zip(FACETS, (publisher, capability, keyword, license), strict=True))
        asked = Asked(q.strip(), **narrowed, all=all, sort=sort if sort in SORTS else "best", show=show)
        values = pages.search(asked)
        # A part, unless somebody comes back to it with the browser's own button.
        partly = "hx-request" in request.headers and "hx-history-restore-request" not in request.headers
        return renderer.page(request, "found.html" if partly else "home.html", **values)

    @router.get("/store")
    def publishers(request: Request) -> Response:
        return renderer.page(request, "publishers.html", **pages.publishers())

    @router.get("/store/{publisher}")
    def publisher(request: Request, publisher: str) -> Response:
        return renderer.page(request, "publisher.html", **pages.publisher(publisher))

    @router.get("/store/{publisher}/{name}")
    def plugin(request: Request, publisher: str, name: str) -> Response:
        return renderer.page(request, "plugin.html", **pages.plugin(publisher, name))

    @router.get("/store/{publisher}/{name}/{version}")
    def release(request: Request, publisher: str, name: str, version: str) -> Response:
        return renderer.page(request, "version.html", **pages.plugin(publisher, name, version))

    @router.get("/store/{publisher}/{name}/{version}/icon")
    def icon(publisher: str, name: str, version: str) -> Response:
        body = pages.icon(publisher, name, version)
        media = "image/png" if body.startswith(b"\x89PNG") else "image/svg+xml"
        headers = {**FOREVER, "Content-Security-Policy": _ALONE, "X-Content-Type-Options": "nosniff"}
        return Response(body, media_type=media, headers=headers)

    @router.get("/store/{publisher}/{name}/{version}/screenshots/{number}")
    def screenshot(publisher: str, name: str, version: str, number: Annotated[int, Path(ge=1, le=99)]) -> Response:
        shot, body = pages.screenshot(publisher, name, version, number)
        headers = {**FOREVER, "Content-Security-Policy": _ALONE, "X-Content-Type-Options": "nosniff"}
        return Response(body, media_type=shot.media_type, headers=headers)

    @router.get("/static/{stamp}/{name}")
    def static(stamp: str, name: str) -> Response:
        found = renderer.static(stamp, name)
        if found is None:
            raise NotFound(f"There is no file {name}.", file=name[:100])
        return found

    app.include_router(router)
    add_desk(app, registry, renderer)
