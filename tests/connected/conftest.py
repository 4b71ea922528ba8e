"""Real servers, one of each for the whole run; without one its tests are skipped, and say why."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.suites.fixtures import database, open_database
from tests.services import Server, Unavailable, kafka_server, postgres_server, redis_server
from tests.support.absent import absent

__all__ = ["database", "database_url", "open_database"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    try:
        with postgres_server() as server:
            yield server
    except Unavailable as error:
        absent(f"no PostgreSQL: {error}")


@pytest.fixture(scope="session")
def redis() -> Iterator[Server]:
    try:
        with redis_server() as server:
            yield server
    except Unavailable as error:
        absent(f"no Redis: {error}")


@pytest.fixture(scope="session")
def kafka() -> Iterator[Server]:
    try:
        with kafka_server() as server:
            print(f"\nKafka: {server.what}")
            yield server
    except Unavailable as error:
        absent(f"no Kafka: {error}")


@pytest.fixture
async def database_url(postgres: Server) -> AsyncIterator[str]:
    """A fresh database on the server, dropped at the end."""
    import asyncpg

    name = f"keelstone_test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        base, _, _ = postgres.url.rpartition("/")
        yield f"{base}/{name}"
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
