"""What hooks receive. Generated from kernel/payloads.py: `python -m plugin_sdk.toolchain.typed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .payload import UNCHANGED, Payload


@dataclass(frozen=True)
class UserDraft(Payload):
    """A person about to be registered or changed in one tenant."""

    email: str
    """Address, as it was given."""
    name: str
    """The person's name."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Whatever else is known, as plain JSON."""

    def replace(
        self,
        *,
        email: str = UNCHANGED,
        name: str = UNCHANGED,
        attributes: dict[str, Any] = UNCHANGED,
    ) -> UserDraft:
        """The same payload with some members changed."""
        return self._changed(
            email=email,
            name=name,
            attributes=attributes,
        )


@dataclass(frozen=True)
class TenantDraft(Payload):
    """A tenant about to be provisioned."""

    id: str
    """The id that the tenant will have."""
    name: str
    """What people call it."""
    plan: str = "free"
    """The plan that it is on."""
    configuration: dict[str, Any] = field(default_factory=dict)
    """The tenant's configuration, as plain JSON."""

    def replace(
        self,
        *,
        id: str = UNCHANGED,
        name: str = UNCHANGED,
        plan: str = UNCHANGED,
        configuration: dict[str, Any] = UNCHANGED,
    ) -> TenantDraft:
        """The same payload with some members changed."""
        return self._changed(
            id=id,
            name=name,
            plan=plan,
            configuration=configuration,
        )


@dataclass(frozen=True)
class AccessRequest(Payload):
    """May this principal do this to that?"""

    principal: str
    """Id of who asks."""
    action: str
    """The permission that is asked for."""
    roles: list[str] = field(default_factory=list)
    """The principal's roles."""
    permissions: list[str] = field(default_factory=list)
    """The principal's permissions."""
    resource: str = "*"
    """What it is asked for; `*` for anything."""


@dataclass(frozen=True)
class InstallRequest(Payload):
    """A verified release about to be installed on the platform."""

    plugin: str
    """The plugin's id."""
    version: str
    """The release."""
    digest: str
    """SHA-256 of the package, in hex."""
    publisher: str
    """Who signed it."""
    capabilities: list[str] = field(default_factory=list)
    """What its manifest asks for."""
    hosts: list[str] = field(default_factory=list)
    """Where it wants to send requests."""


@dataclass(frozen=True)
class EventView(Payload):
    """A committed event, as observers see it."""

    id: str
    """The event's id, the same at every delivery."""
    type: str
    """The event's type."""
    tenant: str
    """Whose event it is."""
    stream: str
    """The stream that it belongs to."""
    version: int
    """Its place in the stream, from 1."""
    position: int
    """Its place in the global order."""
    time: str
    """When it was committed, ISO 8601."""
    data: dict[str, Any] = field(default_factory=dict)
    """What happened, by the schema of its type."""
    correlation_id: str = ""
    """Id of the work that caused it; empty if unknown."""
