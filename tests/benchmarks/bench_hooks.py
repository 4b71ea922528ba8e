"""Dispatch against raw pluggy, and the activation lookup against a dict."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pluggy

from kernel.activation import Activations
from kernel.context import Context
from kernel.hooks import Dispatcher
from kernel.hookspecs import PROJECT, HookSpecs, hookimpl
from kernel.manifest import PluginManifest, manifest_from_dict
from kernel.payloads import UserDraft
from kernel.ports import ActivationRecord
from kernel.resilience import Breaker
from tests.benchmarks.measure import ROUNDS, absolute, alternate, per_call_us, row

CALLS = 5_000
TENANTS, PLUGINS = 10_000, 50


def _manifest(plugin: str) -> PluginManifest:
    return manifest_from_dict(
        {
            "manifest": 1,
            "id": plugin,
            "version": "1.0.0",
            "name": "Bench",
            "summary": "A plugin that does nothing, ten times.",
            "license": "Apache-2.0",
            "kind": "builtin",
        }
    )


class _Sync:
    @hookimpl
    def user_creating(self, payload: Any, context: Any) -> None:
        return None


class _Async:
    @hookimpl
    async def user_creating(self, payload: Any, context: Any) -> None:
        return None


def _dispatcher(plugin: type[Any]) -> Dispatcher:
    dispatcher = Dispatcher(Activations())
    for number in range(10):
        dispatcher.register(plugin(), _manifest(f"bench/plugin-{number}"))
    # A breaker that has counted a failure is consulted at every call; a fresh one is not even made.
    for implementation in dispatcher.ready("acme", "user_creating"):
        implementation.breaker = Breaker()
    return dispatcher


def _dispatch_rows() -> list[dict[str, Any]]:
    context, payload = Context("acme"), UserDraft(email="ada@example.com", name="Ada")
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    for number in range(10):
        manager.register(_Sync(), name=f"bench/plugin-{number}")

    def raw() -> float:
        return per_call_us(lambda: manager.hook.user_creating(payload=payload, context=context), CALLS)

    def dispatched(dispatcher: Dispatcher) -> float:
        async def run() -> float:
            began = time.perf_counter()
            for _ in range(CALLS):
                await dispatcher.filter("user_creating", payload, context)
            return (time.perf_counter() - began) / CALLS * 1e6

        return asyncio.run(run())

    rows = []
    for name, plugin in (("hooks.dispatch10", _Sync), ("hooks.dispatch10_async", _Async)):
        dispatcher = _dispatcher(plugin)
        ours, baseline = alternate(lambda d=dispatcher: dispatched(d), raw)  # type: ignore[misc]
        rows.append(row(name, ours=ours, baseline=baseline, unit="us", target="ratio <= 3", met=lambda r: r <= 3))
    return rows


def _activation_rows() -> list[dict[str, Any]]:
    plugins = [f"bench/plugin-{n}" for n in range(PLUGINS)]
    grants = frozenset({"kv", "log"})

    def records() -> Iterator[ActivationRecord]:
        # Every tenant has settings of its own for every plugin: the case in which nothing can be shared.
        for tenant in range(TENANTS):
            for plugin in plugins:
                settings = {"webhook_url": f"https://hooks.example.com/{tenant}/{plugin}", "level": "warn"}
                yield ActivationRecord(f"tenant-{tenant}", plugin, "1.0.0", grants, settings)

    gc.collect()
    tracemalloc.start()
    activations = Activations()
    activations.load(records())
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    dispatcher = Dispatcher(activations)
    plain: dict[tuple[str, str], tuple[Any, ...]] = {}
    names = [f"tenant-{t}" for t in range(0, TENANTS, 2)]
    for name in names:
        plain[(name, "user_creating")] = dispatcher.ready(name, "user_creating")

    def ours() -> float:
        ready, began = dispatcher.ready, time.perf_counter()
        for name in names:
            ready(name, "user_creating")
        return (time.perf_counter() - began) / len(names) * 1e6

    def baseline() -> float:
        began = time.perf_counter()
        for name in names:
            plain[(name, "user_creating")]
        return (time.perf_counter() - began) / len(names) * 1e6

    left, right = alternate(ours, baseline)
    changed = [ActivationRecord("tenant-7", p, "1.0.1", grants) for p in plugins]
    swaps = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        activations.replace("tenant-7", changed)
        swaps.append((time.perf_counter() - began) * 1e3)
    return [
        row("activation.lookup", ours=left, baseline=right, unit="us", target="ratio <= 20", met=lambda r: r <= 20),
        absolute("activation.snapshot", values=[size], unit="MB", target="<= 200 MB", met=lambda v: v <= 200),
        absolute("activation.swap", values=swaps, unit="ms", target="<= 50 ms", met=lambda v: v <= 50),
    ]


def rows() -> list[dict[str, Any]]:
    """``hooks.dispatch10`` and ``activation.*``."""
    return [*_dispatch_rows(), *_activation_rows()]
