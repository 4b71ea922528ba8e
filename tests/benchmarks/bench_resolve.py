"""``market.resolve``: one install whose requirements reach 200 plugins, against resolvelib bare on the same graph.

Each plugin has 12 versions, each version asks for up to four other plugins within a range of its own, and the newest
version of every fifth asks for what nobody has, so that the search has to go back. Bare is a provider over numbers:
no manifests, no SemVer, no contracts, no start order.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from resolvelib import AbstractProvider, BaseReporter, Resolver

from kernel.manifest import PluginManifest, manifest_from_dict
from kernel.resolver import Requirement, resolve
from tests.benchmarks.measure import ROUNDS, alternate, row

PLUGINS, VERSIONS = 200, 12
TIMES = 5


class _Wish(NamedTuple):
    plugin: int
    least: int
    most: int


class _Choice(NamedTuple):
    plugin: int
    version: int


Graph = dict[_Choice, list[_Wish]]


def _graph(dice: random.Random) -> Graph:
    graph: Graph = {}
    for plugin in range(PLUGINS):
        wanted = [plugin + 1] if plugin + 1 < PLUGINS else []
        wanted += dice.sample(range(plugin + 2, PLUGINS), min(3, max(PLUGINS - plugin - 2, 0)))
        for version in range(VERSIONS):
            wishes = [_Wish(each, dice.randint(0, 3), dice.randint(8, VERSIONS - 1)) for each in wanted]
            if wishes and plugin % 5 == 0 and version == VERSIONS - 1:
                wishes[0] = wishes[0]._replace(least=VERSIONS + 5, most=VERSIONS + 9)
            graph[_Choice(plugin, version)] = wishes
    return graph


class _Bare(AbstractProvider[_Wish, _Choice, int]):
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def identify(self, requirement_or_candidate: _Wish | _Choice) -> int:
        return requirement_or_candidate.plugin

    def get_preference(
        self, identifier: int, resolutions: Any, candidates: Any, information: Any, backtrack_causes: Any
    ) -> Any:
        return identifier

    def find_matches(
        self,
        identifier: int,
        requirements: Mapping[int, Iterator[_Wish]],
        incompatibilities: Mapping[int, Iterator[_Choice]],
    ) -> Iterable[_Choice]:
        wishes = list(requirements[identifier])
        refused = {each.version for each in incompatibilities[identifier]}
        least, most = max(w.least for w in wishes), min(w.most for w in wishes)
        versions = range(min(most, VERSIONS - 1), least - 1, -1)
        return [_Choice(identifier, version) for version in versions if version not in refused]

    def is_satisfied_by(self, requirement: _Wish, candidate: _Choice) -> bool:
        return requirement.least <= candidate.version <= requirement.most

    def get_dependencies(self, candidate: _Choice) -> Iterable[_Wish]:
        return self._graph[candidate]


def _id(plugin: int) -> str:
    # The same order of preference as the numbers have.
    return f"acme/p{plugin:03}"


def _manifests(graph: Graph) -> dict[str, list[PluginManifest]]:
    found: dict[str, list[PluginManifest]] = {}
    for choice, wishes in graph.items():
        requires = {_id(w.plugin): f">=1.{w.least}.0,<1.{w.most + 1}.0" for w in wishes}
        manifest = manifest_from_dict(
            {
                "manifest": 1,
                "id": _id(choice.plugin),
                "version": f"1.{choice.version}.0",
                "name": "One of many",
                "summary": "One of many.",
                "license": "Apache-2.0",
                "hooks": {"user_creating": {}},
                "requires": {"kernel": "^1.0", "plugins": requires},
            }
        )
        found.setdefault(manifest.id, []).append(manifest)
    return found


def rows() -> list[dict[str, Any]]:
    """The row."""
    graph = _graph(random.Random(11))
    manifests = _manifests(graph)

    def ours() -> float:
        began = time.perf_counter()
        for _ in range(TIMES):
            found = resolve([Requirement(_id(0), "*")], lambda plugin: manifests.get(plugin, []))
        assert len(found) == PLUGINS
        return (time.perf_counter() - began) / TIMES * 1e3

    def bare() -> float:
        began = time.perf_counter()
        for _ in range(TIMES):
            resolver: Resolver[_Wish, _Choice, int] = Resolver(_Bare(graph), BaseReporter())
            result = resolver.resolve([_Wish(0, 0, VERSIONS)], max_rounds=2_000)
        assert len(result.mapping) == PLUGINS
        return (time.perf_counter() - began) / TIMES * 1e3

    chosen = {m.id: m.version for m in resolve([Requirement(_id(0), "*")], lambda plugin: manifests.get(plugin, []))}
    resolver: Resolver[_Wish, _Choice, int] = Resolver(_Bare(graph), BaseReporter())
    same = resolver.resolve([_Wish(0, 0, VERSIONS)], max_rounds=2_000).mapping.values()
    assert chosen == {_id(c.plugin): f"1.{c.version}.0" for c in same}, "both find the same"
    mine, baseline = alternate(ours, bare, ROUNDS)
    return [
        row(
            "market.resolve",
            ours=mine,
            baseline=baseline,
            unit="ms",
            target="<= 2x resolvelib bare",
            met=lambda ratio: ratio <= 2,
        )
    ]


if __name__ == "__main__":
    for each in rows():
        print(each)
