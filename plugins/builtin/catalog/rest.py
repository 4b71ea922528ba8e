"""REST of the catalog: what operators and tenants' admins do with plugins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from plugin_sdk import Context, Text
from plugin_sdk.web import requires
from plugins.builtin.catalog.application import TenantPlugins
from plugins.builtin.catalog.consent.updates import Update, Updates
from plugins.builtin.catalog.domain import Activation
from plugins.builtin.catalog.operations import Operations, describe
from plugins.builtin.catalog.policy.application import Policies
from plugins.builtin.catalog.policy.domain import Finding, told
from plugins.builtin.catalog.upgrades.trial import Trial

Reads = Annotated[Context, requires("plugins:read")]
Installs = Annotated[Context, requires("plugins:install")]
Activates = Annotated[Context, requires("plugins:activate")]


class InstallIn(BaseModel):
    """What to install; ``version`` is a range, the newest fitting release is taken."""

    model_config = ConfigDict(extra="forbid")
    plugin: Text
    version: Text = "*"
    dry_run: bool = False


class UpgradeIn(BaseModel):
    """The version to move to; the newest if left out."""

    model_config = ConfigDict(extra="forbid")
    version: Text | None = None


class ActivateIn(BaseModel):
    """Switching a plugin on: a decision for each capability asked for, and settings."""

    model_config = ConfigDict(extra="forbid")
    version: Text | None = None
    grants: dict[str, bool] = {}
    settings: dict[str, Any] | None = None


class PinIn(BaseModel):
    """Whether to stay on the present version, and the channel that is followed otherwise."""

    model_config = ConfigDict(extra="forbid")
    pinned: bool | None = None
    channel: Text | None = None


class PluginOut(BaseModel):
    """An installed release."""

    id: str
    version: str
    name: str
    summary: str
    kind: str
    license: str
    state: str
    hooks: list[str]
    subscribes: list[str]
    capabilities: list[str]
    digest: str
    installed_at: datetime | None
    installed_by: str


class BuildOut(BaseModel):
    """The run of a CI job that made and signed a release: where, from which commit and ref, and the run's address."""

    host: str
    repository: str
    workflow: str
    environment: str
    commit: str
    ref: str
    url: str


class PluginPage(PluginOut):
    """An installed release with its texts and the chain that was verified."""

    readme: str
    changelog: str
    settings_schema: dict[str, Any] | None
    chain: list[str]
    limits: dict[str, int]
    provenance: BuildOut | None = None


class TrialOut(BaseModel):
    """Another version on trial in the tenant. What it asks for beyond what was granted is denied."""

    id: str
    version: str
    mode: str
    calls: float
    started_at: datetime
    grants: list[str]
    denied: list[str]


class ChangeOut(BaseModel):
    """One difference between two versions; `widens` means that the later one may do more."""

    kind: str
    area: str
    words: str
    widens: bool
    capability: str


class UpdateOut(BaseModel):
    """What another version changes. `needs_consent` are capabilities to decide on: new ones are denied until then,
    and grants with which it may do more hold it back. `doubts` say who else stands behind it than behind what runs: it
    is held until a person allows it."""

    before: str
    after: str
    summary: str
    changes: list[ChangeOut]
    needs_consent: list[str]
    doubts: list[str] = []


class ActivationOut(BaseModel):
    """One plugin for the tenant. In answers to GET, `policy` says what stands against it now, and `newer` what the
    newest installed version of its channel would change."""

    plugin: str
    version: str
    state: str
    grants: list[str]
    denied: list[str]
    settings: dict[str, Any]
    previous: str | None
    pinned: bool
    channel: str
    upgrade: TrialOut | None
    changed_at: datetime | None
    changed_by: str
    policy: list[str] = []
    newer: UpdateOut | None = None


class CapabilityOut(BaseModel):
    """One thing a plugin asks for, in plain words; `policy` says why it may not be granted, if so."""

    name: str
    what: str
    why: str
    worst: str
    decision: str
    new: bool
    policy: str


