"""For plugins that serve REST or GraphQL: the work's context, permission checks, pages of a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Generic, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from kernel.activation import Activations
from kernel.context import ANONYMOUS, Context
from kernel.errors import Forbidden, NotFound, TenantMismatch
from kernel.hooks import Dispatcher
from kernel.payloads import AccessRequest
from kernel.permissions import SELF, acting_tenant, require
from plugin_sdk.services import Database, Services, TenantDirectory

T = TypeVar("T")
MAX_PAGE = 200
_TENANT = re.compile(r"[a-z0-9-]{1,64}")
PERMISSION = "keelstone_permission"
"""Attribute of a dependency that says which permission it checks; the OpenAPI document tells it."""

__all__ = [
    "MAX_PAGE",
    "PERMISSION",
    "Page",
    "authorize",
    "context_of",
    "graphql_context",
    "requires",
    "requires_active",
    "scope_of",
]


class Page(BaseModel, Generic[T]):
    """A page of a list. Ask for the next with ``after=<next>``; None means this was the last."""

    items: list[T]
    next: str | None = None


def context_of(request: Request) -> Context:
    """The context that the platform's middleware made for this request; the principal may be anonymous."""
    context: Context = request.scope["keelstone.context"]
    return context


async def authorize(request: Request, permission: str, *, tenant: str | None = None, resource: str = "*") -> Context:
    """Check that the request's principal has ``permission`` (in ``tenant``); its context.

    Raises Unauthenticated, TokenExpired, Forbidden or TenantMismatch, and NotFound if an operator
    names a tenant that is not there. Plugins that implement ``access_deciding`` can deny what the
    roles allow; operators are not asked about, so that they can switch off a plugin that fails.
    """
    context = context_of(request)
    failure = request.scope.get("keelstone.sign_in_failure")
    if failure is not None and context.principal is ANONYMOUS:
        raise failure
    require(context.principal, permission)
    acting = acting_tenant(context.principal, context.tenant if tenant is None else tenant)
    services: Services = request.app.state.platform.services
    if acting != context.principal.tenant:
        await _check_there(services, acting)
    if acting != context.tenant:
        context = replace(context, tenant=acting)
    hooks: Dispatcher = request.app.state.platform.hooks
    if not context.principal.is_operator and hooks.ready(context.tenant, "access_deciding", context.correlation_id):
        asked = AccessRequest(
            principal=context.principal.id,
            roles=tuple(sorted(context.principal.roles)),
            permissions=tuple(sorted(context.principal.permissions)),
            action=permission,
            resource=resource,
        )
        outcome = await hooks.decide("access_deciding", asked, context)
        if outcome.effects:
            async with services.get(Database).write(context.tenant, context) as transaction:
                await outcome.save(transaction)
        decision = outcome.payload
        if decision is not None and not decision.allow:
            raise Forbidden(decision.reason, tenant=context.tenant, hook="access_deciding", expected=permission)
    return context


async def _check_there(services: Services, tenant: str) -> None:
    directory = services.find(TenantDirectory)
    if directory is not None and not (_TENANT.fullmatch(tenant) and await directory.exists(tenant)):
        raise NotFound(f"There is no tenant {tenant}.", tenant=tenant, fix="See GET /api/v1/tenants.")


def scope_of(context: Context, tenant: str | None) -> str | None:
    """The tenant that is asked about; None for all, which only an operator gets. Raises TenantMismatch."""
    if context.principal.is_operator and context.tenant == context.principal.tenant:
        return tenant
    if tenant is not None and tenant != context.tenant:
        raise TenantMismatch("That is another tenant's.", tenant=context.tenant, expected=context.tenant, found=tenant)
    return context.tenant


def requires(permission: str) -> Any:
    """A FastAPI dependency: the caller's Context if it may, an error if not.

    A path parameter named ``tenant`` is checked too, and becomes the context's tenant.
    """

    async def check(request: Request) -> Context:
        return await authorize(request, permission, tenant=request.path_params.get("tenant"))

    setattr(check, PERMISSION, permission)
    dependency: Callable[[Request], Coroutine[Any, Any, Context]] = check
    return Depends(dependency)


def requires_active(plugin: str) -> Any:
    """A FastAPI dependency for an extension's routes: they are there only for tenants that have it on."""

    async def check(request: Request) -> None:
        context = context_of(request)
        failure = request.scope.get("keelstone.sign_in_failure")
        if failure is not None and context.principal is ANONYMOUS:
            raise failure
        require(context.principal, SELF)
        tenant = acting_tenant(context.principal, request.path_params.get("tenant", context.tenant))
        activations: Activations = request.app.state.platform.activations
        if activations.current.of(tenant).get(plugin) is None:
            raise NotFound(
                f"{plugin} is not active in this tenant.",
                plugin=plugin,
                tenant=tenant,
                fix="An admin of the tenant activates it.",
            )

    return Depends(check)


def graphql_context(info: Any) -> Request:
    """The HTTP request behind a GraphQL resolver's ``info``, to give to :func:`authorize`."""
    request: Request = info.context["request"]
    return request
