"""The generated isolation check: every declared table, every way to reach across tenants.

Pass it the ``Schema``s of all plugins: whatever table somebody adds is tried without writing a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from kernel.adapters.sql import KERNEL_SCHEMA, SqlDatabase
from kernel.errors import Conflict, Forbidden, KeelstoneError, TenantMismatch
from kernel.ports import ALL_TENANTS
from kernel.tables import TENANT_COLUMN, Schema, TenantId, owner_of
from tests.contract.suites.fixtures import DEMO

MINE, THEIRS = "acme", "globex"

Samples = Mapping[tuple[str, str], Callable[[str], Any]]
"""Values for columns whose rules the generator can't guess: (table, column) -> value for a tenant."""


class _Undo(Exception):
    pass


def sample(column: Column[Any], tenant: str, samples: Samples) -> Any:
    """A value for a column of a row of ``tenant``: the same for the same type, so that references meet."""
    given = samples.get((column.table.name, column.name))
    if given is not None:
        return given(tenant)
    kind = column.type
    if isinstance(kind, TenantId):
        return tenant
    impl = getattr(kind, "impl_instance", getattr(kind, "impl", kind))
    number = 1 if tenant == MINE else 2
    if isinstance(impl, Boolean):
        return True
    if isinstance(impl, (Integer, Float, Numeric)):
        return number
    if isinstance(impl, DateTime):
        return datetime(2026, 1, number, tzinfo=UTC)
    if isinstance(impl, JSON):
        return {"of": tenant}
    if isinstance(impl, LargeBinary):
        return tenant.encode()
    if isinstance(impl, String):
        return tenant[: impl.length or 64]
    raise AssertionError(f"No sample for {column.table.name}.{column.name} of type {kind!r}: pass one in samples.")


def sample_row(table: Table, tenant: str, samples: Samples) -> dict[str, Any]:
    """A whole row of ``tenant``."""
    return {column.name: sample(column, tenant, samples) for column in table.columns}


async def check_isolation(
    database: SqlDatabase, schemas: Sequence[Schema], samples: Samples | None = None
) -> list[str]:
    """Try to reach across tenants through every table of ``schemas``; the names of the tables tried.

    The tables must be there (migrated) and empty of rows of the two tenants.
    """
    given = samples or {}
    tables = [table for schema in schemas for table in schema.metadata.sorted_tables]
    async with database.write(ALL_TENANTS) as transaction:
        for table in tables:
            for tenant in (MINE, THEIRS) if owner_of(table) == "tenant" else (THEIRS,):
                await transaction.execute(insert(table), sample_row(table, tenant, given))
    for table in tables:
        if owner_of(table) == "tenant":
            await _reads(database, table)
            await _writes(database, table, given)
        else:
            await _platform(database, table, given)
        if database.dialect == "postgresql":
            await _beneath_the_guard(database, table, given)
    async with database.read(ALL_TENANTS) as transaction:
        for table in tables:
            rows = (await transaction.execute(select(table))).mappings().all()
            theirs = [dict(row) for row in rows if row.get(TENANT_COLUMN, THEIRS) == THEIRS]
            assert theirs == [sample_row(table, THEIRS, given)], f"{table.name}: the other tenant's row changed"
    return [table.name for table in tables]


# ---------------------------------------------------------------------------------- reading


async def _reads(database: SqlDatabase, table: Table) -> None:
    other, third = table.alias("other"), table.alias("third")
    inner = select(table).subquery("inner_rows")
    cte = select(table).cte("all_rows")
    tenant = table.c[TENANT_COLUMN]
    matching = other.c[TENANT_COLUMN] == third.c[TENANT_COLUMN]
    queries = {
        "select": select(tenant),
        "alias": select(other.c[TENANT_COLUMN]),
        "join": select(other.c[TENANT_COLUMN]).select_from(table.join(other, literal(1) == 1)),
        "outer join": select(other.c[TENANT_COLUMN]).select_from(table.outerjoin(other, literal(1) == 1)),
        "full join": select(third.c[TENANT_COLUMN]).select_from(other.outerjoin(third, matching, full=True)),
        "subquery": select(inner.c[TENANT_COLUMN]),
        "cte": select(cte.c[TENANT_COLUMN]),
        "union": union_all(select(tenant), select(other.c[TENANT_COLUMN])),
        "scalar subquery": select(select(func.max(other.c[TENANT_COLUMN])).scalar_subquery()),
        "in": select(literal(MINE)).where(literal(THEIRS).in_(select(other.c[TENANT_COLUMN]))),
        "exists": select(literal(THEIRS)).where(exists().where(other.c[TENANT_COLUMN] != MINE)),
        "for update": select(tenant).with_for_update(),
        "not mine": select(tenant).where(tenant != MINE),
    }
    for name, query in queries.items():
        async with database.write(MINE) as transaction:
            found = set((await transaction.execute(query)).scalars())
        assert found <= {MINE}, f"{table.name} through {name}: {found}"
    async with database.read(MINE) as transaction:
        assert (await transaction.execute(select(func.count()).select_from(table))).scalar() == 1, table.name
        with pytest.raises(TenantMismatch):
            await transaction.execute(select(table).where(tenant == THEIRS))
    async with database.read("initech") as transaction:
        assert (await transaction.execute(select(table))).all() == [], f"{table.name}: a third tenant sees rows"


