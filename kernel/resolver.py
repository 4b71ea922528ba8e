"""Requirements to a start order, or a conflict that explains itself. Pure; the search is resolvelib's."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, Resolver
from resolvelib.resolvers import ResolutionTooDeep

from kernel.errors import ResolutionConflict
from kernel.hookspecs import CONTRACT_GENERATIONS, HOOK_CONTRACT_VERSION
from kernel.manifest import PluginManifest
from kernel.versions import parse_range, parse_version


@dataclass(frozen=True, slots=True)
class Requirement:
    """Somebody (``parent``, empty for the request itself) wants ``plugin`` within ``range``."""

    plugin: str
    range: str
    parent: str = ""

    def __str__(self) -> str:
        who = self.parent or "you"
        verb = "want" if who == "you" else "wants"
        return f"{who} {verb} {self.plugin} {self.range}"


Catalogue = Callable[[str], Sequence[PluginManifest]]
"""Every version of a plugin that could be chosen; empty if the plugin is unknown."""


class _Provider(AbstractProvider[Requirement, PluginManifest, str]):
    """What resolvelib asks. It asks the same again and again while it searches, so each answer is kept."""

    def __init__(self, catalogue: Catalogue, present: Mapping[str, str]) -> None:
        self._catalogue = catalogue
        self._present = present
        self._choices: dict[str, list[PluginManifest]] = {}
        self._within: dict[tuple[str, str], frozenset[str]] = {}
        self._needs: dict[tuple[str, str], list[Requirement]] = {}

    def identify(self, requirement_or_candidate: Requirement | PluginManifest) -> str:
        if isinstance(requirement_or_candidate, Requirement):
            return requirement_or_candidate.plugin
        return requirement_or_candidate.id

    def get_preference(
        self, identifier: str, resolutions: Any, candidates: Any, information: Any, backtrack_causes: Any
    ) -> Any:
        return (identifier not in self._present, identifier)

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[Requirement]],
        incompatibilities: Mapping[str, Iterator[PluginManifest]],
    ) -> Iterable[PluginManifest]:
        wanted = [self._fitting(identifier, range) for range in {r.range for r in requirements[identifier]}]
        refused = {m.version for m in incompatibilities[identifier]}
        versions = frozenset.intersection(*wanted) - refused
        return [m for m in self._ordered(identifier) if m.version in versions]

    def is_satisfied_by(self, requirement: Requirement, candidate: PluginManifest) -> bool:
        return candidate.version in self._fitting(requirement.plugin, requirement.range)

    def get_dependencies(self, candidate: PluginManifest) -> Iterable[Requirement]:
        key = (candidate.id, candidate.version)
        if key not in self._needs:
            parent = f"{candidate.id} {candidate.version}"
            self._needs[key] = [Requirement(p, r, parent) for p, r in candidate.requires.plugins.items()]
        return self._needs[key]

    def _ordered(self, plugin: str) -> list[PluginManifest]:
        """What of a plugin runs here: what is there already first, then the newest."""
        if plugin not in self._choices:
            present = self._present.get(plugin)
            runs = [m for m in self._catalogue(plugin) if kernel_fits(m)]
            self._choices[plugin] = sorted(runs, key=lambda m: (m.version == present, m.semver), reverse=True)
        return self._choices[plugin]

    def _fitting(self, plugin: str, range: str) -> frozenset[str]:
        """The versions of a plugin within a range."""
        key = (plugin, range)
        if key not in self._within:
            wanted = parse_range(range)
            self._within[key] = frozenset(m.version for m in self._ordered(plugin) if m.semver in wanted)
        return self._within[key]


def contract_of(manifest: PluginManifest) -> str | None:
    """The newest generation of the contract that is served here and the plugin takes, or None."""
    wanted = parse_range(manifest.requires.kernel)
    return next((v for v in reversed(CONTRACT_GENERATIONS) if parse_version(v) in wanted), None)


def kernel_fits(manifest: PluginManifest) -> bool:
    """Whether the plugin takes a generation of the contract that this kernel serves."""
    return contract_of(manifest) is not None


def resolve(
    wanted: Iterable[Requirement], catalogue: Catalogue, *, present: Mapping[str, str] | None = None
) -> list[PluginManifest]:
    """Versions that satisfy everything, in start order (requirements first, ties by id).

    ``present`` maps plugins to versions that are there already: they are kept where they fit.
    Raises ResolutionConflict with who wants what, through whom.
    """
    wanted = list(wanted)
    cached: dict[str, Sequence[PluginManifest]] = {}

    def versions(plugin: str) -> Sequence[PluginManifest]:
        if plugin not in cached:
            cached[plugin] = list(catalogue(plugin))
        return cached[plugin]

    resolver: Resolver[Requirement, PluginManifest, str] = Resolver(_Provider(versions, present or {}), BaseReporter())
    try:
        result = resolver.resolve(wanted, max_rounds=2_000)
    except ResolutionImpossible as error:
        raise _explain([cause.requirement for cause in error.causes], versions) from error
    except ResolutionTooDeep as error:
        raise ResolutionConflict(
            "The requirements are too entangled to resolve in 2,000 rounds.",
            fix="Pin some versions exactly.",
        ) from error
    return start_order(result.mapping.values())


def start_order(manifests: Iterable[PluginManifest]) -> list[PluginManifest]:
    """Requirements before those who require them, ties by id. Raises ResolutionConflict on a circle."""
    by_id = {m.id: m for m in manifests}
    needs = {
        m.id: {p for p in (*m.requires.plugins, *m.requires.optional) if p in by_id and p != m.id}
        for m in by_id.values()
    }
    ready = [plugin for plugin, missing in needs.items() if not missing]
    heapq.heapify(ready)
    ordered: list[PluginManifest] = []
    while ready:
        plugin = heapq.heappop(ready)
        ordered.append(by_id[plugin])
        del needs[plugin]
        for other, missing in needs.items():
            if plugin in missing:
                missing.discard(plugin)
                if not missing:
                    heapq.heappush(ready, other)
    if needs:
        circle = ", ".join(sorted(needs))
        raise ResolutionConflict(
            f"These plugins require each other in a circle: {circle}.",
            plugin=sorted(needs)[0],
            fix="Break the circle with an event or an optional requirement.",
        )
    return ordered


def _explain(causes: Sequence[Requirement], versions: Callable[[str], Sequence[PluginManifest]]) -> ResolutionConflict:
    plugins = sorted({c.plugin for c in causes})
    lines = [str(c) for c in sorted(set(causes), key=str)]
    notes: list[str] = []
    for plugin in plugins:
        known = versions(plugin)
        if not known:
            notes.append(f"no version of {plugin} is known")
            continue
        listed = ", ".join(m.version for m in sorted(known, key=lambda m: m.semver, reverse=True)[:8])
        notes.append(f"there is {plugin} {listed}")
        notes += [
            f"{m.id} {m.version} needs kernel {m.requires.kernel}, this is {HOOK_CONTRACT_VERSION}"
            for m in known
            if not kernel_fits(m)
        ]
    return ResolutionConflict(
        f"{'; '.join(lines)}; but {'; '.join(notes)}.",
        plugin=plugins[0] if plugins else None,
        fix="Choose a version that fits all, or ask the publisher to widen the range.",
        extra={"causes": lines},
    )
