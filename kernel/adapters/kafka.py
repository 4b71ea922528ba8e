"""The bus on Kafka: one topic, key = tenant and stream, an idempotent producer.

Groups begin at the earliest offset. Handlers of different keys run side by side even within a partition;
the offset committed is the one below the oldest message not done, so nothing unhandled is ever skipped.
When partitions are taken away, handlers get a moment to finish and are then cancelled, before the next
owner begins: order by key holds over a rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kernel.adapters.kafka_consumers import KafkaGroup, KafkaListener
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import BusHandler, BusMessage
from kernel.resilience import Backoff

MAX_MESSAGE_BYTES = 8 * 1024 * 1024


class KafkaBus:
    """``kernel.ports.Bus`` on Kafka 2.1 or later. The topic is made with ``partitions`` if it is not there."""

    def __init__(
        self,
        servers: str,
        *,
        topic: str = "keelstone.events",
        partitions: int = 12,
        idempotent: bool = True,
        redelivery: Backoff | None = None,
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
        self._subscriptions: list[KafkaGroup | KafkaListener] = []

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

    async def consume(self, group: str, handler: BusHandler) -> KafkaGroup:
        """Share the work of ``group``. Raises BackendUnavailable."""
        subscription = KafkaGroup(self, group, handler)
        try:
            await subscription.start()
        except (self.kafka.errors.KafkaError, OSError) as error:
            raise self.unavailable(error) from error
        self._subscriptions.append(subscription)
        return subscription

    async def listen(self, handler: BusHandler) -> KafkaListener:
        """Get every message from now on. Raises BackendUnavailable."""
        listener = KafkaListener(self, handler)
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

    def forget(self, subscription: KafkaGroup | KafkaListener) -> None:
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
