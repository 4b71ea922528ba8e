"""REST of policies: the operator's at ``/policy``, a tenant's below the tenant."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from plugin_sdk import PLATFORM_TENANT, Context, Text
from plugin_sdk.web import requires
from plugins.builtin.catalog.domain import MOST_NUMBER
from plugins.builtin.catalog.policy.application import Nonconformity, Policies, View
from plugins.builtin.catalog.policy.domain import Approval, Finding, Policy, plain

Reads = Annotated[Context, requires("plugins:read")]
Installs = Annotated[Context, requires("plugins:install")]
Activates = Annotated[Context, requires("plugins:activate")]
Seen = Annotated[int | None, Query(ge=0, le=MOST_NUMBER, description="The version that is to go.")]
Words = Annotated[Text, Field(max_length=500)]


class PolicyIn(BaseModel):
    """A policy to set. `version` is the one that it replaces (0: there is none); left out, whichever there is."""

    model_config = ConfigDict(extra="forbid")
    policy: Policy
    version: int | None = Field(default=None, ge=0, le=MOST_NUMBER)


class DryRunIn(BaseModel):
    """A policy to try."""

    model_config = ConfigDict(extra="forbid")
    policy: Policy


class PolicyFindingOut(BaseModel):
    """One rule that stands against a release; `who` may change it."""

    level: str
    rule: str
    subject: str
    expected: str
    found: str
    detail: str
    who: str


class NonconformityOut(BaseModel):
    """A release that is here and would not be let in; `tenant` is empty for a release as such."""

    tenant: str
    plugin: str
    version: str
    findings: list[PolicyFindingOut]


class ApprovalOut(BaseModel):
    """A request for an exception, and what came of it."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    tenant: str
    level: str
    plugin: str
    version: str
    digest: str
    reason: str
    findings: list[str]
    state: str
    asked_by: str
    asked_at: datetime
    decided_by: str
    decided_at: datetime | None
    answer: str
    expires_at: datetime | None


class PolicyOut(BaseModel):
    """A policy, or none (`version` 0); what is here and does not conform to it; the approvals that count.
    `operator` is the platform's, which a tenant is under besides its own."""

    policy: Policy | None
    version: int
    changed_at: datetime | None
    changed_by: str
    operator: Policy | None
    nonconforming: list[NonconformityOut]
    approvals: list[ApprovalOut]


class DryRunOut(BaseModel):
    """What a policy would block of what is here. Nothing was changed."""

    blocks: bool
    nonconforming: list[NonconformityOut]


class AskIn(BaseModel):
    """A release that should be let in, and why."""

    model_config = ConfigDict(extra="forbid")
    plugin: Text
    version: Text
    reason: Annotated[Text, Field(min_length=3, max_length=500)]


class ApproveIn(BaseModel):
    """An approval, for good or until a moment."""

    model_config = ConfigDict(extra="forbid")
    answer: Words = ""
    expires_at: datetime | None = None


class AnswerIn(BaseModel):
    """Why, for whoever asked."""

    model_config = ConfigDict(extra="forbid")
    answer: Words = ""


def finding_out(finding: Finding) -> PolicyFindingOut:
    """A finding as REST shows it."""
    return PolicyFindingOut(**plain(finding))


def _nonconforming(found: list[Nonconformity] | tuple[Nonconformity, ...]) -> list[NonconformityOut]:
    return [
        NonconformityOut(
            tenant=n.tenant, plugin=n.plugin, version=n.version, findings=[finding_out(f) for f in n.findings]
        )
        for n in found
    ]


def _out(view: View) -> PolicyOut:
    stored = view.stored
    known: dict[str, Any] = {"policy": None, "version": 0, "changed_at": None, "changed_by": ""}
    if stored is not None:
        known = {name: getattr(stored, name) for name in known}
    return PolicyOut(
        **known,
        operator=view.operator,
        nonconforming=_nonconforming(view.findings),
        approvals=[_approval(a) for a in view.approvals],
    )


def _approval(approval: Approval) -> ApprovalOut:
    return ApprovalOut.model_validate(approval)


