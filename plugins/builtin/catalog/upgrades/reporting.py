"""What was measured of an upgrade, added up for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plugins.builtin.catalog.upgrades.comparison import Report
from plugins.builtin.catalog.upgrades.figures import Arm

SHADOW, OLD, NEW = "shadow", "old", "new"
"""Arms of the figures: what a shadow's mirrored calls came to; a canary's stable and new version."""


def report(measured: Iterable[tuple[str, str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Figures of several processes and tenants, added up for people to read."""
    shadows: dict[str, Report] = {}
    arms = {OLD: Arm(), NEW: Arm()}
    for tenant, arm, data in measured:
        if arm == SHADOW:
            shadows[tenant] = shadows.get(tenant, Report()) + Report.of(data)
        else:
            arms[arm] = arms[arm] + Arm.of(data)
    shown: dict[str, Any] = {}
    if shadows:
        shown["shadow"] = {
            tenant: {
                "calls": found.new.calls,
                "same": found.same,
                "different": found.different,
                "skipped": found.skipped,
                "old": found.old.summary(),
                "new": found.new.summary(),
                "reached": dict(found.reached),
                "fields": dict(found.fields),
                "examples": found.examples,
            }
            for tenant, found in sorted(shadows.items())
        }
    if arms[OLD].calls or arms[NEW].calls:
        shown["canary"] = {name: arm.summary() for name, arm in arms.items()}
    return shown
