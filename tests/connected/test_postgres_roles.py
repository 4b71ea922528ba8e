"""Under which role the platform runs on PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from sqlalchemy import text

from kernel.adapters.sql import SqlDatabase
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import ALL_TENANTS
from tests.contract.suites.fixtures import DEMO
from tests.contract.suites.isolation import check_isolation
from tests.services.base import free_port

pytestmark = pytest.mark.connected


@pytest.fixture
async def login(database_url: str) -> AsyncIterator[tuple[str, str]]:
    """A role that may log in and make tables, and the address with it."""
    name, password = f"test_{secrets.token_hex(4)}", secrets.token_hex(12)
    parts = urlsplit(database_url)
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' NOSUPERUSER NOBYPASSRLS NOCREATEROLE")
    await admin.execute(f"GRANT ALL ON SCHEMA public TO {name}")
    yield name, urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.hostname}:{parts.port}"))
    await admin.execute(f"DROP OWNED BY {name}")
    await admin.execute(f"DROP ROLE {name}")
    await admin.close()


async def test_a_superuser_runs_under_a_role_that_row_level_security_binds(database_url: str) -> None:
    database = SqlDatabase(database_url)
    await database.start()
    await database.migrate()
    async with database.read(ALL_TENANTS) as transaction:
        query = text(
            "SELECT current_user, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = current_user"
        )
        assert tuple((await transaction.execute(query)).one()) == ("keelstone_app", False, False, False)
    await database.close()


async def test_an_ordinary_owner_of_the_tables_is_bound_too(login: tuple[str, str]) -> None:
    database = SqlDatabase(login[1])
    await database.start()
    await database.migrate([DEMO])
    assert await check_isolation(database, [DEMO])
    async with database.read(ALL_TENANTS) as transaction:
        assert (await transaction.execute(text("SELECT current_user"))).scalar() == login[0]
    await database.close()


async def test_a_role_that_would_bypass_row_level_security_is_refused(
    database_url: str, login: tuple[str, str]
) -> None:
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"ALTER ROLE {login[0]} BYPASSRLS")
    await admin.close()
    database = SqlDatabase(login[1])
    with pytest.raises(ConfigurationError, match="bypasses row-level security"):
        await database.start()
    await database.close()


async def test_a_server_that_does_not_answer_is_said_to_be_unavailable() -> None:
    database = SqlDatabase(f"postgresql://keelstone:secret@127.0.0.1:{free_port()}/keelstone")
    with pytest.raises(BackendUnavailable) as caught:
        await database.start()
    assert "secret" not in str(caught.value)
    await database.close()


async def test_connections_that_the_server_closed_are_replaced(database_url: str) -> None:
    database = SqlDatabase(database_url)
    await database.start()
    await database.migrate()
    admin = await asyncpg.connect(database_url)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await admin.close()
    for _ in range(3):
        try:
            assert await database.events.read_tenant("acme") == []
            break
        except BackendUnavailable:
            continue
    else:
        pytest.fail("the pool never recovered")
    await database.close()
