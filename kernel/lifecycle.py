"""The plugin state machine, pure: a state and a transition give the next state or a clear refusal."""

from __future__ import annotations

from enum import StrEnum

from kernel.errors import LifecycleError


class ReleaseState(StrEnum):
    """Where one version of a plugin stands on the platform."""

    UPLOADED = "uploaded"
    VERIFIED = "verified"
    INSTALLED = "installed"
    QUARANTINED = "quarantined"
    UNINSTALLED = "uninstalled"


class ActivationState(StrEnum):
    """Where one plugin stands for one tenant."""

    CONSENTED = "consented"
    ACTIVE = "active"
    UPGRADING = "upgrading"
    DEGRADED = "degraded"
    DISABLED = "disabled"
    DRAINING = "draining"
    REMOVED = "removed"


_RELEASE: dict[str, tuple[frozenset[ReleaseState], ReleaseState]] = {
    # An uninstalled release comes back as a new one does: verified first.
    "verify": (frozenset({ReleaseState.UPLOADED, ReleaseState.UNINSTALLED}), ReleaseState.VERIFIED),
    "install": (frozenset({ReleaseState.VERIFIED}), ReleaseState.INSTALLED),
    "quarantine": (
        frozenset({ReleaseState.UPLOADED, ReleaseState.VERIFIED, ReleaseState.INSTALLED}),
        ReleaseState.QUARANTINED,
    ),
    # Whatever let it in before may be what was wrong: it is verified and installed anew.
    "release": (frozenset({ReleaseState.QUARANTINED}), ReleaseState.UPLOADED),
    "uninstall": (frozenset({ReleaseState.INSTALLED, ReleaseState.QUARANTINED}), ReleaseState.UNINSTALLED),
}

_ACTIVATION: dict[str, tuple[frozenset[ActivationState], ActivationState]] = {
    "consent": (
        frozenset({ActivationState.REMOVED, ActivationState.DISABLED, ActivationState.CONSENTED}),
        ActivationState.CONSENTED,
    ),
    "activate": (
        frozenset({ActivationState.CONSENTED, ActivationState.DISABLED, ActivationState.DEGRADED}),
        ActivationState.ACTIVE,
    ),
    # Another version is on trial, as a shadow or a canary; both ends lead back to one version.
    "start_upgrade": (frozenset({ActivationState.ACTIVE}), ActivationState.UPGRADING),
    "change_upgrade": (frozenset({ActivationState.UPGRADING}), ActivationState.UPGRADING),
    "promote_upgrade": (frozenset({ActivationState.UPGRADING}), ActivationState.ACTIVE),
    "roll_back_upgrade": (frozenset({ActivationState.UPGRADING}), ActivationState.ACTIVE),
    # What fails so often takes no trials: an upgrade that was under way is over.
    "degrade": (frozenset({ActivationState.ACTIVE, ActivationState.UPGRADING}), ActivationState.DEGRADED),
    "disable": (
        frozenset({ActivationState.ACTIVE, ActivationState.UPGRADING, ActivationState.DEGRADED}),
        ActivationState.DISABLED,
    ),
    "drain": (
        frozenset(
            {ActivationState.ACTIVE, ActivationState.UPGRADING, ActivationState.DEGRADED, ActivationState.DISABLED}
        ),
        ActivationState.DRAINING,
    ),
    "remove": (
        frozenset({ActivationState.DRAINING, ActivationState.DISABLED, ActivationState.CONSENTED}),
        ActivationState.REMOVED,
    ),
}

RUNNING = frozenset({ActivationState.ACTIVE, ActivationState.UPGRADING, ActivationState.DEGRADED})
"""States in which a tenant's calls reach the plugin."""


def next_release_state(state: ReleaseState, transition: str, *, plugin: str) -> ReleaseState:
    """The state after ``transition``. Raises LifecycleError, saying what is possible instead."""
    allowed = sorted(name for name, (sources, _) in _RELEASE.items() if state in sources)
    if transition not in allowed:
        raise _refusal(plugin, state, transition, allowed)
    return _RELEASE[transition][1]


def next_activation_state(state: ActivationState, transition: str, *, plugin: str, tenant: str) -> ActivationState:
    """The state after ``transition``. Raises LifecycleError, saying what is possible instead."""
    allowed = sorted(name for name, (sources, _) in _ACTIVATION.items() if state in sources)
    if transition not in allowed:
        raise _refusal(plugin, state, transition, allowed, tenant)
    return _ACTIVATION[transition][1]


def transitions() -> dict[str, list[tuple[str, str, str]]]:
    """Every (from, transition, to), for the reference page and the properties' tests."""
    return {
        "release": [(s, name, to) for name, (sources, to) in _RELEASE.items() for s in sorted(sources)],
        "activation": [(s, name, to) for name, (sources, to) in _ACTIVATION.items() for s in sorted(sources)],
    }


def _refusal(
    plugin: str, state: StrEnum, transition: str, allowed: list[str], tenant: str | None = None
) -> LifecycleError:
    return LifecycleError(
        f"Cannot {transition} {plugin}: it is {state}.",
        plugin=plugin,
        tenant=tenant,
        expected=f"one of: {', '.join(allowed)}" if allowed else "nothing: this state is final",
        found=transition,
    )
