"""What migrations must do: a branch for each plugin, once, together with other processes, and fast when done."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, func, insert, inspect, select

from kernel.adapters.sql import KERNEL_SCHEMA, SqlDatabase
from kernel.errors import ConfigurationError, Forbidden
from kernel.tables import Schema
from plugin_sdk.data import platform_table, tenant_table
from tests.contract.suites.fixtures import OpenDatabase
from tests.contract.suites.isolation import check_isolation

FIRST = """
import sqlalchemy as sa
from alembic import op
from plugin_sdk.data import create_tenant_table, create_platform_table
revision = "{name}_0001"
down_revision = None
def upgrade() -> None:
    create_tenant_table(op, "{name}_notes", sa.Column("id", sa.String(40), primary_key=True))
    create_platform_table(op, "{name}_kinds", sa.Column("name", sa.String(40), primary_key=True), shared=True)
def downgrade() -> None:
    op.drop_table("{name}_notes")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision = "{name}_0002"
down_revision = "{name}_0001"
def upgrade() -> None:
    op.add_column("{name}_notes", sa.Column("stars", sa.Integer, nullable=False, server_default="3"))
def downgrade() -> None:
    op.drop_column("{name}_notes", "stars")
"""
BROKEN = """
from alembic import op
revision = "{name}_0003"
down_revision = "{name}_0002"
def upgrade() -> None:
    op.rename_table("{name}_notes", "{name}_lost")
    raise RuntimeError("half way")
def downgrade() -> None:
    pass
