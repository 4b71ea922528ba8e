"""The one door that installs, upgrades, activations and grants pass: what the policies say, as they stand now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from plugin_sdk import ALL_TENANTS, PLATFORM_TENANT, KeelstoneError, PluginManifest
from plugin_sdk.services import Database, ReleaseOrigin
from plugins.builtin.catalog.infrastructure import SqlCatalog
from plugins.builtin.catalog.policy.domain import (
    OPERATOR,
    Approval,
    Candidate,
    Finding,
    Policy,
    Standing,
    Verification,
    added,
    verification_of,
)
from plugins.builtin.catalog.policy.infrastructure import SqlPolicies
from plugins.builtin.catalog.trust.application import Trust
from plugins.builtin.catalog.trust.domain import Windows
from plugins.builtin.catalog.trust.infrastructure import SqlHolds


class ReleaseLike(Protocol):
    """What the gate needs of an installed release."""

    @property
    def manifest(self) -> PluginManifest: ...

    @property
    def digest(self) -> str: ...

    @property
    def published_at(self) -> datetime | None: ...

    @property
    def installed_at(self) -> datetime | None: ...

    @property
    def origin(self) -> ReleaseOrigin | None: ...


class ActivationLike(Protocol):
    """What the gate needs of an activation."""

    @property
    def grants(self) -> frozenset[str]: ...

    @property
    def settings(self) -> Mapping[str, object]: ...


Mends = Callable[[str, str], bool]
"""Whether a plugin's version mends a weakness that the marketplace has spoken of."""


class Weaknesses(Protocol):
    """What the gate asks of the marketplace's advisories."""

    def mends(self, plugin: str, version: str) -> bool: ...

    async def refresh(self) -> object: ...


def _none(plugin: str, version: str) -> bool:
    return False


NEVER = datetime.min.replace(tzinfo=UTC)
"""For what came with the platform itself: no cool-down holds it."""


def candidate_of(release: ReleaseLike) -> Candidate:
    """An installed release as the rules look at it."""
    if release.manifest.kind != "guest":
        return Candidate(release.manifest, "", NEVER, verification="domain")
    since = release.published_at or release.installed_at
    return Candidate(release.manifest, release.digest, since, verification=vouched_for(release.origin))


def vouched_for(origin: ReleaseOrigin | None) -> Verification:
    """What vouched for the publisher when the release came in."""
    return "none" if origin is None else verification_of(origin.domain, origin.repository)


def _looked_up(candidate: Candidate, mends: Mends) -> Candidate:
    manifest = candidate.manifest
    return replace(candidate, mends=True) if mends(manifest.id, manifest.version) else candidate


class Ruling:
    """The policies over one tenant at one moment; ask it as often as needed inside a transaction."""

    def __init__(self, tenant: str, standing: Standing, now: datetime, mends: Mends = _none) -> None:
        self._tenant = tenant
        self._standing = standing
        self._now = now
        self._mends = mends

    def findings(self, release: ReleaseLike, present: ActivationLike | None = None) -> list[Finding]:
        """Everything that stands against a release, and against what ``present`` was granted."""
        candidate = candidate_of(release)
        found = self._standing.of_release(_looked_up(candidate, self._mends), self._now)
        return [*found, *self._grants(candidate, present)]

    def check_entry(self, release: ReleaseLike, after: ActivationLike) -> None:
        """Raise PolicyBlocked unless the release may come in, with these grants."""
        self._standing.check(candidate_of(release), self.findings(release, after), self._tenant)

    def check_release(self, release: ReleaseLike) -> None:
        """Raise PolicyBlocked unless the release may come in, whatever is granted to it."""
        self._standing.check(candidate_of(release), self.findings(release), self._tenant)

    def check_change(self, release: ReleaseLike, before: ActivationLike, after: ActivationLike) -> None:
        """Raise PolicyBlocked if a change of what runs grants, or reaches, what may not be. What it had before a
        policy was set is left to it."""
        candidate = candidate_of(release)
        found = added(self._grants(candidate, after), self._grants(candidate, before))
        self._standing.check(candidate, found, self._tenant)

    def _grants(self, candidate: Candidate, present: ActivationLike | None) -> list[Finding]:
        if present is None:
            return []
        return self._standing.of_grants(candidate, present.grants, present.settings, self._now)


