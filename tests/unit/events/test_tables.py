"""Declaring tables with an owner."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from sqlalchemy.dialects import sqlite

from kernel.errors import ConfigurationError, Forbidden, TenantMismatch
from kernel.tables import Schema, declare, owner_of, platform_table, protection_sql, tenant_table, use_scope


def test_a_tenants_table_has_the_tenant_first_in_its_key() -> None:
    table = tenant_table(MetaData(), "people", Column("id", String(40), primary_key=True), Column("name", String(40)))
    assert [column.name for column in table.primary_key] == ["tenant_id", "id"]
    assert next(iter(table.columns)).name == "tenant_id"
    assert owner_of(table) == "tenant"


@pytest.mark.parametrize(
    "columns", [[Column("name", String(4))], [Column("tenant_id", String(4)), Column("id", Integer, primary_key=True)]]
)
def test_a_table_without_its_own_key_or_with_its_own_tenant_column_is_refused(columns: list[Column[object]]) -> None:
    with pytest.raises(ConfigurationError, match="people"):
        tenant_table(MetaData(), "people", *columns)


def test_platform_tables_are_shared_only_if_they_say_so() -> None:
    metadata = MetaData()
    assert owner_of(platform_table(metadata, "a", Column("id", Integer, primary_key=True))) == "platform"
    assert owner_of(platform_table(metadata, "b", Column("id", Integer, primary_key=True), shared=True)) == "shared"
    assert owner_of(Table("c", metadata, Column("id", Integer))) is None


def test_a_table_without_the_column_can_not_be_declared_a_tenants() -> None:
    with pytest.raises(ConfigurationError):
        declare(Table("c", MetaData(), Column("id", Integer)), "tenant")


def test_version_tables_follow_the_plugins_name() -> None:
    assert Schema("acme/Lead-Scorer", MetaData(), Path()).version_table == "alembic_version_acme_lead_scorer"


def test_policies_evaluate_their_settings_once_per_statement() -> None:
    statements = protection_sql("people", "tenant")
    assert any("FORCE ROW LEVEL SECURITY" in statement for statement in statements)
    policy = next(statement for statement in statements if statement.startswith("CREATE POLICY"))
    assert policy.count("(select current_setting(") == policy.count("current_setting(") == 4
    assert not any("FOR SELECT USING (true)" in statement for statement in statements)
    assert any("FOR SELECT USING (true)" in statement for statement in protection_sql("plans", "shared"))


def test_the_type_itself_refuses_another_tenants_value() -> None:
    table = tenant_table(MetaData(), "people", Column("id", String(40), primary_key=True))
    process = table.c.tenant_id.type.bind_processor(sqlite.dialect())
    assert process is not None
    with use_scope("acme"):
        assert process("acme") == "acme"
        for other in ("globex", "ACME", "", None):
            with pytest.raises(TenantMismatch):
                process(other)
    with use_scope("*"):
        assert process("globex") == "globex"


def test_outside_any_scope_statements_compile_as_they_are() -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    from kernel.adapters.sql.guard import GuardedSQLiteCompiler

    table = tenant_table(MetaData(), "people", Column("id", String(40), primary_key=True))
    dialect = create_async_engine("sqlite+aiosqlite:///unused.db").sync_engine.dialect
    dialect.statement_compiler = GuardedSQLiteCompiler
    plain = str(select(table).compile(dialect=dialect))
    with use_scope("acme"):
        guarded = str(select(table).compile(dialect=dialect))
        with pytest.raises(Forbidden):
            insert(table).from_select(["tenant_id", "id"], select(table)).compile(dialect=dialect)
    assert "WHERE" not in plain
    assert "FROM (SELECT * FROM people WHERE people.tenant_id = ?) AS people" in guarded
