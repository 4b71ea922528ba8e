"""Runs a bus handler: messages of one key one after the other, different keys side by side.

A message whose handler raises is handed over again after a growing pause, and nothing later of its key
overtakes it. All three buses use this one class, so the promise is made in one place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from kernel.ports import BusHandler, BusMessage
from kernel.resilience import Backoff

_log = logging.getLogger(__name__)


Done = Callable[[BusMessage, Any], Awaitable[None]]


class KeyedRunner:
    """``done(message, token)`` is awaited after the handler has returned: the place to acknowledge.

    At most ``concurrency`` handlers run at once. :meth:`room` waits while ``backlog`` messages are under
    way, so that a fast bus can't fill the memory.
    """

    def __init__(
        self,
        handler: BusHandler,
        done: Done,
        *,
        concurrency: int = 16,
        backlog: int = 1_000,
        redelivery: Backoff | None = None,
    ) -> None:
        self._handler = handler
        self._done = done
        self._slots = asyncio.Semaphore(concurrency)
        self._backlog = backlog
        self._redelivery = redelivery or Backoff()
        self._queues: dict[str, deque[tuple[BusMessage, Any]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._under_way = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def under_way(self) -> int:
        """Messages submitted and not done."""
        return self._under_way

    async def room(self) -> None:
        """Wait until there is room for one more message."""
        while self._under_way >= self._backlog:
            self._room.clear()
            await self._room.wait()

    def put(self, message: BusMessage, token: Any = None) -> None:
        """Take a message over. Call :meth:`room` first."""
        self._under_way += 1
        queue = self._queues.get(message.key)
        if queue is not None:
            queue.append((message, token))
            return
        self._queues[message.key] = deque([(message, token)])
        self._tasks[message.key] = asyncio.create_task(self._run(message.key), name=f"bus {message.key}")

    async def drop(self, keys: Callable[[BusMessage, Any], bool], *, grace: float = 0.0) -> None:
        """Stop work on the messages that ``keys`` selects; those not done stay unacknowledged.

        Handlers under way get ``grace`` seconds to finish; then they are cancelled.
        """
        hit = []
        for key, queue in list(self._queues.items()):
            if queue and keys(*queue[0]):
                hit.append(key)
                while len(queue) > 1:
                    queue.pop()
                    self._finished()
        tasks = [self._tasks[key] for key in hit if key in self._tasks]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, *, grace: float = 0.0) -> None:
        """Stop everything; what is not done stays unacknowledged."""
        await self.drop(lambda _, __: True, grace=grace)

    async def _run(self, key: str) -> None:
        queue = self._queues[key]
        try:
            while queue:
                message, token = queue[0]
                await self._insist(message, "handling", partial(self._handle, message))
                await self._insist(message, "acknowledging", partial(self._done, message, token))
                queue.popleft()
                self._finished()
        finally:
            for _ in range(len(queue)):
                self._finished()
            del self._queues[key]
            del self._tasks[key]

    async def _handle(self, message: BusMessage) -> None:
        async with self._slots:
            await self._handler(message)

    async def _insist(self, message: BusMessage, what: str, act: Callable[[], Awaitable[None]]) -> None:
        attempt = 0
        while True:
            try:
                await act()
                return
            except Exception as error:
                attempt += 1
                pause = self._redelivery.pause(attempt)
                _log.warning(
                    "%s message %s of %s failed (attempt %d), again in %.2f s: %s",
                    what.capitalize(),
                    message.id,
                    message.key,
                    attempt,
                    pause,
                    error,
                    exc_info=attempt == 1,
                )
                await asyncio.sleep(pause)

    def _finished(self) -> None:
        self._under_way -= 1
        if self._under_way < self._backlog:
            self._room.set()