class PolicyGate:
    """Reads the policies that count and applies them."""

    def __init__(
        self,
        database: Database,
        store: SqlPolicies,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        windows: Windows = Windows(),
        weaknesses: Weaknesses | None = None,
    ) -> None:
        self._weaknesses = weaknesses
        self._mends = _none if weaknesses is None else weaknesses.mends
        self._database = database
        self._store = store
        self._now = now
        self.trust = Trust(database, SqlCatalog(), SqlHolds(), windows, now)
        """What holds an update because somebody else stands behind it than behind what runs."""

    async def ruling(self, tenant: str) -> Ruling:
        """What counts in one tenant."""
        return (await self.rulings([tenant]))[tenant]

    async def rulings(self, tenants: Sequence[str], candidate: tuple[str, Policy] | None = None) -> dict[str, Ruling]:
        """What counts in each of several tenants; ``candidate`` (owner, policy) stands in for a stored policy."""
        owners = {*tenants, PLATFORM_TENANT}
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._store.policies(transaction, owners)
            approved = await self._store.find(transaction, tenants=owners, states=["approved"], limit=None)
        policies = {owner: found.policy for owner, found in stored.items()}
        if candidate is not None:
            policies[candidate[0]] = candidate[1]
        now = self._now()
        return {t: Ruling(t, _standing(t, policies, approved), now, self._mends) for t in tenants}

    async def installing(self, candidate: Policy | None = None) -> Installing:
        """What counts for an install, which is for everybody; ``candidate`` stands in for the stored policy."""
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._store.policies(transaction, [PLATFORM_TENANT])
            # Where one tenant has an exception, the release must be there for it.
            approved = await self._store.find(transaction, level=OPERATOR, states=["approved"], limit=None)
        policy = stored[PLATFORM_TENANT].policy if PLATFORM_TENANT in stored else None
        if policy is not None and policy.cool_down_hours and self._weaknesses is not None:
            # Without an answer, what was last heard counts.
            with suppress(KeelstoneError):
                await self._weaknesses.refresh()
        return Installing(Standing(candidate or policy, None, approved), self._now(), self._mends)


class Installing:
    """The operator's policy at one moment, over releases that are to be installed or moved to."""

    def __init__(self, standing: Standing, now: datetime, mends: Mends = _none) -> None:
        self._standing = standing
        self._now = now
        self._mends = mends

    @property
    def asks_marketplace(self) -> bool:
        """Whether it matters what the marketplace says of releases: when they were published, and who vouches."""
        policy = self._standing.operator
        return policy is not None and (policy.cool_down_hours > 0 or policy.verification != "none")

    def findings(self, candidate: Candidate) -> list[Finding]:
        """What stands against it."""
        return self._standing.of_release(_looked_up(candidate, self._mends), self._now)

    def check(self, *candidates: Candidate) -> None:
        """Raise PolicyBlocked for the first that may not come in, telling of all of them."""
        found = [(c, self.findings(c)) for c in candidates]
        against = [(c, f) for c, f in found if f]
        if against:
            self._standing.check(against[0][0], _renamed(against), None)


def _renamed(against: list[tuple[Candidate, list[Finding]]]) -> list[Finding]:
    """Findings of several releases in one list: those that come along are named."""
    first = against[0][1]
    others = [
        Finding(f.level, f.rule, f.subject, f.expected, f.found, f"{c.manifest.id} {c.manifest.version}: {f.detail}")
        for c, found in against[1:]
        for f in found
    ]
    return [*first, *others]


def _standing(tenant: str, policies: Mapping[str, Policy], approved: Sequence[Approval]) -> Standing:
    mine = [a for a in approved if a.tenant in (tenant, PLATFORM_TENANT)]
    own = None if tenant == PLATFORM_TENANT else policies.get(tenant)
    return Standing(policies.get(PLATFORM_TENANT), own, mine)