class MoveOut(BaseModel):
    """What an upgrade or rollback did in one tenant."""

    tenant: str
    before: str
    after: str
    error: str | None
    needs_consent: list[str]


class RemovalOut(BaseModel):
    """What an uninstall did."""

    plugin: str
    versions: list[str]
    residue: list[str]
    exported: dict[str, dict[str, str]] | None
    kept_keys: int


def _trial_members(trial: Trial) -> dict[str, Any]:
    members = {name: getattr(trial, name) for name in ("id", "version", "mode", "calls", "started_at")}
    return members | {"grants": sorted(trial.grants), "denied": sorted(trial.denied)}


def update_out(update: Update) -> UpdateOut:
    """An update as REST shows it."""
    return UpdateOut(
        before=update.before,
        after=update.after,
        summary=update.summary,
        changes=[ChangeOut(**asdict(c)) for c in update.changes],
        needs_consent=list(update.needs_consent),
        doubts=list(update.doubts),
    )


def activation_out(
    activation: Activation, against: Iterable[Finding] = (), newer: Update | None = None
) -> ActivationOut:
    """An activation as REST shows it; ``against`` is what the policies say of it, ``newer`` what waits for it, for
    answers that tell them."""
    return ActivationOut(
        plugin=activation.plugin,
        version=activation.version,
        state=str(activation.state),
        grants=sorted(activation.grants),
        denied=sorted(activation.denied),
        settings=dict(activation.settings),
        previous=activation.previous,
        pinned=activation.pinned,
        channel=activation.channel,
        upgrade=None if activation.trial is None else TrialOut(**_trial_members(activation.trial)),
        changed_at=activation.changed_at,
        changed_by=activation.changed_by,
        policy=[told(f) for f in against],
        newer=None if newer is None else update_out(newer),
    )


def plugins_router(tenants: TenantPlugins, operations: Operations) -> APIRouter:
    """Installed plugins: reads for everybody, changes for operators."""
    router = APIRouter(prefix="/plugins", tags=["plugins"])

    @router.get("", summary="Installed plugins")
    async def list_plugins(context: Reads) -> list[PluginOut]:
        return [PluginOut(**describe(r)) for r in await tenants.installed()]

    @router.post("/install", summary="Install a plugin and what it requires")
    async def install(context: Installs, body: InstallIn) -> list[PluginOut]:
        if body.dry_run:
            plan = await operations.plan(body.plugin, body.version)
            return [planned(m) for m in plan]
        return [PluginOut(**describe(r)) for r in await operations.install(context, body.plugin, body.version)]

    @router.get("/{publisher}/{name}", summary="One installed plugin, with the chain that was verified")
    async def get_plugin(
        context: Reads, publisher: str, name: str, version: Annotated[str | None, Query()] = None
    ) -> PluginPage:
        release = await tenants.find(f"{publisher}/{name}", version)
        return PluginPage(
            **describe(release),
            readme=release.readme,
            changelog=release.changelog,
            settings_schema=None if release.settings_schema is None else dict(release.settings_schema),
            chain=list(release.chain),
            limits=release.manifest.limits.model_dump(),
            provenance=BuildOut(**asdict(build)) if (build := release.origin and release.origin.build) else None,
        )

    @router.post("/{publisher}/{name}/upgrade", summary="Move every tenant that follows to another version")
    async def upgrade(context: Installs, publisher: str, name: str, body: UpgradeIn) -> list[MoveOut]:
        moves = await operations.upgrade(context, f"{publisher}/{name}", body.version)
        return [MoveOut(**asdict(m)) for m in moves]

    @router.post("/{publisher}/{name}/rollback", summary="Move every tenant back to the version before")
    async def rollback(context: Installs, publisher: str, name: str) -> list[MoveOut]:
        return [MoveOut(**asdict(m)) for m in await operations.rollback(context, f"{publisher}/{name}")]

    @router.delete("/{publisher}/{name}", summary="Uninstall one version, or all")
    async def uninstall(
        context: Installs,
        publisher: str,
        name: str,
        version: Annotated[str | None, Query()] = None,
        data: Annotated[Literal["retain", "purge", "export"], Query()] = "retain",
    ) -> RemovalOut:
        removal = await operations.uninstall(context, f"{publisher}/{name}", version, data)
        return RemovalOut(**asdict(removal))

    return router


