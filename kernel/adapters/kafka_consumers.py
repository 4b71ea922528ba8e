"""Consumer groups and listeners on Kafka, for :mod:`kernel.adapters.kafka`."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from kernel.adapters.keyed import KeyedRunner
from kernel.ports import BusHandler, BusMessage

if TYPE_CHECKING:
    from kernel.adapters.kafka import KafkaBus

_log = logging.getLogger(__name__)

COMMIT_SECONDS = 0.5
GRACE_SECONDS = 3.0
"""What handlers get to finish when their partition is taken away."""


class _Offsets:
    """Which messages of a partition are under way; what may be committed."""

    def __init__(self) -> None:
        self.under_way: dict[int, None] = {}
        self.next: int | None = None
        self.committed: int | None = None

    def begin(self, offset: int) -> None:
        self.under_way[offset] = None
        self.next = offset + 1

    def done(self, offset: int) -> None:
        self.under_way.pop(offset, None)

    @property
    def position(self) -> int | None:
        """The lowest offset that must come again after a restart."""
        return next(iter(self.under_way), self.next)


class KafkaGroup:
    """One process's membership in a consumer group."""

    def __init__(self, bus: KafkaBus, name: str, handler: BusHandler) -> None:
        self._bus = bus
        self._name = name
        self._runner = KeyedRunner(handler, self._finished, redelivery=bus.redelivery)
        self._offsets: dict[Any, _Offsets] = {}
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None
        self._committed_at = 0.0
        self._open = True
        self._consumer = bus.consumer(
            group_id=f"{bus.topic}.{name}",
            auto_offset_reset="earliest",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_500,
        )

    async def start(self) -> None:
        """Join the group and begin to read."""
        from aiokafka.abc import ConsumerRebalanceListener

        group = self

        class Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]
            async def on_partitions_revoked(self, revoked: Any) -> None:
                await group.revoke(set(revoked))

            async def on_partitions_assigned(self, assigned: Any) -> None:
                _log.debug("Kafka group %s has %d partitions.", group._name, len(assigned))

        self._consumer.subscribe([self._bus.topic], listener=Rebalance())
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        self._task = asyncio.create_task(self._read(), name=f"kafka group {self._name}")

    async def close(self) -> None:
        """Commit what is done and leave the group."""
        self._bus.forget(self)
        self._open = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._runner.close()
        await self._commit(force=True)
        await self._consumer.stop()

    async def revoke(self, partitions: set[Any]) -> None:
        """Partitions go to somebody else: finish or cancel their handlers, then commit."""
        self._epoch += 1
        await self._runner.drop(lambda _, token: token[0] in partitions, grace=GRACE_SECONDS)
        await self._commit(force=True)
        for partition in partitions:
            self._offsets.pop(partition, None)

    async def _read(self) -> None:
        while self._open:
            try:
                batches = await self._consumer.getmany(timeout_ms=250, max_records=500)
                await self._take(batches, self._epoch)
                await self._commit()
            except self._bus.kafka.errors.KafkaError as error:
                _log.warning("Kafka group %s can't read: %s", self._name, error)
                await asyncio.sleep(0.5)

    async def _take(self, batches: dict[Any, list[Any]], epoch: int) -> None:
        for partition, records in batches.items():
            offsets = self._offsets.setdefault(partition, _Offsets())
            for record in records:
                await self._runner.room()
                if epoch != self._epoch:
                    # The partitions were dealt anew while we waited; reading goes on from the commits.
                    return
                offsets.begin(record.offset)
                self._runner.put(to_message(record), (partition, record.offset))

    async def _finished(self, _: BusMessage, token: tuple[Any, int]) -> None:
        offsets = self._offsets.get(token[0])
        if offsets is not None:
            offsets.done(token[1])

    async def _commit(self, *, force: bool = False) -> None:
        if not force and time.monotonic() - self._committed_at < COMMIT_SECONDS:
            return
        self._committed_at = time.monotonic()
        moved = {
            partition: offsets.position
            for partition, offsets in self._offsets.items()
            if offsets.position is not None and offsets.position != offsets.committed
        }
        if not moved:
            return
        try:
            await self._consumer.commit(moved)
        except (self._bus.kafka.errors.KafkaError, self._bus.kafka.errors.IllegalStateError) as error:
            # The group is being dealt anew: whoever has the partition reads from the last commit.
            _log.info("Kafka group %s could not commit: %s", self._name, error)
            return
        for partition, position in moved.items():
            if partition in self._offsets:
                self._offsets[partition].committed = position


class KafkaListener:
    """Every message from now on, for one process."""

    def __init__(self, bus: KafkaBus, handler: BusHandler) -> None:
        self._bus = bus
        self._handler = handler
        self._consumer = bus.consumer(group_id=None, auto_offset_reset="latest")
        self._task: asyncio.Task[None] | None = None
        self._open = True

    async def start(self) -> None:
        """Fix the end of every partition and begin to read there."""
        try:
            await self._consumer.start()
            numbers = await self._partitions()
            partitions = [self._bus.kafka.TopicPartition(self._bus.topic, number) for number in sorted(numbers)]
            self._consumer.assign(partitions)
            # Fix the end now: a lazy seek would miss what is published before the first read.
            for partition, offset in (await self._consumer.end_offsets(partitions)).items():
                self._consumer.seek(partition, offset)
        except BaseException:
            await self._consumer.stop()
            raise
        self._task = asyncio.create_task(self._run(), name="kafka listener")

    async def close(self) -> None:
        """Stop reading."""
        self._bus.forget(self)
        self._open = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()

    async def _partitions(self) -> set[int]:
        deadline = time.monotonic() + 15
        while True:
            await self._consumer._client.force_metadata_update()
            found: set[int] | None = self._consumer.partitions_for_topic(self._bus.topic)
            if found:
                return found
            if time.monotonic() > deadline:
                raise self._bus.kafka.errors.UnknownTopicOrPartitionError(self._bus.topic)
            await asyncio.sleep(0.1)

    async def _run(self) -> None:
        while self._open:
            try:
                batches = await self._consumer.getmany(timeout_ms=500)
            except self._bus.kafka.errors.KafkaError as error:
                _log.warning("A Kafka listener can't read: %s", error)
                await asyncio.sleep(0.5)
                continue
            for records in batches.values():
                for record in records:
                    message = to_message(record)
                    try:
                        await self._handler(message)
                    except Exception:
                        _log.exception("A listener failed on message %s.", message.id)


def to_message(record: Any) -> BusMessage:
    """The message in a record."""
    headers = dict(record.headers)
    return BusMessage(
        key=(record.key or b"").decode(), id=headers.get("id", b"").decode(), value=bytes(record.value or b"")
    )
