"""The breakers of a process, by (plugin, version, tenant, hook): kept across restarts, watched, shown.

Nothing here is on the path of a call that goes well: a breaker is made at a first failure and speaks
up only when its state changes. Storing happens in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from kernel.background import Background
from kernel.errors import KeelstoneError
from kernel.ports import BreakerRecord, BreakerStore
from kernel.resilience import Backoff, Breaker

logger = logging.getLogger(__name__)
FORGET_AFTER = 7 * 86_400.0
"""Seconds after its rest that a stored breaker is forgotten at a start: nobody called the plugin since."""
_GATHER = 0.2


class BreakerKey(NamedTuple):
    """Whose breaker it is."""

    plugin: str
    version: str
    tenant: str
    hook: str


BreakerObserver = Callable[[BreakerRecord], None]
"""Told of a breaker's new state. Runs on the event loop and must not block."""


class Breakers:
    """The breakers of one process. ``wall`` gives seconds since the epoch."""

    def __init__(
        self,
        store: BreakerStore | None = None,
        make: Callable[[], Breaker] = Breaker,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._make = make
        self._wall = wall
        self._all: dict[BreakerKey, Breaker] = {}
        self._since: dict[BreakerKey, float] = {}
        self._unsaved: set[BreakerKey] = set()
        self._observers: list[BreakerObserver] = []
        self._news = asyncio.Event()
        self._background = Background(self._run, "keep-breakers")

    def get(self, key: tuple[str, str, str, str]) -> Breaker | None:
        """The breaker, or None if nothing has failed yet."""
        return self._all.get(key)  # type: ignore[call-overload,no-any-return]

    def of(self, key: BreakerKey) -> Breaker:
        """The breaker, made if need be."""
        found = self._all.get(key)
        if found is None:
            found = self._all[key] = self._make()
            found.changed = lambda breaker: self._changed(key, breaker)
        return found

    def watch(self, observer: BreakerObserver) -> None:
        """Call ``observer`` with each breaker that opens, is probed or closes."""
        self._observers.append(observer)

    def states(self, tenant: str | None = None, plugin: str | None = None) -> list[BreakerRecord]:
        """Breakers that are not at peace: open, being probed, or with failures counted."""
        return [
            self._record(key, breaker)
            for key, breaker in sorted(self._all.items())
            if (breaker.state != "closed" or breaker.failures)
            and tenant in (None, key.tenant)
            and plugin in (None, key.plugin)
        ]

    def reset(self, tenant: str, plugin: str) -> int:
        """Close a plugin's breakers for a tenant by hand; how many were open or being probed."""
        mine = [b for k, b in self._all.items() if k.tenant == tenant and k.plugin == plugin]
        open_ones = [b for b in mine if b.state != "closed"]
        for breaker in mine:
            breaker.reset()
        return len(open_ones)

    # ------------------------------------------------------------------ keeping

    async def start(self) -> None:
        """Load what earlier processes kept, and keep changes from now on. Raises BackendUnavailable."""
        if self._store is None:
            return
        for record in await self._store.load():
            rest_left = record.until - self._wall()
            key = BreakerKey(record.plugin, record.version, record.tenant, record.hook)
            if rest_left < -FORGET_AFTER:
                self._unsaved.add(key)
                continue
            self._since[key] = record.since
            breaker = self.of(key)
            breaker.resume(record.wait, rest_left, record.failures, record.openings, record.error)
        self._news.set()
        self._background.start()

    async def stop(self) -> None:
        """Stop, and save what is not saved yet."""
        await self._background.stop()
        try:
            await self.save()
        except KeelstoneError:
            logger.exception("breakers could not be kept for the next start")

    async def save(self) -> None:
        """Store what changed. Raises BackendUnavailable; what was not stored is tried again."""
        taken, self._unsaved = self._unsaved, set()
        if self._store is None or not taken:
            return
        records = []
        for key in taken:
            breaker = self._all.get(key)
            gone = BreakerRecord(key.plugin, key.version, key.tenant, key.hook, "closed")
            records.append(gone if breaker is None else self._record(key, breaker))
        try:
            await self._store.save(records)
        except BaseException:
            self._unsaved |= taken
            raise

    async def _run(self) -> None:
        backoff, failed = Backoff(first=0.5, most=30.0), 0
        while True:
            await self._news.wait()
            await asyncio.sleep(_GATHER)
            self._news.clear()
            try:
                await self.save()
                failed = 0
            except KeelstoneError as error:
                failed += 1
                logger.warning("breakers could not be stored (tried again): %s", error)
                await asyncio.sleep(backoff.pause(failed))
                self._news.set()

    # ------------------------------------------------------------------ inside

    def _changed(self, key: BreakerKey, breaker: Breaker) -> None:
        if breaker.state == "open":
            self._since.setdefault(key, self._wall())
        record = self._record(key, breaker)
        if breaker.state == "closed":
            self._since.pop(key, None)
        if breaker.state != "half_open":
            self._unsaved.add(key)
            self._news.set()
        for observer in self._observers:
            try:
                observer(record)
            except Exception:
                logger.exception("an observer of breakers failed", extra={"plugin": key.plugin})

    def _record(self, key: BreakerKey, breaker: Breaker) -> BreakerRecord:
        now = self._wall()
        return BreakerRecord(
            plugin=key.plugin,
            version=key.version,
            tenant=key.tenant,
            hook=key.hook,
            state=breaker.state,
            failures=breaker.failures,
            openings=breaker.openings,
            wait=breaker.wait,
            until=now + breaker.rest_left,
            since=self._since.get(key, now),
            error=breaker.error,
        )