"""


def make_schema(folder: Path, name: str, *revisions: str) -> Schema:
    migrations = folder / name
    migrations.mkdir(exist_ok=True)
    for number, source in enumerate(revisions, 1):
        (migrations / f"{number:04}_{name}.py").write_text(source.format(name=name))
    metadata = MetaData()
    columns = [Column("id", String(40), primary_key=True)]
    if len(revisions) > 1:
        columns.append(Column("stars", Integer, nullable=False, server_default="3"))
    tenant_table(metadata, f"{name}_notes", *columns)
    platform_table(metadata, f"{name}_kinds", Column("name", String(40), primary_key=True), shared=True)
    return Schema(name, metadata, migrations)


async def table_names(database: SqlDatabase) -> set[str]:
    async with database.admin() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


class MigrationsSuite:
    async def test_the_kernels_migrations_make_what_its_tables_declare(self, open_database: OpenDatabase) -> None:
        database = await open_database()
        await database.migrate()

        def differences(sync: object) -> list[object]:
            from alembic.autogenerate import compare_metadata
            from alembic.migration import MigrationContext

            context = MigrationContext.configure(sync, opts={"compare_type": True})  # type: ignore[arg-type]
            found = compare_metadata(context, KERNEL_SCHEMA.metadata)
            return [d for d in found if "alembic_version" not in str(d)]

        async with database.admin() as connection:
            assert await connection.run_sync(differences) == []

    async def test_each_schema_upgrades_on_its_own_and_only_once(
        self, open_database: OpenDatabase, tmp_path: Path
    ) -> None:
        database = await open_database()
        one, two = make_schema(tmp_path, "one", FIRST), make_schema(tmp_path, "two", FIRST)
        assert await database.migrate([one]) == ["kernel", "one"]
        assert await database.migrate([one, two]) == ["two"]
        assert await database.migrate([one, two]) == []
        one = make_schema(tmp_path, "one", FIRST, SECOND)
        assert await database.migrate([one, two]) == ["one"]
        notes = one.metadata.tables["one_notes"]
        async with database.write("acme") as transaction:
            await transaction.execute(insert(notes), {"id": "a"})
            assert (await transaction.execute(select(notes.c.stars))).scalar() == 3

    async def test_a_plugin_that_was_taken_away_stops_nobody(self, open_database: OpenDatabase, tmp_path: Path) -> None:
        database = await open_database()
        one, two = make_schema(tmp_path, "one", FIRST), make_schema(tmp_path, "two", FIRST)
        await database.migrate([one, two])
        two = make_schema(tmp_path, "two", FIRST, SECOND)
        assert await database.migrate([two]) == ["two"]
        assert "one_notes" in await table_names(database)

    async def test_a_migration_that_fails_leaves_everything_as_it_was(
        self, open_database: OpenDatabase, tmp_path: Path
    ) -> None:
        database = await open_database()
        await database.migrate([make_schema(tmp_path, "one", FIRST)])
        with pytest.raises(RuntimeError, match="half way"):
            await database.migrate([make_schema(tmp_path, "one", FIRST, SECOND, BROKEN)])
        assert "one_notes" in await table_names(database)
        assert "one_lost" not in await table_names(database)
        (tmp_path / "one" / "0003_one.py").unlink()
        assert await database.migrate([make_schema(tmp_path, "one", FIRST, SECOND)]) == ["one"]

    async def test_two_processes_that_start_at_once_migrate_once(
        self, open_database: OpenDatabase, tmp_path: Path
    ) -> None:
        one, two = await open_database(), await open_database()
        schemas = [make_schema(tmp_path, f"plugin{i}", FIRST, SECOND) for i in range(3)]
        done = await asyncio.gather(one.migrate(schemas), two.migrate(schemas))
        assert sorted(done[0] + done[1]) == ["kernel", "plugin0", "plugin1", "plugin2"]

    async def test_real_processes_that_start_at_once_migrate_once(self, database_url: str, tmp_path: Path) -> None:
        script = (
            "import asyncio, sys\n"
            "from kernel.adapters.sql import SqlDatabase\n"
            "async def main():\n"
            "    database = SqlDatabase(sys.argv[1])\n"
            "    await database.start()\n"
            "    print(len(await database.migrate()))\n"
            "    await database.close()\n"
            "asyncio.run(main())\n"
        )
        started = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, database_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(3)
        ]
        said = [await process.communicate() for process in started]
        assert [process.returncode for process in started] == [0, 0, 0], said
        assert sorted(int(out) for out, _ in said) == [0, 0, 1]

    async def test_nothing_of_alembic_is_imported_when_there_is_nothing_to_do(
        self, open_database: OpenDatabase, database_url: str
    ) -> None:
        await (await open_database()).migrate()
        script = (
            "import asyncio, sys\n"
            "from kernel.adapters.sql import SqlDatabase\n"
            "async def main():\n"
            "    database = SqlDatabase(sys.argv[1])\n"
            "    await database.start()\n"
            "    assert await database.migrate() == []\n"
            "    await database.close()\n"
            "asyncio.run(main())\n"
            "assert 'alembic' not in sys.modules\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, database_url, stderr=subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said

    async def test_a_migrated_table_is_protected(self, open_database: OpenDatabase, tmp_path: Path) -> None:
        database = await open_database()
        schema = make_schema(tmp_path, "one", FIRST, SECOND)
        await database.migrate([schema])
        assert set(await check_isolation(database, [schema])) == {"one_notes", "one_kinds"}

    async def test_a_database_from_the_future_is_refused(self, open_database: OpenDatabase, tmp_path: Path) -> None:
        database = await open_database()
        await database.migrate([make_schema(tmp_path, "one", FIRST, SECOND)])
        (tmp_path / "one" / "0002_one.py").unlink()
        with pytest.raises(ConfigurationError, match="not at a revision"):
            await database.migrate([make_schema(tmp_path, "one", FIRST)])

    async def test_tables_without_an_owner_or_with_two_are_refused(self, open_database: OpenDatabase) -> None:
        from sqlalchemy import Table

        database = await open_database()
        nobody = MetaData()
        Table("nobodys", nobody, Column("id", Integer, primary_key=True))
        with pytest.raises(ConfigurationError, match="nobodys"):
            await database.migrate([Schema("one", nobody)])
        mine, yours = MetaData(), MetaData()
        for metadata in (mine, yours):
            platform_table(metadata, "contested", Column("id", Integer, primary_key=True))
        with pytest.raises(ConfigurationError, match="declared by one and by two"):
            await database.migrate([Schema("one", mine), Schema("two", yours)])

    async def test_a_folder_that_is_no_branch_is_refused(self, open_database: OpenDatabase, tmp_path: Path) -> None:
        database = await open_database()
        schema = make_schema(tmp_path, "one", FIRST)
        (tmp_path / "one" / "0002_other.py").write_text('revision = "other"\ndown_revision = None\n')
        with pytest.raises(ConfigurationError, match="several heads"):
            await database.migrate([schema])
        (tmp_path / "one" / "0002_other.py").write_text("x = 1\n")
        with pytest.raises(ConfigurationError, match="no Alembic revision"):
            await database.migrate([schema])
        with pytest.raises(ConfigurationError, match="is not there"):
            await database.migrate([Schema("one", schema.metadata, tmp_path / "absent")])

    async def test_ddl_is_refused_in_a_tenants_scope(self, database: SqlDatabase) -> None:
        from sqlalchemy.schema import DropTable

        from tests.contract.suites.fixtures import people

        async with database.write("acme") as transaction:
            with pytest.raises(Forbidden):
                await transaction.execute(DropTable(people))
            assert (await transaction.execute(select(func.count()).select_from(people))).scalar() == 0
