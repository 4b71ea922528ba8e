"""Tenants: frozen values and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from plugin_sdk import ALL_TENANTS, PLATFORM_TENANT, NewEvent, TenantDraft, ValidationFailed, check_plain

RESERVED = frozenset({PLATFORM_TENANT, ALL_TENANTS, "system", "admin", "api", "www"})
MAX_CONFIGURATION_KEYS = 200


@dataclass(frozen=True, slots=True)
class Tenant:
    """An isolated customer. ``version`` grows by one with each change."""

    id: str
    name: str
    plan: str
    created_at: datetime
    configuration: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def stream(self) -> str:
        """The stream of the tenant's own events."""
        return f"tenant:{self.id}"


@dataclass(frozen=True, slots=True)
class Overview:
    """What a tenant has and does, summed up from its events."""

    users: int = 0
    active_plugins: int = 0
    events: int = 0
    last_event_at: datetime | None = None


def provision(draft: TenantDraft, now: datetime) -> tuple[Tenant, NewEvent]:
    """A new tenant and the event that says so. Raises ValidationFailed for a reserved id."""
    if draft.id in RESERVED:
        raise ValidationFailed(f"{draft.id!r} is reserved.", expected="another id", found=draft.id)
    tenant = Tenant(draft.id, draft.name, draft.plan, now, dict(draft.configuration))
    return tenant, NewEvent("tenant.created", {"tenant": tenant.id, "name": tenant.name, "plan": tenant.plan})


def configure(
    tenant: Tenant, *, name: str | None, plan: str | None, configuration: Mapping[str, Any] | None
) -> tuple[Tenant, NewEvent | None]:
    """The tenant after a change (configuration is merged; None removes a key), and the event."""
    check_plain(configuration, "The configuration")
    merged = {**tenant.configuration, **(configuration or {})}
    merged = {key: value for key, value in merged.items() if value is not None}
    if len(merged) > MAX_CONFIGURATION_KEYS:
        raise ValidationFailed(
            "There are too many configuration keys.", expected=f"at most {MAX_CONFIGURATION_KEYS}", found=len(merged)
        )
    after = replace(tenant, name=name or tenant.name, plan=plan or tenant.plan, configuration=merged)
    changed = [n for n in ("name", "plan", "configuration") if getattr(after, n) != getattr(tenant, n)]
    if not changed:
        return tenant, None
    event = NewEvent("tenant.configured", {"tenant": tenant.id, "changed": changed})
    return replace(after, version=tenant.version + 1), event
