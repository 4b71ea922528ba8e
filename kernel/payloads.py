"""Typed payloads and results of the hooks. At the sandbox border they are JSON of these schemas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kernel.plain import JsonObject


class Payload(BaseModel):
    """Base of payloads: frozen values that refuse unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class UserDraft(Payload):
    """A person about to be registered or changed in one tenant."""

    email: str = Field(min_length=3, max_length=254)
    name: str = Field(min_length=1, max_length=200)
    attributes: JsonObject = {}


class TenantDraft(Payload):
    """A tenant about to be provisioned."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{1,38}[a-z0-9]$")
    name: str = Field(min_length=1, max_length=200)
    plan: str = "free"
    configuration: JsonObject = {}


class AccessRequest(Payload):
    """May this principal do this to that?"""

    principal: str
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    action: str
    resource: str = "*"


class AccessDecision(Payload):
    """The first plugin that has an opinion gives it."""

    allow: bool
    reason: str


class InstallRequest(Payload):
    """A verified release about to be installed on the platform."""

    plugin: str
    version: str
    digest: str
    publisher: str
    capabilities: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class InstallDecision(Payload):
    """Whether policy lets the release in."""

    allow: bool
    reason: str


class EventView(Payload):
    """A committed event, as observers see it."""

    id: str
    type: str
    tenant: str
    stream: str
    version: int
    position: int
    time: str
    data: dict[str, Any] = {}
    correlation_id: str = ""


class Reject(Payload):
    """A filter's refusal; ``reason`` is shown to the caller."""

    reason: str = Field(min_length=1, max_length=500)


class FilterReply(Payload):
    """What a guest answers to a filter hook: a changed payload, a refusal, or neither."""

    payload: dict[str, Any] | None = None
    reject: Reject | None = None


class DecideReply(Payload):
    """What a guest answers to a decide hook: an answer, or nothing."""

    answer: dict[str, Any] | None = None


class ObserveReply(Payload):
    """What a guest answers to an observe hook: that it is done."""

    done: Literal[True] = True
