"""Releases, activations and consent: frozen values and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from plugin_sdk import (
    RUNNING,
    ActivationState,
    Conflict,
    ConsentRequired,
    Forbidden,
    PluginManifest,
    PluginQuarantined,
    ReleaseState,
    ValidationFailed,
    next_activation_state,
)
from plugin_sdk.asking import asked_for
from plugin_sdk.differences import widened
from plugin_sdk.services import ReleaseOrigin
from plugins.builtin.catalog.upgrades.trial import Trial, carried_grants

MOST_NUMBER = 2**31 - 1
"""The largest number that a column of integers holds in every database."""


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a plugin on the platform. Digests are SHA-256 in hex."""

    manifest: PluginManifest
    digest: str
    component: str
    state: ReleaseState
    settings_schema: Mapping[str, Any] | None = None
    readme: str = ""
    changelog: str = ""
    chain: tuple[str, ...] = ()
    installed_at: datetime | None = None
    installed_by: str = ""
    published_at: datetime | None = None
    origin: ReleaseOrigin | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    """One plugin for one tenant. ``previous`` is the version a rollback goes back to; ``upgrade`` is another
    version on trial beside ``version``. A pinned activation never moves by itself; the others follow ``channel``."""

    plugin: str
    version: str
    state: ActivationState
    grants: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    previous: str | None = None
    pinned: bool = False
    changed_at: datetime | None = None
    changed_by: str = ""
    channel: str = "stable"
    upgrade: Trial | None = None

    @property
    def running(self) -> bool:
        """Whether the tenant's calls reach it."""
        return self.state in RUNNING

    @property
    def trial(self) -> Trial | None:
        """The upgrade that is under way. A plugin that was degraded meanwhile takes no trials."""
        return self.upgrade if self.state is ActivationState.UPGRADING else None


@dataclass(frozen=True, slots=True)
class CapabilityRequest:
    """One thing a plugin asks for, as a person reads it before consenting."""

    name: str
    what: str
    why: str
    worst: str
    decision: str
    new: bool


def requests(manifest: PluginManifest, present: Activation | None) -> list[CapabilityRequest]:
    """What the plugin asks for, in plain words, with what was decided so far."""
    found = []
    for asked in asked_for(manifest):
        granted = present is not None and asked.name in present.grants
        denied = present is not None and asked.name in present.denied
        found.append(
            CapabilityRequest(
                name=asked.name,
                what=f"{manifest.name} wants to {asked.what}",
                why=asked.why,
                worst=asked.worst,
                decision="granted" if granted else "denied" if denied else "undecided",
                new=not granted and not denied,
            )
        )
    return found


def decide(
    manifest: PluginManifest, present: Activation | None, decisions: Mapping[str, bool], tenant: str
) -> tuple[frozenset[str], frozenset[str]]:
    """Granted and denied capabilities after a person's ``decisions``.

    Raises ConsentRequired if something asked for is undecided, ValidationFailed if something is
    decided that was never asked for.
    """
    if not isinstance(decisions, Mapping) or not all(isinstance(yes, bool) for yes in decisions.values()):
        raise ValidationFailed(
            "Grants are a yes or no for each capability.",
            plugin=manifest.id,
            expected='an object such as {"kv": true, "http": false}',
            found=str(decisions)[:200],
        )
    asked = set(manifest.capabilities.asked())
    foreign = sorted(set(decisions) - asked)
    if foreign:
        raise ValidationFailed(
            f"{manifest.id} does not ask for {', '.join(foreign)}.",
            plugin=manifest.id,
            expected=", ".join(sorted(asked)) or "no capabilities",
            found=foreign,
        )
    granted = (set(present.grants) if present else set()) & asked
    denied = (set(present.denied) if present else set()) & asked
    for name, yes in decisions.items():
        (granted if yes else denied).add(name)
        (denied if yes else granted).discard(name)
    undecided = sorted(asked - granted - denied)
    if undecided:
        raise ConsentRequired(
            f"{manifest.id} {manifest.version} asks for {', '.join(undecided)}; nobody has decided on that yet.",
            plugin=manifest.id,
            tenant=tenant,
            expected="a yes or no for each capability",
            found=f"undecided: {', '.join(undecided)}",
            fix="Read what it asks for (GET .../consent, or `keelstone tenant grants`), then send grants.",
            extra={"capabilities": [_request(r) for r in requests(manifest, present)]},
        )
    return frozenset(granted), frozenset(denied)


def asked_again(present: Activation, old: PluginManifest | None, new: PluginManifest) -> Activation:
    """The activation without the grants with which ``new`` may do more than the version that they were given to:
    those must be decided anew."""
    if old is None or old.version == new.version:
        return present
    return replace(present, grants=present.grants - frozenset(widened(old, new)))


def check_not_widened(present: Activation, old: PluginManifest | None, new: PluginManifest, tenant: str) -> None:
    """Raise ConsentRequired if moving to ``new`` would let it do more with what was granted: code moves by itself,
    grants do not grow."""
    more = {} if old is None else widened(old, new)
    grown = {name: powers for name, powers in more.items() if name in present.grants}
    if grown:
        powers = "; ".join(p for listed in grown.values() for p in listed)
        raise ConsentRequired(
            f"With what was granted to {present.version}, {new.id} {new.version} could do more: {powers}.",
            plugin=new.id,
            tenant=tenant,
            expected="a person's consent",
            found=f"not decided on: {', '.join(sorted(grown))}",
            fix=f"An admin reads `keelstone tenant changes {tenant} {new.id} --to {new.version}` and agrees with "
            f"`keelstone tenant enable {tenant} {new.id} --version {new.version}`.",
        )


