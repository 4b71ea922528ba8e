"""The session guard: in a tenant's scope every Core statement is compiled to that tenant's rows.

It works in the SQL compiler, the one place through which every use of a table goes, however deep (joins,
aliases, subqueries, CTEs, EXISTS, unions): a tenant table in a FROM renders as
``(SELECT * FROM t WHERE tenant_id = :tenant) AS t``, which stays right under outer joins where an added
WHERE would not; UPDATE and DELETE get the criterion; both databases flatten the subselect. The compiled
form is kept in SQLAlchemy's own statement cache (one for tenants, one for the platform), so a hot
statement costs one bind value more. The tenant itself is bound at each execution, never cached.

What can't be bounded is refused: raw text, undeclared tables, the platform's tables, DDL, INSERT from
SELECT, a computed ``tenant_id``. On PostgreSQL row-level security says the same once more underneath.
"""

from __future__ import annotations

import copy
import re
from typing import Any, NoReturn

from sqlalchemy import Delete, Insert, Table, Update, bindparam
from sqlalchemy.dialects.postgresql.asyncpg import PGCompiler_asyncpg
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter

from kernel.errors import Forbidden, TenantMismatch
from kernel.ports import ALL_TENANTS
from kernel.tables import TENANT_COLUMN, Owner, TenantId, current_scope, owner_of

# Functions by which a statement could leave its scope or run text of its own.
_FORBIDDEN_FUNCTIONS = frozenset(
    {"set_config", "dblink", "dblink_exec", "query_to_xml", "pg_read_file", "lo_import", "load_extension", "readfile"}
)

_HARMLESS_LITERAL = re.compile(r"\*|\d+|'[^'\\]*'|NULL", re.IGNORECASE)

_TENANT = bindparam("keelstone_tenant", callable_=current_scope, type_=TenantId())


def guarding() -> bool:
    """Whether the statement in hand belongs to a tenant's scope."""
    scope = current_scope()
    return scope is not None and scope != ALL_TENANTS


def refuse(what: str, fix: str) -> NoReturn:
    """Refuse a statement in the scope in hand. Raises Forbidden."""
    raise Forbidden(what, tenant=current_scope(), fix=fix)


def check_statement(statement: Any) -> None:
    """Refuse what is neither a query nor a DML expression. Raises Forbidden."""
    if not (getattr(statement, "is_select", False) or getattr(statement, "is_dml", False)) or getattr(
        statement, "is_text", False
    ):
        refuse(
            f"{type(statement).__name__} can't run in a tenant's scope.",
            "Use SQLAlchemy Core's select, insert, update or delete; DDL belongs in migrations.",
        )


def _owner(table: Any) -> Owner:
    owner = owner_of(table) if isinstance(table, Table) else None
    if owner is None:
        refuse(
            f"Table {getattr(table, 'name', table)!r} is not declared, so nobody knows whose rows it has.",
            "Declare it with tenant_table() or platform_table() of plugin_sdk.data.",
        )
    return owner


def _writable(table: Any) -> None:
    if not isinstance(table, Table):
        refuse("A tenant's scope writes to plain tables only.", "Name the table itself, not an alias of it.")
    if _owner(table) != "tenant":
        refuse(f"Table {table.name!r} is the platform's.", "Write to it in the scope ALL_TENANTS.")


def _is_plain_value(value: Any) -> bool:
    """Whether a bound value will go through :class:`TenantId`'s check (a literal of another type won't)."""
    if isinstance(value, BindParameter):
        return value.type._isnull or isinstance(value.type, TenantId)
    return not hasattr(value, "__clause_element__") and not hasattr(value, "_compiler_dispatch")


def _check_tenant_value(table: Table, values: Any) -> None:
    for column, value in dict(values).items():
        name = getattr(column, "key", column)
        if name == TENANT_COLUMN and not _is_plain_value(value):
            raise TenantMismatch(
                f"tenant_id of {table.name!r} is computed by an expression.",
                tenant=current_scope(),
                expected="the tenant in hand",
                found=str(value),
                fix="Leave tenant_id out: it is filled in.",
            )


