"""The HTTP application: plugins' routes, the platform's own, GraphQL, the embedded marketplace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from api import problems
from api.bootstrap import Platform
from api.graphql import build_schema, graphql_router
from api.middleware import RequestRoom
from api.routes import health_router, platform_router
from kernel.hookspecs import HOOK_CONTRACT_VERSION
from plugin_sdk.contributions import GraphQL, Routes
from plugin_sdk.web import PERMISSION, requires_active

API = "/api/v1"
GRAPHQL = "/graphql"


def create_app(platform: Platform, *, manage: bool = True) -> FastAPI:
    """The application over a wired platform; with ``manage`` its lifespan starts and stops it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if manage:
            await platform.start()
        try:
            yield
        finally:
            if manage:
                await platform.stop()

    app = FastAPI(
        title="Keelstone",
        version=HOOK_CONTRACT_VERSION,
        summary="A platform kernel on which every feature ships as a versioned plugin.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"description": "A problem document (RFC 9457).", "content": {problems.MEDIA_TYPE: {}}}},
    )
    app.state.platform = platform
    problems.install(app)
    app.include_router(health_router(platform))
    app.include_router(platform_router(platform), prefix=API)
    if platform.development is not None:
        from api.development import development_router

        app.include_router(development_router(platform, platform.development), prefix=API)
    for manifest, contribution in platform.hooks.contribute("contribute_routes"):
        routes: Routes = contribution
        gate = [requires_active(manifest.id)] if manifest.kind == "extension" else []
        app.include_router(routes.router, prefix=API, dependencies=gate)
    types: list[GraphQL] = [c for _, c in platform.hooks.contribute("contribute_graphql")]
    app.include_router(graphql_router(build_schema(platform, types)), prefix=GRAPHQL, tags=["graphql"])
    if platform.marketplace_app is not None:
        app.mount("/marketplace", platform.marketplace_app)
    _secure(app)
    return app


def asgi(platform: Platform, app: FastAPI) -> Any:
    """``app`` inside the first room of every request."""
    return RequestRoom(app, platform.settings, platform.services, platform.telemetry)


def _secure(app: FastAPI) -> None:
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["bearer"] = {"type": "http", "scheme": "bearer", "description": "Access token or API key."}
        document["security"] = [{"bearer": []}]
        for path, method, permission in _permissions(app):
            operation = document.get("paths", {}).get(path, {}).get(method)
            if operation is None:
                continue
            if permission is not None:
                operation["x-permission"] = permission
            elif path == GRAPHQL:
                operation["summary"] = "Queries and mutations; each field asks for its own permission"
            else:
                operation["security"] = []
        return document

    app.openapi = described  # type: ignore[method-assign]


def _permissions(app: FastAPI) -> Iterator[tuple[str, str, str | None]]:
    """Path, method and the permission that :func:`plugin_sdk.web.requires` checks there, of each operation."""
    for route in iter_route_contexts(app.routes):
        found = [getattr(d.call, PERMISSION, None) for d in getattr(route, "dependant", Dependant()).dependencies]
        permission = next((p for p in found if p is not None), None)
        for method in route.methods or ():
            yield route.path or "", method.lower(), permission
