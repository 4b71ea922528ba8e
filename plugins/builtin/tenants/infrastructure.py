"""Tenants in SQL, and the projection that sums up what each has and does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, update

from plugin_sdk import Conflict, Event, Projection
from plugin_sdk.data import Schema, UtcDateTime, declare, json_type, tenant_column, tenant_table
from plugin_sdk.services import Transaction
from plugins.builtin.tenants.domain import Overview, Tenant

metadata = MetaData()
# A tenant is a row of its own: its id is the tenant_id, so the same protection covers the list of tenants.
tenants = declare(
    Table(
        "tenants",
        metadata,
        tenant_column(),
        Column("name", String(200), nullable=False),
        Column("plan", String(60), nullable=False),
        Column("configuration", json_type(), nullable=False),
        Column("version", Integer, nullable=False),
        Column("created_at", UtcDateTime, nullable=False),
    ),
    "tenant",
)


overview = tenant_table(
    metadata,
    "tenants_overview",
    Column("kind", String(20), primary_key=True),
    Column("users", Integer, nullable=False),
    Column("active_plugins", Integer, nullable=False),
    Column("events", Integer, nullable=False),
    Column("last_event_at", UtcDateTime),
)
SCHEMA = Schema("keelstone/tenants", metadata, Path(__file__).parent / "migrations")

_COLUMNS = (
    tenants.c.tenant_id,
    tenants.c.name,
    tenants.c.plan,
    tenants.c.created_at,
    tenants.c.configuration,
    tenants.c.version,
)
_STEPS = {
    "user.created": ("users", 1),
    "user.removed": ("users", -1),
    "plugin.activated": ("active_plugins", 1),
    "plugin.deactivated": ("active_plugins", -1),
}
_KIND = "total"


class SqlTenants:
    """Implements ``application.TenantRepository``."""

    async def add(self, transaction: Transaction, tenant: Tenant) -> None:
        """Insert. Raises Conflict if the id is taken."""
        try:
            await transaction.execute(insert(tenants).values(**_row(tenant)))
        except Conflict as error:
            raise Conflict(f"There already is a tenant {tenant.id}.", tenant=tenant.id, expected="a new id") from error

    async def save(self, transaction: Transaction, tenant: Tenant, seen: int) -> bool:
        """Update if the row is still at version ``seen``."""
        change = update(tenants).where(tenants.c.tenant_id == tenant.id, tenants.c.version == seen)
        return bool((await transaction.execute(change.values(**_row(tenant)))).rowcount)

    async def get(self, transaction: Transaction, id: str) -> Tenant | None:
        """One tenant."""
        row = (await transaction.execute(select(*_COLUMNS).where(tenants.c.tenant_id == id))).one_or_none()
        return None if row is None else Tenant(*row)

    async def page(self, transaction: Transaction, after: str, limit: int) -> list[Tenant]:
        """Tenants by id; in a tenant's scope only that one."""
        query = select(*_COLUMNS).order_by(tenants.c.tenant_id).limit(limit)
        if after:
            query = query.where(tenants.c.tenant_id > after)
        return [Tenant(*row) for row in await transaction.execute(query)]

    async def overview(self, transaction: Transaction, id: str) -> Overview:
        """The projection's row; zeros if nothing has happened yet."""
        o = overview.c
        query = select(o.users, o.active_plugins, o.events, o.last_event_at).where(o.tenant_id == id)
        row = (await transaction.execute(query)).one_or_none()
        return Overview() if row is None else Overview(*row)


async def apply_overview(event: Event, transaction: Transaction, tables: Mapping[str, Any]) -> None:
    """Add one event to the overview (the projection's fold)."""
    table: Table = tables[overview.name]
    column, step = _STEPS.get(event.type, (None, 0))
    changes: dict[str, Any] = {"events": table.c.events + 1, "last_event_at": event.time}
    if column is not None:
        changes[column] = table.c[column] + step
    change = update(table).where(table.c.kind == _KIND).values(**changes)
    if (await transaction.execute(change)).rowcount:
        return
    first = {"users": 0, "active_plugins": 0, "events": 1, "last_event_at": event.time}
    if column is not None:
        first[column] = step
    await transaction.execute(insert(table).values(kind=_KIND, **first))


OVERVIEW = Projection("tenants-overview", ("*",), (overview,), apply_overview)


def _row(tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant_id": tenant.id,
        "name": tenant.name,
        "plan": tenant.plan,
        "configuration": dict(tenant.configuration),
        "version": tenant.version,
        "created_at": tenant.created_at,
    }