# ---------------------------------------------------------------------------------- writing


async def _writes(database: SqlDatabase, table: Table, samples: Samples) -> None:
    theirs = sample_row(table, THEIRS, samples)
    tenant = table.c[TENANT_COLUMN]
    keys = [column for column in table.columns if column.name != TENANT_COLUMN]
    column = next((c for c in keys if not c.primary_key and not c.foreign_keys), keys[-1])
    new_value = {column.name: theirs[column.name]}

    where = [column == theirs[column.name] for column in keys if column.primary_key]
    counts = [
        (delete(table), 1),
        (delete(table).where(tenant != MINE), 0),
        (update(table).where(tenant != MINE).values(new_value), 0),
        (update(table).where(*where, tenant != MINE).values(new_value), 0),
    ]
    if not (column.unique or column.primary_key):
        counts.append((update(table).values({column.name: column}), 1))
    for statement, most in counts:
        assert await _rows_touched(database, statement) == most, f"{table.name}: {statement}"

    named = {
        "insert": (insert(table), theirs),
        "insert values": (insert(table).values(theirs), None),
        "insert many": (insert(table), [sample_row(table, MINE, samples), theirs]),
        "insert many values": (insert(table).values([sample_row(table, MINE, samples), theirs]), None),
        "insert expression": (insert(table).values({**theirs, TENANT_COLUMN: func.lower(THEIRS.upper())}), None),
        "insert literal": (insert(table).values({**theirs, TENANT_COLUMN: literal(THEIRS)}), None),
        "give away": (update(table).values({TENANT_COLUMN: THEIRS}), None),
        "give away by expression": (update(table).values({TENANT_COLUMN: func.lower(THEIRS.upper())}), None),
        "give away by parameter": (update(table), {TENANT_COLUMN: THEIRS}),
    }
    for name, (statement, parameters) in named.items():
        await _refused(database, statement, parameters, TenantMismatch, f"{table.name}: {name}")
    names = [c.name for c in table.columns]
    copied = insert(table).from_select(names, select(table))
    await _refused(database, copied, None, Forbidden, f"{table.name}: insert from select")
    for other in (update(table.alias("a")), delete(table.alias("a"))):
        statement = other.values({column.name: theirs[column.name]}) if other.is_update else other
        await _refused(database, statement, None, Forbidden, f"{table.name}: through an alias")
    await _upsert(database, table, samples)


async def _rows_touched(database: SqlDatabase, statement: Any) -> int:
    """How many rows a statement touches in one tenant's scope; undone."""
    touched = 0
    try:
        async with database.write(MINE) as transaction:
            touched = int((await transaction.execute(statement)).rowcount)
            raise _Undo
    except _Undo:
        return touched


async def _upsert(database: SqlDatabase, table: Table, samples: Samples) -> None:
    """An upsert that meets the other tenant's row on a key without ``tenant_id`` must leave it alone."""
    dialect_insert: Any = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
    theirs = sample_row(table, THEIRS, samples)
    for column in table.columns:
        if not (column.unique or (column.primary_key and column.autoincrement is True)):
            continue
        row = {**sample_row(table, MINE, samples), column.name: theirs[column.name]}
        change = {c.name: row[c.name] for c in table.columns if not c.primary_key and c.name not in (TENANT_COLUMN,)}
        statement = dialect_insert(table).values(row).on_conflict_do_update(index_elements=[column.name], set_=change)
        try:
            async with database.write(MINE) as transaction:
                result = await transaction.execute(statement)
                assert result.rowcount == 0, f"{table.name}: an upsert on {column.name} changed the other's row"
                raise _Undo
        except (_Undo, Conflict):
            pass
        except DBAPIError as error:
            if "row-level security" not in str(error):
                raise


