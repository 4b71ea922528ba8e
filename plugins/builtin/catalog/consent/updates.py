"""What an update would change for a tenant, in plain words: from the manifests, and from what the code imports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plugin_sdk import ALL_TENANTS, NotFound, PluginManifest, ReleaseState
from plugin_sdk.differences import Change, differences, sentence, widened
from plugin_sdk.services import BlobStore, Database
from plugin_sdk.toolchain.world import imports_of
from plugins.builtin.catalog.application import CatalogRepository, TenantPlugins
from plugins.builtin.catalog.domain import Activation, Release
from plugins.builtin.catalog.trust.domain import Windows, doubts
from plugins.builtin.catalog.upgrades.trial import follows


@dataclass(frozen=True, slots=True)
class Update:
    """From one version to another. ``needs_consent`` are capabilities that are denied, or hold the update back,
    until somebody decides: new ones, and granted ones with which it may do more."""

    plugin: str
    before: str
    after: str
    changes: tuple[Change, ...]
    needs_consent: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """Who else stands behind it than behind what runs, in words: it is held until a person allows it."""

    @property
    def summary(self) -> str:
        """The changes as one line."""
        return sentence(self.changes) or "nothing that you consent to changes"


class Updates:
    """Compares installed releases."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        tenants: TenantPlugins,
        blobs: BlobStore,
        windows: Windows = Windows(),
    ) -> None:
        self._windows = windows
        self._database = database
        self._repository = repository
        self._tenants = tenants
        self._blobs = blobs
        # By the component's digest, which never comes to mean other bytes.
        self._known: dict[str, tuple[str, ...] | None] = {}

    async def of(self, tenant: str, plugin: str, to: str | None = None) -> Update:
        """From the tenant's version to ``to``; without it, to the newest that it follows or, if it is on that, from
        the version before. Raises NotFound."""
        present = await self._tenants.activation(tenant, plugin)
        if to is not None:
            return await self._between(present, present.version, (await self._tenants.find(plugin, to)))
        (newer,) = (await self.newer([present])).values() or (None,)
        if newer is not None:
            return newer
        if present.previous is None:
            raise NotFound(f"There is no newer version of {plugin} here.", plugin=plugin, tenant=tenant)
        return await self._between(present, present.previous, await self._tenants.find(plugin, present.version))

    async def newer(self, activations: Sequence[Activation]) -> dict[str, Update]:
        """What waits for those that could be moved: by plugin, to the newest installed version of its channel."""
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.releases(transaction)
        found = {}
        for present in activations:
            mine = [r for r in stored if r.manifest.id == present.plugin]
            now = next((r for r in mine if r.manifest.version == present.version), None)
            target = _newest(mine, present, now)
            if target is not None:
                found[present.plugin] = await self._between(present, present.version, target)
        return found

    async def compare(self, old: Release, new: PluginManifest, component: bytes | None) -> list[Change]:
        """Of an installed release with one that need not be."""
        imports = None if component is None else await asyncio.to_thread(imports_of, component)
        return differences(old.manifest, new, old_imports=await self._imports(old), new_imports=imports)

    async def _between(self, present: Activation, before: str, target: Release) -> Update:
        async with self._database.read(ALL_TENANTS) as transaction:
            old = await self._repository.release(transaction, present.plugin, before)
        after = target.manifest
        if old is None:
            raise NotFound(f"{present.plugin} {before} is not known here any more.", plugin=present.plugin)
        changes = differences(
            old.manifest, after, old_imports=await self._imports(old), new_imports=await self._imports(target)
        )
        needed = undecided(present, old.manifest, after)
        found = doubts(old.origin, target.origin, self._windows)
        return Update(
            present.plugin, before, after.version, tuple(changes), needed, tuple(doubt.words for doubt in found)
        )

    async def _imports(self, release: Release) -> tuple[str, ...] | None:
        """The capabilities that a release's code uses; None if its component is gone."""
        if release.manifest.kind != "guest" or release.state is ReleaseState.UNINSTALLED:
            return None
        if release.component not in self._known:
            component = await self._blobs.get(release.component)
            known = None if component is None else await asyncio.to_thread(imports_of, component)
            self._known[release.component] = known
        return self._known[release.component]


def undecided(present: Activation, old: PluginManifest, new: PluginManifest) -> tuple[str, ...]:
    """Capabilities of ``new`` that somebody has to decide on first, with what was decided under ``old``."""
    asked = set(new.capabilities.asked())
    unknown = asked - present.grants - present.denied
    # What came with an update that has happened is denied because nobody has decided.
    brought = (asked - set(old.capabilities.asked())) - present.grants
    return tuple(sorted(unknown | brought | (set(widened(old, new)) & present.grants)))


def _newest(releases: Iterable[Release], present: Activation, now: Release | None) -> Release | None:
    usable = [
        r
        for r in releases
        if r.state is ReleaseState.INSTALLED
        and follows(present.channel, r.manifest)
        and (now is None or r.manifest.semver > now.manifest.semver)
    ]
    return max(usable, key=lambda r: r.manifest.semver, default=None) if present.running and now is not None else None
