"""GraphQL: one schema assembled from what the plugins contribute, a Federation v2 subgraph."""

from __future__ import annotations

import logging
from typing import Any

import strawberry
from fastapi import APIRouter
from graphql import GraphQLError
from strawberry.extensions import MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter
from strawberry.fastapi import GraphQLRouter
from strawberry.scalars import JSON
from strawberry.tools import merge_types

from api.bootstrap import Platform
from kernel.errors import KeelstoneError
from plugin_sdk.contributions import GraphQL
from plugin_sdk.web import MAX_PAGE, authorize, graphql_context

MAX_DEPTH = 10
MAX_ALIASES = 30
MAX_TOKENS = 2_000
logger = logging.getLogger(__name__)


@strawberry.type(name="Event", description="A committed event of the tenant.")
class EventType:
    """An event, for GraphQL."""

    id: strawberry.ID
    type: str
    stream: str
    version: int
    position: int
    time: str
    data: JSON


class PlatformSchema(strawberry.federation.Schema):
    """A schema whose errors carry our codes and hide what nobody should see."""

    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """Name each error's code; log only what nobody expected."""
        for error in errors:
            cause = error.original_error
            if isinstance(cause, KeelstoneError):
                error.extensions = {**(error.extensions or {}), **cause.problem()}
            elif cause is not None:
                logger.error("GraphQL resolver failed", exc_info=cause)
                error.message = "Something failed that we did not foresee."
                error.extensions = {"code": "internal"}


def build_schema(platform: Platform, contributions: list[GraphQL]) -> PlatformSchema:
    """The whole schema: the platform's own fields and the plugins'."""

    @strawberry.type
    class Query:
        @strawberry.field(description="Events of the tenant, newest first.")
        async def events(
            self, info: strawberry.Info, limit: int = 50, types: list[str] | None = None
        ) -> list[EventType]:
            context = await authorize(graphql_context(info), "events:read")
            found = await platform.events.read_tenant(
                context.tenant, limit=max(1, min(limit, MAX_PAGE)), types=types or (), newest_first=True
            )
            return [
                EventType(
                    id=strawberry.ID(e.id),
                    type=e.type,
                    stream=e.stream,
                    version=e.version,
                    position=e.position,
                    time=e.time.isoformat(),
                    data=JSON(dict(e.data)),
                )
                for e in found
            ]

    queries: list[type[Any]] = [Query, *(c.query for c in contributions if c.query is not None)]
    mutations = [c.mutation for c in contributions if c.mutation is not None]
    return PlatformSchema(
        query=merge_types("Query", tuple(queries)),
        mutation=merge_types("Mutation", tuple(mutations)) if mutations else None,
        extensions=[
            lambda: QueryDepthLimiter(max_depth=MAX_DEPTH),
            lambda: MaxAliasesLimiter(max_alias_count=MAX_ALIASES),
            lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
        ],
        federation_version="2.7",
    )


def graphql_router(schema: PlatformSchema) -> APIRouter:
    """The endpoint /graphql."""
    router: APIRouter = GraphQLRouter(schema, path="", graphql_ide=None, allow_queries_via_get=False)
    return router
