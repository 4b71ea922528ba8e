"""The bus on Redis Streams.

Messages go to a fixed number of partition streams by hash of their key. In a consumer group each partition
has one owner at a time (a lock that ends by itself), because a group that spread one stream over several
consumers would lose the order by key. Owners are balanced over the group's live members by a heartbeat.
A new owner first claims what a dead one had taken and not acknowledged (XAUTOCLAIM), then reads on. Groups
begin at 0, entries are acknowledged after the handler, and trimming stays below every group's position.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kernel.adapters.redis_streams import StreamGroup, StreamListener, entry_id, redis_errors
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import BusHandler, BusMessage
from kernel.resilience import Backoff


class RedisBus:
    """``kernel.ports.Bus`` on Redis 6.2 or later. ``lock_seconds`` bounds how long a dead process's
    partitions rest; ``retain_seconds`` is how long entries stay for groups that come later."""

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "keelstone",
        partitions: int = 8,
        lock_seconds: float = 4.5,
        retain_seconds: float = 3_600.0,
        redelivery: Backoff | None = None,
    ) -> None:
        self.client = client
        self.prefix = prefix
        self.partitions = partitions
        self.lock_seconds = lock_seconds
        self.retain_seconds = retain_seconds
        self.redelivery = redelivery
        self._subscriptions: list[StreamGroup | StreamListener] = []
        self._open = False

    @classmethod
    def from_url(cls, url: str) -> RedisBus:
        """The bus at ``redis://host:port/0[?prefix=...&partitions=...]``. Raises ConfigurationError."""
        try:
            from redis import asyncio as redis
        except ImportError as error:
            raise ConfigurationError(
                "A bus on Redis needs a client that is not installed.",
                fix='Install the extra: pip install "keelstone[redis]".',
            ) from error
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        try:
            prefix, partitions = query.pop("prefix", "keelstone"), int(query.pop("partitions", "8"))
            client = redis.Redis.from_url(
                urlunsplit(parts._replace(query=urlencode(query))),
                socket_timeout=10,
                socket_connect_timeout=5,
                health_check_interval=0,
                protocol=2,
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                "KEELSTONE_BUS_URL is not a usable Redis address.",
                expected="redis://host:port/0[?prefix=...&partitions=...]",
                found=str(error),
            ) from error
        return cls(client, prefix=prefix, partitions=partitions)

    # ------------------------------------------------------------------ names

    def stream(self, partition: int) -> str:
        """The stream of a partition."""
        return f"{self.prefix}:events:{partition}"

    def partition_of(self, key: str) -> int:
        """Where messages of a key go; the same in every process and version."""
        return zlib.crc32(key.encode()) % self.partitions

    # ------------------------------------------------------------------ Bus

    async def start(self) -> None:
        """Connect. Raises BackendUnavailable; ConfigurationError if others use another number of partitions."""
        self._open = True
        await self.ping()
        name = f"{self.prefix}:partitions"
        await self.client.set(name, self.partitions, nx=True)
        found = int(await self.client.get(name))
        if found != self.partitions:
            raise ConfigurationError(
                "The bus on Redis has another number of partitions, and order by key hangs on it.",
                expected=str(found),
                found=str(self.partitions),
                fix=f"Set partitions={found}, or choose another prefix.",
            )

    async def close(self) -> None:
        """Stop every subscription and disconnect."""
        for subscription in list(self._subscriptions):
            await subscription.close()
        self._open = False
        await self.client.aclose()

    async def ping(self) -> None:
        """Raises BackendUnavailable if Redis does not answer."""
        self._check_open()
        try:
            await self.client.ping()
        except redis_errors() as error:
            raise self.unavailable(error) from error

    async def publish(self, messages: Sequence[BusMessage]) -> None:
        """Append messages to their streams, all or none. Raises BackendUnavailable."""
        self._check_open()
        if not messages:
            return
        try:
            async with self.client.pipeline(transaction=True) as pipe:
                for message in messages:
                    fields = {"k": message.key, "i": message.id, "v": message.value}
                    pipe.xadd(self.stream(self.partition_of(message.key)), cast(Any, fields))
                await pipe.execute()
        except redis_errors() as error:
            raise self.unavailable(error) from error

    async def consume(self, group: str, handler: BusHandler) -> StreamGroup:
        """Share the work of ``group``. Raises BackendUnavailable."""
        subscription = StreamGroup(self, group, handler)
        try:
            await subscription.start()
        except redis_errors() as error:
            raise self.unavailable(error) from error
        self._subscriptions.append(subscription)
        return subscription

    async def listen(self, handler: BusHandler) -> StreamListener:
        """Get every message from now on. Raises BackendUnavailable."""
        listener = StreamListener(self, handler)
        try:
            await listener.start()
        except redis_errors() as error:
            raise self.unavailable(error) from error
        self._subscriptions.append(listener)
        return listener

    def _check_open(self) -> None:
        # The client would quietly connect again.
        if not self._open:
            raise BackendUnavailable("The bus on Redis is not started.", fix="Call start() first.")

    def forget(self, subscription: StreamGroup | StreamListener) -> None:
        """A subscription was closed."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def unavailable(self, error: Exception) -> BackendUnavailable:
        """The clear error for a Redis that does not answer."""
        return BackendUnavailable(
            "The bus on Redis does not answer.",
            found=f"{type(error).__name__}: {error}",
            fix="Start it, or correct KEELSTONE_BUS_URL.",
        )

    async def trim(self, partition: int) -> int:
        """Delete entries that every group is done with and that are old enough; how many."""
        stream = self.stream(partition)
        below = (int((time.time() - self.retain_seconds) * 1000), 0)
        groups = await self.client.xinfo_groups(stream)
        if not groups:
            return 0
        for group in groups:
            name = group["name"]
            pending = await self.client.xpending(stream, name)
            position = pending["min"] if pending["pending"] else group["last-delivered-id"]
            below = min(below, entry_id(position))
        return int(await self.client.xtrim(stream, minid=f"{below[0]}-{below[1]}", approximate=False))
