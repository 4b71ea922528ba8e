"""Telling tenants news of what they run, by events: of each matter once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from plugin_sdk import ALL_TENANTS, NewEvent, system_context
from plugin_sdk.services import Database, Transaction


@dataclass(frozen=True, slots=True)
class News:
    """What a tenant is to be told of a plugin that runs there. ``matter`` names it among all of that version's."""

    tenant: str
    plugin: str
    version: str
    matter: str
    event: NewEvent


class Told(Protocol):
    """Where it is kept who was told of what."""

    async def all(self, transaction: Transaction) -> set[tuple[str, str, str, str]]: ...

    async def add(self, transaction: Transaction, plugin: str, version: str, matter: str, at: datetime) -> bool: ...


class Teller:
    """Emits what a tenant has not been told of yet, each in a transaction with the note that it was."""

    def __init__(self, database: Database, told: Told, now: Callable[[], datetime]) -> None:
        self._database, self._told, self._now = database, told, now

    async def tell(self, news: Iterable[News]) -> int:
        """How many events that were."""
        async with self._database.read(ALL_TENANTS) as transaction:
            told = await self._told.all(transaction)
        count = 0
        for each in news:
            about = (each.plugin, each.version, each.matter)
            if (each.tenant, *about) in told:
                continue
            async with self._database.write(each.tenant, system_context(each.tenant)) as transaction:
                # Asked again inside: another process may have been quicker.
                if await self._told.add(transaction, *about, self._now()):
                    transaction.emit(f"release:{each.plugin}", each.event)
                    count += 1
        return count
