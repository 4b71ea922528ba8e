"""GraphQL of consent receipts."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import strawberry

from plugin_sdk import GraphQL
from plugin_sdk.web import authorize, graphql_context
from plugins.builtin.catalog.consent.receipts import Receipts
from plugins.builtin.catalog.consent.runs import Runs


@strawberry.type(name="ConsentReceipt", description="A decision on what a plugin may do, signed by the platform.")
class ReceiptType:
    """A receipt, for GraphQL."""

    number: int
    plugin: str
    version: str
    at: datetime
    by: str
    digest: str
    statement: str


@strawberry.type(name="PluginRun", description="A tenant ran a release with these grants; until is null if it does.")
class RunType:
    """A run, for GraphQL."""

    tenant: str
    plugin: str
    version: str
    digest: str
    since: datetime
    until: datetime | None
    granted: list[str]
    by: str
    receipt: str


def run_types(runs: Runs) -> GraphQL:
    """Who ran what."""

    @strawberry.type
    class Query:
        @strawberry.field(description="When the tenant ran a package, with which grants, and by whose word.")
        async def plugin_runs(self, info: strawberry.Info, digest: str, tenant: str | None = None) -> list[RunType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            found = await runs.of(digest, context.tenant)
            return [RunType(**{**asdict(run), "granted": list(run.granted)}) for run in found]

    return GraphQL(query=Query)


def consent_types(receipts: Receipts) -> GraphQL:
    """The receipts' part of the schema."""

    @strawberry.type
    class Query:
        @strawberry.field(description="The tenant's consent receipts, newest first; `before` a number for older ones.")
        async def consent_receipts(
            self, info: strawberry.Info, plugin: str | None = None, before: int | None = None, tenant: str | None = None
        ) -> list[ReceiptType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            found = await receipts.list(context.tenant, plugin, before)
            names = ("number", "plugin", "version", "at", "by", "digest", "statement")
            return [ReceiptType(**{name: getattr(r, name) for name in names}) for r in found]

    return GraphQL(query=Query)
