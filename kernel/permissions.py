"""Who may do what. Pure: roles give permission strings; ``users:*`` covers ``users:read``; deny is the default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kernel.context import Principal
from kernel.errors import Forbidden, TenantMismatch, Unauthenticated
from kernel.manifest import PluginManifest
from kernel.ports import ALL_TENANTS


@dataclass(frozen=True, slots=True)
class Permission:
    """A right that a plugin introduces, and the standard roles that have it from the start."""

    name: str
    summary: str
    roles: frozenset[str] = frozenset({"admin"})


PLATFORM_PERMISSIONS = (
    Permission("events:read", "See the tenant's events."),
    Permission("dead-letters:manage", "See, retry and discard parked events."),
    Permission("hooks:explain", "See which implementations ran for a request."),
    Permission("projections:rebuild", "Rebuild read models (operators).", frozenset()),
)
"""The platform's own; plugins add theirs in their manifests."""
SELF = "self:read"
"""The right to see oneself, which every signed-in principal has."""
OPERATOR_ROLE = "operator"
ADMIN_ROLE = "admin"
MEMBER_ROLE = "member"
ROLES = (OPERATOR_ROLE, ADMIN_ROLE, MEMBER_ROLE)


def declared_permissions(manifests: Iterable[PluginManifest]) -> list[Permission]:
    """Every permission that the manifests introduce, by name."""
    found = [
        Permission(name, declared.summary, frozenset(declared.roles))
        for manifest in manifests
        for name, declared in manifest.permissions.items()
    ]
    return sorted(found, key=lambda p: p.name)


def grants(held: Iterable[str], wanted: str) -> bool:
    """Whether any held permission covers the wanted one. Adding to ``held`` never takes away."""
    area = wanted.partition(":")[0]
    return any(h in ("*", wanted, f"{area}:*") for h in held)


def permissions_of(roles: Iterable[str], permissions: Iterable[Permission]) -> frozenset[str]:
    """The permission strings that a set of roles gives. Operators have every one."""
    mine = frozenset(roles)
    if OPERATOR_ROLE in mine:
        return frozenset({"*"})
    return frozenset(p.name for p in permissions if p.roles & mine)


def require(principal: Principal, permission: str) -> None:
    """Raise Unauthenticated or Forbidden unless the principal has ``permission``."""
    if principal.kind == "anonymous":
        raise Unauthenticated(
            "This needs a signed-in principal.",
            expected="Authorization: Bearer <access token or API key>",
            fix="Sign in at POST /api/v1/auth/token.",
        )
    if permission != SELF and not grants(principal.permissions, permission):
        raise Forbidden(
            f"{principal.id} may not {permission}.",
            tenant=principal.tenant,
            expected=permission,
            found=", ".join(sorted(principal.permissions)) or "no permissions",
            fix="Ask an admin of the tenant for a role that has it.",
        )


def acting_tenant(principal: Principal, wanted: str | None) -> str:
    """The tenant a request acts in. Only operators may name one that is not their own.

    Nobody acts in all tenants at once by naming ``*``. Raises TenantMismatch; the message does not
    say whether the tenant exists.
    """
    acting = principal.tenant if wanted is None else wanted
    if acting != ALL_TENANTS and (acting == principal.tenant or principal.is_operator):
        return acting
    raise TenantMismatch(
        "That tenant is not yours.",
        tenant=principal.tenant,
        expected=principal.tenant,
        found=wanted,
        fix="Sign in to that tenant, or leave the tenant out.",
    )


def roles_table(permissions: Iterable[Permission]) -> Mapping[str, list[str]]:
    """Role -> its permissions, for the REST answer and the reference page."""
    known = list(permissions)
    return {role: sorted(permissions_of([role], known)) for role in ROLES}
