"""The search index of a marketplace with PostgreSQL: the shared copy while it is there, the registry's own otherwise.

One thread of its own keeps the copy up and asks it. The copy answers as long as it was found up to date a moment ago;
if PostgreSQL is away, slow or behind, the registry's own index answers, a warning says so once, and searches do not
wait for PostgreSQL again until it has been reached. Publishing never waits for any of it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Coroutine
from typing import Any

from kernel.errors import ConfigurationError, KeelstoneError
from marketplace.registry.search.feed import Feed
from marketplace.registry.search.port import SearchIndex
from marketplace.registry.search.postgres.finding import WHOLE, bands_of, find, gone
from marketplace.registry.search.postgres.layout import driver, schema_name
from marketplace.registry.search.postgres.projection import Projection
from marketplace.registry.search.query import COUNTED, Facets, facets_among
from plugin_sdk.services import MarketplaceEntry, SearchFilters

POLL_SECONDS = 1.0
"""How often it is looked whether another process has published."""
RETRY_SECONDS = 5.0
LATE_SECONDS = 15.0
"""A copy that was not found up to date for so long does not answer."""
SEARCH_SECONDS = 3.0
BANDS_SECONDS, CHECK_SECONDS = 60.0, 3_600.0
CONNECTIONS = 8
ATTEMPTS = 3
_SESSION = {
    "application_name": "keelstone-search",
    "jit": "off",
    # Each question is planned for its words; reading all rows is never the way.
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "work_mem": "32MB",
    "statement_timeout": str(int(SEARCH_SECONDS * 1_000)),
}
_log = logging.getLogger("keelstone.marketplace.search")


class SharedSearch:
    """Searches in the copy at ``url``, of the registry whose ``feed`` this is and whose first root is ``root``; in
    ``own`` while there is none. Raises ConfigurationError for an address that can't be one."""

    def __init__(self, url: str, feed: Feed, root: bytes, own: SearchIndex) -> None:
        scheme = url.partition("://")[0]
        if scheme not in ("postgresql", "postgres"):
            raise ConfigurationError(
                "KEELSTONE_MARKETPLACE_SEARCH_URL names a database that is not supported.",
                expected="postgresql://user:password@host/db, or nothing for the registry's own index",
                found=scheme if scheme.isalnum() else "an address without a scheme",
            )
        driver()
        self.schema = schema_name(hashlib.sha256(root).hexdigest())
        self.projection = Projection(feed, self.schema)
        self._url, self._own = url, own
        self.position: int | None = None
        """The number of the change up to which the copy had everything when it was last looked at."""
        self._current = float("-inf")
        self._away = "the copy in PostgreSQL is not made yet"
        self._warned = False
        self._bands = WHOLE
        self._pool: Any = None
        self._loop = asyncio.new_event_loop()
        self._woken, self._stopping = asyncio.Event(), False
        self._thread: threading.Thread | None = None

    # -------------------------------------------------------------------------- asking

    def search(self, query: str, limit: int, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """See :class:`marketplace.registry.search.SearchIndex`."""
        if time.monotonic() - self._current < LATE_SECONDS:
            try:
                found = self._wait(self._find(query, limit, filters))
            except Exception as error:
                self._lost(f"{type(error).__name__}: {error}")
            else:
                if found is not None:
                    return found
        return self._own.search(query, limit, filters)

    def facets(self, query: str, filters: SearchFilters | None = None) -> Facets:
        """See :class:`marketplace.registry.search.SearchIndex`."""
        return facets_among(self.search(query, COUNTED, filters))

    @property
    def answered_by(self) -> str:
        """Where searches are answered from now: ``postgresql``, or ``sqlite:`` with the reason."""
        if time.monotonic() - self._current < LATE_SECONDS:
            return "postgresql"
        return f"sqlite: {self._away}"

    def start(self) -> None:
        """Begin to keep the copy up and to ask it; without it, the registry's own index answers everything. For those
        who serve: a command that ends soon has no use for it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="keelstone-search", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Something was published: look at once. From any thread, and without waiting."""
        with contextlib.suppress(RuntimeError):  # it is being closed
            self._loop.call_soon_threadsafe(self._woken.set)

    def close(self) -> None:
        """Stop. What was not replayed yet is when somebody starts again."""

        def stop() -> None:
            self._stopping = True
            for task in asyncio.all_tasks(self._loop):
                task.cancel()

        self._current, self._away = float("-inf"), "it is closed"
        if self._thread is None:
            self._loop.close()
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(stop)
        self._thread.join(10)

    def _wait(self, work: Coroutine[Any, Any, list[MarketplaceEntry] | None]) -> list[MarketplaceEntry] | None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(SEARCH_SECONDS)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError(f"no answer within {SEARCH_SECONDS:.0f} s") from None

    async def _find(self, query: str, limit: int, filters: SearchFilters | None) -> list[MarketplaceEntry] | None:
        pool = self._pool
        if pool is None:
            return None
        for attempt in range(ATTEMPTS):
            try:
                async with pool.acquire() as connection:
                    return await find(connection, self.schema, self._bands, query, limit, filters)
            except Exception as error:
                if not gone(error) or attempt == ATTEMPTS - 1:
                    raise
        return None

    def _lost(self, reason: str) -> None:
        self._current, self._away = float("-inf"), reason
        if not self._warned:
            self._warned = True
            _log.warning("Searches are answered from the registry's own index: PostgreSQL: %s", reason)

    # -------------------------------------------------------------------------- keeping up

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._keep())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _keep(self) -> None:
        while not self._stopping:
            try:
                await self._keep_connected()
            except KeelstoneError as error:
                self._lost(error.detail)
            except Exception as error:
                self._lost(f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_SECONDS)

    async def _keep_connected(self) -> None:
        """Connect and keep the copy up, until something fails."""
        connect = driver()
        keeper = await connect.connect(self._url, timeout=RETRY_SECONDS, server_settings={"jit": "off"})
        try:
            self._pool = await connect.create_pool(
                self._url,
                min_size=0,  # the keeper notices an outage, and the pool would log each attempt
                max_size=CONNECTIONS,
                timeout=SEARCH_SECONDS,
                command_timeout=SEARCH_SECONDS,
                server_settings=_SESSION,
            )
            looked = checked = float("-inf")
            target, noted = 0, time.monotonic()
            while True:
                self._woken.clear()
                now = time.monotonic()
                position, newest = await self.projection.standing(keeper)
                if position is not None and position >= target:
                    if now - checked > CHECK_SECONDS:
                        checked = now
                        if not await self.projection.check(keeper):
                            continue
                    if now - looked > BANDS_SECONDS:
                        looked, self._bands = now, await bands_of(keeper, self.schema)
                    # While others publish, it may be a little behind at every look, and yet never late.
                    self._reached(now if position == newest else noted)
                    self.position = position
                    target, noted = newest, now
                if position == newest or not await self.projection.catch_up(keeper):
                    await self._pause()
        finally:
            pool, self._pool = self._pool, None
            if pool is not None:
                pool.terminate()
            keeper.terminate()

    def _reached(self, moment: float) -> None:
        self._current = moment
        if self._warned and time.monotonic() - moment < LATE_SECONDS:
            self._warned = False
            _log.info("Searches are answered from PostgreSQL again.")

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), POLL_SECONDS)


async def ping(url: str) -> None:
    """Ask the PostgreSQL at ``url`` anything. Raises what it takes, ConfigurationError among it."""
    connection = await driver().connect(url, timeout=SEARCH_SECONDS)
    try:
        await connection.fetchval("SELECT 1", timeout=SEARCH_SECONDS)
    finally:
        connection.terminate()
