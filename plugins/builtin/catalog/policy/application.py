"""Use cases of policies: set one, try one, ask for an exception, decide on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from plugin_sdk import (
    ALL_TENANTS,
    PLATFORM_TENANT,
    ConcurrencyConflict,
    Conflict,
    Context,
    LifecycleError,
    NewEvent,
    NotFound,
    ReleaseState,
    ValidationFailed,
    new_id,
    parse_version,
)
from plugin_sdk.services import Database, Marketplace, ReleaseOrigin
from plugins.builtin.catalog.application import CatalogRepository, TenantPlugins, utc_now
from plugins.builtin.catalog.domain import Release
from plugins.builtin.catalog.moves import acting
from plugins.builtin.catalog.policy.domain import (
    OPERATOR,
    TENANT,
    Approval,
    Finding,
    Level,
    Policy,
    added,
    told,
)
from plugins.builtin.catalog.policy.gate import PolicyGate, candidate_of
from plugins.builtin.catalog.policy.infrastructure import SqlPolicies, StoredPolicy


@dataclass(frozen=True, slots=True)
class Nonconformity:
    """Something that is here and would not be let in now. ``tenant`` is empty for a release as such, which may
    run in several."""

    tenant: str
    plugin: str
    version: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A policy with what it says about what is here. ``operator`` is what a tenant is under besides its own."""

    stored: StoredPolicy | None
    operator: Policy | None
    findings: tuple[Nonconformity, ...]
    approvals: tuple[Approval, ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A release that somebody asks an exception for, with everything that it asks for granted."""

    release: Release
    grants: frozenset[str]
    settings: dict[str, Any]


class Policies:
    """What operators do with the platform's policy, and admins with their tenant's. ``owner`` says whose."""

    def __init__(
        self,
        database: Database,
        store: SqlPolicies,
        gate: PolicyGate,
        repository: CatalogRepository,
        tenants: TenantPlugins,
        marketplace: Callable[[], Marketplace],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._store = store
        self._gate = gate
        self._repository = repository
        self._tenants = tenants
        self._marketplace = marketplace
        self._now = now

    # ------------------------------------------------------------------ the policy

    async def view(self, owner: str) -> View:
        """The owner's policy, what does not conform to it, and the approvals that count."""
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._store.policies(transaction, [owner, PLATFORM_TENANT])
        above = stored.get(PLATFORM_TENANT) if owner != PLATFORM_TENANT else None
        approved = [a for a in await self.requests(owner) if a.state == "approved"]
        return View(
            stored.get(owner),
            above.policy if above else None,
            tuple(await self.nonconformities(owner)),
            tuple(approved),
        )

    async def set(self, context: Context, owner: str, policy: Policy, seen: int | None = None) -> View:
        """Replace the owner's policy; nothing that runs is switched off, and the answer says what no longer
        conforms. ``seen`` is the version it replaces, 0 for none. Raises ConcurrencyConflict."""
        async with self._database.write(owner, context) as transaction:
            present = (await self._store.policies(transaction, [owner])).get(owner)
            at = present.version if present else 0
            _check_seen(owner, at, seen)
            stored = StoredPolicy(policy, at + 1, self._now(), context.principal.id)
            if not await self._store.put_policy(transaction, stored, at):
                raise _changed(owner, at, at + 1)
            data = {"change": "set", "version": at + 1, "policy": policy.model_dump(mode="json", exclude_defaults=True)}
            transaction.emit("policy:plugins", NewEvent("plugin.policy_changed", data))
        return await self.view(owner)

    async def clear(self, context: Context, owner: str, seen: int | None = None) -> View:
        """Take the owner's policy away. Raises NotFound if there is none, ConcurrencyConflict."""
        async with self._database.write(owner, context) as transaction:
            present = (await self._store.policies(transaction, [owner])).get(owner)
            if present is None:
                raise NotFound("There is no policy here.", tenant=owner)
            _check_seen(owner, present.version, seen)
            if not await self._store.delete_policy(transaction, present.version):
                raise _changed(owner, present.version, present.version + 1)
            data = {"change": "removed", "version": present.version}
            transaction.emit("policy:plugins", NewEvent("plugin.policy_changed", data))
        return await self.view(owner)

    async def nonconformities(self, owner: str, candidate: Policy | None = None) -> list[Nonconformity]:
        """What is installed (the operator's) or active (a tenant's) and would not be let in now: by the owner's
        policy, or by a candidate for it, which changes nothing."""
        level = OPERATOR if owner == PLATFORM_TENANT else TENANT
        releases = {(r.manifest.id, r.manifest.version): r for r in await self._tenants.installed()}
        async with self._database.read(ALL_TENANTS if level == OPERATOR else owner) as transaction:
            if level == OPERATOR:
                running = await self._repository.all_activations(transaction)
            else:
                running = [(owner, a) for a in await self._repository.activations(transaction)]
        running = [(tenant, a) for tenant, a in running if a.running]
        tenants = sorted({owner, *(tenant for tenant, _ in running)})
        rulings = await self._gate.rulings(tenants, None if candidate is None else (owner, candidate))
        found: list[Nonconformity] = []
        if level == OPERATOR:
            installing = await self._gate.installing(candidate)
            for release in releases.values():
                if release.manifest.kind != "builtin":
                    found += _nonconformity("", release, installing.findings(candidate_of(release)), level)
        of_releases = {(n.plugin, n.version, f.key) for n in found for f in n.findings}
        for tenant, present in running:
            used = releases.get((present.plugin, present.version))
            if used is not None:
                against = rulings[tenant].findings(used, present)
                # What stands against the release as such is told once.
                own = [f for f in against if (present.plugin, present.version, f.key) not in of_releases]
                found += _nonconformity(tenant, used, own, level)
        return found

    async def against(self, tenant: str) -> dict[str, list[Finding]]:
        """What both policies say against what runs in the tenant, by plugin."""
        releases = {(r.manifest.id, r.manifest.version): r for r in await self._tenants.installed()}
        ruling = await self._gate.ruling(tenant)
        running = [a for a in await self._tenants.activations(tenant) if a.running]
        known = {a.plugin: (releases[a.plugin, a.version], a) for a in running if (a.plugin, a.version) in releases}
        return {plugin: ruling.findings(release, present) for plugin, (release, present) in known.items()}

    async def never(self, tenant: str, plugin: str, version: str | None = None) -> dict[str, str]:
        """Capabilities of an installed release that the tenant may not grant to it, each with why. Raises NotFound."""
        release = await self._tenants.find(plugin, version)
        ruling = await self._gate.ruling(tenant)
        present = {a.plugin: a for a in await self._tenants.activations(tenant)}.get(plugin)
        settings = dict(present.settings) if present else {}
        found = {}
        for name in release.manifest.capabilities.asked():
            wanted = _Wanted(release, frozenset({name}), settings)
            against = added(ruling.findings(release, wanted), ruling.findings(release))
            if against:
                found[name] = "; ".join(told(f) for f in against)
        return found

    # ------------------------------------------------------------------ exceptions

    async def requests(self, owner: str) -> list[Approval]:
        """Requests, newest first: a tenant's own, or for the operator all that are the operator's to decide."""
        async with self._database.read(ALL_TENANTS if owner == PLATFORM_TENANT else owner) as transaction:
            return await self._store.find(transaction, level=OPERATOR if owner == PLATFORM_TENANT else None)

    async def ask(self, context: Context, owner: str, plugin: str, version: str, reason: str) -> list[Approval]:
        """Ask that one release be let in; one request for each policy that stands against it.

        Raises NotFound (no such release), Conflict (nothing stands against it, or it was asked already).
        """
        wanted = await self._wanted(owner, plugin, str(parse_version(version)))
        ruling = await self._gate.ruling(owner)
        against = ruling.findings(wanted.release, wanted)
        if not against:
            raise Conflict(
                f"No policy stands against {plugin} {wanted.release.manifest.version}.",
                plugin=plugin,
                tenant=owner,
                fix="An operator installs it, an admin of the tenant switches it on.",
            )
        asked = []
        async with self._database.write(owner, acting(context, owner)) as transaction:
            for other in await self._store.find(transaction, plugin=plugin, states=["open"]):
                if other.version == wanted.release.manifest.version:
                    raise Conflict(
                        f"{plugin} {other.version} was asked for already.", plugin=plugin, tenant=owner, found=other.id
                    )
            for level in (OPERATOR, TENANT):
                mine = [f for f in against if f.level == level]
                if mine:
                    approval = self._request(context, owner, level, wanted.release, mine, reason)
                    await self._store.add(transaction, approval)
                    transaction.emit(f"approval:{approval.id}", _event("plugin.approval_requested", approval))
                    asked.append(approval)
        return asked

    async def decide(
        self,
        context: Context,
        owner: str,
        id: str,
        *,
        approve: bool,
        answer: str = "",
        expires_at: datetime | None = None,
    ) -> Approval:
        """Approve or decline an open request. Raises NotFound, LifecycleError, ValidationFailed, Conflict."""
        if expires_at is not None and (expires_at.tzinfo is None or expires_at <= self._now()):
            raise ValidationFailed(
                "An approval ends later than it begins.",
                expected="a moment to come, with its time zone",
                found=expires_at.isoformat(),
            )
        asked = await self._mine(owner, id)
        _must_be(asked, "open")
        state = "approved" if approve else "declined"
        return await self._store_decision(
            context, asked, replace(asked, state=state, answer=answer, expires_at=expires_at if approve else None)
        )

    async def revoke(self, context: Context, owner: str, id: str, answer: str = "") -> Approval:
        """Take an approval back: what runs goes on, and nothing new comes in. Raises NotFound, LifecycleError."""
        asked = await self._mine(owner, id)
        _must_be(asked, "approved")
        return await self._store_decision(context, asked, replace(asked, state="revoked", answer=answer))

    async def _store_decision(self, context: Context, before: Approval, after: Approval) -> Approval:
        after = replace(after, decided_by=context.principal.id, decided_at=self._now())
        async with self._database.write(before.tenant, acting(context, before.tenant)) as transaction:
            if not await self._store.decide(transaction, after, before.state):
                raise Conflict("The request was decided on by somebody else meanwhile.", plugin=before.plugin)
            transaction.emit(f"approval:{after.id}", _event("plugin.approval_decided", after))
        return after

    def _request(
        self, context: Context, owner: str, level: Level, release: Release, against: Sequence[Finding], reason: str
    ) -> Approval:
        return Approval(
            id=new_id(),
            tenant=owner,
            level=level,
            plugin=release.manifest.id,
            version=release.manifest.version,
            digest=release.digest,
            reason=reason,
            rules=tuple((f.rule, f.subject) for f in against),
            findings=tuple(told(f) for f in against),
            asked_by=context.principal.id,
            asked_at=self._now(),
        )

    async def _mine(self, owner: str, id: str) -> Approval:
        """A request that is the owner's to decide."""
        operators = owner == PLATFORM_TENANT
        async with self._database.read(ALL_TENANTS if operators else owner) as transaction:
            found = await self._store.get(transaction, id)
        if found is None or (found.level == OPERATOR) is not operators:
            raise NotFound(
                f"There is no request {id} that is yours to decide on.",
                tenant=owner,
                fix="See `keelstone tenant requests list TENANT`, as operator `keelstone marketplace requests list`.",
            )
        return found

    async def _wanted(self, owner: str, plugin: str, version: str) -> _Wanted:
        here = [r for r in await self._tenants.installed() if (r.manifest.id, r.manifest.version) == (plugin, version)]
        settings: dict[str, Any] = {}
        if owner != PLATFORM_TENANT:
            async with self._database.read(owner) as transaction:
                present = await self._repository.activation(transaction, plugin)
            settings = dict(present.settings) if present else {}
        release = here[0] if here else await self._offered(plugin, version)
        # What may never be granted stands against nobody's install: the operator asks for the release alone.
        asked = frozenset() if owner == PLATFORM_TENANT else frozenset(release.manifest.capabilities.asked())
        return _Wanted(release, asked, settings)

    async def _offered(self, plugin: str, version: str) -> Release:
        market = self._marketplace()
        manifests = [m for m in await market.manifests(plugin) if m.version == version]
        if not manifests:
            raise NotFound(f"There is no release {plugin} {version}.", plugin=plugin, found=version)
        known = (await market.published(plugin)).get(version)
        return Release(
            manifests[0],
            digest=known.digest if known else "",
            component="",
            state=ReleaseState.UPLOADED,
            published_at=known.published if known else None,
            origin=ReleaseOrigin(domain=known.domain, repository=known.repository) if known else None,
        )


def _nonconformity(tenant: str, release: Release, found: Iterable[Finding], level: Level) -> list[Nonconformity]:
    mine = tuple(f for f in found if f.level == level)
    return [Nonconformity(tenant, release.manifest.id, release.manifest.version, mine)] if mine else []


def _check_seen(owner: str, found: int, seen: int | None) -> None:
    if seen is not None and seen != found:
        raise _changed(owner, seen, found)


def _changed(owner: str, seen: int, found: int) -> ConcurrencyConflict:
    return ConcurrencyConflict(
        "The policy was changed by somebody else meanwhile.",
        tenant=owner,
        expected=f"version {seen}",
        found=f"version {found}",
        fix="Read it again, and change that.",
    )


def _must_be(asked: Approval, state: str) -> None:
    if asked.state != state:
        raise LifecycleError(
            f"The request for {asked.plugin} {asked.version} is {asked.state}.",
            plugin=asked.plugin,
            expected=state,
            found=asked.state,
        )


def _event(type: str, approval: Approval) -> NewEvent:
    data: dict[str, Any] = {
        "request": approval.id,
        "plugin": approval.plugin,
        "version": approval.version,
        "digest": approval.digest,
        "level": approval.level,
        "state": approval.state,
        "rules": [f"{rule}: {subject}" if subject else rule for rule, subject in approval.rules],
    }
    if approval.expires_at is not None:
        data["expires_at"] = approval.expires_at.isoformat()
    return NewEvent(type, data)
