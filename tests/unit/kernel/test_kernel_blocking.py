"""The watchdog of the event loop: it names the plugin that blocks it, and its breaker counts that."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, generate_latest

from kernel.activation import Activations
from kernel.blocking import PLATFORM, Blocked, LoopWatch
from kernel.context import Context
from kernel.errors import BreakerOpen, PluginUnavailable
from kernel.hooks import Dispatcher
from kernel.hookspecs import hookimpl
from kernel.manifest import PluginManifest
from kernel.payloads import UserDraft

ANN = UserDraft(email="ann@example.com", name="Ann")
HERE = Path(__file__).name


class Slow:
    """Blocks for as long as it is told, by sleeping or by waiting for another thread's work."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @hookimpl
    def user_creating(self, payload: UserDraft) -> None:
        time.sleep(self.seconds)

    @hookimpl
    async def user_updating(self, payload: UserDraft) -> None:
        await asyncio.sleep(0)
        time.sleep(self.seconds)  # noqa: ASYNC251 - the very fault that is looked for


def manifest(kind: str = "builtin") -> PluginManifest:
    return PluginManifest.model_validate(
        {
            "manifest": 1,
            "id": "acme/slow",
            "version": "1.0.0",
            "name": "Slow",
            "summary": "Takes its time on the event loop.",
            "license": "MIT",
            "kind": kind,
            "hooks": {"user_creating": {}, "user_updating": {}},
        }
    )


class Watched:
    """A dispatcher with one plugin, and the watch of this test's loop."""

    def __init__(self, folders: dict[Path, str]) -> None:
        self.plugin = Slow()
        self.hooks = Dispatcher(Activations())
        self.hooks.register(self.plugin, manifest())
        self.blocked: asyncio.Queue[Blocked] = asyncio.Queue()
        self.watch = LoopWatch(folders, self.hooks.breaker_of, on_blocked=self.blocked.put_nowait)
        self.context = Context(tenant="acme")

    async def told(self) -> Blocked:
        async with asyncio.timeout(10):
            return await self.blocked.get()


@pytest_asyncio.fixture
async def watched() -> AsyncIterator[Watched]:
    made = Watched({Path(__file__).parent: "acme/slow"})
    made.watch.start()
    yield made
    await made.watch.close()


@pytest.mark.parametrize("hook", ["user_creating", "user_updating"])
async def test_a_plugin_that_blocks_the_loop_is_named_with_its_line(watched: Watched, hook: str) -> None:
    watched.plugin.seconds = 0.5
    await watched.hooks.filter(hook, ANN, watched.context)
    blocked = await watched.told()
    assert blocked.culprit.plugin == "acme/slow"
    assert HERE in blocked.culprit.place
    assert blocked.culprit.place.endswith(f"in {hook}")
    assert blocked.culprit.call is not None
    assert blocked.culprit.call[2].tenant == "acme"
    assert blocked.seconds > 0.1


async def test_blocking_counts_as_failing_though_each_call_ends_well(watched: Watched) -> None:
    watched.plugin.seconds = 0.4
    for _ in range(5):
        await watched.hooks.filter("user_creating", ANN, watched.context)
        await watched.told()
    with pytest.raises(PluginUnavailable) as refused:
        await watched.hooks.filter("user_creating", ANN, watched.context)
    assert refused.value.extra["cause"] == BreakerOpen.code
    other = Context(tenant="globex")
    watched.plugin.seconds = 0.0
    await watched.hooks.filter("user_creating", ANN, other)


async def test_a_good_call_in_between_begins_the_count_anew(watched: Watched) -> None:
    for seconds in (0.4, 0.4, 0.0, 0.4):
        watched.plugin.seconds = seconds
        await watched.hooks.filter("user_creating", ANN, watched.context)
        if seconds:
            await watched.told()
    (impl,) = watched.hooks.ready("acme", "user_creating")
    assert impl.breaker is not None
    assert impl.breaker.failures == 1


async def test_code_outside_a_hook_is_found_by_its_folder_and_feeds_no_breaker(watched: Watched) -> None:
    def handler() -> None:
        time.sleep(0.5)

    asyncio.get_running_loop().call_soon(handler)
    blocked = await watched.told()
    assert blocked.culprit.plugin == "acme/slow"
    assert blocked.culprit.call is None


async def test_what_belongs_to_no_plugin_is_the_platforms() -> None:
    made = Watched({})
    made.watch.start()
    await asyncio.sleep(0.05)
    time.sleep(0.5)  # noqa: ASYNC251 - the very fault that is looked for
    assert (await made.told()).culprit.plugin == PLATFORM
    await made.watch.close()


async def test_the_metric_sums_times_and_seconds_by_plugin(watched: Watched) -> None:
    registry = CollectorRegistry()
    registry.register(watched.watch)
    watched.plugin.seconds = 0.4
    await watched.hooks.filter("user_creating", ANN, watched.context)
    await watched.told()
    text = generate_latest(registry).decode()
    assert 'keelstone_loop_blocks_total{plugin="acme/slow"} 1.0' in text
    assert 'keelstone_loop_blocked_seconds_total{plugin="acme/slow"}' in text


async def test_awaiting_is_not_blocking(watched: Watched) -> None:
    await asyncio.sleep(0.3)
    assert watched.blocked.empty()
