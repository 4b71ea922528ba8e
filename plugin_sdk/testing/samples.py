"""Valid payloads to try a hook with."""

from __future__ import annotations

from typing import Any

from kernel.context import new_id
from kernel.errors import ValidationFailed
from kernel.manifest import PluginManifest

_PERSON = {"email": "ann@example.com", "name": "Ann Example", "attributes": {"title": "CTO", "plan": "team"}}
_PAYLOADS: dict[str, dict[str, Any]] = {
    "user_creating": _PERSON,
    "user_updating": _PERSON,
    "tenant_creating": {"id": "acme", "name": "Acme", "plan": "free", "configuration": {"region": "eu"}},
    "access_deciding": {
        "principal": "user-1",
        "roles": ["member"],
        "permissions": ["users.read"],
        "action": "users.read",
        "resource": "user-2",
    },
    "plugin_installing": {
        "plugin": "acme/hello",
        "version": "1.0.0",
        "digest": "0" * 64,
        "publisher": "acme",
        "capabilities": ["log"],
        "hosts": [],
    },
}
_EVENTS: dict[str, dict[str, Any]] = {
    "user.created": {"user": "user-1", **_PERSON},
    "user.updated": {"user": "user-1", **_PERSON, "changed": ["name"]},
    "lead.scored": {
        "user": "user-1",
        "email": "ann@example.com",
        "name": "Ann Example",
        "score": 70,
        "band": "hot",
        "reasons": ["+40 title says cto"],
    },
    "user.removed": {"user": "user-1"},
    "plugin.activated": {"plugin": "acme/hello", "version": "1.0.0"},
}


def sample_event(event_type: str, data: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """An event as ``event_received`` gets it; ``members`` replace the envelope's."""
    return {
        "id": new_id(),
        "type": event_type,
        "tenant": "acme",
        "stream": "sample-1",
        "version": 1,
        "position": 1,
        "time": "2026-01-01T00:00:00+00:00",
        "data": dict(_EVENTS.get(event_type, {}) if data is None else data),
        "correlation_id": new_id(),
        **members,
    }


def sample_payload(hook: str, manifest: PluginManifest | None = None) -> dict[str, Any]:
    """A valid payload of the hook; for ``event_received``, of the first subscribed type.

    Raises ValidationFailed if there is no sample of it.
    """
    if hook == "event_received":
        return sample_event(sample_types(manifest)[0])
    if hook not in _PAYLOADS:
        raise ValidationFailed(f"There is no sample payload of {hook}.", hook=hook, expected=", ".join(_PAYLOADS))
    return dict(_PAYLOADS[hook])


def sample_types(manifest: PluginManifest | None) -> list[str]:
    """The event types to try a plugin with: those it subscribes to, patterns made concrete."""
    wanted = manifest.events.subscribes if manifest else ()
    types = []
    for item in wanted:
        known = [t for t in _EVENTS if item.endswith(".*") and t.startswith(item[:-1])]
        types += known or [item.removesuffix("*") + "sample" if item.endswith("*") else item]
    return list(dict.fromkeys(types)) or ["user.created"]
