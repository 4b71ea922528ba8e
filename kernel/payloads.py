"""Typed payloads and results of the hooks. At the sandbox border they are JSON of these schemas."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kernel.errors import ValidationFailed
from kernel.plain import JsonObject, Text

PERSONAL: dict[str, Any] = {"x-personal": True}
"""Marks a field in its schema: what it holds is about a person, and is masked in recordings."""


class Payload(BaseModel):
    """Base of payloads: frozen values that refuse unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The payload, from values that nobody has checked yet. Raises ValidationFailed with every problem."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
            raise ValidationFailed(
                f"The {cls.__name__} does not fit: {'; '.join(found[:10])}.", extra={"problems": found}
            ) from error


class UserDraft(Payload):
    """A person about to be registered or changed in one tenant."""

    email: Text = Field(min_length=3, max_length=254, json_schema_extra=PERSONAL)
    """Address, as it was given."""
    name: Text = Field(min_length=1, max_length=200, json_schema_extra=PERSONAL)
    """The person's name."""
    attributes: JsonObject = Field(default={}, json_schema_extra=PERSONAL)
    """Whatever else is known, as plain JSON."""


class TenantDraft(Payload):
    """A tenant about to be provisioned."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{1,38}[a-z0-9]$")
    """The id that the tenant will have."""
    name: Text = Field(min_length=1, max_length=200)
    """What people call it."""
    plan: Text = Field(default="free", min_length=1, max_length=60)
    """The plan that it is on."""
    configuration: JsonObject = {}
    """The tenant's configuration, as plain JSON."""


class AccessRequest(Payload):
    """May this principal do this to that?"""

    principal: str
    """Id of who asks."""
    roles: tuple[str, ...] = ()
    """The principal's roles."""
    permissions: tuple[str, ...] = ()
    """The principal's permissions."""
    action: str
    """The permission that is asked for."""
    resource: str = "*"
    """What it is asked for; `*` for anything."""


class AccessDecision(Payload):
    """The first plugin that has an opinion gives it."""

    allow: bool
    """Whether it may."""
    reason: str
    """Why; shown to the caller who may not."""


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
    capabilities: tuple[str, ...] = ()
    """What its manifest asks for."""
    hosts: tuple[str, ...] = ()
    """Where it wants to send requests."""


class InstallDecision(Payload):
    """Whether policy lets the release in."""

    allow: bool
    """Whether it may be installed."""
    reason: str
    """Why; shown to the operator."""


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
    data: dict[str, Any] = {}
    """What happened, by the schema of its type."""
    correlation_id: str = ""
    """Id of the work that caused it; empty if unknown."""


class Reject(Payload):
    """A filter's refusal; ``reason`` is shown to the caller."""

    reason: str = Field(min_length=1, max_length=500)
    """Why, in words for the person whose request it was."""


class FilterReply(Payload):
    """What a guest answers to a filter hook: a changed payload, a refusal, or neither."""

    payload: dict[str, Any] | None = None
    """The changed payload; left out, it stays as it was."""
    reject: Reject | None = None
    """The refusal; left out, there is none."""


class DecideReply(Payload):
    """What a guest answers to a decide hook: an answer, or nothing."""

    answer: dict[str, Any] | None = None
    """An object of the hook's answer; left out, the next one is asked."""


class ObserveReply(Payload):
    """What a guest answers to an observe hook: that it is done."""

    done: Literal[True] = True
    """That it is done."""
