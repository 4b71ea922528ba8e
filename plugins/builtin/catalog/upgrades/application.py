"""Use cases: begin an upgrade on trial, widen it, promote it, roll it back; windows; what is to be seen of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from plugin_sdk import (
    ALL_TENANTS,
    PLATFORM_TENANT,
    Conflict,
    Context,
    LifecycleError,
    NewEvent,
    NotFound,
    ReleaseState,
    ValidationFailed,
    in_share,
    new_id,
    parse_version,
)
from plugin_sdk.services import ActivationControl, Database
from plugins.builtin.catalog.application import CatalogRepository, TenantPlugins, utc_now
from plugins.builtin.catalog.domain import Activation, Release
from plugins.builtin.catalog.moves import ROLLBACK, Move, Mover, told
from plugins.builtin.catalog.operations import Operations
from plugins.builtin.catalog.policy.gate import PolicyGate, candidate_of
from plugins.builtin.catalog.upgrades.domain import OPEN, Upgrade, UpgradeState, first_share, stays, waits
from plugins.builtin.catalog.upgrades.figures import Thresholds
from plugins.builtin.catalog.upgrades.ports import UpgradeRepository
from plugins.builtin.catalog.upgrades.reporting import report
from plugins.builtin.catalog.upgrades.trial import Mode
from plugins.builtin.catalog.upgrades.windows import Window


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tenant stands in an upgrade: ``on trial``, ``on it``, ``waits`` (with the reason) or ``stays``."""

    tenant: str
    version: str
    standing: str
    why: str = ""
    needs_consent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """An upgrade with where its tenants stand and what was measured."""

    upgrade: Upgrade
    places: tuple[Place, ...]
    report: Mapping[str, Any]


