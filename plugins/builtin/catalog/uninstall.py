"""Taking a plugin off the platform: refused while it is in use, and what is left of it is looked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from plugin_sdk import (
    ALL_TENANTS,
    PLATFORM_TENANT,
    Conflict,
    Context,
    Dispatcher,
    NewEvent,
    NotFound,
    ReleaseState,
    next_release_state,
    parse_version,
)
from plugin_sdk.services import ActivationControl, BlobStore, Database, KvStore, Transaction
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.application import CatalogRepository, in_process_release
from plugins.builtin.catalog.domain import Release
from plugins.builtin.catalog.secrets.application import forget_secrets
from plugins.builtin.catalog.upgrades.domain import OPEN
from plugins.builtin.catalog.upgrades.ports import UpgradeRepository

DataFate = Literal["retain", "purge", "export"]


@dataclass(frozen=True, slots=True)
class Removal:
    """What an uninstall left behind (nothing, if all went well) and what it exported."""

    plugin: str
    versions: tuple[str, ...]
    residue: tuple[str, ...]
    exported: dict[str, dict[str, str]] | None = None
    kept_keys: int = 0


class Uninstaller:
    """Uninstalls releases."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        control: ActivationControl,
        hooks: Dispatcher,
        blobs: BlobStore,
        kv: KvStore,
        upgrades: UpgradeRepository,
    ) -> None:
        self._database = database
        self._repository = repository
        self._control = control
        self._hooks = hooks
        self._blobs = blobs
        self._kv = kv
        self._upgrades = upgrades

    async def uninstall(self, context: Context, plugin: str, version: str | None, data: DataFate) -> Removal:
        """See ``Operations.uninstall``."""
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
                await self._upgrades.forget(transaction, plugin)
        for release in leaving:
            await self.forget(release)
        versions = tuple(r.manifest.version for r in leaving)
        residue, kept = await self._residue(plugin, leaving, purge)
        return Removal(plugin, versions, residue, exported, kept)

    async def forget(self, release: Release) -> None:
        """Take a release's component and artifact away, unless another release has the same component."""
        others = [r for r in await self._present() if r.component == release.component]
        await self._control.forget(release.manifest, release.component, keep_artifact=bool(others))
        if not others:
            await self._blobs.delete(release.component)

    async def _present(self) -> list[Release]:
        return await present_releases(self._database, self._repository, self._hooks)

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
        versions = {release.manifest.version for release in leaving}
        for upgrade in await self._upgrades.find(transaction, plugin=plugin, states=OPEN):
            if upgrade.version in versions:
                raise Conflict(
                    f"An upgrade of {plugin} to {upgrade.version} is {upgrade.state}.",
                    plugin=plugin,
                    found=upgrade.id,
                    fix=f"Run `keelstone upgrade rollback {plugin}` first.",
                )
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


async def present_releases(database: Database, repository: CatalogRepository, hooks: Dispatcher) -> list[Release]:
    """What is installed and not withdrawn, with what runs in this process; by id and version."""
    async with database.read(ALL_TENANTS) as transaction:
        stored = await repository.releases(transaction)
    usable = [r for r in stored if r.state is ReleaseState.INSTALLED]
    here = [in_process_release(m) for m in hooks.manifests.values()]
    return sorted([*usable, *here], key=lambda r: (r.manifest.id, r.manifest.semver))
