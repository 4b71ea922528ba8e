"""Runs mirrored calls off the request path: a bounded queue, few at a time, effects dropped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from plugin_sdk import KeelstoneError
from plugin_sdk.services import ActivationControl, Effects, GuestCall, GuestResult, GuestUsage, Replay
from plugins.builtin.catalog.upgrades.comparison import Result

logger = logging.getLogger(__name__)
SECONDS = 30.0
"""Longest life of a mirrored call; the plugin's own limits end it sooner."""
Compared = Callable[[str, GuestCall, Result, Result | None], None]
"""Takes the upgrade's id, the answered call, what it came to, and what its mirror came to (None: not run)."""


class Mirror:
    """Mirrored calls wait in a queue of ``longest``; what does not fit is counted and left out, for a
    shadow must never slow down the calls that somebody waits for."""

    def __init__(self, control: ActivationControl, done: Compared, *, longest: int = 256, workers: int = 2) -> None:
        self._control = control
        self._done = done
        self._longest = longest
        self._workers = workers
        self._queue: asyncio.Queue[tuple[str, GuestCall, Result, GuestCall]] = asyncio.Queue(longest)
        self._tasks: list[asyncio.Task[None]] = []

    def offer(self, upgrade: str, call: GuestCall, result: Result, twin: GuestCall) -> None:
        """Take note of a call that was answered. On the request path: never waits."""
        try:
            self._queue.put_nowait((upgrade, call, result, twin))
        except asyncio.QueueFull:
            self._done(upgrade, call, result, None)

    def start(self) -> None:
        """Begin to run mirrored calls."""
        self._tasks = [asyncio.create_task(self._work(), name=f"shadow-{n}") for n in range(self._workers)]

    async def stop(self) -> None:
        """End the calls under way."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def settled(self) -> None:
        """Return once every call offered so far has been run."""
        await self._queue.join()

    async def _work(self) -> None:
        while True:
            upgrade, call, result, twin = await self._queue.get()
            try:
                self._done(upgrade, call, result, await self._run(result, twin))
            except Exception:
                logger.exception("a mirrored call of %s could not be compared", call.plugin)
            finally:
                self._queue.task_done()

    async def _run(self, live: Result, twin: GuestCall) -> Result:
        if twin.hook not in twin.manifest.hooks:
            # The new version has no opinion here: that is what its tenants would get.
            return GuestResult("{}", Effects(), GuestUsage(0, 0, 0, 0))
        recording = getattr(live, "recording", ())
        # The request is over, and its deadline with it.
        context = replace(twin.context, deadline=time.monotonic() + SECONDS)
        try:
            return await self._control.rehearse(replace(twin, context=context, replay=Replay(recording, strict=False)))
        except KeelstoneError as error:
            return error