class Upgrades:
    """Upgrades on trial. An operator's are for every tenant on the plugin, an admin's for the own tenant."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        upgrades: UpgradeRepository,
        control: ActivationControl,
        tenants: TenantPlugins,
        operations: Operations,
        mover: Mover,
        gate: PolicyGate,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._upgrades = upgrades
        self._control = control
        self._tenants = tenants
        self._operations = operations
        self._mover = mover
        self._gate = gate
        self._now = now
        self.changed: Callable[[Upgrade], None] = lambda upgrade: None
        """Called with an upgrade that is about to begin, or has ended, here: measured from its first call."""

    # ------------------------------------------------------------------ begin, widen, end

    async def start(
        self,
        context: Context,
        plugin: str,
        version: str,
        *,
        owner: str = PLATFORM_TENANT,
        mode: Mode = "canary",
        tenants: float | None = None,
        calls: float = 100.0,
        thresholds: Thresholds | None = None,
    ) -> tuple[Upgrade, list[Move]]:
        """Put ``version`` on trial: for a share of all tenants on the plugin (an operator), or for the tenant
        ``owner`` (its admin). Unless ``tenants`` says otherwise, a canary begins with CANARY_TENANTS per cent
        of them, and a shadow, which harms nobody, with all.

        Raises NotFound (no such version, or nobody runs the plugin), Conflict (one is on trial already),
        PolicyBlocked, and what an install raises.
        """
        target = await self._target(context, plugin, version, owner)
        await self._check_policy(target, owner)
        running = await self._running(plugin, owner)
        if not any(a.version != target.manifest.version for _, a in running):
            raise NotFound(
                f"No tenant runs another version of {plugin} than {target.manifest.version}.",
                plugin=plugin,
                tenant=None if owner == PLATFORM_TENANT else owner,
                fix="An upgrade starts where the plugin is active: see `keelstone tenant plugins TENANT`.",
            )
        await self._control.prepare(target.manifest, target.component)
        upgrade = Upgrade(
            id=new_id(),
            owner=owner,
            plugin=plugin,
            version=target.manifest.version,
            mode=mode,
            tenants=first_share(mode, owner, tenants),
            calls=calls,
            thresholds=thresholds or Thresholds(),
            state=UpgradeState.RUNNING,
            started_at=self._now(),
            started_by=context.principal.id,
        )
        async with self._database.write(owner, context) as transaction:
            for other in await self._upgrades.find(transaction, plugin=plugin, states=OPEN):
                raise Conflict(
                    f"An upgrade of {plugin} to {other.version} is {other.state} already.",
                    plugin=plugin,
                    found=other.id,
                    fix="Promote it or roll it back first.",
                )
            await self._upgrades.add(transaction, upgrade)
            if upgrade.for_all:
                event = NewEvent("plugin.upgrade_started", told(upgrade))
                transaction.emit(f"upgrade:{upgrade.id}", event)
        self.changed(upgrade)
        return upgrade, await self.reconcile(context, upgrade)

    async def share(
        self, context: Context, upgrade: Upgrade, *, tenants: float | None = None, calls: float | None = None
    ) -> tuple[Upgrade, list[Move]]:
        """Another share of the tenants, or of the calls of each. A larger one only adds. Raises LifecycleError."""
        upgrade.must_be(UpgradeState.RUNNING)
        if tenants is not None and not upgrade.for_all:
            raise ValidationFailed("An upgrade of one tenant has no share of tenants.", plugin=upgrade.plugin)
        changed = replace(
            upgrade,
            tenants=upgrade.tenants if tenants is None else tenants,
            calls=upgrade.calls if calls is None else calls,
        )
        changed = await self._save(context, changed, NewEvent("plugin.upgrade_started", told(changed)))
        return changed, await self.reconcile(context, changed)

    async def promote(self, context: Context, upgrade: Upgrade, reason: str = "") -> tuple[Upgrade, list[Move]]:
        """The new version for everybody who follows, each as soon as its window is open. Raises LifecycleError,
        PolicyBlocked."""
        upgrade.must_be(UpgradeState.RUNNING)
        await self._check_policy(await self._release(upgrade.plugin, upgrade.version), upgrade.owner)
        decided = replace(upgrade, state=UpgradeState.PROMOTING, reason=reason)
        decided = await self._save(context, decided, NewEvent("plugin.upgrade_promoted", told(decided)))
        moves = await self.reconcile(context, decided)
        self.changed(decided)
        return await self.get(upgrade.id, upgrade.owner), moves

    async def roll_back(
        self, context: Context, upgrade: Upgrade, reason: str, figures: Mapping[str, Any] | None = None
    ) -> tuple[Upgrade, list[Move]]:
        """Only the version from before, everywhere where the new one was on trial, whatever the windows say.
        Tenants that were moved by a promotion go back too. Raises LifecycleError."""
        upgrade.must_be(*OPEN)
        moved = upgrade.state is UpgradeState.PROMOTING
        ended = replace(upgrade, state=UpgradeState.ROLLED_BACK, reason=reason, ended_at=self._now())
        data = {**told(ended), "reason": reason, "figures": dict(figures or {})}
        ended = await self._save(context, ended, NewEvent("plugin.upgrade_rolled_back", data))
        moves = []
        for tenant, present in await self._running(upgrade.plugin, upgrade.owner):
            if present.trial is not None and present.trial.id == upgrade.id:
                moves.append(await self._mover.end_trial(context, tenant, present, ended, reason, figures))
            elif moved and present.version == upgrade.version and present.previous and not present.pinned:
                back = await self._release(upgrade.plugin, present.previous)
                moves.append(await self._mover.move(context, tenant, present, back, ROLLBACK))
        self.changed(ended)
        return ended, moves

    async def _save(self, context: Context, upgrade: Upgrade, event: NewEvent) -> Upgrade:
        async with self._database.write(upgrade.owner, context) as transaction:
            if not await self._upgrades.save(transaction, upgrade):
                raise Conflict(f"The upgrade of {upgrade.plugin} was changed meanwhile.", plugin=upgrade.plugin)
            if upgrade.for_all:
                transaction.emit(f"upgrade:{upgrade.id}", event)
        return replace(upgrade, looks=upgrade.looks + 1)

    # ------------------------------------------------------------------ bring tenants where they belong

    async def reconcile(self, context: Context, upgrade: Upgrade) -> list[Move]:
        """Do what is due now: trials begin, change or end by the share, promoted tenants move, each within
        its window. Safe to repeat, and from several processes at once."""
        target = await self._release(upgrade.plugin, upgrade.version)
        if target.state is not ReleaseState.INSTALLED:
            return (await self.roll_back(context, upgrade, f"{upgrade.version} is {target.state}"))[1]
        async with self._database.read(ALL_TENANTS) as transaction:
            windows = await self._upgrades.windows(transaction)
        moves: list[Move] = []
        waiting = False
        for tenant, present in await self._running(upgrade.plugin, upgrade.owner):
            if present.version == upgrade.version:
                continue
            mine = present.trial is not None and present.trial.id == upgrade.id
            chosen = in_share(upgrade.id, tenant, upgrade.tenants)
            # An admin's upgrade is that admin's own act: neither pin, channel nor window stands against it.
            closed = waits(windows.get(tenant), self._now()) if upgrade.for_all else None
            barred = stays(present, target.manifest) if upgrade.for_all else None
            if upgrade.state is UpgradeState.PROMOTING:
                if barred or (present.trial is not None and not mine):
                    continue
                if closed:
                    waiting = True
                elif mine:
                    moves.append(await self._mover.promote_trial(context, tenant, present, target, upgrade))
                else:
                    moves.append(await self._mover.move(context, tenant, present, target, "upgrade promoted"))
            elif mine and not chosen:
                moves.append(await self._mover.end_trial(context, tenant, present, upgrade, "no longer in the share"))
            elif mine:
                if present.trial is not None and present.trial.calls != upgrade.calls:
                    moves.append(await self._mover.start_trial(context, tenant, present, target, upgrade))
            elif chosen and present.trial is None and not barred and not closed:
                moves.append(await self._mover.start_trial(context, tenant, present, target, upgrade))
        if upgrade.state is UpgradeState.PROMOTING and not waiting:
            await self._settle(context, upgrade)
        return moves

    async def _settle(self, context: Context, upgrade: Upgrade) -> None:
        done = replace(upgrade, state=UpgradeState.PROMOTED, ended_at=self._now())
        async with self._database.write(upgrade.owner, context) as transaction:
            await self._upgrades.save(transaction, done)

    async def end_strays(self, context: Context, open_ids: Iterable[str]) -> list[Move]:
        """End trials whose upgrade is over: somebody's process stopped before it had done so."""
        kept = set(open_ids)
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.all_activations(transaction)
        moves = []
        for tenant, present in found:
            trial = present.trial
            if trial is None or trial.id in kept:
                continue
            upgrade = await self._find(trial.id, ALL_TENANTS)
            if upgrade is not None and upgrade.state in OPEN:
                continue
            if upgrade is not None and upgrade.state is UpgradeState.PROMOTED:
                target = await self._release(upgrade.plugin, upgrade.version)
                moves.append(await self._mover.promote_trial(context, tenant, present, target, upgrade))
            elif upgrade is not None:
                moves.append(await self._mover.end_trial(context, tenant, present, upgrade, upgrade.reason))
        return moves

    # ------------------------------------------------------------------ windows

    async def window(self, tenant: str) -> Window | None:
        """The tenant's upgrade window, or None: always open."""
        async with self._database.read(tenant) as transaction:
            return (await self._upgrades.windows(transaction)).get(tenant)

    def is_open(self, window: Window | None) -> bool:
        """Whether versions may change now."""
        return waits(window, self._now()) is None

    async def set_window(self, context: Context, window: Window | None) -> None:
        """Replace the tenant's upgrade window; None takes it away."""
        async with self._database.write(context.tenant, context) as transaction:
            await self._upgrades.put_window(transaction, window)
            data = {"window": "always" if window is None else str(window)}
            transaction.emit("activation:window", NewEvent("plugin.window_changed", data))

    # ------------------------------------------------------------------ reads

    async def owned(self, owner: str | None = None, plugin: str | None = None) -> list[Upgrade]:
        """Upgrades, newest first: an owner's, or everybody's."""
        async with self._database.read(owner or ALL_TENANTS) as transaction:
            return await self._upgrades.find(transaction, plugin=plugin)

    async def open(self) -> list[Upgrade]:
        """Those of everybody that have not ended."""
        async with self._database.read(ALL_TENANTS) as transaction:
            return await self._upgrades.find(transaction, states=OPEN, limit=1_000)

    async def get(self, id: str, owner: str) -> Upgrade:
        """One of an owner. Raises NotFound."""
        found = await self._find(id, owner)
        if found is None:
            raise NotFound(f"There is no upgrade {id}.", fix="See `keelstone upgrade status`.")
        return found

    async def _find(self, id: str, scope: str) -> Upgrade | None:
        async with self._database.read(scope) as transaction:
            return await self._upgrades.get(transaction, id)

    async def of_tenant(self, tenant: str) -> list[Upgrade]:
        """A tenant's own upgrades, and an operator's that are on trial there."""
        own = await self.owned(tenant)
        known = {u.id for u in own}
        trials = [a.trial for a in await self._tenants.activations(tenant) if a.trial is not None]
        for trial in trials:
            upgrade = None if trial.id in known else await self._find(trial.id, ALL_TENANTS)
            own += [] if upgrade is None else [upgrade]
        return own

    async def status(self, upgrade: Upgrade, tenant: str | None = None) -> Status:
        """Where the tenants stand and what was measured; for one tenant, only of itself."""
        target = await self._release(upgrade.plugin, upgrade.version)
        async with self._database.read(ALL_TENANTS) as transaction:
            windows = await self._upgrades.windows(transaction)
        async with self._database.read(tenant or ALL_TENANTS) as transaction:
            measured = await self._upgrades.figures(transaction, upgrade.id)
        scope = upgrade.owner if tenant is None else tenant
        places = [
            self._place(upgrade, t, a, target, windows.get(t)) for t, a in await self._running(upgrade.plugin, scope)
        ]
        return Status(upgrade, tuple(places), report(measured))

    def _place(
        self, upgrade: Upgrade, tenant: str, present: Activation, target: Release, window: Window | None
    ) -> Place:
        trial = present.trial
        if trial is not None and trial.id == upgrade.id:
            asks = tuple(sorted(trial.denied - present.denied - present.grants))
            return Place(tenant, present.version, "on trial", needs_consent=asks)
        if present.version == upgrade.version:
            return Place(tenant, present.version, "on it")
        barred = stays(present, target.manifest) if upgrade.for_all else None
        if barred or trial is not None:
            return Place(tenant, present.version, "stays", barred or "takes part in another upgrade")
        closed = waits(window, self._now()) if upgrade.for_all else None
        chosen = upgrade.state is UpgradeState.PROMOTING or in_share(upgrade.id, tenant, upgrade.tenants)
        if upgrade.state in OPEN and chosen:
            return Place(
                tenant,
                present.version,
                "waits",
                closed or "its settings do not fit, a policy or a missing consent holds it, or it comes soon",
            )
        return Place(tenant, present.version, "stays", "not in the share" if upgrade.state in OPEN else "")

    # ------------------------------------------------------------------ inside

    async def _target(self, context: Context, plugin: str, version: str, owner: str) -> Release:
        exact = str(parse_version(version))
        if owner == PLATFORM_TENANT:
            found = await self._operations.install(context, plugin, f"={exact}")
            target = next(r for r in found if r.manifest.id == plugin)
        else:
            target = await self._tenants.find(plugin, exact)
        if target.manifest.kind != "guest":
            raise LifecycleError(
                f"{plugin} runs in the platform's process: it is upgraded with its Python package.", plugin=plugin
            )
        return target

    async def _check_policy(self, target: Release, owner: str) -> None:
        """Raise PolicyBlocked if the owner's upgrade may not begin or be promoted. Each tenant's own policy is
        asked as it is moved."""
        if owner == PLATFORM_TENANT:
            (await self._gate.installing()).check(candidate_of(target))
        else:
            (await self._gate.ruling(owner)).check_release(target)

    async def _release(self, plugin: str, version: str) -> Release:
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.release(transaction, plugin, version)
        if found is None or found.state is ReleaseState.UNINSTALLED:
            raise NotFound(f"{plugin} {version} is not installed any more.", plugin=plugin, found=version)
        return found

    async def _running(self, plugin: str, scope: str) -> list[tuple[str, Activation]]:
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.all_activations(transaction, plugin)
        return [(t, a) for t, a in found if a.running and scope in (PLATFORM_TENANT, t)]
