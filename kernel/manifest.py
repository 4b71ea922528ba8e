"""The manifest, ``plugin.toml``: what a plugin is, needs, asks for and is limited to.

Unknown keys are refused everywhere, so a misspelt limit is an error and never a silent default.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from kernel.capabilities import (
    AiCapability,
    Capabilities,
    Capability,
    EventsCapability,
    EventTypeName,
    HttpCapability,
    NotifyCapability,
    PermissionName,
    PluginId,
    RangeText,
    SecretsCapability,
    SecretUse,
    ServicesCapability,
    Strict,
    VersionText,
    check_event_type,
    check_plugin_id,
)
from kernel.errors import ManifestError
from kernel.versions import Version, parse_version

__all__ = [
    "MANIFEST_FILE",
    "AiCapability",
    "Build",
    "Capabilities",
    "Capability",
    "EventDeclaration",
    "Events",
    "EventsCapability",
    "HookUse",
    "HttpCapability",
    "Limits",
    "NotifyCapability",
    "PermissionDeclaration",
    "PluginKind",
    "PluginManifest",
    "Recycle",
    "Requires",
    "ScreenshotFile",
    "SecretUse",
    "SecretsCapability",
    "ServicesCapability",
    "check_plugin_id",
    "load_manifest",
    "manifest_from_dict",
    "manifest_schema",
    "parse_manifest",
]

MANIFEST_FILE = "plugin.toml"
PluginKind = Literal["builtin", "extension", "guest"]


class Requires(Strict):
    """What must be there: the hook contract and other plugins."""

    kernel: RangeText = "^1.0"
    """Range over the version of the hook contract."""
    plugins: dict[PluginId, RangeText] = {}
    """Plugins that must be installed, each with a range of versions."""
    optional: dict[PluginId, RangeText] = {}
    """Plugins that are made use of if they are there."""


class HookUse(Strict):
    """One hook that the plugin implements, and its place among the others' implementations."""

    before: tuple[PluginId, ...] = ()
    """Plugins whose implementations run later than ours; names of absent ones are ignored."""
    after: tuple[PluginId, ...] = ()
    """Plugins whose implementations run earlier than ours; names of absent ones are ignored."""


class EventDeclaration(Strict):
    """An event type that the plugin owns. ``data`` is its JSON Schema."""

    type: EventTypeName
    """Lower-case dotted words, e.g. `lead.scored`."""
    summary: str = Field(min_length=3, max_length=200)
    """What has happened, in one sentence."""
    data: dict[str, Any] = {"type": "object"}
    """JSON Schema (draft 2020-12) of the event's data."""


class Events(Strict):
    """Event types observed and owned. ``subscribes`` may end in ``.*``."""

    subscribes: tuple[str, ...] = ()
    """Types, or patterns such as `user.*`, that the hook `event_received` is called with."""
    declares: tuple[EventDeclaration, ...] = ()
    """Types that belong to this plugin."""

    @field_validator("subscribes")
    @classmethod
    def _types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            check_event_type(item.removesuffix(".*") + ".x" if item.endswith(".*") else item)
        return value


class PermissionDeclaration(Strict):
    """A right that the plugin introduces, and the standard roles that have it from the start."""

    summary: str = Field(min_length=3, max_length=200)
    """What it lets a person do, in one sentence."""
    roles: tuple[Literal["admin", "member"], ...] = ("admin",)
    """Roles that have it unless an operator decides otherwise."""


class Limits(Strict):
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


class Recycle(Strict):
    """When a tenant's live instance has served long enough; after a trap it always has."""

    calls: int = Field(default=1_000, ge=1, le=1_000_000)
    """Calls that it serves."""
    seconds: int = Field(default=600, ge=1, le=86_400)
    """Seconds that it lives."""
    memory_percent: int = Field(default=80, ge=10, le=100)
    """Share of `limits.memory_mb` that it may hold after a call."""


class ScreenshotFile(Strict):
    """One picture for the plugin's page."""

    file: str = Field(max_length=80)
    """`screenshots/NAME.png` or `.webp`, at most 512 KiB and 4096 x 4096 pixels."""
    shows: str = Field(min_length=3, max_length=200)
    """What can be seen on it, for those who cannot."""


class Build(Strict):
    """How ``keelstone plugin build`` makes the component; kept in the package for rebuilds."""

    language: Literal["assemblyscript", "c", "go", "javascript", "python", "rust", "typescript", "zig"]
    """The source's language."""
    source: str
    """The file with the guest's entry, relative to the manifest."""


class PluginManifest(Strict):
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
    screenshots: tuple[ScreenshotFile, ...] = Field(default=(), max_length=6)
    """What people see on the plugin's page, in this order."""

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
    # Besides its own error, tomllib lets out ValueError (a number of 5,000 digits) and RecursionError.
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{file} is not TOML: {error}", file=file, fix="Correct the syntax.") from error
    return manifest_from_dict(raw, file=file)


def manifest_from_dict(raw: object, *, file: str = MANIFEST_FILE) -> PluginManifest:
    """The manifest in plain data (TOML's or JSON's). Raises ManifestError like parse_manifest."""
    try:
        return PluginManifest.model_validate(raw)
    except ValidationError as error:
        # A stranger's manifest can have thousands, each as long as the file: what is said stays a page.
        found = error.errors(include_url=False)
        problems = [_problem(e)[:_LONGEST_PROBLEM] for e in found[:_MOST_PROBLEMS]]
        if len(found) > _MOST_PROBLEMS:
            problems.append(f"and {len(found) - _MOST_PROBLEMS} more")
        named = raw.get("id") if isinstance(raw, dict) else None
        plugin = named if isinstance(named, str) and len(named) <= _LONGEST_PROBLEM else None
        raise ManifestError(
            f"{file} has {len(found)} problem{'s' if len(found) > 1 else ''}: " + "; ".join(problems) + ".",
            file=file,
            plugin=plugin,
            fix="See docs/reference/manifest.md for every key.",
            extra={"problems": problems},
        ) from error


_MOST_PROBLEMS = 25
_LONGEST_PROBLEM = 300


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
