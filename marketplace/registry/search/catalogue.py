"""Keeps the index of the catalogue current: words, facets, spellings, and each plugin's place by its standing."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from marketplace.registry.search.ranking import ADOPTION_DAYS, Standing, level, slot
from marketplace.registry.search.spelling import learn
from marketplace.registry.tables import downloads, plugins
from plugin_sdk.services import MarketplaceEntry

FACETS = ("publisher", "license", "capability", "keyword")
_WORD = re.compile(r"[^\W_]+")
_TABLES = ("plugin_about", "plugin_text", "plugin_trigrams", "plugin_openings")


def words_of(text: str) -> list[str]:
    """The words of a text as search compares them: small letters, without accents."""
    plain = unicodedata.normalize("NFKD", text.lower())
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


def facets_of(entry: MarketplaceEntry) -> list[tuple[str, str]]:
    """What a plugin can be narrowed down by: facets with their values."""
    several = (("capability", entry.capabilities), ("keyword", entry.keywords))
    found = [("publisher", entry.publisher), ("license", entry.license)]
    return found + [(facet, value) for facet, values in several for value in dict.fromkeys(values)]


def facet_word(facet: str, value: str) -> str:
    """One word that stands for ``value`` of a facet in the index (no stemmer changes a word that ends in a digit)."""
    return f"{facet}{value.lower().encode().hex()}0"


def update_search(
    connection: sa.Connection,
    plugin: str,
    entry: MarketplaceEntry | None,
    body: str | None,
    *,
    standing: Standing | None = None,
    kernels: Iterable[str] = (),
    now: float | None = None,
) -> None:
    """Make ``entry`` what search shows of ``plugin``; None takes it out. ``body`` None keeps the text.

    ``kernels`` are the ranges of hook contracts on which some release of it runs (none: on any).
    """
    standing = standing or Standing()
    known = connection.execute(sa.select(plugins.c.id, plugins.c.slot).where(plugins.c.plugin == plugin)).one_or_none()
    values = {
        "entry": asdict(entry) if entry else None,
        "name_key": " ".join(words_of(entry.name)) if entry else None,
        "kernels": sorted(set(kernels)),
        "released": standing.released,
        "findings": standing.findings,
    }
    if known is None:
        values["plugin"] = plugin
        number = connection.execute(sa.insert(plugins).values(values).returning(plugins.c.id)).scalar_one()
        old, old_body = None, None
    else:
        number, old = known.id, known.slot
        connection.execute(sa.update(plugins).where(plugins.c.id == number).values(values))
        old_body = connection.exec_driver_sql("SELECT body FROM plugin_text WHERE rowid = ?", (old,)).scalar()
    if old is not None:
        for table in _TABLES:
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE rowid = ?", (old,))  # noqa: S608 - fixed names
    if entry is None:
        connection.execute(sa.update(plugins).where(plugins.c.id == number).values(slot=None))
        return
    place = slot(number, level(standing, time.time() if now is None else now, deprecated=entry.deprecated is not None))
    connection.execute(sa.update(plugins).where(plugins.c.id == number).values(slot=place))
    title = f"{entry.name} {entry.id.replace('/', ' ').replace('-', ' ')}"
    facets = " ".join(facet_word(facet, value) for facet, value in facets_of(entry))
    keywords, text = " ".join(entry.keywords), (old_body or "") if body is None else body
    _insert(connection, "plugin_about", place, title=title, keywords=keywords, summary=entry.summary, facets=facets)
    about = f"{title} {keywords} {entry.summary}"
    _insert(connection, "plugin_text", place, about=about, body=text, facets=facets)
    _insert(connection, "plugin_trigrams", place, title=" ".join(words_of(title)))
    # A table of its own: of a common word in another column, FTS5 would read every row to see which begin with it.
    _insert(connection, "plugin_openings", place, opening=" ".join(words_of(entry.name)[:1]), facets=facets)
    learn(connection, words_of(title))


def _insert(connection: sa.Connection, table: str, place: int, **columns: str) -> None:
    marks = ", ".join("?" * (len(columns) + 1))
    statement = f"INSERT INTO {table}(rowid, {', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names from here
    connection.exec_driver_sql(statement, (place, *columns.values()))


def note_downloads(connection: sa.Connection, counted: Mapping[str, int], now: float) -> None:
    """Add downloads of today, by the package's digest."""
    day = datetime.fromtimestamp(now, UTC).date()
    for digest, count in counted.items():
        connection.exec_driver_sql(
            "INSERT INTO downloads(plugin, day, count) SELECT plugin, ?, ? FROM releases WHERE digest = ? "
            "ON CONFLICT(plugin, day) DO UPDATE SET count = count + excluded.count",
            (day.isoformat(), count, digest),
        )
    before = (day - timedelta(days=ADOPTION_DAYS)).isoformat()
    connection.execute(sa.delete(downloads).where(downloads.c.day < before))


def recent_downloads(connection: sa.Connection, plugin: str) -> int:
    """How often the plugin was downloaded in the last ``ADOPTION_DAYS``."""
    counted = sa.select(sa.func.coalesce(sa.func.sum(downloads.c.count), 0)).where(downloads.c.plugin == plugin)
    return int(connection.execute(counted).scalar_one())


def refresh_standings(connection: sa.Connection, now: float, most: int = 1_000) -> int:
    """Move up to ``most`` plugins whose quality has changed to where they belong; how many were moved."""
    counted = sa.select(downloads.c.plugin, sa.func.sum(downloads.c.count).label("fetched")).group_by(
        downloads.c.plugin
    )
    lately = counted.subquery()
    query = (
        sa.select(
            plugins.c.id,
            plugins.c.slot,
            plugins.c.released,
            plugins.c.findings,
            plugins.c.entry["deprecated"].as_string().is_not(None).label("deprecated"),
            lately.c.fetched,
        )
        .outerjoin(lately, lately.c.plugin == plugins.c.plugin)
        .where(plugins.c.slot.is_not(None))
    )
    moved = []
    for row in connection.execute(query):
        standing = Standing(row.released, row.findings, row.fetched or 0)
        place = slot(row.id, level(standing, now, deprecated=bool(row.deprecated)))
        if place != row.slot:
            moved.append((place, row.slot, row.id))
            if len(moved) == most:
                break
    for place, old, number in moved:
        for table in _TABLES:
            connection.exec_driver_sql(f"UPDATE {table} SET rowid = ? WHERE rowid = ?", (place, old))  # noqa: S608
        connection.execute(sa.update(plugins).where(plugins.c.id == number).values(slot=place))
    return len(moved)
