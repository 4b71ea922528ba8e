"""Tables and migrations of a plugin.

Declare every table with :func:`tenant_table` or :func:`platform_table` on the plugin's own ``MetaData``
and return ``Schema("users", metadata, Path(__file__).parent / "migrations")`` from ``contribute_tables``.
The folder holds Alembic revisions (``0001_initial.py`` with ``revision``, ``down_revision``, ``upgrade``)
and nothing else; each plugin is a branch of its own. In a revision, :func:`create_tenant_table` and
:func:`create_platform_table` make tables with their protection; use :func:`protect` after a plain
``op.create_table``.

Statements are SQLAlchemy Core. In a tenant's scope they see and change that tenant's rows only,
``tenant_id`` is filled in, and ``text()`` is refused.
"""

from __future__ import annotations

from kernel.ports import ALL_TENANTS
from kernel.tables import (
    Owner,
    Schema,
    TenantId,
    UtcDateTime,
    create_platform_table,
    create_tenant_table,
    declare,
    json_type,
    platform_table,
    protect,
    tenant_column,
    tenant_reference,
    tenant_table,
    unique_in_tenant,
)

__all__ = [
    "ALL_TENANTS",
    "Owner",
    "Schema",
    "TenantId",
    "UtcDateTime",
    "create_platform_table",
    "create_tenant_table",
    "declare",
    "json_type",
    "platform_table",
    "protect",
    "tenant_column",
    "tenant_reference",
    "tenant_table",
    "unique_in_tenant",
]
