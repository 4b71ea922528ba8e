"""Fixtures of the SQL suites; a conftest says through ``database_url`` where the database is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import Column, Integer, MetaData, String

from kernel.adapters.sql import SqlDatabase
from kernel.events import EventType, EventTypes
from plugin_sdk.data import (
    Schema,
    UtcDateTime,
    json_type,
    platform_table,
    tenant_reference,
    tenant_table,
    unique_in_tenant,
)

OpenDatabase = Callable[[], Awaitable[SqlDatabase]]

demo_metadata = MetaData()
people = tenant_table(
    demo_metadata,
    "demo_people",
    Column("id", String(40), primary_key=True),
    Column("email", String(120), nullable=False),
    Column("joined", UtcDateTime),
    Column("profile", json_type()),
    unique_in_tenant("email", name="uq_demo_people_email"),
)
badges = tenant_table(
    demo_metadata,
    "demo_badges",
    Column("person", String(40), primary_key=True),
    Column("number", Integer, primary_key=True),
    tenant_reference(("person",), "demo_people"),
)
codes = tenant_table(
    demo_metadata,
    "demo_codes",
    Column("id", String(40), primary_key=True),
    # Unique over all tenants, so that an upsert on it meets other tenants' rows.
    Column("code", String(40), unique=True, nullable=False),
    Column("note", String(40)),
)
secrets = platform_table(demo_metadata, "demo_secrets", Column("name", String(40), primary_key=True))
plans = platform_table(demo_metadata, "demo_plans", Column("name", String(40), primary_key=True), shared=True)

DEMO = Schema("demo", demo_metadata)

TYPES = EventTypes(
    [
        EventType(
            "demo.joined",
            "demo",
            "A person joined.",
            {"type": "object", "properties": {"person": {"type": "string"}}, "required": ["person"]},
        ),
        EventType("demo.left", "demo", "A person left."),
        EventType("other.happened", "other", "Something else."),
    ]
)


@pytest.fixture
async def open_database(database_url: str) -> AsyncIterator[OpenDatabase]:
    """Opens the test's database once more, as another process would."""
    opened: list[SqlDatabase] = []

    async def open_one() -> SqlDatabase:
        database = SqlDatabase(database_url, TYPES)
        opened.append(database)
        await database.start()
        return database

    yield open_one
    for database in reversed(opened):
        await database.close()


@pytest.fixture
async def database(open_database: OpenDatabase) -> SqlDatabase:
    """A started and migrated database with the demonstration tables."""
    database = await open_database()
    await database.migrate([DEMO])
    return database
