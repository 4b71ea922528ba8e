"""What a copy of the catalogue elsewhere is fed from: which plugin changed last, numbered in the order of commits.

Each plugin has the number of its latest change only, so the feed does not grow with time: whoever has seen everything
up to a number asks for what came after it, and whoever has seen nothing takes the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from marketplace.registry.tables import Tables, schema

listing_changes = sa.Table(
    "listing_changes",
    schema,
    sa.Column("plugin", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
)

_ROWS = (
    "SELECT coalesce(c.number, 0), p.id, p.plugin, p.slot, p.entry, p.name_key, p.kernels, t.body FROM {} "
    "LEFT JOIN plugin_text t ON t.rowid = p.slot WHERE {} LIMIT ?"
)
# CROSS JOIN: SQLite keeps that order, and an index gives it.
_AFTER = _ROWS.format("listing_changes c CROSS JOIN plugins p ON p.id = c.plugin", "c.number > ? ORDER BY c.number")
_ALL = _ROWS.format(
    "plugins p LEFT JOIN listing_changes c ON c.plugin = p.id", "p.slot IS NOT NULL AND p.id > ? ORDER BY p.id"
)
_SPELLINGS = "SELECT remainder, word FROM spellings WHERE (remainder, word) > (?, ?) ORDER BY remainder, word LIMIT ?"
_SUMS = (
    "SELECT count(*), coalesce(sum(p.id), 0), coalesce(sum(p.slot >> 40), 0), coalesce(sum(c.number), 0) "
    "FROM plugins p LEFT JOIN listing_changes c ON c.plugin = p.id WHERE p.slot IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One plugin as search has it; ``change`` is the number of its latest change. ``slot`` None: it is not listed.

    ``entry`` and ``kernels`` are JSON.
    """

    change: int
    id: int
    plugin: str
    slot: int | None
    entry: str | None
    name_key: str | None
    kernels: str
    body: str | None


@dataclass(frozen=True, slots=True)
class Sums:
    """What two copies of a catalogue must have in common: how many plugins, and sums of their ids, levels and change
    numbers."""

    plugins: int
    ids: int
    levels: int
    changes: int


def note_changes(connection: sa.Connection, plugins: Iterable[int]) -> None:
    """Give each of some plugins the next number, in the transaction that changes them."""
    last = newest_change(connection)
    rows = [(plugin, last + at) for at, plugin in enumerate(plugins, 1)]
    if rows:
        connection.exec_driver_sql(
            "INSERT INTO listing_changes(plugin, number) VALUES (?, ?) "
            "ON CONFLICT(plugin) DO UPDATE SET number = excluded.number",
            rows,
        )


def newest_change(connection: sa.Connection) -> int:
    """The number of the latest change; 0 if there was none."""
    return int(connection.exec_driver_sql("SELECT coalesce(max(number), 0) FROM listing_changes").scalar_one())


class Feed:
    """Reads the feed of one registry. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def newest(self) -> int:
        """The number of the latest change; 0 if there was none."""
        with self._tables.read() as connection:
            return newest_change(connection)

    def after(self, change: int, most: int) -> list[Listed]:
        """The plugins that changed after ``change``, in that order, ``most`` of them at most."""
        with self._tables.read() as connection:
            return [Listed(*row) for row in connection.exec_driver_sql(_AFTER, (change, most))]

    def listed(self, most: int) -> Iterator[list[Listed]]:
        """All listed plugins, some at a time, each part as it is when it is read."""
        last = 0
        while True:
            with self._tables.read() as connection:
                found = [Listed(*row) for row in connection.exec_driver_sql(_ALL, (last, most))]
            if not found:
                return
            last = found[-1].id
            yield found

    def spellings(self, most: int) -> Iterator[list[tuple[str, str]]]:
        """The dictionary of corrections, some at a time: what is left of a word, and the word."""
        last = ("", "")
        while True:
            with self._tables.read() as connection:
                found = [(row[0], row[1]) for row in connection.exec_driver_sql(_SPELLINGS, (*last, most))]
            if not found:
                return
            last = found[-1]
            yield found

    def sums(self) -> tuple[int, Sums]:
        """The latest change, and what a copy that has come so far must have. Reads every plugin's row."""
        with self._tables.read() as connection:
            return newest_change(connection), Sums(*map(int, connection.exec_driver_sql(_SUMS).one()))
