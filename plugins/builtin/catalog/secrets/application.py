"""Secrets that a tenant's admin keeps for a plugin: entered, named and removed, never shown again.

Stored encrypted, each bound to its tenant, plugin and name, so that a row that is moved opens for
nobody. The one who reads them is the gate of the sandbox's host calls (``SecretSource``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, String, Text, delete, insert, select

from plugin_sdk import Context, NewEvent, NotFound, ValidationFailed
from plugin_sdk.data import UtcDateTime, tenant_table
from plugin_sdk.services import Database, KeyProvider, Transaction
from plugins.builtin.catalog.application import TenantPlugins
from plugins.builtin.catalog.infrastructure import metadata

SHORTEST, LONGEST = 8, 8_192
"""Characters. Shorter ones could not be taken out of answers without riddling them."""

table = tenant_table(
    metadata,
    "catalog_secrets",
    Column("plugin", String(110), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("cipher", Text, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("changed_by", String(64), nullable=False),
)


@dataclass(frozen=True, slots=True)
class SecretState:
    """A secret as people may see it: ``hosts`` and ``places`` are where the platform may put it."""

    name: str
    why: str
    hosts: tuple[str, ...]
    places: tuple[str, ...]
    entered: bool
    changed_at: datetime | None = None
    changed_by: str = ""


def _purpose(tenant: str, plugin: str, name: str) -> str:
    return f"plugin-secret:{tenant}:{plugin}:{name}"


async def forget_secrets(transaction: Transaction, plugin: str) -> None:
    """Delete every tenant's secrets of a plugin that is uninstalled with its data."""
    await transaction.execute(delete(table).where(table.c.plugin == plugin))


class PluginSecrets:
    """The use cases. Implements ``plugin_sdk.services.SecretSource``."""

    def __init__(
        self,
        database: Database,
        keys: KeyProvider,
        tenants: TenantPlugins,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._keys = keys
        self._tenants = tenants
        self._now = now

    async def secrets(self, tenant: str, plugin: str) -> dict[str, str]:
        """The values by name. Raises ConfigurationError if the key or a row is not what it was."""
        query = select(table.c.name, table.c.cipher).where(table.c.plugin == plugin)
        async with self._database.read(tenant) as transaction:
            rows = (await transaction.execute(query)).all()
        return {r.name: self._keys.decrypt(r.cipher, _purpose(tenant, plugin, r.name)).decode() for r in rows}

    async def list(self, tenant: str, plugin: str) -> list[SecretState]:
        """Every secret that an installed release asks for, or that was entered. Raises NotFound."""
        asked = await self._asked(plugin)
        query = select(table.c.name, table.c.changed_at, table.c.changed_by).where(table.c.plugin == plugin)
        async with self._database.read(tenant) as transaction:
            entered = {r.name: r for r in await transaction.execute(query)}
        found = []
        for name in sorted({*asked, *entered}):
            use, row = asked.get(name), entered.get(name)
            found.append(
                SecretState(
                    name=name,
                    why=use.why if use else "No installed release asks for it any more.",
                    hosts=use.hosts if use else (),
                    places=use.places if use else (),
                    entered=row is not None,
                    changed_at=row.changed_at if row else None,
                    changed_by=row.changed_by if row else "",
                )
            )
        return found

    async def put(self, context: Context, plugin: str, name: str, value: str) -> None:
        """Enter or replace a secret. Raises NotFound, ValidationFailed."""
        asked = await self._asked(plugin)
        if name not in asked:
            raise NotFound(
                f"{plugin} asks for no secret {name}.",
                plugin=plugin,
                tenant=context.tenant,
                expected=", ".join(asked) or "no secret",
                found=name,
            )
        if not SHORTEST <= len(value) <= LONGEST or not value.isprintable() or value != value.strip():
            raise ValidationFailed(
                f"The value of {name} cannot be used.",
                plugin=plugin,
                expected=f"{SHORTEST} to {LONGEST} printable characters, no space at the ends",
                fix="Enter it again, without a new line.",
            )
        row = {
            "plugin": plugin,
            "name": name,
            "cipher": self._keys.encrypt(value.encode(), _purpose(context.tenant, plugin, name)),
            "changed_at": self._now(),
            "changed_by": context.principal.id,
        }
        async with self._database.write(context.tenant, context) as transaction:
            await transaction.execute(delete(table).where(table.c.plugin == plugin, table.c.name == name))
            await transaction.execute(insert(table), row)
            transaction.emit(f"activation:{plugin}", _changed(plugin, name, "entered"))

    async def remove(self, context: Context, plugin: str, name: str) -> None:
        """Delete a secret. Raises NotFound if it was never entered."""
        async with self._database.write(context.tenant, context) as transaction:
            gone = await transaction.execute(delete(table).where(table.c.plugin == plugin, table.c.name == name))
            if gone.rowcount == 0:
                raise NotFound(f"Nobody has entered {name} for {plugin}.", plugin=plugin, tenant=context.tenant)
            transaction.emit(f"activation:{plugin}", _changed(plugin, name, "removed"))

    async def _asked(self, plugin: str) -> dict[str, Any]:
        """The secrets that installed releases ask for, the newest release's words winning."""
        await self._tenants.find(plugin)
        asked: dict[str, Any] = {}
        for release in await self._tenants.installed():
            capability = release.manifest.capabilities.secrets
            if release.manifest.id == plugin and capability is not None:
                asked |= capability.names
        return asked


def _changed(plugin: str, name: str, change: str) -> NewEvent:
    return NewEvent("plugin.secret_changed", {"plugin": plugin, "name": name, "change": change})
