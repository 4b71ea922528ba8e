"""What an install would bring: releases that fit together, and that the operator's policy lets in."""

from __future__ import annotations

from collections.abc import Callable, Collection

from plugin_sdk import (
    ALL_TENANTS,
    Dispatcher,
    NotFound,
    PluginManifest,
    ReleaseState,
    Requirement,
    ResolutionConflict,
    parse_range,
    resolve,
)
from plugin_sdk.services import Database, Marketplace
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.application import CatalogRepository
from plugins.builtin.catalog.policy.domain import Candidate, verification_of
from plugins.builtin.catalog.policy.gate import Installing, PolicyGate
from plugins.builtin.catalog.uninstall import present_releases


class Planner:
    """Plans installs; changes nothing."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        hooks: Dispatcher,
        marketplace: Callable[[], Marketplace],
        gate: PolicyGate,
    ) -> None:
        self._database = database
        self._repository = repository
        self._hooks = hooks
        self._marketplace = marketplace
        self._gate = gate

    async def plan(self, plugin: str, wanted: str = "*", source: Marketplace | None = None) -> list[PluginManifest]:
        """What an install would bring, in start order (requirements first), present ones left out.

        A quarantined release is not among the candidates, and what comes along is the newest that the operator's
        policy lets in. ``source`` stands in for the marketplace (a bundle).

        Raises NotFound, ResolutionConflict, PluginQuarantined if nothing else would do, and PolicyBlocked.
        """
        present = await present_releases(self._database, self._repository, self._hooks)
        withdrawn = await self._withdrawn()
        installing = await self._gate.installing()
        known: dict[str, list[PluginManifest]] = {}
        against: dict[tuple[str, str], Candidate] = {}
        market = source or self._marketplace()
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
                domain.refuse_withdrawn(plugin, [m for m in offered if m.semver in parse_range(wanted)])
            known[name] = list(versions.values())
            installed = {m.version for m in here}
            fresh = [m for m in known[name] if m.version not in installed]
            for candidate in await self._candidates(installing, fresh, market):
                if installing.findings(candidate):
                    against[name, candidate.manifest.version] = candidate
            queue += [p for m in known[name] for p in m.requires.plugins]
        newest = {r.manifest.id: r.manifest.version for r in present if r.manifest.id != plugin}

        def chosen(blocked: Collection[tuple[str, str]]) -> list[PluginManifest]:
            # What was asked for by name is refused aloud, not silently replaced by an older release.
            return resolve(
                [Requirement(plugin, wanted)],
                lambda name: [m for m in known.get(name, []) if name == plugin or (name, m.version) not in blocked],
                present=newest,
            )

        try:
            plan = chosen(against)
        except ResolutionConflict:
            plan = chosen(())
        there = {(r.manifest.id, r.manifest.version) for r in present}
        plan = [m for m in plan if (m.id, m.version) not in there]
        # The one that was asked for first: its findings head the error.
        named = sorted(plan, key=lambda m: m.id != plugin)
        installing.check(*(against[m.id, m.version] for m in named if (m.id, m.version) in against))
        return plan

    async def _candidates(
        self, installing: Installing, manifests: list[PluginManifest], market: Marketplace
    ) -> list[Candidate]:
        """Manifests of one plugin as the policy looks at them; the marketplace is asked more only if it counts."""
        if not manifests or not installing.asks_marketplace:
            return [Candidate(m) for m in manifests]
        try:
            published = await market.published(manifests[0].id)
        except NotFound:
            return [Candidate(m) for m in manifests]
        return [
            Candidate(m, known.digest, known.published, verification=verification_of(known.domain, known.repository))
            if (known := published.get(m.version))
            else Candidate(m)
            for m in manifests
        ]

    async def _withdrawn(self) -> set[tuple[str, str]]:
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.releases(transaction)
        return {(r.manifest.id, r.manifest.version) for r in stored if r.state is ReleaseState.QUARANTINED}
