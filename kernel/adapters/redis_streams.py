"""Consumer groups and listeners on Redis Streams, for :mod:`kernel.adapters.redis`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from kernel.adapters.keyed import KeyedRunner
from kernel.context import new_id
from kernel.ports import BusHandler, BusMessage

if TYPE_CHECKING:
    from kernel.adapters.redis import RedisBus

_log = logging.getLogger(__name__)

BLOCK_MS = 500
"""How long a read waits at the server. Far below the locks' life, so that no read outlives its lock."""

_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class StreamGroup:
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
        """Join the group and begin to read."""
        await self._make_groups()
        await self._balance()
        self._tasks = [
            asyncio.create_task(self._heartbeat(), name=f"redis group {self._name} heartbeat"),
            asyncio.create_task(self._read(), name=f"redis group {self._name}"),
        ]

    async def close(self) -> None:
        """Leave the group, handing its partitions back."""
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
        except redis_errors() as error:
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
            except redis_errors() as error:
                _log.warning("Redis group %s: %s", self._name, error)
                await self._lose(self._owned)

    async def _balance(self) -> None:
        client, seconds = self._bus.client, self._bus.lock_seconds
        clock = await client.time()
        now = clock[0] + clock[1] / 1e6
        await client.zadd(self._members_key, {self._member: now + seconds})
        await client.zremrangebyscore(self._members_key, "-inf", now)
        members = sorted(as_text(m) for m in await client.zrange(self._members_key, 0, -1))
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
            start = as_text(answer[0])
            for entry, fields in answer[1]:
                if fields:
                    # Not waiting for room: no owner took more than its own backlog, and waiting here would
                    # hold up the heartbeat until the locks ended.
                    self._runner.put(to_message(fields), (partition, entry))
            if start == "0-0":
                return

    # ------------------------------------------------------------------ reading

    async def _make_groups(self) -> None:
        for partition in range(self._bus.partitions):
            try:
                await self._bus.client.xgroup_create(self._bus.stream(partition), self._name, id="0", mkstream=True)
            except response_error() as error:
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
                    partition = int(as_text(stream).rpartition(":")[2])
                    for entry, fields in entries:
                        await self._runner.room()
                        # The partition may have gone while we waited; its next owner claims the entry.
                        if partition in self._owned:
                            self._runner.put(to_message(fields), (partition, entry))
                self._round.set()
            except redis_errors() as error:
                _log.warning("Redis group %s can't read: %s", self._name, error)
                await asyncio.sleep(0.5)
                if "NOGROUP" in str(error):
                    await self._recreate()

    async def _recreate(self) -> None:
        try:
            await self._make_groups()
        except redis_errors() as error:
            _log.warning("Redis group %s can't be made again: %s", self._name, error)

    async def _acknowledge(self, _: BusMessage, token: tuple[int, Any]) -> None:
        await self._bus.client.xack(self._bus.stream(token[0]), self._name, token[1])

    async def _trim(self) -> None:
        if time.monotonic() - self._trimmed < 30:
            return
        self._trimmed = time.monotonic()
        for partition in sorted(self._owned):
            await self._bus.trim(partition)


class StreamListener:
    """Every message from now on, for one process."""

    def __init__(self, bus: RedisBus, handler: BusHandler) -> None:
        self._bus = bus
        self._handler = handler
        self._at: dict[str, str] = {}
        self._open = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fix the end of every stream and begin to read there."""
        # `$` would be resolved by the first read, after we have returned: fix the end now.
        for partition in range(self._bus.partitions):
            stream = self._bus.stream(partition)
            try:
                self._at[stream] = as_text((await self._bus.client.xinfo_stream(stream))["last-generated-id"])
            except response_error():
                self._at[stream] = "0-0"
        self._task = asyncio.create_task(self._run(), name="redis listener")

    async def close(self) -> None:
        """Stop reading."""
        self._bus.forget(self)
        self._open = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._open:
            try:
                answer = await self._bus.client.xread(cast(Any, self._at), count=200, block=BLOCK_MS)
            except redis_errors() as error:
                _log.warning("A Redis listener can't read: %s", error)
                await asyncio.sleep(0.5)
                continue
            for stream, entries in answer or ():
                for entry, fields in entries:
                    self._at[as_text(stream)] = as_text(entry)
                    await self._hand(to_message(fields))

    async def _hand(self, message: BusMessage) -> None:
        try:
            await self._handler(message)
        except Exception:
            _log.exception("A listener failed on message %s.", message.id)


def to_message(fields: Any) -> BusMessage:
    """The message in a stream entry."""
    return BusMessage(key=as_text(fields[b"k"]), id=as_text(fields[b"i"]), value=bytes(fields[b"v"]))


def as_text(value: Any) -> str:
    """Text of a reply, which comes as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def entry_id(value: Any) -> tuple[int, int]:
    """An entry's id as numbers that compare."""
    millis, _, number = as_text(value).partition("-")
    return int(millis), int(number or 0)


def redis_errors() -> tuple[type[Exception], ...]:
    """What the client raises when Redis is away or refuses."""
    from redis.exceptions import RedisError

    return (RedisError, OSError)


def response_error() -> type[Exception]:
    """What the client raises when Redis answers with an error."""
    from redis.exceptions import ResponseError

    return ResponseError
