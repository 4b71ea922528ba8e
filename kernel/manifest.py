"""The manifest, ``plugin.toml``: what a plugin is, needs, asks for and is limited to.

Unknown keys are refused everywhere, so a misspelt limit is an error and never a silent default.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from kernel.errors import KeelstoneError, ManifestError
from kernel.versions import Version, parse_range, parse_version

MANIFEST_FILE = "plugin.toml"
PLUGIN_ID = re.compile(r"^[a-z][a-z0-9-]{0,38}[a-z0-9]/[a-z][a-z0-9-]{0,62}[a-z0-9]$")
EVENT_TYPE = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")
SECRET_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
HEADER_NAME = re.compile(r"^[a-z0-9!#$%&'*+.^_`|~-]{1,100}$")
METHOD_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
CHANNEL_NAME = re.compile(r"^[a-z][a-z0-9-]{0,62}$")
MODEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")
HOST_NAME = re.compile(r"^(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?(:\d{1,5})?$")

PluginKind = Literal["builtin", "extension", "guest"]


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


def _check_event_type(value: str) -> str:
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
EventTypeName = Annotated[str, AfterValidator(_check_event_type)]
PermissionName = Annotated[str, AfterValidator(_check_permission)]
AllowedHost = Annotated[str, AfterValidator(_check_host)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Requires(_Strict):
    """What must be there: the hook contract and other plugins."""

    kernel: RangeText = "^1.0"
    """Range over the version of the hook contract."""
    plugins: dict[PluginId, RangeText] = {}
    """Plugins that must be installed, each with a range of versions."""
    optional: dict[PluginId, RangeText] = {}
    """Plugins that are made use of if they are there."""


class HookUse(_Strict):
    """One hook that the plugin implements, and its place among the others' implementations."""

    before: tuple[PluginId, ...] = ()
    """Plugins whose implementations run later than ours; names of absent ones are ignored."""
    after: tuple[PluginId, ...] = ()
    """Plugins whose implementations run earlier than ours; names of absent ones are ignored."""


class Capability(_Strict):
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


class SecretUse(_Strict):
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


class Capabilities(_Strict):
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


class EventDeclaration(_Strict):
    """An event type that the plugin owns. ``data`` is its JSON Schema."""

    type: EventTypeName
    """Lower-case dotted words, e.g. `lead.scored`."""
    summary: str = Field(min_length=3, max_length=200)
    """What has happened, in one sentence."""
    data: dict[str, Any] = {"type": "object"}
    """JSON Schema (draft 2020-12) of the event's data."""


class Events(_Strict):
    """Event types observed and owned. ``subscribes`` may end in ``.*``."""

    subscribes: tuple[str, ...] = ()
    """Types, or patterns such as `user.*`, that the hook `event_received` is called with."""
    declares: tuple[EventDeclaration, ...] = ()
    """Types that belong to this plugin."""

    @field_validator("subscribes")
    @classmethod
    def _types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            _check_event_type(item.removesuffix(".*") + ".x" if item.endswith(".*") else item)
        return value


class PermissionDeclaration(_Strict):
    """A right that the plugin introduces, and the standard roles that have it from the start."""

    summary: str = Field(min_length=3, max_length=200)
    """What it lets a person do, in one sentence."""
    roles: tuple[Literal["admin", "member"], ...] = ("admin",)
    """Roles that have it unless an operator decides otherwise."""


class Limits(_Strict):
    """Technical bounds of one call. The operator's settings cap time and memory."""

    time_ms: int = Field(default=250, ge=1, le=60_000)
    """Milliseconds that a call may take."""
    memory_mb: int = Field(default=16, ge=1, le=1024)
    """MiB of memory that a call may use."""
    input_kb: int = Field(default=256, ge=1, le=16_384)
    """KiB of payload taken in."""
    output_kb: int = Field(default=256, ge=1, le=16_384)
    """KiB of answer given."""
    stack_kb: int = Field(default=512, ge=64, le=1024)
    """KiB of stack that the guest counts on."""
    host_calls: int = Field(default=100, ge=0, le=10_000)
    """Host calls in one call."""
    http_kb: int = Field(default=256, ge=0, le=16_384)
    """KiB of HTTP bodies, sent and received, in one call."""
    kv_kb: int = Field(default=64, ge=0, le=16_384)
    """KiB of keys and values stored for a tenant."""
    kv_keys: int = Field(default=10_000, ge=0, le=1_000_000)
    """Keys stored for a tenant."""
    events: int = Field(default=10, ge=0, le=1_000)
    """Events emitted in one call."""
    log_lines: int = Field(default=50, ge=0, le=10_000)
    """Lines logged in one call."""
    ai_tokens: int = Field(default=4_000, ge=0, le=1_000_000)
    """Tokens of language models, both ways, in one call."""
    notices: int = Field(default=5, ge=0, le=1_000)
    """Messages to people in one call."""
    tables: int = Field(default=24, ge=1, le=64)
    """WebAssembly tables of one call."""
    table_elements: int = Field(default=65_536, ge=0, le=65_536)
    """Elements of each table."""
    instances: int = Field(default=48, ge=1, le=48)
    """Core instances that make up one call's instance."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Calls under way at once, in one process."""


class Recycle(_Strict):
    """When a tenant's live instance has served long enough; after a trap it always has."""

    calls: int = Field(default=1_000, ge=1, le=1_000_000)
    """Calls that it serves."""
    seconds: int = Field(default=600, ge=1, le=86_400)
    """Seconds that it lives."""
    memory_percent: int = Field(default=80, ge=10, le=100)
    """Share of `limits.memory_mb` that it may hold after a call."""


