"""Adapters: one per port and technology, chosen by one address each."""

from __future__ import annotations

from kernel.errors import ConfigurationError
from kernel.ports import Bus
from kernel.settings import Settings

__all__ = ["open_bus"]


def open_bus(settings: Settings) -> Bus:
    """The bus that ``settings`` name, not started yet. Raises ConfigurationError.

    Nothing: inside the process. ``redis://host:port/0[?prefix=...&partitions=...]``: Redis Streams.
    ``kafka://host:port[,host:port][?topic=...&partitions=...&idempotent=...]``: Kafka.
    """
    url = settings.bus_url
    if not url:
        from kernel.adapters.memory import MemoryBus

        return MemoryBus()
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss"):
        from kernel.adapters.redis import RedisBus

        return RedisBus.from_url(url)
    if scheme == "kafka":
        from kernel.adapters.kafka import KafkaBus

        return KafkaBus.from_url(url)
    raise ConfigurationError(
        "KEELSTONE_BUS_URL names a bus that is not supported.",
        expected="redis://host:port/0, kafka://host:port, or nothing",
        found=f"{scheme}://...",
    )
