"""Tables with an owner: how the kernel and every plugin declare what is a tenant's and what the platform's.

Each table says who owns it (``table.info["keelstone"]``). The session guard and PostgreSQL's row-level
security both read that one declaration, so a table that nobody declared can't be used in a tenant's scope.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import JSON, Column, DateTime, ForeignKeyConstraint, MetaData, String, Table, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator

from kernel.errors import ConfigurationError, TenantMismatch, ValidationFailed
from kernel.ports import ALL_TENANTS

TENANT_COLUMN = "tenant_id"
TENANT_ID_LENGTH = 64
INFO_KEY = "keelstone"

Owner = Literal["tenant", "platform", "shared"]
"""``tenant``: rows of one tenant each. ``platform``: only ALL_TENANTS scope. ``shared``: every scope
reads, only ALL_TENANTS scope writes."""

_scope: ContextVar[str | None] = ContextVar("keelstone_scope", default=None)


def current_scope() -> str | None:
    """The scope of the statement being executed, or None outside the platform's transactions."""
    return _scope.get()


@contextmanager
def use_scope(scope: str) -> Iterator[None]:
    """Make ``scope`` the one in which statements of the ``with`` body are compiled and bound."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


class TenantId(TypeDecorator[str]):
    """A tenant's id. In a tenant's scope no value but that tenant's can be bound to such a column.

    Raises TenantMismatch while binding, whether the value came from an insert (one row or many), an
    update's SET or a comparison.
    """

    impl = String(TENANT_ID_LENGTH)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        scope = _scope.get()
        if scope is None or scope == ALL_TENANTS or value == scope:
            return value  # type: ignore[no-any-return]
        raise TenantMismatch(
            "A statement names another tenant than the one in hand.",
            tenant=scope,
            expected=scope,
            found=repr(value),
            fix="Leave tenant_id out: it is filled in. Work over tenants needs the scope ALL_TENANTS.",
        )


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC on every database. Raises ValidationFailed for a datetime without a time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValidationFailed(
                "A datetime without a time zone can't be stored.",
                expected="an aware datetime, e.g. datetime.now(UTC)",
                found=value.isoformat(),
            )
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def json_type() -> Any:
    """JSON on SQLite, JSONB on PostgreSQL."""
    return JSON().with_variant(JSONB(), "postgresql")


def _tenant_default() -> str:
    scope = _scope.get()
    if scope is None or scope == ALL_TENANTS:
        raise TenantMismatch(
            "A row of a tenant's table was inserted in platform scope without saying whose it is.",
            expected="tenant_id in every row",
            found="none",
        )
    return scope


def tenant_column() -> Column[str]:
    """The column ``tenant_id``: first in the primary key, filled with the tenant in hand."""
    return Column(TENANT_COLUMN, TenantId(), primary_key=True, nullable=False, default=_tenant_default)


def tenant_table(metadata: MetaData, name: str, *items: SchemaItem, **options: Any) -> Table:
    """Declare a table whose rows belong to one tenant each.

    ``tenant_id`` is added as the first column of the primary key. At least one of ``items`` must be a
    primary-key column. Raises ConfigurationError if it declares ``tenant_id`` itself or has no key.
    """
    if any(isinstance(item, Column) and item.name == TENANT_COLUMN for item in items):
        raise ConfigurationError(f"Table {name} declares {TENANT_COLUMN} itself.", fix="Leave it out: it is added.")
    table = Table(name, metadata, tenant_column(), *items, **options)
    if len(table.primary_key.columns) < 2:
        raise ConfigurationError(
            f"Table {name} has no key of its own within a tenant.", fix="Mark a column with primary_key=True."
        )
    return declare(table, "tenant")


def platform_table(metadata: MetaData, name: str, *items: SchemaItem, shared: bool = False, **options: Any) -> Table:
    """Declare a table of the platform: only the scope ALL_TENANTS may touch it.

    With ``shared`` every tenant's scope may read it, and still only ALL_TENANTS may write.
    """
    return declare(Table(name, metadata, *items, **options), "shared" if shared else "platform")


def declare(table: Table, owner: Owner) -> Table:
    """Mark who owns ``table``; for tables that are not made by the functions above."""
    if owner == "tenant" and TENANT_COLUMN not in table.c:
        raise ConfigurationError(f"Table {table.name} is declared tenant-owned but has no column {TENANT_COLUMN}.")
    table.info[INFO_KEY] = {"owner": owner}
    return table


def owner_of(table: Table) -> Owner | None:
    """Who owns ``table``, or None if nobody declared it."""
    mark = table.info.get(INFO_KEY)
    return mark["owner"] if mark else None


def unique_in_tenant(*columns: str, name: str | None = None) -> UniqueConstraint:
    """A unique constraint within one tenant: two tenants may have the same value."""
    return UniqueConstraint(TENANT_COLUMN, *columns, name=name)


def tenant_reference(
    columns: tuple[str, ...], table: str, to: tuple[str, ...] = ("id",), *, ondelete: str | None = "CASCADE"
) -> ForeignKeyConstraint:
    """A foreign key to another tenant table that can't cross tenants (``tenant_id`` is part of it)."""
    remote = [f"{table}.{name}" for name in (TENANT_COLUMN, *to)]
    return ForeignKeyConstraint([TENANT_COLUMN, *columns], remote, ondelete=ondelete)


