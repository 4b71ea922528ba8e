"""What is SQLite's own: durability, the address, processes side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from kernel.adapters.sql import SqlDatabase, open_database
from kernel.context import system_context
from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import ALL_TENANTS
from kernel.settings import Settings


async def pragma(database: SqlDatabase, name: str, *, write: bool = True) -> object:
    async with database.write(ALL_TENANTS) if write else database.read(ALL_TENANTS) as transaction:
        return (await transaction.execute(text(f"PRAGMA {name}"))).scalar()


async def test_the_default_is_a_durable_file_in_the_data_folder(tmp_path: Path) -> None:
    database = open_database(Settings(home=tmp_path / "data", database_url=None))
    await database.start()
    await database.migrate()
    assert (tmp_path / "data" / "keelstone.db").exists()
    assert await pragma(database, "journal_mode") == "wal"
    assert await pragma(database, "synchronous") == 2
    assert await pragma(database, "foreign_keys") == 1
    assert await pragma(database, "query_only", write=False) == 1
    await database.close()


@pytest.mark.parametrize(
    "url", ["sqlite+aiosqlite://", "sqlite:///:memory:", "sqlite:////tmp/x.db?synchronous=off", "mysql://h/db"]
)
def test_an_address_that_can_not_keep_its_promises_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        SqlDatabase(url)


async def test_a_writer_inside_a_writer_is_told_so_instead_of_hanging(tmp_path: Path) -> None:
    database = SqlDatabase(f"sqlite:///{tmp_path / 'k.db'}")
    await database.start()
    await database.migrate()
    async with database.write("acme"):
        with pytest.raises(BackendUnavailable, match="Another write transaction"):
            async with database.write("acme", system_context("acme").within(0.01)):
                pass
    async with database.write("acme"):
        pass
    await database.close()


async def test_a_file_that_is_no_database_is_said_to_be_unavailable(tmp_path: Path) -> None:
    (tmp_path / "k.db").write_bytes(b"not a database, but long enough to look like a page" * 50)
    database = SqlDatabase(f"sqlite:///{tmp_path / 'k.db'}")
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await database.start()
    await database.close()
