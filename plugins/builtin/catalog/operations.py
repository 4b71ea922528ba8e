"""Use cases of operators: install, upgrade, roll back, uninstall."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

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
    PluginQuarantined,
    ReleaseState,
    Requirement,
    next_release_state,
    parse_range,
    parse_version,
    resolve,
)
from plugin_sdk.services import (
    ActivationControl,
    BlobStore,
    Database,
    KvStore,
    Marketplace,
    Transaction,
    VerifiedPackage,
)
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.application import CatalogRepository, in_process_release, utc_now
from plugins.builtin.catalog.domain import Activation, Release
from plugins.builtin.catalog.moves import Move, Mover
from plugins.builtin.catalog.secrets.application import forget_secrets
from plugins.builtin.catalog.upgrades.domain import OPEN, stays, waits
from plugins.builtin.catalog.upgrades.infrastructure import SqlUpgrades

DataFate = Literal["retain", "purge", "export"]


@dataclass(frozen=True, slots=True)
class Removal:
    """What an uninstall left behind (nothing, if all went well) and what it exported."""

    plugin: str
    versions: tuple[str, ...]
    residue: tuple[str, ...]
    exported: dict[str, dict[str, str]] | None = None
    kept_keys: int = 0


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
        upgrades: SqlUpgrades,
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
        self._now = now
        # Two operators' installs at once would undo each other's files when one fails.
        self._one_at_a_time = asyncio.Lock()

    # ------------------------------------------------------------------ install

    async def plan(self, plugin: str, wanted: str = "*") -> list[PluginManifest]:
        """What an install would bring, in start order (requirements first), present ones left out.

        A quarantined release is not among the candidates. Raises NotFound, ResolutionConflict, and
        PluginQuarantined if nothing else would do.
        """
        present, withdrawn = await self._present(), await self._withdrawn()
        known: dict[str, list[PluginManifest]] = {}
        market = self._marketplace()
        queue = [plugin]
        while queue:
            name = queue.pop()
            if name in known:
                continue
            here = [r.manifest for r in present if r.manifest.id == name]
            try:
                offered = [] if here and here[0].kind != "guest" else await market.manifests(name)
            except NotFound:
                if name == plugin:
                    raise
                offered = []
            versions = {m.version: m for m in [*offered, *here] if (m.id, m.version) not in withdrawn}
            if name == plugin and offered and not any(m.semver in parse_range(wanted) for m in versions.values()):
                _refuse_withdrawn(plugin, [m for m in offered if m.semver in parse_range(wanted)])
            known[name] = list(versions.values())
            queue += [p for m in known[name] for p in m.requires.plugins]
        newest = {r.manifest.id: r.manifest.version for r in present if r.manifest.id != plugin}
        chosen = resolve([Requirement(plugin, wanted)], lambda name: known.get(name, []), present=newest)
        there = {(r.manifest.id, r.manifest.version) for r in present}
        return [m for m in chosen if (m.id, m.version) not in there]

    async def install(self, context: Context, plugin: str, wanted: str = "*") -> list[Release]:
        """Bring a plugin and what it requires; each release is verified, checked by policy, compiled,
        and only then noted as installed. Installing again changes nothing.

        Raises NotFound, ResolutionConflict, VerificationFailed, Forbidden (policy), SandboxError.
        """
        async with self._one_at_a_time:
            releases = await self._install(context, await self.plan(plugin, wanted))
        if not any(r.manifest.id == plugin for r in releases):
            present = [r for r in await self._present() if r.manifest.id == plugin]
            fitting = [r for r in present if r.manifest.semver in parse_range(wanted)]
            return [*releases, fitting[-1]]
        return releases

    async def _install(self, context: Context, plan: list[PluginManifest]) -> list[Release]:
        releases: list[Release] = []
        try:
            for manifest in plan:
                package = await self._marketplace().fetch(manifest.id, manifest.version)
                await self._check_policy(context, package)
                releases.append(self._release(context, package, await self._blobs.put(package.component)))
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
                await self._forget(release)
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
        )

    async def _check_policy(self, context: Context, package: VerifiedPackage) -> None:
        manifest = package.manifest
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
            moves.append(await self._mover.move(context, tenant, present, target, "rollback"))
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
            return await self._uninstall(context, plugin, version, data)

    async def _uninstall(self, context: Context, plugin: str, version: str | None, data: DataFate) -> Removal:
        stored = [r for r in await self._present() if r.manifest.id == plugin and r.manifest.kind == "guest"]
        leaving = [r for r in stored if version is None or r.manifest.semver == parse_version(version)]
        if not leaving:
            raise NotFound(f"{plugin} {version or ''}".strip() + " is not installed on this platform.", plugin=plugin)
        last = len(leaving) == len(stored)
        async with self._database.read(ALL_TENANTS) as transaction:
            await self._check_unused(transaction, plugin, leaving, last)
        exported = await self._export(plugin) if data == "export" and last else None
        purge = last and data != "retain"
        async with self._database.write(ALL_TENANTS, context) as transaction:
            # Again, for somebody may have switched it on since.
            await self._check_unused(transaction, plugin, leaving, last)
            for release in leaving:
                next_release_state(release.state, "uninstall", plugin=plugin)
                if not purge:
                    await self._repository.put_release(transaction, replace(release, state=ReleaseState.UNINSTALLED))
                gone = NewEvent("plugin.uninstalled", {"plugin": plugin, "version": release.manifest.version})
                transaction.emit(f"release:{plugin}", gone, tenant=PLATFORM_TENANT)
            if purge:
                for known in await self._repository.releases(transaction, plugin):
                    await self._repository.delete_release(transaction, plugin, known.manifest.version)
                await self._repository.delete_activations(transaction, plugin, None)
                await self._kv.purge(transaction, plugin)
                await forget_secrets(transaction, plugin)
        for release in leaving:
            await self._forget(release)
        versions = tuple(r.manifest.version for r in leaving)
        residue, kept = await self._residue(plugin, leaving, purge)
        return Removal(plugin, versions, residue, exported, kept)

    async def _forget(self, release: Release) -> None:
        others = [r for r in await self._present() if r.component == release.component]
        await self._control.forget(release.manifest, release.component, keep_artifact=bool(others))
        if not others:
            await self._blobs.delete(release.component)

    async def _check_unused(self, transaction: Transaction, plugin: str, leaving: list[Release], last: bool) -> None:
        running: dict[str, int] = {}
        for _, activation in await self._repository.all_activations(transaction, plugin):
            if not activation.running:
                continue
            trial = activation.trial
            for used in {activation.version, trial.version if trial else activation.version}:
                running[used] = running.get(used, 0) + 1
        dependants = []
        if last:
            stored = [r for r in await self._repository.releases(transaction) if r.state is ReleaseState.INSTALLED]
            manifests = [*(r.manifest for r in stored), *self._hooks.manifests.values()]
            dependants = sorted({m.id for m in manifests if plugin in m.requires.plugins and m.id != plugin})
        for release in leaving:
            domain.check_uninstallable(plugin, release.manifest.version, running, dependants)

    async def _residue(self, plugin: str, gone: list[Release], purged: bool) -> tuple[tuple[str, ...], int]:
        found = []
        for release in gone:
            if await self._blobs.get(release.component) is not None and not any(
                r.component == release.component for r in await self._present()
            ):
                found.append(f"component {release.component}")
            if self._control.callable_here(plugin, release.manifest.version):
                found.append(f"callable {release.manifest.version}")
        keys = 0
        async with self._database.read(ALL_TENANTS) as transaction:
            activations = await self._repository.all_activations(transaction, plugin)
        for tenant, _ in activations:
            keys += (await self._kv.usage(tenant, plugin))[0]
        if purged and activations:
            found.append(f"{len(activations)} activations")
        if purged and keys:
            found.append(f"{keys} stored keys")
        return tuple(found), keys

    async def _export(self, plugin: str) -> dict[str, dict[str, str]]:
        async with self._database.read(ALL_TENANTS) as transaction:
            tenants = [tenant for tenant, _ in await self._repository.all_activations(transaction, plugin)]
        exported: dict[str, dict[str, str]] = {}
        for tenant in tenants:
            values = {}
            for key in await self._kv.list_keys(tenant, plugin, "", 1_000_000):
                stored = await self._kv.get(tenant, plugin, key)
                if stored is not None:
                    values[key] = stored.value
            exported[tenant] = values
        return exported

    # ------------------------------------------------------------------ inside

    async def _withdrawn(self) -> set[tuple[str, str]]:
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.releases(transaction)
        return {(r.manifest.id, r.manifest.version) for r in stored if r.state is ReleaseState.QUARANTINED}

    async def _present(self) -> list[Release]:
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.releases(transaction)
        usable = [r for r in stored if r.state is ReleaseState.INSTALLED]
        here = [in_process_release(m) for m in self._hooks.manifests.values()]
        return sorted([*usable, *here], key=lambda r: (r.manifest.id, r.manifest.semver))

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


def _refuse_withdrawn(plugin: str, fitting: list[PluginManifest]) -> None:
    if fitting:
        raise PluginQuarantined(
            f"{plugin} {fitting[0].version} was withdrawn from the platform.",
            plugin=plugin,
            expected="a release that is not quarantined",
            found=", ".join(m.version for m in fitting),
            fix=f"Install another version, or let it back in: `keelstone plugins release {plugin} VERSION`.",
        )


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
