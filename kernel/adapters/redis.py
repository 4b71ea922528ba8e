"""The bus on Redis Streams.

Messages go to a fixed number of partition streams by hash of their key. In a consumer group each partition
has one owner at a time (a lock that ends by itself), because a group that spread one stream over several
consumers would lose the order by key. Owners are balanced over the group's live members by a heartbeat.
A new owner first claims what a dead one had taken and not acknowledged (XAUTOCLAIM), then reads on. Groups
begin at 0, entries are acknowledged after the handler, and trimming stays below every group's position.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kernel.adapters.keyed import KeyedRunner, Redelivery
from kernel.context import new_id
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import BusHandler, BusMessage

_log = logging.getLogger(__name__)

BLOCK_MS = 500
"""How long a read waits at the server. Far below the locks' life, so that no read outlives its lock."""

_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


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
        redelivery: Redelivery | None = None,
    ) -> None:
        self.client = client
        self.prefix = prefix
        self.partitions = partitions
        self.lock_seconds = lock_seconds
        self.retain_seconds = retain_seconds
        self.redelivery = redelivery
        self._subscriptions: list[_Group | _Listener] = []
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
        except _errors() as error:
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
        except _errors() as error:
            raise self.unavailable(error) from error

    async def consume(self, group: str, handler: BusHandler) -> _Group:
        """Share the work of ``group``. Raises BackendUnavailable."""
        subscription = _Group(self, group, handler)
        try:
            await subscription.start()
        except _errors() as error:
            raise self.unavailable(error) from error
        self._subscriptions.append(subscription)
        return subscription

    async def listen(self, handler: BusHandler) -> _Listener:
        """Get every message from now on. Raises BackendUnavailable."""
        listener = _Listener(self, handler)
        try:
            await listener.start()
        except _errors() as error:
            raise self.unavailable(error) from error
        self._subscriptions.append(listener)
        return listener

    def _check_open(self) -> None:
        # The client would quietly connect again.
        if not self._open:
            raise BackendUnavailable("The bus on Redis is not started.", fix="Call start() first.")

    def forget(self, subscription: _Group | _Listener) -> None:
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
            below = min(below, _id(position))
        return int(await self.client.xtrim(stream, minid=f"{below[0]}-{below[1]}", approximate=False))


