"""News of who owns what runs: each tenant is told once of a new owner, when the marketplace shows it and not only when
an update of theirs is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from plugin_sdk import ALL_TENANTS, KeelstoneError, NewEvent
from plugin_sdk.services import Database, Marketplace, ReleaseOrigin, Transaction
from plugins.builtin.catalog.domain import Activation
from plugins.builtin.catalog.following import follower
from plugins.builtin.catalog.news import News, Teller
from plugins.builtin.catalog.trust.application import Releases
from plugins.builtin.catalog.trust.domain import Doubt, Windows, doubts, told


class Activations(Protocol):
    """What is active where."""

    async def all_activations(self, transaction: Transaction) -> list[tuple[str, Activation]]: ...


@dataclass(frozen=True, slots=True)
class NewOwner:
    """A plugin that runs in a tenant, and belongs to somebody else by now. ``number`` counts its owners."""

    tenant: str
    plugin: str
    version: str
    number: int
    recovered: bool
    doubt: Doubt


class OwnerKeeper:
    """Keeps in memory what the marketplace showed last, a quarter of an hour ago at most while it answers."""

    def __init__(
        self,
        marketplace: Callable[[], Marketplace],
        database: Database,
        activations: Activations,
        releases: Releases,
        teller: Teller,
        windows: Windows,
        now: Callable[[], datetime],
    ) -> None:
        self._marketplace, self._database, self._activations = marketplace, database, activations
        self._releases, self._teller, self._windows, self._now = releases, teller, windows, now
        self._present: dict[str, ReleaseOrigin] = {}
        self._background = follower(self.look, "owners of plugins")

    def start(self) -> None:
        """Begin to follow."""
        self._background.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._background.stop()

    async def look(self) -> int:
        """Ask who owns what is active, and tell each tenant of what is new to it; how many events that were. Raises
        VerificationFailed or BackendUnavailable if that could not be told of every plugin, once the others are done."""
        async with self._database.read(ALL_TENANTS) as transaction:
            active = {each.plugin for _, each in await self._activations.all_activations(transaction) if each.running}
        found = await self._marketplace().stand_behind(sorted(active)) if active else {}
        failed = [answer for answer in found.values() if isinstance(answer, KeelstoneError)]
        self._present |= {plugin: answer for plugin, answer in found.items() if not isinstance(answer, KeelstoneError)}
        count = await self._teller.tell(
            News(each.tenant, each.plugin, each.version, f"owner:{each.number}", self._event(each))
            for each in await self.new_owners(None)
        )
        if failed:
            raise failed[0]
        return count

    async def new_owners(self, tenant: str | None) -> list[NewOwner]:
        """What is active and belongs to somebody else than what runs came from; ``tenant`` None: of every tenant."""
        news, changed = [], dict[tuple[str, str], Sequence[Doubt]]()
        async with self._database.read(ALL_TENANTS) as transaction:
            for owner, each in await self._activations.all_activations(transaction):
                present = self._present.get(each.plugin)
                # Nearly every namespace has its first owner.
                if present is None or present.owner == 1 or tenant not in (None, owner) or not each.running:
                    continue
                key = (each.plugin, each.version)
                if key not in changed:
                    release = await self._releases.find(transaction, *key)
                    changed[key] = () if release is None else doubts(release.origin, present, self._windows)
                news += [
                    NewOwner(owner, *key, present.owner, present.recovered, doubt)
                    for doubt in changed[key]
                    if doubt.kind == "owner"
                ]
        return news

    def _event(self, found: NewOwner) -> NewEvent:
        data = {
            "plugin": found.plugin,
            "version": found.version,
            "recovered": found.recovered,
            "why": told([found.doubt], self._now()),
        }
        until = {} if found.doubt.until is None else {"until": found.doubt.until.isoformat()}
        return NewEvent("plugin.owner_changed", data | until)
