"""The bus inside one process: the embedded default.

It forgets when the process ends, and says so (``kernel.ports.VolatileBus``): the relay then moves its
checkpoint only past what every group has handled, so that nothing committed is lost. Messages stay for
groups that come later, ``retain`` of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence

from kernel.adapters.keyed import KeyedRunner
from kernel.errors import BackendUnavailable
from kernel.ports import BusHandler, BusMessage
from kernel.resilience import Backoff

_log = logging.getLogger(__name__)


class _Group:
    """What one group has still to do, in order of arrival."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: deque[tuple[int, BusMessage]] = deque()
        self.pending: dict[int, BusMessage] = {}
        self.members: list[_Member] = []
        self.turn = 0

    def add(self, number: int, message: BusMessage) -> None:
        self.pending[number] = message
        self.waiting.append((number, message))

    @property
    def settled_below(self) -> int | None:
        """The lowest number not handled yet, or None if all are."""
        return next(iter(self.pending), None)


class _Member:
    def __init__(self, bus: MemoryBus, group: _Group, handler: BusHandler) -> None:
        self._bus = bus
        self._group = group
        self.runner = KeyedRunner(handler, self._done, redelivery=bus.redelivery)
        self._news = asyncio.Event()
        self._news.set()
        self._task = asyncio.create_task(self._feed(), name=f"bus group {group.name}")

    def wake(self) -> None:
        self._news.set()

    async def _feed(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            # In one process one member per group takes everything: order by key is then simple, and keys
            # run side by side anyway.
            while self._group.waiting and self._group.members[0] is self:
                await self.runner.room()
                number, message = self._group.waiting.popleft()
                self.runner.put(message, number)

    async def _done(self, _: BusMessage, number: int) -> None:
        self._group.pending.pop(number, None)
        self._bus.settle()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.runner.close()
        group = self._group
        if self in group.members:
            first = group.members[0] is self
            group.members.remove(self)
            if first:
                # What this member had taken and not finished is the next one's, in the old order.
                group.waiting = deque(sorted(group.pending.items()))
                if group.members:
                    group.members[0].wake()


class _Listener:
    def __init__(self, handler: BusHandler, forget: Callable[[_Listener], None]) -> None:
        self._handler = handler
        self._forget = forget
        self._queue: asyncio.Queue[BusMessage] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name="bus listener")

    def put(self, message: BusMessage) -> None:
        self._queue.put_nowait(message)

    async def _run(self) -> None:
        while True:
            message = await self._queue.get()
            try:
                await self._handler(message)
            except Exception:
                _log.exception("A listener failed on message %s.", message.id)

    async def close(self) -> None:
        # Twice does no harm: a closing bus closes its listeners before their owner does.
        with contextlib.suppress(ValueError):
            self._forget(self)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class MemoryBus:
    """``kernel.ports.Bus`` without a server."""

    def __init__(self, *, retain: int = 10_000, redelivery: Backoff | None = None) -> None:
        self.redelivery = redelivery or Backoff()
        self._log: deque[tuple[int, BusMessage]] = deque(maxlen=retain)
        self._groups: dict[str, _Group] = {}
        self._listeners: list[_Listener] = []
        self._last = 0
        self._open = False
        self._settled: list[tuple[int, asyncio.Future[None]]] = []

    async def start(self) -> None:
        """Begin to take messages."""
        self._open = True

    async def close(self) -> None:
        """Stop every subscription; what is not handled is forgotten."""
        self._open = False
        for group in self._groups.values():
            for member in list(group.members):
                await member.close()
        for listener in list(self._listeners):
            await listener.close()
        for _, future in self._settled:
            future.cancel()
        self._settled.clear()

    async def ping(self) -> None:
        """Raises BackendUnavailable if the bus is not started."""
        if not self._open:
            raise BackendUnavailable("The bus inside the process is not started.", fix="Call start() first.")

    async def publish(self, messages: Sequence[BusMessage]) -> None:
        """Hand over messages to every group and listener."""
        await self.ping()
        for message in messages:
            self._last += 1
            self._log.append((self._last, message))
            for group in self._groups.values():
                group.add(self._last, message)
            for listener in self._listeners:
                listener.put(message)
        for group in self._groups.values():
            if group.members:
                group.members[0].wake()

    async def consume(self, group: str, handler: BusHandler) -> _Member:
        """Share the work of ``group``; a new group begins at the oldest message kept."""
        await self.ping()
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = _Group(group)
            for number, message in self._log:
                found.add(number, message)
        member = _Member(self, found, handler)
        found.members.append(member)
        return member

    async def listen(self, handler: BusHandler) -> _Listener:
        """Get every message from now on."""
        await self.ping()
        listener = _Listener(handler, self._listeners.remove)
        self._listeners.append(listener)
        return listener

    # ------------------------------------------------------------------ VolatileBus

    async def settled(self) -> None:
        """Return once every message published so far has been handled by every group."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled.append((self._last, future))
        self.settle()
        await future

    def settle(self) -> None:
        """Wake those who wait for messages that are handled by now."""
        if not self._settled:
            return
        lowest = [low for group in self._groups.values() if (low := group.settled_below) is not None]
        below = min(lowest) if lowest else self._last + 1
        still: list[tuple[int, asyncio.Future[None]]] = []
        for number, future in self._settled:
            if number < below:
                if not future.done():
                    future.set_result(None)
            elif not future.done():
                still.append((number, future))
        self._settled = still
