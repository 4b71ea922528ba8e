"""The order of a hook's implementations: declared by ``before`` and ``after``, ties broken by plugin id."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from kernel.errors import Conflict
from kernel.manifest import HookUse


def order_plugins(uses: Mapping[str, HookUse], hook: str) -> list[str]:
    """Plugin ids in calling order (Kahn's algorithm over a heap, so the result is unique).

    Names of plugins that are not there are ignored. Raises Conflict, naming the circle.
    """
    followers: dict[str, set[str]] = {plugin: set() for plugin in uses}
    waiting = dict.fromkeys(uses, 0)
    for plugin, use in uses.items():
        edges = [(plugin, other) for other in use.before] + [(other, plugin) for other in use.after]
        for first, second in edges:
            if first in uses and second in uses and second not in followers[first]:
                followers[first].add(second)
                waiting[second] += 1
    ready = [plugin for plugin, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    ordered: list[str] = []
    while ready:
        plugin = heapq.heappop(ready)
        ordered.append(plugin)
        for follower in followers[plugin]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    if len(ordered) < len(uses):
        circle = _circle(followers, {plugin for plugin, count in waiting.items() if count})
        raise Conflict(
            f"The order of {hook} contradicts itself: {', '.join(circle)} each want to run before the other.",
            hook=hook,
            plugin=circle[0],
            fix="Remove a before= or after= under [hooks] in one of their manifests.",
        )
    return ordered


def _circle(followers: Mapping[str, set[str]], stuck: set[str]) -> list[str]:
    """Those of ``stuck`` that are in a circle, without those that only wait behind one."""
    while True:
        last = {plugin for plugin in stuck if not followers[plugin] & stuck}
        if not last:
            return sorted(stuck)
        stuck = stuck - last
