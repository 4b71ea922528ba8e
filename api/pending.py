"""Which tables this code would migrate at its first start: asked without starting anything."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import MetaData

from api.bootstrap import migration_standings
from kernel.discovery import find_plugins
from kernel.settings import Settings
from kernel.tables import Schema


@dataclass(frozen=True, slots=True)
class PendingMigration:
    """A schema that this code would migrate, or cannot serve; ``severity`` is ``notes`` or ``breaks``."""

    plugin: str
    severity: str
    detail: str
    fix: str


async def pending_migrations(settings: Settings) -> list[PendingMigration]:
    """What the first start of this code would do to the database's tables; changes nothing.

    Raises BackendUnavailable.
    """
    if settings.database_url is None and not (settings.home / "keelstone.db").exists():
        return []
    found = [f for f in find_plugins() if (f.folder / "migrations").is_dir()]
    schemas = [Schema(f.manifest.id, MetaData(), f.folder / "migrations") for f in found]
    pending = []
    for s in await migration_standings(settings, schemas):
        if not s.known:
            detail = f"The database is at {s.current}, which this code does not know: it is newer than this code."
            fix = "Use the version that made it, or restore a backup from before."
            pending.append(PendingMigration(s.plugin, "breaks", detail, fix))
        elif s.current != s.head:
            detail = f"The first start migrates its tables from {s.current or 'nothing'} to {s.head}."
            pending.append(PendingMigration(s.plugin, "notes", detail, "Make a backup of the database first."))
    return pending
