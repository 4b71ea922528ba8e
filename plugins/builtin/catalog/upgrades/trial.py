"""A trial: another version of a plugin beside the active one, in one tenant. And where tenants follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from plugin_sdk import PluginManifest, ValidationFailed

Mode = Literal["shadow", "canary"]
CHANNELS = ("stable", "rc", "beta", "alpha")
"""From the calmest: each takes what those before it take, and the pre-releases of its own name."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What the activation of a tenant carries while an upgrade is on trial there.

    ``id`` is the upgrade's. Grants never grow by an upgrade: what the new version asks for beyond
    them is in ``denied`` until somebody decides. ``settings`` fit the new version's schema.
    """

    id: str
    version: str
    mode: Mode
    calls: float
    started_at: datetime
    grants: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)


def carried_grants(
    grants: frozenset[str], denied: frozenset[str], manifest: PluginManifest
) -> tuple[frozenset[str], frozenset[str]]:
    """Granted and denied in another version: code moves, grants do not grow."""
    asked = set(manifest.capabilities.asked())
    return grants & asked, frozenset((denied & asked) | (asked - grants))


def check_channel(name: str) -> str:
    """``name`` if it is a channel. Raises ValidationFailed."""
    if name not in CHANNELS:
        raise ValidationFailed(f"There is no channel {name!r}.", expected=", ".join(CHANNELS), found=name)
    return name


def follows(channel: str, manifest: PluginManifest) -> bool:
    """Whether the channel takes the release: every one without a pre-release part, and of those with one
    (``2.0.0-rc.1``) the names that the channel lets in."""
    prerelease = manifest.semver.prerelease
    if not prerelease:
        return True
    name = prerelease.partition(".")[0]
    return name in CHANNELS[1 : CHANNELS.index(channel) + 1]