class _Group:
    """One process's membership in a consumer group."""

    def __init__(self, bus: RedisBus, name: str, handler: BusHandler) -> None:
        self._bus = bus
        self._name = name
        self._member = new_id()
        self._owned: set[int] = set()
        self._runner = KeyedRunner(handler, self._acknowledge, redelivery=bus.redelivery)
        self._tasks: list[asyncio.Task[None]] = []
        self._round = asyncio.Event()
        self._wanted = asyncio.Event()
        self._trimmed = time.monotonic()
        self._open = True

    async def start(self) -> None:
        await self._make_groups()
        await self._balance()
        self._tasks = [
            asyncio.create_task(self._heartbeat(), name=f"redis group {self._name} heartbeat"),
            asyncio.create_task(self._read(), name=f"redis group {self._name}"),
        ]

    async def close(self) -> None:
        self._bus.forget(self)
        # The client can swallow a cancellation while it connects, so the loops look at this too.
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.close()
        try:
            await self._bus.client.zrem(self._members_key, self._member)
            for partition in sorted(self._owned):
                await self._unlock(partition)
        except _errors() as error:
            _log.warning("Partitions of group %s were not handed back; their locks will end: %s", self._name, error)
        self._owned.clear()

    # ------------------------------------------------------------------ ownership

    @property
    def _members_key(self) -> str:
        return f"{self._bus.prefix}:members:{self._name}"

    def _lock_key(self, partition: int) -> str:
        return f"{self._bus.prefix}:owner:{self._name}:{partition}"

    async def _heartbeat(self) -> None:
        while self._open:
            await asyncio.sleep(self._bus.lock_seconds / 4)
            try:
                await self._balance()
                await self._trim()
            except _errors() as error:
                _log.warning("Redis group %s: %s", self._name, error)
                await self._lose(self._owned)

    async def _balance(self) -> None:
        client, seconds = self._bus.client, self._bus.lock_seconds
        clock = await client.time()
        now = clock[0] + clock[1] / 1e6
        await client.zadd(self._members_key, {self._member: now + seconds})
        await client.zremrangebyscore(self._members_key, "-inf", now)
        members = sorted(_text(m) for m in await client.zrange(self._members_key, 0, -1))
        mine = {p for p in range(self._bus.partitions) if members[p % len(members)] == self._member}
        millis = int(seconds * 1000)
        lost = {
            p for p in self._owned if not await client.eval(_RENEW, 1, self._lock_key(p), self._member, str(millis))
        }
        await self._lose(lost)
        given = self._owned - mine
        if given:
            await self._give(given)
        for partition in sorted(mine - self._owned):
            if await client.set(self._lock_key(partition), self._member, nx=True, px=millis):
                await self._reclaim(partition)
                self._owned.add(partition)
        if self._owned:
            self._wanted.set()

    async def _lose(self, partitions: Iterable[int]) -> None:
        """Somebody else owns them now: stop at once."""
        gone = set(partitions)
        if gone:
            self._owned -= gone
            await self._runner.drop(lambda _, token: token[0] in gone)

    async def _give(self, partitions: set[int]) -> None:
        """Hand partitions over: read no more, let handlers finish, unlock."""
        self._owned -= partitions
        self._round.clear()
        if self._tasks:
            try:
                await asyncio.wait_for(self._round.wait(), 4 * BLOCK_MS / 1000)
            except TimeoutError:
                _log.warning("Redis group %s gives partitions away while its reader is held up.", self._name)
        await self._runner.drop(lambda _, token: token[0] in partitions, grace=self._bus.lock_seconds / 4)
        for partition in partitions:
            await self._unlock(partition)

    async def _unlock(self, partition: int) -> None:
        await self._bus.client.eval(_RELEASE, 1, self._lock_key(partition), self._member)

    async def _reclaim(self, partition: int) -> None:
        """Take over what earlier owners had not acknowledged, before anything new."""
        stream, start = self._bus.stream(partition), "0-0"
        while True:
            answer = await self._bus.client.xautoclaim(
                stream, self._name, self._member, min_idle_time=0, start_id=start, count=500
            )
            start = _text(answer[0])
            for entry, fields in answer[1]:
                if fields:
                    await self._runner.room()
                    self._runner.put(_message(fields), (partition, entry))
            if start == "0-0":
                return

    # ------------------------------------------------------------------ reading

    async def _make_groups(self) -> None:
        for partition in range(self._bus.partitions):
            try:
                await self._bus.client.xgroup_create(self._bus.stream(partition), self._name, id="0", mkstream=True)
            except _response_error() as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _read(self) -> None:
        while self._open:
            try:
                if not self._owned:
                    self._wanted.clear()
                    self._round.set()
                    await self._wanted.wait()
                    continue
                streams = {self._bus.stream(p): ">" for p in self._owned}
                answer = await self._bus.client.xreadgroup(
                    self._name, self._member, cast(Any, streams), count=100, block=BLOCK_MS
                )
                for stream, entries in answer or ():
                    partition = int(_text(stream).rpartition(":")[2])
                    for entry, fields in entries:
                        await self._runner.room()
                        # The partition may have gone while we waited; its next owner claims the entry.
                        if partition in self._owned:
                            self._runner.put(_message(fields), (partition, entry))
                self._round.set()
            except _errors() as error:
                _log.warning("Redis group %s can't read: %s", self._name, error)
                await asyncio.sleep(0.5)
                if "NOGROUP" in str(error):
                    await self._recreate()

    async def _recreate(self) -> None:
        try:
            await self._make_groups()
        except _errors() as error:
            _log.warning("Redis group %s can't be made again: %s", self._name, error)

    async def _acknowledge(self, _: BusMessage, token: tuple[int, Any]) -> None:
        await self._bus.client.xack(self._bus.stream(token[0]), self._name, token[1])

    async def _trim(self) -> None:
        if time.monotonic() - self._trimmed < 30:
            return
        self._trimmed = time.monotonic()
        for partition in sorted(self._owned):
            await self._bus.trim(partition)


class _Listener:
    """Every message from now on, for one process."""

    def __init__(self, bus: RedisBus, handler: BusHandler) -> None:
        self._bus = bus
        self._handler = handler
        self._at: dict[str, str] = {}
        self._open = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # `$` would be resolved by the first read, after we have returned: fix the end now.
        for partition in range(self._bus.partitions):
            stream = self._bus.stream(partition)
            try:
                self._at[stream] = _text((await self._bus.client.xinfo_stream(stream))["last-generated-id"])
            except _response_error():
                self._at[stream] = "0-0"
        self._task = asyncio.create_task(self._run(), name="redis listener")

    async def close(self) -> None:
        self._bus.forget(self)
        self._open = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._open:
            try:
                answer = await self._bus.client.xread(cast(Any, self._at), count=200, block=BLOCK_MS)
            except _errors() as error:
                _log.warning("A Redis listener can't read: %s", error)
                await asyncio.sleep(0.5)
                continue
            for stream, entries in answer or ():
                for entry, fields in entries:
                    self._at[_text(stream)] = _text(entry)
                    await self._hand(_message(fields))

    async def _hand(self, message: BusMessage) -> None:
        try:
            await self._handler(message)
        except Exception:
            _log.exception("A listener failed on message %s.", message.id)


def _message(fields: Any) -> BusMessage:
    return BusMessage(key=_text(fields[b"k"]), id=_text(fields[b"i"]), value=bytes(fields[b"v"]))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _id(value: Any) -> tuple[int, int]:
    millis, _, number = _text(value).partition("-")
    return int(millis), int(number or 0)


def _errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return (RedisError, OSError)


def _response_error() -> type[Exception]:
    from redis.exceptions import ResponseError

    return ResponseError
