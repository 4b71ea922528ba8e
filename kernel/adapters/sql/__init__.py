"""Storage on SQLAlchemy: SQLite (aiosqlite) in one process, PostgreSQL (asyncpg) for many."""

from __future__ import annotations

from kernel.adapters.sql.database import SqlDatabase
from kernel.adapters.sql.schema import KERNEL_SCHEMA
from kernel.events import EventTypes
from kernel.settings import Settings

__all__ = ["KERNEL_SCHEMA", "SqlDatabase", "open_database"]


def open_database(settings: Settings, types: EventTypes | None = None) -> SqlDatabase:
    """The database that ``settings`` name, not connected yet. Raises ConfigurationError.

    ``types``, if given, are the only event types accepted.
    """
    return SqlDatabase(settings.sqlalchemy_url, types)
