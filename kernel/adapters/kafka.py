"""The bus on Kafka: one topic, key = tenant and stream, an idempotent producer.

Groups begin at the earliest offset. Handlers of different keys run side by side even within a partition;
the offset committed is the one below the oldest message not done, so nothing unhandled is ever skipped.
When partitions are taken away, handlers get a moment to finish and are then cancelled, before the next
owner begins: order by key holds over a rebalance.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kernel.adapters.keyed import KeyedRunner, Redelivery
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import BusHandler, BusMessage

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
COMMIT_SECONDS = 0.5
GRACE_SECONDS = 3.0
"""What handlers get to finish when their partition is taken away."""


class KafkaBus:
    """``kernel.ports.Bus`` on Kafka 2.1 or later. The topic is made with ``partitions`` if it is not there."""

    def __init__(
        self,
        servers: str,
        *,
        topic: str = "keelstone.events",
        partitions: int = 12,
        idempotent: bool = True,
        redelivery: Redelivery | None = None,
    ) -> None:
        try:
            import aiokafka
        except ImportError as error:
            raise ConfigurationError(
                "A bus on Kafka needs a client that is not installed.",
                fix='Install the extra: pip install "keelstone[kafka]".',
            ) from error
        self.kafka = aiokafka
        self.servers = servers
        self.topic = topic
        self.partitions = partitions
        self.idempotent = idempotent
        self.redelivery = redelivery
        self._producer: Any = None
        self._subscriptions: list[_Group | _Listener] = []

    @classmethod
    def from_url(cls, url: str) -> KafkaBus:
        """The bus at ``kafka://host:port[,host:port][?topic=...&partitions=...&idempotent=...]``.

        Raises ConfigurationError.
        """
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        try:
            if not parts.netloc:
                raise ValueError("no server")
            topic, partitions = query.pop("topic", "keelstone.events"), int(query.pop("partitions", "12"))
            idempotent = query.pop("idempotent", "true").lower() in ("true", "1", "yes")
            if query:
                raise ValueError(f"unknown parameter {sorted(query)[0]}")
        except ValueError as error:
            raise ConfigurationError(
                "KEELSTONE_BUS_URL is not a usable Kafka address.",
                expected="kafka://host:port[,host:port][?topic=...&partitions=...&idempotent=...]",
                found=str(error),
            ) from error
        return cls(parts.netloc, topic=topic, partitions=partitions, idempotent=idempotent)

    # ------------------------------------------------------------------ Bus

    async def start(self) -> None:
        """Connect, and make the topic if need be. Raises BackendUnavailable."""
        try:
            await self._make_topic()
            self._producer = self.kafka.AIOKafkaProducer(
                bootstrap_servers=self.servers,
                acks="all",
                enable_idempotence=self.idempotent,
                linger_ms=2,
                max_request_size=MAX_MESSAGE_BYTES,
                request_timeout_ms=15_000,
            )
            await self._producer.start()
        except (self.kafka.errors.KafkaError, OSError) as error:
            producer, self._producer = self._producer, None
            if producer is not None:
                await producer.stop()
            raise self.unavailable(error) from error

    async def close(self) -> None:
        """Stop every subscription and disconnect."""
        for subscription in list(self._subscriptions):
            await subscription.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def ping(self) -> None:
        """Raises BackendUnavailable if no broker answers."""
        if self._producer is None:
            raise BackendUnavailable("The bus on Kafka is not started.", fix="Call start() first.")
        try:
            await asyncio.wait_for(self._producer.client.fetch_all_metadata(), 10)
        except (self.kafka.errors.KafkaError, OSError, TimeoutError) as error:
            raise self.unavailable(error) from error

    async def publish(self, messages: Sequence[BusMessage]) -> None:
        """Hand over messages; returns when every replica in sync has them. Raises BackendUnavailable."""
        if self._producer is None:
            raise BackendUnavailable("The bus on Kafka is not started.", fix="Call start() first.")
        try:
            waiting = [
                await self._producer.send(
                    self.topic,
                    value=message.value,
                    key=message.key.encode(),
                    headers=[("id", message.id.encode()), ("content-type", b"application/cloudevents+json")],
                )
                for message in messages
            ]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        except (self.kafka.errors.KafkaError, OSError) as error:
            raise self.unavailable(error) from error

    async def consume(self, group: str, handler: BusHandler) -> _Group:
        """Share the work of ``group``. Raises BackendUnavailable."""
        subscription = _Group(self, group, handler)
        try:
            await subscription.start()
        except (self.kafka.errors.KafkaError, OSError) as error:
            raise self.unavailable(error) from error
        self._subscriptions.append(subscription)
        return subscription

    async def listen(self, handler: BusHandler) -> _Listener:
        """Get every message from now on. Raises BackendUnavailable."""
        listener = _Listener(self, handler)
        try:
            await listener.start()
        except (self.kafka.errors.KafkaError, OSError) as error:
            raise self.unavailable(error) from error
        self._subscriptions.append(listener)
        return listener

    # ------------------------------------------------------------------ shared

    def consumer(self, **options: Any) -> Any:
        """A client's consumer with what all of ours have in common."""
        return self.kafka.AIOKafkaConsumer(
            bootstrap_servers=self.servers,
            enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
            fetch_max_wait_ms=250,
            metadata_max_age_ms=30_000,
            **options,
        )

    def forget(self, subscription: _Group | _Listener) -> None:
        """A subscription was closed."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def unavailable(self, error: Exception) -> BackendUnavailable:
        """The clear error for a Kafka that does not answer."""
        return BackendUnavailable(
            "The bus on Kafka does not answer.",
            expected=self.servers,
            found=f"{type(error).__name__}: {error}",
            fix="Start it, or correct KEELSTONE_BUS_URL.",
        )

    async def _make_topic(self) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers, request_timeout_ms=15_000)
        try:
            await admin.start()
            if self.topic in await admin.list_topics():
                return
            brokers = (await admin.describe_cluster())["brokers"]
            topic = NewTopic(
                self.topic,
                num_partitions=self.partitions,
                replication_factor=min(3, max(1, len(brokers))),
                topic_configs={"max.message.bytes": str(MAX_MESSAGE_BYTES)},
            )
            answer = await admin.create_topics([topic], timeout_ms=15_000)
            for name, code, *rest in answer.topic_errors:
                # Another process may have made it between our look and our wish.
                if code not in (0, self.kafka.errors.TopicAlreadyExistsError.errno):
                    raise self.kafka.errors.for_code(code)(f"topic {name}: {rest}")
        finally:
            await admin.close()


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


class _Group:
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
                self._runner.put(_message(record), (partition, record.offset))

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


class _Listener:
    """Every message from now on, for one process."""

    def __init__(self, bus: KafkaBus, handler: BusHandler) -> None:
        self._bus = bus
        self._handler = handler
        self._consumer = bus.consumer(group_id=None, auto_offset_reset="latest")
        self._task: asyncio.Task[None] | None = None
        self._open = True

    async def start(self) -> None:
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
                    message = _message(record)
                    try:
                        await self._handler(message)
                    except Exception:
                        _log.exception("A listener failed on message %s.", message.id)


def _message(record: Any) -> BusMessage:
    headers = dict(record.headers)
    return BusMessage(
        key=(record.key or b"").decode(), id=headers.get("id", b"").decode(), value=bytes(record.value or b"")
    )
