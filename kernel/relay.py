"""The relay: hands committed events to the bus, in order, at least once.

One process relays at a time (a lease that ends by itself); the others stand by. Should two overlap for a
moment, order still holds: each goes on from a stored checkpoint without gaps, so the first copy of an
event always comes after the first copy of the one before, and consumers skip second copies.
"""

from __future__ import annotations

import asyncio
import logging
import time

import orjson

from kernel.context import new_id
from kernel.errors import BackendUnavailable
from kernel.events import Event, to_cloudevent
from kernel.ports import Bus, BusMessage, Checkpoints, EventStore, Leases, VolatileBus

_log = logging.getLogger(__name__)

Cursor = tuple[int, int]

# After a wake-up without a result: another transaction, older than the commit that woke us, is still open.
_SOON = (0.01, 0.03, 0.1)


class Relay:
    """Event store -> bus. Call :meth:`wake` after a commit that stored events; it looks every ``poll``
    seconds anyway, for other processes' commits. Times in seconds."""

    def __init__(
        self,
        events: EventStore,
        bus: Bus,
        checkpoints: Checkpoints,
        leases: Leases,
        *,
        name: str = "relay",
        poll: float = 0.25,
        lease: float = 3.0,
        batch: int = 500,
        save_every: float = 0.5,
    ) -> None:
        self._events = events
        self._bus = bus
        self._checkpoints = checkpoints
        self._leases = leases
        self._name = name
        self._holder = new_id()
        self._poll = poll
        self._lease = lease
        self._batch = batch
        self._save_every = save_every
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._leading_until = 0.0
        self._cursor: Cursor = (0, 0)
        self._saved: Cursor = (0, 0)
        self._saved_at = 0.0
        self._settling: asyncio.Task[Cursor] | None = None
        self._open = True

    @property
    def leading(self) -> bool:
        """Whether this process is the one that relays now."""
        return time.monotonic() < self._leading_until

    def wake(self) -> None:
        """Look for events now."""
        self._news.set()

    async def start(self) -> None:
        """Begin to relay, or to stand by."""
        self._keeper = asyncio.create_task(self._keep_lease(), name="keelstone-relay-lease")
        self._task = asyncio.create_task(self._run(), name="keelstone-relay")

    async def close(self) -> None:
        """Stop, save how far it came and give the lease up."""
        self._open = False
        tasks = [task for task in (self._task, self._keeper, self._settling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.leading:
            self._leading_until = 0.0
            try:
                if not isinstance(self._bus, VolatileBus):
                    await self._save(self._cursor)
                await self._leases.release(self._name, self._holder)
            except BackendUnavailable as error:
                _log.warning("The relay could not save its checkpoint; some events will be sent again: %s", error)

    async def _keep_lease(self) -> None:
        while self._open:
            try:
                began = time.monotonic()
                if await self._leases.acquire(self._name, self._holder, self._lease):
                    if not self.leading:
                        self._cursor = self._saved = await self._checkpoints.load(self._name)
                        self._settling = None
                        _log.debug("This process relays events, from %s.", self._cursor)
                    self._leading_until = began + self._lease
                    self._news.set()
                else:
                    self._leading_until = 0.0
            except BackendUnavailable as error:
                _log.warning("The relay's lease can't be kept: %s", error)
            await asyncio.sleep(self._lease / 3)

    async def _run(self) -> None:
        quiet = 0
        while self._open:
            try:
                full = self.leading and await self._pass()
            except BackendUnavailable as error:
                _log.warning("The relay waits for a backend: %s", error)
                full = False
                await asyncio.sleep(1.0)
            except Exception:
                _log.exception("The relay failed and goes on.")
                full = False
                await asyncio.sleep(1.0)
            if full:
                quiet = 0
                continue
            pause = _SOON[quiet] if quiet < len(_SOON) else self._poll
            if await self._woken(pause):
                quiet = 0
            else:
                quiet += 1

    async def _woken(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            return False
        self._news.clear()
        return True

    async def _pass(self) -> bool:
        """Relay one batch; whether there may be more at once."""
        events, cursor = await self._events.read_committed(after=self._cursor, limit=self._batch)
        if events:
            await self._bus.publish([to_message(event) for event in events])
            self._cursor = cursor
        await self._remember(idle=not events)
        return len(events) == self._batch

    async def _remember(self, *, idle: bool) -> None:
        due = time.monotonic() - self._saved_at >= self._save_every
        if isinstance(self._bus, VolatileBus):
            await self._remember_settled(self._bus)
        elif self._cursor != self._saved and (idle or due):
            await self._save(self._cursor)

    async def _remember_settled(self, bus: VolatileBus) -> None:
        if self._settling is not None and self._settling.done():
            settled = self._settling.result()
            self._settling = None
            await self._save(settled)
        if self._settling is None and self._cursor != self._saved:
            self._settling = asyncio.create_task(_when_settled(bus, self._cursor), name="keelstone-relay-settling")

    async def _save(self, cursor: Cursor) -> None:
        await self._checkpoints.save(self._name, cursor)
        self._saved, self._saved_at = cursor, time.monotonic()


async def _when_settled(bus: VolatileBus, cursor: Cursor) -> Cursor:
    await bus.settled()
    return cursor


def to_message(event: Event) -> BusMessage:
    """The event as the bus carries it: a CloudEvents document, ordered by tenant and stream."""
    return BusMessage(key=event.sequence, id=event.id, value=orjson.dumps(to_cloudevent(event)))
