"""An upgrade: one version offered to tenants on trial, until it is promoted or rolled back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from plugin_sdk import PLATFORM_TENANT, LifecycleError, PluginManifest
from plugins.builtin.catalog.domain import Activation
from plugins.builtin.catalog.upgrades.figures import Thresholds
from plugins.builtin.catalog.upgrades.trial import Mode, Trial, carried_grants, follows
from plugins.builtin.catalog.upgrades.windows import Window


class UpgradeState(StrEnum):
    """Where an upgrade stands. ``promoting``: decided, and some tenants' windows are still closed."""

    RUNNING = "running"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


OPEN = (UpgradeState.RUNNING, UpgradeState.PROMOTING)
CANARY_TENANTS = 10.0
"""Per cent of the tenants that a canary begins with, unless it is told."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """``owner`` is the tenant whose admin began it, or the platform's for an operator's, which is for every
    tenant. ``tenants`` and ``calls`` are percentages: of the tenants on the plugin, and of the calls of each.
    ``looked`` is what had been measured at the last look, ``looks`` counts changes of this row."""

    id: str
    owner: str
    plugin: str
    version: str
    mode: Mode
    tenants: float
    calls: float
    thresholds: Thresholds
    state: UpgradeState
    started_at: datetime
    started_by: str
    ended_at: datetime | None = None
    reason: str = ""
    looked: Mapping[str, Any] = field(default_factory=dict)
    looks: int = 0

    @property
    def for_all(self) -> bool:
        """Whether an operator began it, for every tenant."""
        return self.owner == PLATFORM_TENANT

    def must_be(self, *states: UpgradeState) -> None:
        """Raise LifecycleError unless the upgrade is in one of ``states``."""
        if self.state not in states:
            raise LifecycleError(
                f"The upgrade of {self.plugin} to {self.version} is {self.state}.",
                plugin=self.plugin,
                expected=" or ".join(states),
                found=str(self.state),
                fix="Start another with `keelstone upgrade start`." if self.state not in OPEN else None,
            )

    def trial(self, present: Activation, manifest: PluginManifest, settings: Mapping[str, Any], now: datetime) -> Trial:
        """What the activation carries while the upgrade is on trial there."""
        grants, denied = carried_grants(present.grants, present.denied, manifest)
        return Trial(self.id, self.version, self.mode, self.calls, now, grants, denied, settings)


def first_share(mode: Mode, owner: str, asked: float | None) -> float:
    """Per cent of the tenants that an upgrade of ``owner`` begins with."""
    if owner != PLATFORM_TENANT or (asked is None and mode == "shadow"):
        return 100.0
    return CANARY_TENANTS if asked is None else asked


def stays(present: Activation, manifest: PluginManifest) -> str | None:
    """Why an upgrade to ``manifest`` passes the tenant by, or None."""
    if present.pinned:
        return f"pinned to {present.version}"
    if not follows(present.channel, manifest):
        return f"follows the channel {present.channel}"
    return None


def waits(window: Window | None, now: datetime) -> str | None:
    """Why the tenant's versions may not change now, or None."""
    if window is None or window.contains(now):
        return None
    return f"outside its upgrade window ({window})"