async def _refused(
    database: SqlDatabase, statement: Any, parameters: Any, kind: type[KeelstoneError], what: str
) -> None:
    try:
        async with database.write(MINE) as transaction:
            await transaction.execute(statement, parameters)
            raise _Undo
    except kind:
        return
    except _Undo:
        pytest.fail(f"{what} was not refused")


async def _platform(database: SqlDatabase, table: Table, samples: Samples) -> None:
    row = sample_row(table, THEIRS, samples)
    column = next(iter(table.columns))
    writes = [
        (insert(table), row),
        (update(table).values({column.name: row[column.name]}), None),
        (delete(table), None),
    ]
    for statement, parameters in writes:
        await _refused(database, statement, parameters, Forbidden, f"{table.name}: a tenant wrote to the platform's")
    if owner_of(table) == "platform":
        for query in (select(table), select(table.alias("a")), select(select(table).cte("c"))):
            await _refused(database, query, None, Forbidden, f"{table.name}: a tenant read the platform's")


# ---------------------------------------------------------------------------------- PostgreSQL itself


async def _beneath_the_guard(database: SqlDatabase, table: Table, samples: Samples) -> None:
    """Raw text on the runtime role's connection: row-level security alone must hold."""
    owner = owner_of(table)
    theirs = sample_row(table, THEIRS, samples)
    name = f'"{table.name}"'
    engine = database._engines.writer
    for tenant in (MINE, ""):
        async with engine.connect() as connection:
            await connection.execute(
                text("SELECT set_config('keelstone.tenant', :t, true), set_config('keelstone.scope', 'tenant', true)"),
                {"t": tenant},
            )
            seen = (await connection.execute(text(f"SELECT * FROM {name}"))).mappings().all()
            if owner == "tenant":
                assert {row[TENANT_COLUMN] for row in seen} == ({MINE} if tenant else set()), table.name
            else:
                assert len(seen) == (1 if owner == "shared" else 0), table.name
            mine = 1 if owner == "tenant" and tenant else 0
            column = list(table.columns)[-1].name
            changed = await connection.execute(text(f'UPDATE {name} SET "{column}" = "{column}"'))
            assert changed.rowcount == mine, f"{table.name}: raw UPDATE reached {changed.rowcount} rows"
            if owner == "tenant":
                gone = await connection.execute(text(f"DELETE FROM {name} WHERE {TENANT_COLUMN} = '{THEIRS}'"))
                assert gone.rowcount == 0, f"{table.name}: raw DELETE"
            await connection.rollback()
        async with engine.connect() as connection:
            await connection.execute(text("SELECT set_config('keelstone.tenant', :t, true)"), {"t": tenant})
            changed_row = {**theirs}
            for column in table.columns:
                if isinstance(column.type, String) and column.primary_key and column.name != TENANT_COLUMN:
                    changed_row[column.name] = "raw"
            with pytest.raises(DBAPIError, match="row-level security"):
                await connection.execute(insert(table), changed_row)
            await connection.rollback()
    async with engine.connect() as connection:
        forced = (
            await connection.execute(
                text("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = :n"), {"n": table.name}
            )
        ).one()
        assert tuple(forced) == (True, True), f"{table.name} is not under forced row-level security"


class IsolationSuite:
    async def test_no_table_of_any_schema_lets_a_tenant_reach_another(self, database: SqlDatabase) -> None:
        tried = await check_isolation(database, [KERNEL_SCHEMA, DEMO])
        assert len(tried) == len(KERNEL_SCHEMA.metadata.tables) + len(DEMO.metadata.tables)

    async def test_an_undeclared_table_can_not_be_used_in_a_tenants_scope(self, database: SqlDatabase) -> None:
        from sqlalchemy import MetaData, table

        for hidden in (Table("demo_people", MetaData(), Column("id", String)), table("demo_people")):
            async with database.read(MINE) as transaction:
                with pytest.raises(Forbidden, match="not declared"):
                    await transaction.execute(select(literal(1)).select_from(hidden))