def planned(manifest: Any) -> PluginOut:
    """What an install would bring, as the routes say it."""
    return PluginOut(
        id=manifest.id,
        version=manifest.version,
        name=manifest.name,
        summary=manifest.summary,
        kind=manifest.kind,
        license=manifest.license,
        state="planned",
        hooks=sorted(manifest.hooks),
        subscribes=list(manifest.events.subscribes),
        capabilities=list(manifest.capabilities.asked()),
        digest="",
        installed_at=None,
        installed_by="",
    )


def activations_router(tenants: TenantPlugins, policies: Policies, updates: Updates) -> APIRouter:
    """A tenant's plugins: consent, activation, settings, grants."""
    router = APIRouter(prefix="/tenants/{tenant}/activations", tags=["activations"])

    async def told_of(tenant: str, activations: list[Activation]) -> list[ActivationOut]:
        against, newer = await policies.against(tenant), await updates.newer(activations)
        return [activation_out(a, against.get(a.plugin, ()), newer.get(a.plugin)) for a in activations]

    @router.get("", summary="What is, or was, on for the tenant")
    async def list_activations(context: Reads) -> list[ActivationOut]:
        return await told_of(context.tenant, await tenants.activations(context.tenant))

    @router.get("/{publisher}/{name}", summary="One activation")
    async def get_activation(context: Reads, publisher: str, name: str) -> ActivationOut:
        (told,) = await told_of(context.tenant, [await tenants.activation(context.tenant, f"{publisher}/{name}")])
        return told

    @router.get("/{publisher}/{name}/changes", summary="What another version may do that this may not, in plain words")
    async def changes(
        context: Reads, publisher: str, name: str, version: Annotated[str | None, Query()] = None
    ) -> UpdateOut:
        return update_out(await updates.of(context.tenant, f"{publisher}/{name}", version))

    @router.get("/{publisher}/{name}/consent", summary="What a plugin asks for, in plain words")
    async def consent(
        context: Reads, publisher: str, name: str, version: Annotated[str | None, Query()] = None
    ) -> list[CapabilityOut]:
        plugin = f"{publisher}/{name}"
        asked = await tenants.consent_page(context.tenant, plugin, version)
        never = await policies.never(context.tenant, plugin, version)
        return [CapabilityOut(**asdict(a), policy=never.get(a.name, "")) for a in asked]

    @router.put("/{publisher}/{name}", summary="Consent and switch on")
    async def activate(context: Activates, publisher: str, name: str, body: ActivateIn) -> ActivationOut:
        activation = await tenants.activate(
            context,
            f"{publisher}/{name}",
            version=body.version,
            decisions=body.grants,
            settings=body.settings,
        )
        return activation_out(activation)

    @router.delete("/{publisher}/{name}", summary="Switch off; settings and state stay")
    async def deactivate(context: Activates, publisher: str, name: str) -> ActivationOut:
        return activation_out(await tenants.deactivate(context, f"{publisher}/{name}"))

    @router.put("/{publisher}/{name}/settings", summary="Replace settings")
    async def configure(context: Activates, publisher: str, name: str, body: dict[str, Any]) -> ActivationOut:
        return activation_out(await tenants.configure(context, f"{publisher}/{name}", body))

    @router.put("/{publisher}/{name}/grants", summary="Decide again on capabilities")
    async def grant(context: Activates, publisher: str, name: str, body: dict[str, bool]) -> ActivationOut:
        return activation_out(await tenants.grant(context, f"{publisher}/{name}", body))

    @router.put("/{publisher}/{name}/pin", summary="Stay on the present version, or follow a channel")
    async def pin(context: Activates, publisher: str, name: str, body: PinIn) -> ActivationOut:
        plugin = f"{publisher}/{name}"
        return activation_out(await tenants.follow(context, plugin, pinned=body.pinned, channel=body.channel))

    return router