def split_decisions(
    manifest: PluginManifest, other: PluginManifest, decisions: Mapping[str, bool]
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Decisions for the active version and for the one on trial. What neither asks for goes to the first,
    which refuses it."""
    asked, theirs = set(manifest.capabilities.asked()), set(other.capabilities.asked())
    mine = {name: yes for name, yes in decisions.items() if name in asked or name not in theirs}
    return mine, {name: yes for name, yes in decisions.items() if name in theirs}


def _request(request: CapabilityRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in CapabilityRequest.__slots__}


def switch(present: Activation | None, plugin: str, version: str, tenant: str) -> Activation:
    """The activation once consented and switched on in ``version``. Raises LifecycleError."""
    state = present.state if present else ActivationState.REMOVED
    if state in RUNNING and present is not None:
        if present.version == version:
            return present
        return replace(present, version=version, previous=present.version, state=ActivationState.ACTIVE, upgrade=None)
    state = next_activation_state(state, "consent", plugin=plugin, tenant=tenant)
    state = next_activation_state(state, "activate", plugin=plugin, tenant=tenant)
    if present is None:
        return Activation(plugin, version, state)
    previous = present.version if present.version != version else present.previous
    return replace(present, version=version, state=state, previous=previous, upgrade=None)


def switch_off(present: Activation, tenant: str) -> Activation:
    """The activation once switched off; what was on trial is over. Raises LifecycleError."""
    state = next_activation_state(present.state, "disable", plugin=present.plugin, tenant=tenant)
    return replace(present, state=state, upgrade=None)


def move(present: Activation, manifest: PluginManifest) -> Activation:
    """The activation in another version: code moves, grants do not grow."""
    grants, denied = carried_grants(present.grants, present.denied, manifest)
    # What was degraded was the version from before.
    trial = present.state in (ActivationState.UPGRADING, ActivationState.DEGRADED)
    state = ActivationState.ACTIVE if trial else present.state
    return replace(
        present,
        version=manifest.version,
        previous=present.version,
        grants=grants,
        denied=denied,
        state=state,
        upgrade=None,
    )


def start_trial(present: Activation, trial: Trial, tenant: str) -> Activation:
    """The activation with another version on trial, or the trial changed. Raises LifecycleError."""
    same = present.trial is not None and present.trial.id == trial.id
    step = "change_upgrade" if same else "start_upgrade"
    state = next_activation_state(present.state, step, plugin=present.plugin, tenant=tenant)
    return replace(present, state=state, upgrade=trial)


def promote_trial(present: Activation, tenant: str) -> Activation:
    """The activation in the version that was on trial. Raises LifecycleError."""
    state = next_activation_state(present.state, "promote_upgrade", plugin=present.plugin, tenant=tenant)
    trial = present.upgrade
    if trial is None:
        raise Conflict(f"{present.plugin} has no version on trial.", plugin=present.plugin, tenant=tenant)
    return replace(
        present,
        state=state,
        version=trial.version,
        previous=present.version,
        grants=trial.grants,
        denied=trial.denied,
        settings=trial.settings,
        upgrade=None,
    )


def end_trial(present: Activation, tenant: str) -> Activation:
    """The activation as it was before the trial. Raises LifecycleError."""
    state = next_activation_state(present.state, "roll_back_upgrade", plugin=present.plugin, tenant=tenant)
    return replace(present, state=state, upgrade=None)


def go_back(present: Activation, tenant: str) -> str:
    """The version a rollback goes to. Raises Conflict if there is none."""
    if present.previous is None:
        raise Conflict(
            f"{present.plugin} has no earlier version to go back to in this tenant.",
            plugin=present.plugin,
            tenant=tenant,
            found=f"version {present.version}, never upgraded",
        )
    return present.previous


def check_uninstallable(plugin: str, version: str, users: Mapping[str, int], dependants: list[str]) -> None:
    """Raise Conflict if tenants still run the release, or others require it."""
    running = users.get(version, 0)
    if running:
        raise Conflict(
            f"{plugin} {version} is still active for {running} tenant{'s' if running > 1 else ''}.",
            plugin=plugin,
            expected="no tenant",
            found=running,
            fix="Disable it there first.",
        )
    if dependants:
        raise Conflict(f"{plugin} is required by {', '.join(dependants)}.", plugin=plugin, fix="Uninstall those first.")


def refuse_withdrawn(plugin: str, fitting: list[PluginManifest]) -> None:
    """Raise PluginQuarantined if only quarantined releases would fit."""
    if fitting:
        raise PluginQuarantined(
            f"{plugin} {fitting[0].version} was withdrawn from the platform.",
            plugin=plugin,
            expected="a release that is not quarantined",
            found=", ".join(m.version for m in fitting),
            fix=f"Install another version, or let it back in: `keelstone plugins release {plugin} VERSION`.",
        )


def refuse_builtin(manifest: PluginManifest) -> None:
    """Raise Forbidden for what is on for everybody."""
    if manifest.kind == "builtin":
        raise Forbidden(
            f"{manifest.id} is built in and on for every tenant.",
            plugin=manifest.id,
            fix="An operator leaves it out with KEELSTONE_PLUGINS_DISABLED.",
        )
