"""The platform's guest process: started when it is needed, started anew when it is gone, ended when nobody needs it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path

from kernel.ports import GuestCall
from kernel.settings import Settings
from sandbox.engine import EngineShape
from sandbox.errors import SandboxError
from sandbox.guest_process import wire
from sandbox.guest_process.link import Link, Ran, shutting_down
from sandbox.hostcalls import HostServices
from sandbox.policy import EffectiveLimits, Pace
from sandbox.shelf import lane_of, metering

MOST_SLOTS = 64
"""Instances alive at once in there: those of guests that nobody knows yet."""
IDLE_SECONDS = 60.0
"""Without a call, after which the process is ended."""
START_SECONDS = 60.0

_log = logging.getLogger("keelstone.sandbox")


class GuestProcess:
    """Runs calls in a process of its own, which is started by the first and ends when there are none for a while."""

    def __init__(self, settings: Settings, artifacts: Path, services: HostServices) -> None:
        shape = EngineShape.of(settings)
        self._begin = wire.Begin(
            str(artifacts.resolve()),
            min(shape.slots, MOST_SLOTS),
            shape.memory_mb,
            shape.threads,
            lane_of(settings),
            metering(settings),
        )
        self._services = services
        self._numbers = itertools.count(1)
        self._link: Link | None = None
        self._starting: asyncio.Task[Link] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, call: GuestCall, limits: EffectiveLimits, pace: Pace) -> Ran:
        """Run one call. Raises SandboxError where there is no process to run it in."""
        link = self._link
        if link is None or link.ended:
            link = await self._started()
        self._stay()
        try:
            return await link.run(next(self._numbers), call, limits, pace)
        finally:
            self._rest(link)

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _rest(self, link: Link) -> None:
        if not link.busy and self._idle is None and not self._closed:
            self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_idle, link)

    def _end_idle(self, link: Link) -> None:
        self._idle = None
        if link is self._link and not link.busy:
            self._link = None
            leaving = asyncio.get_running_loop().create_task(link.close())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def expect(self) -> None:
        """Guests are about to be called: be ready for them. Nothing is waited for."""
        if (self._link is None or self._link.ended) and not self._closed:
            self._begin_start().add_done_callback(_look_at)

    def _begin_start(self) -> asyncio.Task[Link]:
        if self._starting is None or self._starting.done():
            self._starting = asyncio.get_running_loop().create_task(self._start())
        return self._starting

    async def _started(self) -> Link:
        starting = self._begin_start()
        # Whoever gives up leaves it to the others that wait, and to the next.
        await asyncio.wait([starting])
        if starting.cancelled():
            raise shutting_down()
        return starting.result()

    async def _start(self) -> Link:
        if self._closed:
            raise shutting_down()
        try:
            async with asyncio.timeout(START_SECONDS):
                link = await Link.open(self._begin, self._services)
        except (OSError, TimeoutError, wire.Garbled) as error:
            raise SandboxError(
                "The process that guests run in at first could not be started.",
                expected=f"a process that is ready within {START_SECONDS:.0f} s",
                found=f"{type(error).__name__}: {error}",
                fix="Look at the platform's log. KEELSTONE_SANDBOX_GUEST_PROCESS=false runs such guests in the "
                "platform's own process, where one that floods the host slows everybody.",
            ) from error
        self._link = link
        self._stay()
        self._rest(link)
        return link

    def forget(self, digest: str) -> None:
        """Let go of a component."""
        if self._link is not None and not self._link.ended:
            self._link.send(wire.Forget(digest))

    async def close(self) -> None:
        """End the process, and with it the calls in it."""
        self._closed = True
        self._stay()
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
            self._link = None
        await asyncio.gather(*self._leaving)


def _look_at(starting: asyncio.Task[Link]) -> None:
    # Nobody may have waited; the next call tries again and tells its caller.
    if not starting.cancelled() and (error := starting.exception()) is not None:
        _log.warning("%s", error)