class _Guard(SQLCompiler):
    """What both dialects' compilers add. Does nothing outside a tenant's scope."""

    def visit_table(self, table: Any, asfrom: bool = False, iscrud: bool = False, **kw: Any) -> str:  # type: ignore[override]
        text: str = super().visit_table(table, asfrom=asfrom, iscrud=iscrud, **kw)  # type: ignore[no-untyped-call]
        if not asfrom or not guarding():
            return text
        owner = _owner(table)
        if iscrud or owner == "shared":
            return text
        if owner == "platform":
            refuse(f"Table {table.name!r} is the platform's.", "Read it in the scope ALL_TENANTS.")
        if table.schema:
            refuse(f"Table {table.fullname!r} lies in a schema of its own.", "Keep tables in the default schema.")
        name = self.preparer.quote(table.name)
        column = self.preparer.quote(TENANT_COLUMN)
        bounded = f"(SELECT * FROM {name} WHERE {name}.{column} = {self.process(_TENANT)})"  # noqa: S608 quoted names only
        alias = kw.get("enclosing_alias")
        if alias is not None and alias.element is table:
            return bounded
        return f"{bounded} AS {name}"

    def visit_tablesample(self, tablesample: Any, asfrom: bool = False, **kw: Any) -> str:
        if guarding():
            refuse("TABLESAMPLE can't run in a tenant's scope.", "Order by random() and limit instead.")
        return super().visit_tablesample(tablesample, asfrom=asfrom, **kw)  # type: ignore[no-any-return,no-untyped-call]

    def visit_insert(self, insert_stmt: Insert, *args: Any, **kw: Any) -> str:
        if guarding():
            _writable(insert_stmt.table)
            if insert_stmt.select is not None:
                refuse("INSERT from SELECT can't run in a tenant's scope.", "Select the rows, then insert them.")
            _check_tenant_value(insert_stmt.table, insert_stmt._values or {})  # type: ignore[arg-type]
            for rows in insert_stmt._multi_values or ():
                for row in rows:
                    named = row if isinstance(row, dict) else zip(insert_stmt.table.c.keys(), row, strict=False)
                    _check_tenant_value(insert_stmt.table, named)  # type: ignore[arg-type]
        return super().visit_insert(insert_stmt, *args, **kw)  # type: ignore[no-any-return,no-untyped-call]

    def visit_update(self, update_stmt: Update, *args: Any, **kw: Any) -> str:
        if guarding():
            _writable(update_stmt.table)
            table: Any = update_stmt.table
            _check_tenant_value(table, update_stmt._values or {})
            update_stmt = update_stmt.where(table.c[TENANT_COLUMN] == _TENANT)
        return super().visit_update(update_stmt, *args, **kw)

    def visit_delete(self, delete_stmt: Delete, *args: Any, **kw: Any) -> str:
        if guarding():
            _writable(delete_stmt.table)
            table: Any = delete_stmt.table
            delete_stmt = delete_stmt.where(table.c[TENANT_COLUMN] == _TENANT)
        return super().visit_delete(delete_stmt, *args, **kw)  # type: ignore[no-any-return,no-untyped-call]

    def visit_on_conflict_do_update(self, on_conflict: Any, **kw: Any) -> str:
        # A conflict on a key without tenant_id would otherwise update the other tenant's row.
        if guarding():
            statement: Any = self.stack[-1]["selectable"]
            table = statement.table
            _check_tenant_value(table, on_conflict.update_values_to_set)
            own = table.c[TENANT_COLUMN] == _TENANT
            where = on_conflict.update_whereclause
            on_conflict = copy.copy(on_conflict)
            on_conflict.update_whereclause = own if where is None else own & where
        return super().visit_on_conflict_do_update(on_conflict, **kw)  # type: ignore[misc,no-any-return]

    def visit_textclause(self, textclause: Any, *args: Any, **kw: Any) -> str:
        if guarding():
            self._refuse_text()
        return super().visit_textclause(textclause, *args, **kw)  # type: ignore[no-any-return,no-untyped-call]

    def visit_tstring(self, tstring: Any, *args: Any, **kw: Any) -> str:
        if guarding():
            self._refuse_text()
        return super().visit_tstring(tstring, *args, **kw)  # type: ignore[no-any-return,no-untyped-call]

    def visit_textual_select(self, taf: Any, *args: Any, **kw: Any) -> str:
        if guarding():
            self._refuse_text()
        return super().visit_textual_select(taf, *args, **kw)  # type: ignore[no-any-return,no-untyped-call]

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> str:
        # SQLAlchemy itself writes `*`, numbers and '%' as literal columns (count(), exists(), startswith()).
        if getattr(column, "is_literal", False) and not _HARMLESS_LITERAL.fullmatch(column.name) and guarding():
            self._refuse_text()
        return super().visit_column(column, *args, **kw)

    def visit_function(self, func: Any, *args: Any, **kw: Any) -> str:
        if func.name.lower() in _FORBIDDEN_FUNCTIONS and guarding():
            refuse(f"Function {func.name} can't be called in a tenant's scope.", "Do without it.")
        return super().visit_function(func, *args, **kw)

    def _refuse_text(self) -> NoReturn:
        refuse("Raw SQL text can't run in a tenant's scope.", "Say it with SQLAlchemy Core expressions.")


class GuardedSQLiteCompiler(_Guard, SQLiteCompiler):
    """SQLite's compiler under the guard."""


class GuardedPostgresCompiler(_Guard, PGCompiler_asyncpg):
    """asyncpg's compiler under the guard."""
