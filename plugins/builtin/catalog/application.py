"""Use cases of tenants' admins: consent, activate, set up, pin, deactivate. Reads for everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from plugin_sdk import (
    ALL_TENANTS,
    ActivationRecord,
    ActivationState,
    Context,
    Dispatcher,
    GuestRelease,
    NewEvent,
    NotFound,
    PluginManifest,
    PluginQuarantined,
    ReleaseState,
    UpgradeRecord,
    parse_version,
)
from plugin_sdk.configuration import settle
from plugin_sdk.services import ActivationControl, Database, Transaction
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.domain import Activation, CapabilityRequest, Release
from plugins.builtin.catalog.policy.gate import PolicyGate
from plugins.builtin.catalog.telling import activation_events, consent_event, decided_anew, trial_ended
from plugins.builtin.catalog.upgrades.trial import Trial, check_channel


class ConsentReceipts(Protocol):
    """Where decisions are signed."""

    async def note(
        self,
        transaction: Transaction,
        context: Context,
        release: Release,
        decided: Activation,
        before: Release | None = None,
    ) -> str:
        """Sign what was decided on ``release``, which takes the place of ``before``; the receipt's digest."""
        ...


class CatalogRepository(Protocol):
    """Where releases (the platform's) and activations (tenants') are kept."""

    async def releases(self, transaction: Transaction, plugin: str | None = None) -> list[Release]: ...

    async def release(self, transaction: Transaction, plugin: str, version: str) -> Release | None: ...

    async def put_release(self, transaction: Transaction, release: Release) -> None: ...

    async def delete_release(self, transaction: Transaction, plugin: str, version: str) -> None: ...

    async def activation(self, transaction: Transaction, plugin: str) -> Activation | None: ...

    async def put_activation(self, transaction: Transaction, activation: Activation) -> None: ...

    async def activations(self, transaction: Transaction) -> list[Activation]: ...

    async def all_activations(
        self, transaction: Transaction, plugin: str | None = None
    ) -> list[tuple[str, Activation]]:
        """(tenant, activation) of every tenant; needs the scope ALL_TENANTS."""
        ...

    async def delete_activations(self, transaction: Transaction, plugin: str, version: str | None) -> int: ...


def utc_now() -> datetime:
    """The time now, aware."""
    return datetime.now(UTC)


