"""Print which servers the connected tests can use here."""

from __future__ import annotations

import sys

from tests.services import Unavailable, kafka_server, postgres_server, redis_server


def main() -> int:
    missing = 0
    for name, open_server in (("PostgreSQL", postgres_server), ("Redis", redis_server), ("Kafka", kafka_server)):
        try:
            with open_server() as server:
                print(f"{name:<11} {server.what}")
        except Unavailable as error:
            missing += 1
            print(f"{name:<11} not available: {error}")
    return 1 if missing else 0


sys.exit(main())
