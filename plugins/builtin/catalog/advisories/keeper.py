"""Follows the marketplace's advisories: which active plugins have a known weakness, and which releases mend one.

Each tenant is told once, by an event, of every weakness of every version that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plugin_sdk import ALL_TENANTS, NewEvent, ReleaseState, parse_version
from plugin_sdk.services import Advisory, Database, Marketplace
from plugins.builtin.catalog.application import CatalogRepository
from plugins.builtin.catalog.domain import Release
from plugins.builtin.catalog.following import follower
from plugins.builtin.catalog.news import News, Teller


@dataclass(frozen=True, slots=True)
class Affected:
    """An active plugin with a known weakness; ``fixed_in`` are the versions without it."""

    tenant: str
    plugin: str
    version: str
    advisory: Advisory
    fixed_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AffectedRelease:
    """An installed release with a known weakness, whether anybody runs it or not. ``mends`` are later versions without
    it that are installed as well, ascending; ``tenants`` are those in the asker's sight that run it."""

    plugin: str
    version: str
    state: ReleaseState
    advisory: Advisory
    fixed_in: tuple[str, ...]
    mends: tuple[str, ...]
    tenants: tuple[str, ...]


class AdvisoryKeeper:
    """Keeps the verified list in memory, a quarter of an hour old at most while the marketplace answers."""

    def __init__(
        self,
        marketplace: Callable[[], Marketplace],
        database: Database,
        repository: CatalogRepository,
        teller: Teller,
    ) -> None:
        self._marketplace, self._database, self._repository = marketplace, database, repository
        self._teller = teller
        self._known: tuple[Advisory, ...] = ()
        self._background = follower(self._follow, "advisories")

    def start(self) -> None:
        """Begin to follow."""
        self._background.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._background.stop()

    async def refresh(self) -> tuple[Advisory, ...]:
        """The verified list as it is now. Raises VerificationFailed or BackendUnavailable."""
        self._known = await self._marketplace().advisories()
        return self._known

    def mends(self, plugin: str, version: str) -> bool:
        """Whether the marketplace says that this release mends a weakness. A publisher's own word does not count:
        whoever wants a release to come in at once could give it."""
        return any(
            each.is_the_marketplaces and each.withdrawn is None and version in each.fixed_in(plugin)
            for each in self._known
        )

    async def affected(self, tenant: str | None) -> list[Affected]:
        """Active plugins with a known weakness; ``tenant`` None: of every tenant."""
        async with self._database.read(tenant or ALL_TENANTS) as transaction:
            found = (
                [(tenant, each) for each in await self._repository.activations(transaction)]
                if tenant
                else await self._repository.all_activations(transaction)
            )
        return [
            Affected(owner, each.plugin, each.version, advisory, advisory.fixed_in(each.plugin))
            for owner, each in found
            if each.running
            for advisory in self._known
            if advisory.affects(each.plugin, each.version)
        ]

    async def installed(self, tenant: str | None) -> list[AffectedRelease]:
        """Installed releases with a known weakness, by plugin and version. What is installed is no secret among
        tenants, who runs it is: ``tenant`` sees itself only, None sees everybody."""
        if not self._known:
            return []
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.releases(transaction)
        here = [each for each in stored if each.state is not ReleaseState.UNINSTALLED]
        releases = sorted(here, key=lambda each: (each.manifest.id, each.manifest.semver))
        running: dict[tuple[str, str, str], list[str]] = {}
        for each in await self.affected(tenant):
            running.setdefault((each.plugin, each.version, each.advisory.id), []).append(each.tenant)
        return [
            AffectedRelease(
                plugin=about.id,
                version=about.version,
                state=release.state,
                advisory=advisory,
                fixed_in=advisory.fixed_in(about.id),
                mends=_mends(advisory, about.id, about.version, releases),
                tenants=tuple(running.get((about.id, about.version, advisory.id), ())),
            )
            for release in releases
            for about in (release.manifest,)
            for advisory in self._known
            if advisory.affects(about.id, about.version)
        ]

    async def tell(self) -> int:
        """Tell each tenant of what it runs and has not been told of; how many events that were."""
        return await self._teller.tell(
            News(each.tenant, each.plugin, each.version, each.advisory.id, _event(each))
            for each in await self.affected(None)
        )

    async def _follow(self) -> None:
        await self.refresh()
        await self.tell()


def _mends(advisory: Advisory, plugin: str, version: str, releases: Sequence[Release]) -> tuple[str, ...]:
    later = parse_version(version)
    return tuple(
        each.manifest.version
        for each in releases
        if each.manifest.id == plugin
        and each.manifest.semver > later
        and each.state is ReleaseState.INSTALLED
        and not advisory.affects(plugin, each.manifest.version)
    )


def _event(found: Affected) -> NewEvent:
    said = found.advisory
    data = {
        "plugin": found.plugin,
        "version": found.version,
        "advisory": said.id,
        "summary": said.summary,
        "by": said.by,
        "aliases": list(said.aliases),
        "fixed_in": list(found.fixed_in),
    }
    return NewEvent("plugin.affected", data | ({"severity": said.severity} if said.severity else {}))
