"""What a guest may ask of the host, as its manifest says it; and the forms of the names in a manifest."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kernel.errors import KeelstoneError
from kernel.versions import parse_range, parse_version

PLUGIN_ID = re.compile(r"^[a-z][a-z0-9-]{0,38}[a-z0-9]/[a-z][a-z0-9-]{0,62}[a-z0-9]$")
EVENT_TYPE = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")
SECRET_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
HEADER_NAME = re.compile(r"^[a-z0-9!#$%&'*+.^_`|~-]{1,100}$")
METHOD_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
CHANNEL_NAME = re.compile(r"^[a-z][a-z0-9-]{0,62}$")
MODEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")
HOST_NAME = re.compile(r"^(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?(:\d{1,5})?$")


def _as_value_error(check: Any) -> AfterValidator:
    def run(value: str) -> str:
        try:
            check(value)
        except KeelstoneError as error:
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(run)


VersionText = Annotated[str, _as_value_error(parse_version)]
RangeText = Annotated[str, _as_value_error(parse_range)]


def check_plugin_id(value: str) -> str:
    """``value`` if it is ``publisher/name`` in lower-case ASCII; raises ValueError otherwise."""
    if not PLUGIN_ID.fullmatch(value) or "--" in value:
        raise ValueError(
            f"{value!r} is not a plugin id: use publisher/name in lower-case letters, digits and "
            "single hyphens, e.g. acme/email-guard"
        )
    return value


def check_event_type(value: str) -> str:
    """``value`` if it is lower-case dotted words; raises ValueError otherwise."""
    if not EVENT_TYPE.fullmatch(value):
        raise ValueError(f"{value!r} is not an event type: use lower-case dotted words, e.g. lead.scored")
    return value


def _check_permission(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]*:[a-z][a-z0-9-]*", value):
        raise ValueError(f"{value!r} is not a permission: use area:action, e.g. users:read")
    return value


def _check_host(value: str) -> str:
    if value.startswith("setting:"):
        if not re.fullmatch(r"setting:[a-z][a-z0-9_]*", value):
            raise ValueError(f"{value!r}: use setting:<name of a string setting that holds a URL>")
        return value
    if not HOST_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a host: use api.example.com, *.example.com or setting:<name>")
    return value


def _formed(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


PluginId = Annotated[str, AfterValidator(check_plugin_id)]
SecretName = Annotated[str, _formed(SECRET_NAME, "a secret's name: use lower-case letters, digits and _")]
HeaderName = Annotated[str, _formed(HEADER_NAME, "a header's name in lower case")]
MethodName = Annotated[str, _formed(METHOD_NAME, "a method's name: use lower-case letters, digits and _")]
ChannelName = Annotated[str, _formed(CHANNEL_NAME, "a channel: use lower-case letters, digits and hyphens")]
ModelName = Annotated[str, _formed(MODEL_NAME, "the name of a model or of a kind of models")]
EventTypeName = Annotated[str, AfterValidator(check_event_type)]
PermissionName = Annotated[str, AfterValidator(_check_permission)]
AllowedHost = Annotated[str, AfterValidator(_check_host)]


class Strict(BaseModel):
    """A table of the manifest: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Capability(Strict):
    """A host ability the guest asks for; ``why`` is shown to the person who consents."""

    why: str = Field(min_length=8, max_length=300)
    """What it is needed for, in words for the person who decides."""


class HttpCapability(Capability):
    """Outgoing HTTP. Hosts are exact, ``*.suffix`` or ``setting:<name>`` (that URL's host)."""

    hosts: tuple[AllowedHost, ...] = Field(min_length=1, max_length=50)
    """Where requests may go; every redirect is held to it too."""
    methods: tuple[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], ...] = ("GET",)
    """Which methods requests may use."""
    headers: tuple[HeaderName, ...] | None = Field(default=None, max_length=50)
    """Which request headers may be set, in lower case; any that is not the host's, if left out."""


class SecretUse(Strict):
    """One secret that the tenant's admin keeps for the plugin, and where the host may put its value."""

    why: str = Field(min_length=8, max_length=300)
    """What it is and is needed for, in words for the person who enters it."""
    hosts: tuple[AllowedHost, ...] = Field(min_length=1, max_length=20)
    """Where it may be sent; each also under `capabilities.http.hosts`, written alike."""
    places: tuple[Literal["header", "body"], ...] = Field(default=("header",), min_length=1)
    """In which part of a request its value may stand."""


class SecretsCapability(Capability):
    """Sending secrets without being able to read them."""

    names: dict[SecretName, SecretUse] = Field(min_length=1, max_length=20)
    """The secrets, by name."""


class AiCapability(Capability):
    """Asking language models."""

    models: tuple[ModelName, ...] = Field(min_length=1, max_length=20)
    """Models, or kinds of models, by the names that the platform's provider has for them."""


class NotifyCapability(Capability):
    """Sending messages to people."""

    channels: tuple[ChannelName, ...] = Field(min_length=1, max_length=20)
    """Channels, such as `email`."""


class ServicesCapability(Capability):
    """Calling what other plugins offer, in the tenant's own name."""

    calls: dict[PluginId, tuple[MethodName, ...]] = Field(min_length=1, max_length=20)
    """Methods by the plugin that offers them."""


class EventsCapability(Capability):
    """Emitting events of the named types, which the plugin must declare under ``[events]``."""

    emits: tuple[EventTypeName, ...] = Field(min_length=1, max_length=50)
    """Event types, each declared under `[[events.declares]]`."""


class Capabilities(Strict):
    """Everything a guest may ask of the host; what is absent is denied."""

    log: Capability | None = None
    """Write lines to the plugin's log."""
    config: Capability | None = None
    """Read the settings that the tenant made."""
    kv: Capability | None = None
    """Keep small state, private to plugin and tenant."""
    http: HttpCapability | None = None
    """Send requests to named hosts."""
    events: EventsCapability | None = None
    """Emit events of the plugin's own types."""
    secrets: SecretsCapability | None = None
    """Have secrets sent in requests, without reading them."""
    ai: AiCapability | None = None
    """Ask language models."""
    notify: NotifyCapability | None = None
    """Send messages to people."""
    clock: Capability | None = None
    """Know what time it is."""
    random: Capability | None = None
    """Draw random numbers."""
    services: ServicesCapability | None = None
    """Call what other plugins offer."""

    def asked(self) -> dict[str, Capability]:
        """The capabilities that are asked for, by name, in alphabetical order."""
        return {n: c for n in sorted(type(self).model_fields) if (c := getattr(self, n)) is not None}