class TenantPlugins:
    """What a tenant's admin does. Implements the kernel's ``ActivationSource``."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        control: ActivationControl,
        hooks: Dispatcher,
        gate: PolicyGate,
        receipts: ConsentReceipts,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._control = control
        self._hooks = hooks
        self._gate = gate
        self._receipts = receipts
        self._now = now

    # ------------------------------------------------------------------ reads

    async def installed(self) -> list[Release]:
        """Everything that can be activated or runs already: guests, extensions, built-ins."""
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.releases(transaction)
        here = [in_process_release(m) for m in self._hooks.manifests.values()]
        usable = [r for r in stored if r.state is not ReleaseState.UNINSTALLED]
        return sorted([*usable, *here], key=lambda r: (r.manifest.id, r.manifest.semver))

    async def find(self, plugin: str, version: str | None = None) -> Release:
        """One installed release, the newest if no version is named. Raises NotFound."""
        found = [r for r in await self.installed() if r.manifest.id == plugin]
        if version is not None:
            found = [r for r in found if r.manifest.semver == parse_version(version)]
        if not found:
            named = f"{plugin} {version}" if version else plugin
            raise NotFound(
                f"{named} is not installed on this platform.",
                plugin=plugin,
                fix=f"An operator installs it with `keelstone marketplace install {plugin}`.",
            )
        return found[-1]

    async def activations(self, tenant: str) -> list[Activation]:
        """What is, or was, on for the tenant."""
        async with self._database.read(tenant) as transaction:
            return await self._repository.activations(transaction)

    async def activation(self, tenant: str, plugin: str) -> Activation:
        """One activation. Raises NotFound."""
        async with self._database.read(tenant) as transaction:
            return await self._present(transaction, tenant, plugin)

    async def consent_page(self, tenant: str, plugin: str, version: str | None) -> list[CapabilityRequest]:
        """What the plugin asks for, in plain words, with what was decided so far."""
        release = await self.find(plugin, version)
        async with self._database.read(tenant) as transaction:
            present = await self._repository.activation(transaction, plugin)
            present = await self._asked_again(transaction, present, release.manifest)
        return domain.requests(release.manifest, present)

    # ------------------------------------------------------------------ changes

    async def activate(
        self,
        context: Context,
        plugin: str,
        *,
        version: str | None = None,
        decisions: Mapping[str, bool] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Activation:
        """Switch a plugin on for the tenant in hand, or to another version.

        Raises NotFound, ConsentRequired, ValidationFailed (settings), LifecycleError, PolicyBlocked, UpdateHeld,
        Conflict (its place among the tenant's other plugins contradicts itself).
        """
        release = await self.find(plugin, version)
        manifest = release.manifest
        domain.refuse_builtin(manifest)
        decisions = {} if decisions is None else decisions
        ruling = await self._gate.ruling(context.tenant)
        await self._check_trust(context.tenant, release)
        await self._make_ready(release)
        async with self._database.write(context.tenant, context) as transaction:
            present = await self._repository.activation(transaction, plugin)
            open_again = await self._asked_again(transaction, present, manifest)
            granted, denied = domain.decide(manifest, open_again, decisions, context.tenant)
            given = settings if settings is not None else (present.settings if present else {})
            settled = settle(release.settings_schema, given, plugin=plugin, tenant=context.tenant)
            switched = domain.switch(present, plugin, manifest.version, context.tenant)
            await self._check_still_there(transaction, manifest)
            await check_order(self._hooks, self._repository, transaction, manifest)
            after = self._stamp(context, replace(switched, grants=granted, denied=denied, settings=settled))
            if present is not None and present.running and present.version == after.version:
                ruling.check_change(release, present, after)
            else:
                ruling.check_entry(release, after)
            await self._repository.put_activation(transaction, after)
            receipt = ""
            if decided_anew(present, after):
                replaced = await self._replaced(transaction, present, after)
                receipt = await self._receipts.note(transaction, context, release, after, replaced)
            self._emit(transaction, plugin, *activation_events(present, after, receipt))
        await self._control.refresh(context.tenant)
        return after

    async def deactivate(self, context: Context, plugin: str) -> Activation:
        """Switch a plugin off for the tenant in hand; its settings, grants and state stay."""
        return await self._change(
            context,
            plugin,
            lambda present: domain.switch_off(present, context.tenant),
            lambda after: NewEvent("plugin.deactivated", {"plugin": plugin, "version": after.version}),
        )

    async def configure(self, context: Context, plugin: str, settings: Mapping[str, Any]) -> Activation:
        """Replace the plugin's settings. Raises NotFound, ValidationFailed, PolicyBlocked (a host)."""
        present = await self.activation(context.tenant, plugin)
        release = await self.find(plugin, present.version)
        settled = settle(release.settings_schema, settings, plugin=plugin, tenant=context.tenant)
        ruling = await self._gate.ruling(context.tenant)
        ruling.check_change(release, present, replace(present, settings=settled))
        changed = sorted(
            k for k in settled.keys() | present.settings.keys() if settled.get(k) != present.settings.get(k)
        )
        trial = present.trial
        if trial is not None:
            # They must fit the version on trial as well, or it could not be promoted.
            other = await self.find(plugin, trial.version)
            theirs = settle(other.settings_schema, settings, plugin=plugin, tenant=context.tenant)
            ruling.check_change(other, trial, replace(trial, settings=theirs))
            trial = replace(trial, settings=theirs)
        return await self._change(
            context,
            plugin,
            lambda now: replace(now, settings=settled, upgrade=_still(now, trial)),
            lambda _: NewEvent("plugin.configured", {"plugin": plugin, "changed": changed}),
        )

    async def grant(self, context: Context, plugin: str, decisions: Mapping[str, bool]) -> Activation:
        """Decide again on capabilities. Raises NotFound, ValidationFailed, PolicyBlocked."""
        present = await self.activation(context.tenant, plugin)
        release = await self.find(plugin, present.version)
        manifest = release.manifest
        ruling = await self._gate.ruling(context.tenant)
        trial, on_trial = present.trial, None
        if trial is not None:
            # What is decided holds for the version on trial too, which may ask for other things.
            on_trial = await self.find(plugin, trial.version)
            decisions, others = domain.split_decisions(manifest, on_trial.manifest, decisions)
            beside = replace(present, grants=trial.grants, denied=trial.denied)
            granted, denied = domain.decide(on_trial.manifest, beside, others, context.tenant)
            ruling.check_change(on_trial, trial, replace(trial, grants=granted))
            trial = replace(trial, grants=granted, denied=denied)
        granted, denied = domain.decide(manifest, present, decisions, context.tenant)
        ruling.check_change(release, present, replace(present, grants=granted))
        async with self._database.write(context.tenant, context) as transaction:
            now = await self._present(transaction, context.tenant, plugin)
            kept = _still(now, trial)
            after = self._stamp(context, replace(now, grants=granted, denied=denied, upgrade=kept))
            await self._repository.put_activation(transaction, after)
            receipt = await self._receipts.note(transaction, context, release, after)
            if on_trial is not None and trial is not None and kept is trial:
                theirs = replace(after, grants=trial.grants, denied=trial.denied)
                await self._receipts.note(transaction, context, on_trial, theirs, release)
            self._emit(transaction, plugin, consent_event(after, receipt))
        await self._control.refresh(context.tenant)
        return after

    async def follow(
        self, context: Context, plugin: str, *, pinned: bool | None = None, channel: str | None = None
    ) -> Activation:
        """Pin the present version, so that no upgrade moves it, or follow a channel again. A trial that was
        under way in this tenant ends with the pin. Raises NotFound, ValidationFailed."""
        if channel is not None:
            check_channel(channel)
        names = [name for name, value in (("pinned", pinned), ("channel", channel)) if value is not None]
        ended: list[NewEvent] = []

        def change(now: Activation) -> Activation:
            if pinned and now.trial is not None:
                ended.append(trial_ended(now, "the tenant pinned its version"))
                now = domain.end_trial(now, context.tenant)
            kept = now.pinned if pinned is None else pinned
            return replace(now, pinned=kept, channel=now.channel if channel is None else channel)

        return await self._change(
            context,
            plugin,
            change,
            lambda _: [*ended, NewEvent("plugin.configured", {"plugin": plugin, "changed": names})],
        )

    # ------------------------------------------------------------------ ActivationSource

    async def load_all(self) -> list[ActivationRecord]:
        """Every running activation, for the kernel's snapshot."""
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.all_activations(transaction)
        return [_record(tenant, a) for tenant, a in found if a.running]

    async def load_tenant(self, tenant: str) -> list[ActivationRecord]:
        """One tenant's running activations."""
        return [_record(tenant, a) for a in await self.activations(tenant) if a.running]

    async def load_guest(self, plugin: str, version: str) -> GuestRelease | None:
        """The installed release, or None."""
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.release(transaction, plugin, version)
        if found is None:
            return None
        withdrawn = "it is quarantined" if found.state is ReleaseState.QUARANTINED else ""
        return GuestRelease(found.manifest, found.component, withdrawn)

    # ------------------------------------------------------------------ inside

    async def _change(
        self,
        context: Context,
        plugin: str,
        change: Callable[[Activation], Activation],
        event: Callable[[Activation], NewEvent | Sequence[NewEvent]],
    ) -> Activation:
        async with self._database.write(context.tenant, context) as transaction:
            after = self._stamp(context, change(await self._present(transaction, context.tenant, plugin)))
            await self._repository.put_activation(transaction, after)
            events = event(after)
            self._emit(transaction, plugin, *([events] if isinstance(events, NewEvent) else events))
        await self._control.refresh(context.tenant)
        return after

    async def _present(self, transaction: Transaction, tenant: str, plugin: str) -> Activation:
        found = await self._repository.activation(transaction, plugin)
        if found is None:
            raise NotFound(f"{plugin} has never been active in this tenant.", plugin=plugin, tenant=tenant)
        return found

    async def _replaced(
        self, transaction: Transaction, present: Activation | None, after: Activation
    ) -> Release | None:
        if present is None or present.version == after.version:
            return None
        return await self._repository.release(transaction, present.plugin, present.version)

    async def _asked_again(
        self, transaction: Transaction, present: Activation | None, manifest: PluginManifest
    ) -> Activation | None:
        if present is None:
            return None
        old = await self._repository.release(transaction, present.plugin, present.version)
        return domain.asked_again(present, old.manifest if old else None, manifest)

    async def _check_trust(self, tenant: str, release: Release) -> None:
        """Raise UpdateHeld if somebody else stands behind a newer release than behind the tenant's own."""
        async with self._database.read(tenant) as transaction:
            present = await self._repository.activation(transaction, release.manifest.id)
        if present is not None and release.manifest.semver > parse_version(present.version):
            await self._gate.trust.check(tenant, present.plugin, present.version, release.manifest.version)

    async def _check_still_there(self, transaction: Transaction, manifest: PluginManifest) -> None:
        if manifest.kind == "guest":
            found = await self._repository.release(transaction, manifest.id, manifest.version)
            if found is None or found.state is not ReleaseState.INSTALLED:
                raise NotFound(f"{manifest.id} {manifest.version} was uninstalled meanwhile.", plugin=manifest.id)

    async def _make_ready(self, release: Release) -> None:
        if release.state is ReleaseState.QUARANTINED:
            raise PluginQuarantined(
                f"{release.manifest.id} {release.manifest.version} was withdrawn from the platform.",
                plugin=release.manifest.id,
                fix="Choose another version; see `keelstone plugins health`.",
            )
        if release.manifest.kind == "guest":
            await self._control.prepare(release.manifest, release.component)

    def _stamp(self, context: Context, activation: Activation) -> Activation:
        return replace(activation, changed_at=self._now(), changed_by=context.principal.id)

    def _emit(self, transaction: Transaction, plugin: str, *events: NewEvent) -> None:
        transaction.emit(f"activation:{plugin}", *events)


async def check_order(
    hooks: Dispatcher, repository: CatalogRepository, transaction: Transaction, manifest: PluginManifest
) -> None:
    """Raise Conflict if ``manifest`` and what runs in the transaction's tenant contradict each other's order."""
    on = [manifest]
    for other in await repository.activations(transaction):
        if other.running and other.plugin != manifest.id:
            release = await repository.release(transaction, other.plugin, other.version)
            known = release.manifest if release else hooks.manifests.get(other.plugin)
            on += [known] if known else []
    hooks.check_order(on)


def in_process_release(manifest: PluginManifest) -> Release:
    """A built-in or extension, seen as an installed release."""
    return Release(manifest, digest="", component="", state=ReleaseState.INSTALLED, chain=("shipped in this process",))


def _record(tenant: str, activation: Activation) -> ActivationRecord:
    trial = activation.trial
    upgrade = None
    if trial is not None:
        upgrade = UpgradeRecord(trial.id, trial.version, trial.mode, trial.calls, trial.grants, trial.settings)
    return ActivationRecord(
        tenant, activation.plugin, activation.version, activation.grants, activation.settings, upgrade
    )


def _still(now: Activation, trial: Trial | None) -> Trial | None:
    """The changed trial, unless it has ended or become another meanwhile."""
    return trial if trial is not None and now.trial is not None and now.trial.id == trial.id else now.upgrade


__all__ = ["ActivationState", "CatalogRepository", "TenantPlugins", "check_order", "in_process_release", "utc_now"]
