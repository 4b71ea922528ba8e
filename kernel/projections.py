"""Projections: read models built from events, rebuilt beside the live one and swapped in one transaction.

Live events arrive through a consumer named ``projection:<name>``. A rebuild reads history into shadow
tables while live events go on; at the end it shuts live events of this one projection out for a moment,
applies what is left, replaces the rows, and writes every event it has read into the consumer's ledger. So
an event still on the bus is not applied twice, and one that came in the meantime is not lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernel.consumers import EventHandler
from kernel.context import new_id, system_context, use_context
from kernel.errors import Conflict, NotFound
from kernel.events import Event, matches
from kernel.ports import ALL_TENANTS, Database, EventStore, Leases, ProjectionStore, Transaction

Tables = Mapping[str, Any]
Apply = Callable[[Event, Transaction, Tables], Awaitable[None]]

LEASE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Projection:
    """A read model.

    ``tables`` are the SQLAlchemy tables it fills, and nobody else writes to. ``apply(event, transaction,
    tables)`` must reach them through ``tables[name]`` (live or shadow), in the event's tenant's scope,
    depend on nothing but the event and the rows, and have no other effect.
    """

    name: str
    types: tuple[str, ...]
    tables: tuple[Any, ...]
    apply: Apply

    @property
    def consumer(self) -> str:
        """The name under which live events are handled."""
        return f"projection:{self.name}"

    def takes(self, event: Event) -> bool:
        """Whether the event is of one of the types."""
        return any(matches(pattern, event.type) for pattern in self.types)


class Projections:
    """Keeps projections live and rebuilds them."""

    def __init__(
        self,
        database: Database,
        events: EventStore,
        store: ProjectionStore,
        leases: Leases,
        projections: Sequence[Projection],
    ) -> None:
        self._database = database
        self._events = events
        self._store = store
        self._leases = leases
        self._projections = {projection.name: projection for projection in projections}
        if len(self._projections) != len(projections):
            raise ValueError("Two projections have one name.")

    def names(self) -> list[str]:
        """Every projection's name."""
        return sorted(self._projections)

    def handlers(self) -> list[EventHandler]:
        """The consumers that keep the projections live."""
        return [self._handler(projection) for projection in self._projections.values()]

    def _handler(self, projection: Projection) -> EventHandler:
        live = {table.name: table for table in projection.tables}

        async def handle(event: Event, transaction: Transaction) -> None:
            await self._store.share(transaction, projection.name)
            await projection.apply(event, transaction, live)

        return EventHandler(projection.consumer, projection.types, handle)

    async def rebuild(self, name: str, *, batch: int = 500) -> int:
        """Build a projection anew from all events; how many were applied.

        Live events go on meanwhile. Raises NotFound, or Conflict if somebody else is rebuilding it.
        """
        projection = self._projections.get(name)
        if projection is None:
            raise NotFound(f"There is no projection {name!r}.", expected=", ".join(self.names()) or "none", found=name)
        holder = new_id()
        lease = f"rebuild:{name}"
        if not await self._leases.acquire(lease, holder, LEASE_SECONDS):
            raise Conflict(f"Projection {name} is being rebuilt already.", fix="Wait for it to end.")
        try:
            shadows = await self._store.make_shadows(projection.tables)
            try:
                return await self._fill_and_swap(projection, shadows, batch, lease, holder)
            finally:
                await self._store.drop_shadows(projection.tables)
        finally:
            await self._leases.release(lease, holder)

    async def _fill_and_swap(self, projection: Projection, shadows: Tables, batch: int, lease: str, holder: str) -> int:
        applied, cursor = 0, (0, 0)
        while True:
            events, cursor = await self._events.read_committed(after=cursor, limit=batch)
            async with self._database.write(ALL_TENANTS) as transaction:
                applied += await self._apply(projection, events, transaction, shadows)
            await self._leases.acquire(lease, holder, LEASE_SECONDS)
            if len(events) < batch:
                break
        async with self._store.swap(projection.name) as transaction:
            while True:
                events, cursor = await self._events.read_committed(after=cursor, limit=batch)
                applied += await self._apply(projection, events, transaction, shadows)
                if len(events) < batch:
                    break
            await self._store.replace(transaction, projection.tables, shadows)
            await self._store.settle(transaction, projection.name, projection.consumer, projection.types, cursor)
        return applied

    async def _apply(
        self, projection: Projection, events: Sequence[Event], transaction: Transaction, shadows: Tables
    ) -> int:
        wanted = [event for event in events if projection.takes(event)]
        for tenant, group in itertools.groupby(wanted, key=lambda event: event.tenant):
            scoped = self._store.scoped(transaction, tenant)
            for event in group:
                with use_context(system_context(tenant, event.correlation_id or None)):
                    await projection.apply(event, scoped, shadows)
        return len(wanted)
