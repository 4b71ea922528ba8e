"""What tenants have been told of, in SQL: each matter of a version once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, String, insert, select

from plugin_sdk.data import UtcDateTime, tenant_table
from plugin_sdk.services import Transaction
from plugins.builtin.catalog.infrastructure import metadata

table = tenant_table(
    metadata,
    "catalog_told",
    Column("plugin", String(110), primary_key=True),
    Column("version", String(80), primary_key=True),
    Column("matter", String(120), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
)


class SqlTold:
    """Where it is kept."""

    async def all(self, transaction: Transaction) -> set[tuple[str, str, str, str]]:
        """Tenant, plugin, version and matter of all that was told, in the scope."""
        columns = (table.c.tenant_id, table.c.plugin, table.c.version, table.c.matter)
        return {(row[0], row[1], row[2], row[3]) for row in await transaction.execute(select(*columns))}

    async def add(self, transaction: Transaction, plugin: str, version: str, matter: str, at: datetime) -> bool:
        """Note that the transaction's tenant is told now; False if it was before."""
        mine = (table.c.plugin == plugin, table.c.version == version, table.c.matter == matter)
        if (await transaction.execute(select(table.c.at).where(*mine))).one_or_none() is not None:
            return False
        await transaction.execute(insert(table).values(plugin=plugin, version=version, matter=matter, at=at))
        return True
