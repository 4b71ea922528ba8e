"""What activations tell the tenant's stream of events."""

from __future__ import annotations

from collections.abc import Sequence

from plugin_sdk import NewEvent
from plugins.builtin.catalog.domain import Activation


def decided_anew(before: Activation | None, after: Activation) -> bool:
    """Whether a person has decided on what the plugin may do: on grants, or on a version and what it does with them."""
    if before is None or not before.running:
        return True
    return (before.grants, before.denied, before.version) != (after.grants, after.denied, after.version)


def trial_ended(before: Activation, reason: str) -> NewEvent:
    """The trial that the activation carried is over."""
    trial = before.trial
    assert trial is not None
    data = {"plugin": before.plugin, "upgrade": trial.id, "to": trial.version, "mode": trial.mode}
    return NewEvent("plugin.upgrade_rolled_back", {**data, "from": before.version, "reason": reason})


def consent_event(after: Activation, receipt: str = "") -> NewEvent:
    """A person decided; ``receipt`` is the digest of the signed one."""
    data = {
        "plugin": after.plugin,
        "version": after.version,
        "granted": sorted(after.grants),
        "denied": sorted(after.denied),
        "receipt": receipt,
    }
    return NewEvent("plugin.consented", data)


def activation_events(before: Activation | None, after: Activation, receipt: str = "") -> Sequence[NewEvent]:
    """What an activation tells: the decision, and the version or the settings."""
    events: list[NewEvent] = []
    if decided_anew(before, after):
        events.append(consent_event(after, receipt))
    if before is not None and before.running and before.version != after.version:
        if before.trial is not None:
            events.append(trial_ended(before, f"the tenant chose {after.version}"))
        data = {"plugin": after.plugin, "from": before.version, "to": after.version, "reason": "chosen by the tenant"}
        return [*events, NewEvent("plugin.updated", data)]
    if before is not None and before.running:
        changed = sorted(
            k for k in after.settings.keys() | before.settings.keys() if after.settings.get(k) != before.settings.get(k)
        )
        return [*events, NewEvent("plugin.configured", {"plugin": after.plugin, "changed": changed})]
    return [*events, NewEvent("plugin.activated", {"plugin": after.plugin, "version": after.version})]