class Build(_Strict):
    """How ``keelstone plugin build`` makes the component; kept in the package for rebuilds."""

    language: Literal["assemblyscript", "c", "go", "javascript", "python", "rust", "typescript", "zig"]
    """The source's language."""
    source: str
    """The file with the guest's entry, relative to the manifest."""


class PluginManifest(_Strict):
    """Identity, version, requirements, capabilities, settings and limits of one plugin version.

    Read it with :func:`load_manifest` or :func:`parse_manifest`; both raise ManifestError.
    """

    manifest: Literal[1]
    """Version of this format."""
    id: PluginId
    """`publisher/name` in lower-case letters, digits and single hyphens."""
    version: VersionText
    """SemVer 2."""
    name: str = Field(min_length=2, max_length=60)
    """What people call it."""
    summary: str = Field(min_length=10, max_length=200)
    """What it does, in one sentence."""
    license: str = Field(min_length=2, max_length=60)
    """SPDX identifier or name."""
    kind: PluginKind = "guest"
    """`guest` runs in the sandbox; `builtin` and `extension` are Python in the platform's process."""
    required: bool = False
    """Built-ins only: on for every tenant, cannot be switched off for one."""
    homepage: str | None = None
    """Where to read more."""
    keywords: tuple[str, ...] = Field(default=(), max_length=20)
    """Words that a search should find."""
    requires: Requires = Requires()
    """What must be there."""
    hooks: dict[str, HookUse] = {}
    """Hooks that are implemented, by name."""
    capabilities: Capabilities = Capabilities()
    """What the guest asks of the host."""
    events: Events = Events()
    """Event types observed and owned."""
    permissions: dict[PermissionName, PermissionDeclaration] = {}
    """Rights that the plugin introduces, by name (`area:action`)."""
    settings: str | None = None
    """Path of the settings' JSON Schema (draft 2020-12), relative to the manifest."""
    limits: Limits = Limits()
    """Bounds of one call."""
    isolation: Literal["call", "tenant"] = "call"
    """`call`: a fresh instance for every call. `tenant`: one live instance for each tenant, for runtimes
    that are slow to start (CPython, QuickJS)."""
    recycle: Recycle = Recycle()
    """When a live instance is dropped and begun anew (`isolation = "tenant"`)."""
    build: Build | None = None
    """How the component is made."""

    @property
    def publisher(self) -> str:
        """The namespace: the part of the id before the slash."""
        return self.id.partition("/")[0]

    @property
    def short_name(self) -> str:
        """The part of the id after the slash."""
        return self.id.partition("/")[2]

    @property
    def semver(self) -> Version:
        """The version, parsed."""
        return parse_version(self.version)

    @model_validator(mode="after")
    def _coherent(self) -> PluginManifest:
        if self.kind == "guest" and self.required:
            raise ValueError("only built-in plugins can be required")
        if self.capabilities.events:
            own = {d.type for d in self.events.declares}
            foreign = [t for t in self.capabilities.events.emits if t not in own]
            if foreign:
                raise ValueError(
                    f"capabilities.events.emits names {', '.join(foreign)}, which [[events.declares]] "
                    "does not declare; a plugin emits only event types that it owns"
                )
        if self.capabilities.secrets:
            reachable = self.capabilities.http.hosts if self.capabilities.http else ()
            for name, secret in self.capabilities.secrets.names.items():
                strange = [h for h in secret.hosts if h not in reachable]
                if strange:
                    raise ValueError(
                        f"the secret {name} may go to {', '.join(strange)}, which capabilities.http.hosts does not name"
                    )
        if self.events.subscribes and self.kind == "guest" and "event_received" not in self.hooks:
            raise ValueError("events.subscribes needs the hook event_received under [hooks]")
        if self.settings is not None and (
            self.settings.startswith("/") or ".." in self.settings.split("/") or "\\" in self.settings
        ):
            raise ValueError("settings must be a relative path inside the plugin's folder")
        return self


def parse_manifest(text: str | bytes, *, file: str = MANIFEST_FILE) -> PluginManifest:
    """The manifest in ``text``. Raises ManifestError with every problem, each with its key."""
    try:
        raw = tomllib.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{file} is not TOML: {error}", file=file, fix="Correct the syntax.") from error
    return manifest_from_dict(raw, file=file)


def manifest_from_dict(raw: object, *, file: str = MANIFEST_FILE) -> PluginManifest:
    """The manifest in plain data (TOML's or JSON's). Raises ManifestError like parse_manifest."""
    try:
        return PluginManifest.model_validate(raw)
    except ValidationError as error:
        problems = [_problem(e) for e in error.errors(include_url=False)]
        plugin = raw.get("id") if isinstance(raw, dict) and isinstance(raw.get("id"), str) else None
        raise ManifestError(
            f"{file} has {len(problems)} problem{'s' if len(problems) > 1 else ''}: " + "; ".join(problems) + ".",
            file=file,
            plugin=plugin,
            fix="See docs/reference/manifest.md for every key.",
            extra={"problems": problems},
        ) from error


def _problem(error: Any) -> str:
    key = ".".join(str(p) for p in error["loc"]) or "manifest"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}"


def load_manifest(folder: Path) -> PluginManifest:
    """The manifest of the plugin in ``folder``. Raises ManifestError if absent or malformed."""
    path = folder / MANIFEST_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"There is no {MANIFEST_FILE} in {folder}.",
            file=str(path),
            fix="Run the command in a plugin's folder, or make one with `keelstone plugin new`.",
        ) from error
    return parse_manifest(data, file=str(path))


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of plugin.toml, for editors and the reference page."""
    return PluginManifest.model_json_schema()