@dataclass(frozen=True, slots=True)
class Schema:
    """A plugin's tables, and the folder of its Alembic revisions (its own branch and version table).

    Without ``migrations`` missing tables are made straight from ``metadata``; use that in tests only,
    for such tables can't be changed later.
    """

    plugin: str
    metadata: MetaData
    migrations: Path | None = None

    @property
    def version_table(self) -> str:
        """The table in which Alembic notes how far this schema has come."""
        slug = "".join(char if char.isalnum() else "_" for char in self.plugin.lower())
        return f"alembic_version_{slug}"


# ---------------------------------------------------------------------------------- row-level security

# `(select ...)` makes PostgreSQL evaluate the setting once per statement instead of once per row.
_TENANT = "(select current_setting('keelstone.tenant', true))"
_PLATFORM = "(select current_setting('keelstone.scope', true)) = 'platform'"


def protection_sql(table: str, owner: Owner) -> list[str]:
    """The PostgreSQL statements that put ``table`` (an unquoted name) under row-level security."""
    quoted = '"' + table.replace('"', '""') + '"'
    own = f"{TENANT_COLUMN} = {_TENANT} OR {_PLATFORM}"
    rule = own if owner == "tenant" else _PLATFORM
    statements = [
        f"ALTER TABLE {quoted} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {quoted} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS keelstone_owner ON {quoted}",
        f"DROP POLICY IF EXISTS keelstone_shared ON {quoted}",
        f"CREATE POLICY keelstone_owner ON {quoted} USING ({rule}) WITH CHECK ({rule})",
    ]
    if owner == "shared":
        statements.append(f"CREATE POLICY keelstone_shared ON {quoted} FOR SELECT USING (true)")
    return statements


def protect(op: Any, table: str, owner: Owner) -> None:
    """In an Alembic migration: put ``table`` under row-level security (nothing to do on SQLite)."""
    if op.get_context().dialect.name == "postgresql":
        for statement in protection_sql(table, owner):
            op.execute(statement)


def create_tenant_table(op: Any, name: str, *items: SchemaItem) -> None:
    """In an Alembic migration: make a tenant table (``tenant_id`` added) and protect it."""
    op.create_table(name, tenant_column(), *items)
    protect(op, name, "tenant")


def create_platform_table(op: Any, name: str, *items: SchemaItem, shared: bool = False) -> None:
    """In an Alembic migration: make a platform table and protect it."""
    op.create_table(name, *items)
    protect(op, name, "shared" if shared else "platform")
