"""GraphQL of policies: what is to be seen of them."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from plugin_sdk import PLATFORM_TENANT, GraphQL
from plugin_sdk.web import authorize, graphql_context
from plugins.builtin.catalog.policy.application import Nonconformity, Policies, View
from plugins.builtin.catalog.policy.domain import Approval, Policy, told


@strawberry.type(name="PolicyNonconformity", description="A release that is here and would not be let in now.")
class NonconformityType:
    """A nonconformity, for GraphQL."""

    tenant: str
    plugin: str
    version: str
    findings: list[str]


@strawberry.type(name="PolicyRequest", description="A request for an exception from a policy, and what came of it.")
class RequestType:
    """A request, for GraphQL."""

    id: strawberry.ID
    tenant: str
    level: str
    plugin: str
    version: str
    reason: str
    findings: list[str]
    state: str
    asked_at: datetime
    decided_at: datetime | None
    expires_at: datetime | None


@strawberry.type(name="PluginPolicy", description="Which plugins may come in, and what is here and does not conform.")
class PolicyType:
    """A policy, for GraphQL."""

    policy: JSON | None
    version: int
    operator: JSON | None
    nonconforming: list[NonconformityType]


def _request(approval: Approval) -> RequestType:
    return RequestType(
        id=strawberry.ID(approval.id),
        tenant=approval.tenant,
        level=approval.level,
        plugin=approval.plugin,
        version=approval.version,
        reason=approval.reason,
        findings=[*approval.findings],
        state=approval.state,
        asked_at=approval.asked_at,
        decided_at=approval.decided_at,
        expires_at=approval.expires_at,
    )


def _nonconformity(found: Nonconformity) -> NonconformityType:
    return NonconformityType(
        tenant=found.tenant, plugin=found.plugin, version=found.version, findings=[told(f) for f in found.findings]
    )


def _document(policy: Policy | None) -> JSON | None:
    return None if policy is None else JSON(policy.model_dump(mode="json"))


def _policy(view: View) -> PolicyType:
    return PolicyType(
        policy=_document(view.stored.policy if view.stored else None),
        version=view.stored.version if view.stored else 0,
        operator=_document(view.operator),
        nonconforming=[_nonconformity(n) for n in view.findings],
    )


def policy_types(policies: Policies) -> GraphQL:
    """Queries of policies: an operator sees the platform's, an admin the own tenant's."""

    @strawberry.type
    class Query:
        @strawberry.field(description="The tenant's policy; for operators, the platform's.")
        async def plugin_policy(self, info: strawberry.Info, tenant: str | None = None) -> PolicyType:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            everybody = context.principal.is_operator and tenant is None
            return _policy(await policies.view(PLATFORM_TENANT if everybody else context.tenant))

        @strawberry.field(description="Requests for exceptions: the tenant's; for operators, those that are theirs.")
        async def policy_requests(self, info: strawberry.Info, tenant: str | None = None) -> list[RequestType]:
            context = await authorize(graphql_context(info), "plugins:read", tenant=tenant)
            everybody = context.principal.is_operator and tenant is None
            found = await policies.requests(PLATFORM_TENANT if everybody else context.tenant)
            return [_request(a) for a in found]

    return GraphQL(query=Query)