def operator_policy_router(policies: Policies) -> APIRouter:
    """The platform's policy, and the requests that are an operator's to decide on."""
    router = APIRouter(prefix="/policy", tags=["policy"])

    @router.get("", summary="The platform's policy, and what does not conform to it")
    async def get_policy(context: Installs) -> PolicyOut:
        return _out(await policies.view(PLATFORM_TENANT))

    @router.put("", summary="Set the platform's policy; nothing that runs is switched off")
    async def set_policy(context: Installs, body: PolicyIn) -> PolicyOut:
        return _out(await policies.set(context, PLATFORM_TENANT, body.policy, body.version))

    @router.delete("", summary="Take the platform's policy away")
    async def clear_policy(context: Installs, version: Seen = None) -> PolicyOut:
        return _out(await policies.clear(context, PLATFORM_TENANT, version))

    @router.post("/dry-run", summary="What a policy would block of what is installed and granted; changes nothing")
    async def dry_run(context: Installs, body: DryRunIn) -> DryRunOut:
        found = _nonconforming(await policies.nonconformities(PLATFORM_TENANT, body.policy))
        return DryRunOut(blocks=bool(found), nonconforming=found)

    @router.get("/requests", summary="Requests for an exception from the platform's policy, of every tenant")
    async def list_requests(context: Installs) -> list[ApprovalOut]:
        return [_approval(a) for a in await policies.requests(PLATFORM_TENANT)]

    @router.post("/requests", summary="Ask for an exception that is for every tenant")
    async def ask(context: Installs, body: AskIn) -> list[ApprovalOut]:
        asked = await policies.ask(context, PLATFORM_TENANT, body.plugin, body.version, body.reason)
        return [_approval(a) for a in asked]

    @router.post("/requests/{request}/approve", summary="Let the release in, for who asked")
    async def approve(context: Installs, request: str, body: ApproveIn) -> ApprovalOut:
        return await _approve(policies, context, PLATFORM_TENANT, request, body)

    @router.post("/requests/{request}/decline", summary="Decline a request")
    async def decline(context: Installs, request: str, body: AnswerIn) -> ApprovalOut:
        done = await policies.decide(context, PLATFORM_TENANT, request, approve=False, answer=body.answer)
        return _approval(done)

    @router.post("/requests/{request}/revoke", summary="Take an approval back; what runs goes on")
    async def revoke(context: Installs, request: str, body: AnswerIn) -> ApprovalOut:
        return _approval(await policies.revoke(context, PLATFORM_TENANT, request, body.answer))

    return router


def tenant_policy_router(policies: Policies) -> APIRouter:
    """A tenant's policy, which adds to the platform's, and its requests."""
    router = APIRouter(prefix="/tenants/{tenant}/policy", tags=["policy"])

    @router.get("", summary="The tenant's policy, and what does not conform to it")
    async def get_policy(context: Reads) -> PolicyOut:
        return _out(await policies.view(context.tenant))

    @router.put("", summary="Set the tenant's policy; nothing that runs is switched off")
    async def set_policy(context: Activates, body: PolicyIn) -> PolicyOut:
        return _out(await policies.set(context, context.tenant, body.policy, body.version))

    @router.delete("", summary="Take the tenant's policy away")
    async def clear_policy(context: Activates, version: Seen = None) -> PolicyOut:
        return _out(await policies.clear(context, context.tenant, version))

    @router.post("/dry-run", summary="What a policy would block of what is active; changes nothing")
    async def dry_run(context: Activates, body: DryRunIn) -> DryRunOut:
        found = _nonconforming(await policies.nonconformities(context.tenant, body.policy))
        return DryRunOut(blocks=bool(found), nonconforming=found)

    @router.get("/requests", summary="The tenant's requests for an exception, from its policy or the platform's")
    async def list_requests(context: Reads) -> list[ApprovalOut]:
        return [_approval(a) for a in await policies.requests(context.tenant)]

    @router.post("/requests", summary="Ask for an exception; one request for each policy that stands against it")
    async def ask(context: Reads, body: AskIn) -> list[ApprovalOut]:
        asked = await policies.ask(context, context.tenant, body.plugin, body.version, body.reason)
        return [_approval(a) for a in asked]

    @router.post("/requests/{request}/approve", summary="Except a release from the tenant's policy")
    async def approve(context: Activates, request: str, body: ApproveIn) -> ApprovalOut:
        return await _approve(policies, context, context.tenant, request, body)

    @router.post("/requests/{request}/decline", summary="Decline a request")
    async def decline(context: Activates, request: str, body: AnswerIn) -> ApprovalOut:
        return _approval(await policies.decide(context, context.tenant, request, approve=False, answer=body.answer))

    @router.post("/requests/{request}/revoke", summary="Take an approval back; what runs goes on")
    async def revoke(context: Activates, request: str, body: AnswerIn) -> ApprovalOut:
        return _approval(await policies.revoke(context, context.tenant, request, body.answer))

    return router


async def _approve(policies: Policies, context: Context, owner: str, request: str, body: ApproveIn) -> ApprovalOut:
    done = await policies.decide(context, owner, request, approve=True, answer=body.answer, expires_at=body.expires_at)
    return _approval(done)
