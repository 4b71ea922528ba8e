"""What hooks receive: the models of kernel/payloads.py as dataclasses (a guest carries no pydantic)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

P = TypeVar("P", bound="Payload")


class Payload:
    """Base of payloads: frozen values."""

    @classmethod
    def from_json(cls: type[P], data: dict[str, Any]) -> P:
        """The payload in decoded JSON. Members that this library does not know yet are left out."""
        known = cls.__dataclass_fields__  # type: ignore[attr-defined]
        return cls(**{name: value for name, value in data.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """The payload as data for JSON. Its members are the payload's own, not copies."""
        return dict(vars(self))

    def replace(self: P, **changes: Any) -> P:
        """The same payload with some members changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class UserDraft(Payload):
    """A person about to be registered or changed in one tenant."""

    email: str
    name: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TenantDraft(Payload):
    """A tenant about to be provisioned."""

    id: str
    name: str
    plan: str = "free"
    configuration: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AccessRequest(Payload):
    """May this principal do this to that?"""

    principal: str
    action: str
    resource: str = "*"
    roles: list[str] = field(default_factory=list)
    permissions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class InstallRequest(Payload):
    """A verified release about to be installed on the platform."""

    plugin: str
    version: str
    digest: str
    publisher: str
    capabilities: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EventView(Payload):
    """A committed event."""

    id: str
    type: str
    tenant: str
    stream: str
    version: int
    position: int
    time: str
    data: dict[str, Any] = field(default_factory=dict)
    correlation_id: str = ""
