"""Use cases of operators: install, upgrade, roll back, uninstall."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from plugin_sdk import (
    ALL_TENANTS,
    PLATFORM_TENANT,
    Conflict,
    Context,
    Dispatcher,
    Forbidden,
    InstallRequest,
    NewEvent,
    NotFound,
    PluginManifest,
    ReleaseState,
    next_release_state,
    parse_range,
    parse_version,
)
from plugin_sdk.services import (
    ActivationControl,
    BlobStore,
    Database,
    KvStore,
    Marketplace,
    VerifiedPackage,
)
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.application import CatalogRepository, utc_now
from plugins.builtin.catalog.domain import Activation, Release
from plugins.builtin.catalog.moves import ROLLBACK, Move, Mover
from plugins.builtin.catalog.planning import Planner
from plugins.builtin.catalog.policy.domain import Candidate
from plugins.builtin.catalog.policy.gate import PolicyGate, candidate_of, vouched_for
from plugins.builtin.catalog.uninstall import DataFate, Removal, Uninstaller, present_releases
from plugins.builtin.catalog.upgrades.domain import OPEN, stays, waits
from plugins.builtin.catalog.upgrades.ports import UpgradeRepository


class Operations:
    """What an operator does."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        control: ActivationControl,
        hooks: Dispatcher,
        blobs: BlobStore,
        kv: KvStore,
        marketplace: Callable[[], Marketplace],
        mover: Mover,
        upgrades: UpgradeRepository,
        gate: PolicyGate,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._control = control
        self._hooks = hooks
        self._blobs = blobs
        self._kv = kv
        self._marketplace = marketplace
        self._mover = mover
        self._upgrades = upgrades
        self._gate = gate
        self._planner = Planner(database, repository, hooks, marketplace, gate)
        self._now = now
        self._uninstaller = Uninstaller(database, repository, control, hooks, blobs, kv, upgrades)
        # Two operators' installs at once would undo each other's files when one fails.
        self._one_at_a_time = asyncio.Lock()

    # ------------------------------------------------------------------ install

    async def plan(self, plugin: str, wanted: str = "*", source: Marketplace | None = None) -> list[PluginManifest]:
        """What an install would bring: see ``Planner.plan``."""
        return await self._planner.plan(plugin, wanted, source)

    async def install(
        self, context: Context, plugin: str, wanted: str = "*", source: Marketplace | None = None
    ) -> list[Release]:
        """Bring a plugin and what it requires; each release is verified, checked by policy, compiled,
        and only then noted as installed. Installing again changes nothing. ``source`` stands in for the marketplace.

        Raises NotFound, ResolutionConflict, VerificationFailed, PolicyBlocked, Forbidden (a plugin says no),
        SandboxError.
        """
        async with self._one_at_a_time:
            releases = await self._install(context, await self.plan(plugin, wanted, source), source)
        if not any(r.manifest.id == plugin for r in releases):
            present = [r for r in await self._present() if r.manifest.id == plugin]
            fitting = [r for r in present if r.manifest.semver in parse_range(wanted)]
            return [*releases, fitting[-1]]
        return releases

    async def _install(self, context: Context, plan: list[PluginManifest], source: Marketplace | None) -> list[Release]:
        releases: list[Release] = []
        try:
            for manifest in plan:
                package = await (source or self._marketplace()).fetch(manifest.id, manifest.version)
                await self._check_policy(context, package)
                # Noted before it is stored: whatever interrupts that, it is cleaned up.
                releases.append(self._release(context, package, hashlib.sha256(package.component).hexdigest()))
                await self._blobs.put(package.component)
                await self._control.prepare(package.manifest, releases[-1].component)
            # Everything has been verified and compiled by now: what is left is one commit.
            if releases:
                async with self._database.write(ALL_TENANTS, context) as transaction:
                    for release in releases:
                        await self._repository.put_release(transaction, release)
                        data = {
                            "plugin": release.manifest.id,
                            "version": release.manifest.version,
                            "digest": release.digest,
                        }
                        event = NewEvent("plugin.installed", data)
                        transaction.emit(f"release:{release.manifest.id}", event, tenant=PLATFORM_TENANT)
        except BaseException:
            for release in releases:
                await self._uninstaller.forget(release)
            raise
        return releases

    def _release(self, context: Context, package: VerifiedPackage, component: str) -> Release:
        state = next_release_state(ReleaseState.UPLOADED, "verify", plugin=package.manifest.id)
        return Release(
            manifest=package.manifest,
            digest=package.digest,
            component=component,
            state=next_release_state(state, "install", plugin=package.manifest.id),
            settings_schema=package.settings_schema,
            readme=package.readme,
            changelog=package.changelog,
            chain=package.chain,
            installed_at=self._now(),
            installed_by=context.principal.id,
            published_at=package.published,
            origin=package.origin,
        )

    async def _check_policy(self, context: Context, package: VerifiedPackage) -> None:
        manifest = package.manifest
        # Again, with the digest of what really came: an approval is for one digest.
        candidate = Candidate(manifest, package.digest, package.published, verification=vouched_for(package.origin))
        (await self._gate.installing()).check(candidate)
        http = manifest.capabilities.http
        asked = InstallRequest(
            plugin=manifest.id,
            version=manifest.version,
            digest=package.digest,
            publisher=manifest.publisher,
            capabilities=tuple(manifest.capabilities.asked()),
            hosts=http.hosts if http else (),
        )
        outcome = await self._hooks.decide("plugin_installing", asked, context)
        if outcome.effects:
            async with self._database.write(context.tenant, context) as transaction:
                await outcome.save(transaction)
        decision = outcome.payload
        if decision is not None and not decision.allow:
            raise Forbidden(decision.reason, plugin=manifest.id, hook="plugin_installing")

    # ------------------------------------------------------------------ upgrade and rollback

    async def upgrade(self, context: Context, plugin: str, version: str | None = None) -> list[Move]:
        """Install another version (the newest if none is named) and move every tenant that runs the
        plugin and follows it. Code moves, grants do not grow; calls under way end in the old version.

        A tenant whose settings do not fit the new version, or whose upgrade window is closed, stays where
        it is and is reported. Raises Conflict while an upgrade of the plugin is on trial.
        """
        await self._check_no_trial(plugin)
        wanted = f"={parse_version(version)}" if version else "*"
        target = next(r for r in await self.install(context, plugin, wanted) if r.manifest.id == plugin)
        # It may have been installed before the policy was.
        (await self._gate.installing()).check(candidate_of(target))
        await self._control.prepare(target.manifest, target.component)
        moves = []
        async with self._database.read(ALL_TENANTS) as transaction:
            windows = await self._upgrades.windows(transaction)
        for tenant, present in await self._running(plugin):
            if present.version == target.manifest.version or stays(present, target.manifest):
                continue
            closed = waits(windows.get(tenant), self._now())
            if closed is not None:
                moves.append(Move(tenant, present.version, present.version, closed))
                continue
            moves.append(await self._mover.move(context, tenant, present, target, "upgrade"))
        return moves

    async def rollback(self, context: Context, plugin: str) -> list[Move]:
        """Move every tenant back to the version it ran before, whatever its window says.

        Raises Conflict if none can go back, or while an upgrade of the plugin is on trial.
        """
        await self._check_no_trial(plugin)
        running = [(t, a) for t, a in await self._running(plugin) if not a.pinned]
        back = [(t, a) for t, a in running if a.previous is not None]
        if not back:
            for tenant, present in running[:1]:
                domain.go_back(present, tenant)
            raise NotFound(f"No tenant runs {plugin}.", plugin=plugin)
        moves = []
        for tenant, present in back:
            target = await self._stored(plugin, domain.go_back(present, tenant))
            await self._control.prepare(target.manifest, target.component)
            moves.append(await self._mover.move(context, tenant, present, target, ROLLBACK))
        return moves

    async def _check_no_trial(self, plugin: str) -> None:
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._upgrades.find(transaction, plugin=plugin, states=OPEN)
        for upgrade in found:
            if upgrade.for_all:
                raise Conflict(
                    f"An upgrade of {plugin} to {upgrade.version} is {upgrade.state}.",
                    plugin=plugin,
                    expected="no upgrade on trial",
                    found=upgrade.id,
                    fix=f"Run `keelstone upgrade promote {plugin}` or `keelstone upgrade rollback {plugin}` first.",
                )

    # ------------------------------------------------------------------ uninstall

    async def uninstall(
        self, context: Context, plugin: str, version: str | None = None, data: DataFate = "retain"
    ) -> Removal:
        """Take one version, or all, off the platform. Raises NotFound, Conflict (still in use).

        ``data`` says what becomes of the guests' stored state and the tenants' settings when the last
        version goes: kept for a later install, deleted, or handed back and deleted.
        """
        async with self._one_at_a_time:
            return await self._uninstaller.uninstall(context, plugin, version, data)

    # ------------------------------------------------------------------ inside

    async def _present(self) -> list[Release]:
        return await present_releases(self._database, self._repository, self._hooks)

    async def _stored(self, plugin: str, version: str) -> Release:
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.release(transaction, plugin, version)
        if found is None or found.state is not ReleaseState.INSTALLED:
            raise NotFound(f"{plugin} {version} is not installed any more.", plugin=plugin, found=version)
        return found

    async def _running(self, plugin: str) -> list[tuple[str, Activation]]:
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.all_activations(transaction, plugin)
        return [(tenant, a) for tenant, a in found if a.running]


def describe(release: Release) -> dict[str, Any]:
    """A release, JSON-ready, for REST and the command line."""
    manifest = release.manifest
    return {
        "id": manifest.id,
        "version": manifest.version,
        "name": manifest.name,
        "summary": manifest.summary,
        "kind": manifest.kind,
        "license": manifest.license,
        "state": str(release.state),
        "hooks": sorted(manifest.hooks),
        "subscribes": list(manifest.events.subscribes),
        "capabilities": list(manifest.capabilities.asked()),
        "digest": release.digest,
        "installed_at": release.installed_at,
        "installed_by": release.installed_by,
    }
