"""Who ran what: for a package's digest, which tenants had it, with which grants, since and until when, by whose word.

Read from what is never changed: the tenants' event streams, and the receipts that the decisions in them name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select

from plugin_sdk import ALL_TENANTS, Event, NotFound
from plugin_sdk.services import Database, EventStore
from plugins.builtin.catalog.application import CatalogRepository
from plugins.builtin.catalog.consent.receipts import table

PAGE = 500
_TYPES = (
    "plugin.consented",
    "plugin.activated",
    "plugin.updated",
    "plugin.upgrade_promoted",
    "plugin.deactivated",
)


@dataclass(frozen=True, slots=True)
class Run:
    """A tenant ran a release with these grants from ``since`` until ``until`` (None: it still does). ``by`` decided on
    them; ``receipt`` is the SHA-256 of the signed receipt of it, empty if it is older than receipts."""

    tenant: str
    plugin: str
    version: str
    digest: str
    since: datetime
    until: datetime | None
    granted: tuple[str, ...]
    by: str
    receipt: str


class Runs:
    """Answers for any package that was ever installed here."""

    def __init__(self, database: Database, events: EventStore, repository: CatalogRepository) -> None:
        self._database, self._events, self._repository = database, events, repository

    async def of(self, digest: str, tenant: str | None) -> list[Run]:
        """Every run of a package, oldest first; ``tenant`` None: of every tenant. Raises NotFound."""
        async with self._database.read(ALL_TENANTS) as transaction:
            releases = [r for r in await self._repository.releases(transaction) if digest and r.digest == digest]
            if not releases:
                raise NotFound("No package with this digest was ever installed here.", found=digest)
            manifest = releases[0].manifest
            deciding = select(table.c.tenant_id).where(table.c.plugin == manifest.id).distinct()
            tenants = [tenant] if tenant else list((await transaction.execute(deciding)).scalars())
        found: list[Run] = []
        for owner in tenants:
            events = [event async for event in self._told(owner, manifest.id)]
            found += [run for run in runs(owner, manifest.id, digest, events) if run.version == manifest.version]
        return sorted(found, key=lambda run: (run.since, run.tenant))

    async def _told(self, tenant: str, plugin: str) -> AsyncIterator[Event]:
        after = 0
        while page := await self._events.read_tenant(tenant, after=after, limit=PAGE, types=_TYPES):
            for event in page:
                if event.data.get("plugin") == plugin:
                    yield event
            after = page[-1].position


def runs(tenant: str, plugin: str, digest: str, events: Iterable[Event]) -> Iterator[Run]:
    """The runs of all versions that a tenant's events tell of, in order. A decision on grants begins a new one."""
    now: Run | None = None
    granted: tuple[str, ...] = ()
    by = receipt = ""
    for event in events:
        said = event.data
        version = now.version if now is not None else ""
        if event.type == "plugin.consented":
            granted, receipt = tuple(said["granted"]), str(said.get("receipt", ""))
            by, version = str(event.metadata.get("principal", "")), said["version"]
            if now is None:
                continue  # what was decided is then activated
        elif event.type == "plugin.activated":
            version = said["version"]
        elif event.type in ("plugin.updated", "plugin.upgrade_promoted"):
            version = said["to"]
        if now is not None:
            same = (now.version, now.granted, now.receipt) == (version, granted, receipt)
            if same and event.type != "plugin.deactivated":
                continue
            yield replace(now, until=event.time)
        now = None
        if event.type != "plugin.deactivated":
            now = Run(tenant, plugin, version, digest, event.time, None, granted, by, receipt)
    if now is not None:
        yield now
