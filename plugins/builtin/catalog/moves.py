"""Changes of one tenant's activation to another version, each in a transaction of its own, each told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from plugin_sdk import ALL_TENANTS, Context, Dispatcher, KeelstoneError, NewEvent, PluginManifest, system_context
from plugin_sdk.configuration import settle
from plugin_sdk.services import ActivationControl, Database
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.application import CatalogRepository, check_order, utc_now
from plugins.builtin.catalog.domain import Activation, Release
from plugins.builtin.catalog.policy.domain import told as policy_told
from plugins.builtin.catalog.policy.gate import PolicyGate
from plugins.builtin.catalog.upgrades.domain import Upgrade

CHANGED_MEANWHILE = "it was changed meanwhile"
ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Move:
    """What an upgrade or rollback did in one tenant; ``error`` says why nothing was done."""

    tenant: str
    before: str
    after: str
    error: str | None = None
    needs_consent: tuple[str, ...] = ()


Step = Callable[[Activation], tuple[Activation, list[NewEvent]]]


class Mover:
    """Moves tenants between versions. Calls under way end in the version they began with."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        control: ActivationControl,
        hooks: Dispatcher,
        gate: PolicyGate,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._control = control
        self._hooks = hooks
        self._gate = gate
        self._now = now

    async def move(self, context: Context, tenant: str, seen: Activation, target: Release, reason: str) -> Move:
        """To another version at once: code moves, grants do not grow. No policy stands against a rollback:
        what ran here before is always the way back."""
        if reason != ROLLBACK and (stuck := await self._held(tenant, seen, target)) is not None:
            return stuck
        ruling = None if reason == ROLLBACK else await self._gate.ruling(tenant)
        old = await self._manifest(seen)

        def step(present: Activation) -> tuple[Activation, list[NewEvent]]:
            settings = settle(target.settings_schema, present.settings, plugin=present.plugin, tenant=tenant)
            after = replace(domain.move(present, target.manifest), settings=settings)
            if ruling is not None:
                domain.check_not_widened(present, old, target.manifest, tenant)
                ruling.check_entry(target, after)
            return after, [updated(present, after.version, reason)]

        return await self._change(context, tenant, seen, target, step)

    async def start_trial(
        self, context: Context, tenant: str, seen: Activation, target: Release, upgrade: Upgrade
    ) -> Move:
        """Begin the trial of ``upgrade`` there, or change the share of calls that takes part. Where grants would
        grow, an operator's waits for the admin's consent; in an admin's own they are denied until decided."""
        if seen.trial is None and (stuck := await self._held(tenant, seen, target)) is not None:
            return stuck
        ruling = await self._gate.ruling(tenant)
        old = await self._manifest(seen)

        def step(present: Activation) -> tuple[Activation, list[NewEvent]]:
            settings = settle(target.settings_schema, present.settings, plugin=present.plugin, tenant=tenant)
            if present.trial is None and upgrade.for_all:
                domain.check_not_widened(present, old, target.manifest, tenant)
            given = domain.asked_again(present, old, target.manifest)
            trial = upgrade.trial(given, target.manifest, settings, self._now())
            if present.trial is None:
                ruling.check_entry(target, trial)
            else:
                # What has been decided for it holds.
                trial = replace(trial, grants=present.trial.grants, denied=present.trial.denied)
            data = {**told(upgrade), "from": present.version}
            return domain.start_trial(present, trial, tenant), [NewEvent("plugin.upgrade_started", data)]

        return await self._change(context, tenant, seen, target, step)

    async def promote_trial(
        self, context: Context, tenant: str, seen: Activation, target: Release, upgrade: Upgrade
    ) -> Move:
        """The version on trial becomes the tenant's; the trial ends if a policy has come to stand against it."""
        against = (await self._gate.ruling(tenant)).findings(target, seen.upgrade)
        if against:
            reason = "; ".join(policy_told(f) for f in against)
            ended = await self.end_trial(context, tenant, seen, upgrade, reason)
            return replace(ended, error=ended.error or reason)

        def step(present: Activation) -> tuple[Activation, list[NewEvent]]:
            after = domain.promote_trial(present, tenant)
            promoted = NewEvent("plugin.upgrade_promoted", {**told(upgrade), "from": present.version})
            return after, [promoted, updated(present, after.version, "upgrade promoted")]

        return await self._change(context, tenant, seen, target, step)

    async def end_trial(
        self, context: Context, tenant: str, seen: Activation, upgrade: Upgrade, reason: str, figures: Any = None
    ) -> Move:
        """Only the version from before answers again."""

        def step(present: Activation) -> tuple[Activation, list[NewEvent]]:
            data = {**told(upgrade), "from": present.version, "reason": reason, "figures": figures or {}}
            return domain.end_trial(present, tenant), [NewEvent("plugin.upgrade_rolled_back", data)]

        return await self._change(context, tenant, seen, None, step)

    async def _held(self, tenant: str, seen: Activation, target: Release) -> Move | None:
        """The move that is none, if somebody else stands behind ``target`` than behind what runs."""
        why = await self._gate.trust.why_not(tenant, seen.plugin, seen.version, target.manifest.version)
        return None if why is None else Move(tenant, seen.version, seen.version, why)

    async def _manifest(self, seen: Activation) -> PluginManifest | None:
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.release(transaction, seen.plugin, seen.version)
        return None if found is None else found.manifest

    async def _change(
        self, context: Context, tenant: str, seen: Activation, target: Release | None, step: Step
    ) -> Move:
        work = acting(context, tenant)
        plugin = seen.plugin
        try:
            async with self._database.write(tenant, work) as transaction:
                present = await self._repository.activation(transaction, plugin)
                if present is None or not present.running or _place(present) != _place(seen):
                    return Move(tenant, seen.version, seen.version, CHANGED_MEANWHILE)
                if target is not None:
                    await check_order(self._hooks, self._repository, transaction, target.manifest)
                after, events = step(present)
                after = replace(after, changed_at=self._now(), changed_by=context.principal.id)
                await self._repository.put_activation(transaction, after)
                transaction.emit(f"activation:{plugin}", *events)
        except KeelstoneError as error:
            return Move(tenant, seen.version, seen.version, str(error))
        await self._control.refresh(tenant)
        denied = after.denied if after.upgrade is None else after.upgrade.denied
        return Move(tenant, seen.version, after.version, needs_consent=tuple(sorted(denied - present.denied)))


def acting(context: Context, tenant: str) -> Context:
    """The context for work of the same person in a tenant whose rows are changed."""
    return replace(system_context(tenant, context.correlation_id), principal=context.principal)


def _place(activation: Activation) -> tuple[str, str | None]:
    return activation.version, activation.upgrade.id if activation.upgrade is not None else None


def updated(present: Activation, version: str, reason: str) -> NewEvent:
    """The event that tells of a tenant's new version."""
    return NewEvent(
        "plugin.updated", {"plugin": present.plugin, "from": present.version, "to": version, "reason": reason}
    )


def told(upgrade: Upgrade) -> dict[str, Any]:
    """An upgrade as its events tell it."""
    return {
        "plugin": upgrade.plugin,
        "upgrade": upgrade.id,
        "to": upgrade.version,
        "mode": upgrade.mode,
        "tenants": upgrade.tenants,
        "calls": upgrade.calls,
    }
