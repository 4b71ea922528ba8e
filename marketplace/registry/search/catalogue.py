"""Keeps the index of the catalogue current: words, facets, spellings, and each plugin's place by its standing."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
import sqlalchemy as sa

from marketplace.registry.search.feed import note_changes
from marketplace.registry.search.ranking import ADOPTION_DAYS, Standing, level, slot, verified_by
from marketplace.registry.search.spelling import learn
from marketplace.registry.tables import downloads, in_parts, plugins
from plugin_sdk.services import MarketplaceEntry

FACETS = ("publisher", "license", "capability", "keyword")
_WORD = re.compile(r"[^\W_]+")
_TABLES = ("plugin_about", "plugin_text", "plugin_trigrams", "plugin_openings")
MOST_PARTS = 8
"""Parts of a full-text index (FTS5's segments) from which it is merged: every question asks each of them."""
MERGED_PAGES = 200
"""Pages merged in one transaction: 20 to 40 ms, in which nobody publishes."""


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


@dataclass(frozen=True, slots=True)
class Listing:
    """What search shows of ``plugin``; ``entry`` None takes it out. ``body`` None keeps the text.

    ``kernels`` are the ranges of hook contracts on which some release of it runs (none: on any).
    """

    plugin: str
    entry: MarketplaceEntry | None
    body: str | None
    standing: Standing = field(default_factory=Standing)
    kernels: Iterable[str] = ()


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
    """:func:`update_listings` for one plugin."""
    update_listings(connection, [Listing(plugin, entry, body, standing or Standing(), kernels)], now)


def update_listings(connection: sa.Connection, listings: Sequence[Listing], now: float | None = None) -> None:
    """Bring search up to date with plugins, each listed once. ``now`` in epoch seconds.

    One statement a table however many there are: the registry publishes by the batch, and in plain SQL, because
    building an expression costs more than SQLite takes to carry it out.
    """
    now = time.time() if now is None else now
    known = _known(connection, [each.plugin for each in listings])
    texts = _texts(connection, [known[each.plugin][1] for each in listings if each.body is None])
    free = connection.exec_driver_sql("SELECT coalesce(max(id), 0) + 1 FROM plugins").scalar_one()
    rows, old, placed = [], [], []
    for each in listings:
        number, before = known[each.plugin]
        if number is None:
            number, free = free, free + 1
        if before is not None:
            old.append((before,))
        place = None
        if each.entry is not None:
            worth = level(each.standing, now, deprecated=each.entry.deprecated is not None)
            place = slot(number, worth)
            placed.append((place, each.entry, texts.get(before, "") if each.body is None else each.body))
        rows.append((number, each.plugin, *_values(each), place))
    if rows:
        connection.exec_driver_sql(_UPSERT, rows)
        note_changes(connection, [row[0] for row in rows])
    for table in _TABLES if old else ():
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE rowid = ?", old)  # noqa: S608 - fixed names
    if placed:
        _place(connection, placed)


_UPSERT = (
    "INSERT INTO plugins(id, plugin, entry, name_key, kernels, released, findings, slot) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET entry = excluded.entry, "
    "name_key = excluded.name_key, kernels = excluded.kernels, released = excluded.released, "
    "findings = excluded.findings, slot = excluded.slot"
)


def _values(listing: Listing) -> tuple[str | None, str | None, str, str | None, int]:
    entry, standing = listing.entry, listing.standing
    kernels = orjson.dumps(sorted(set(listing.kernels))).decode()
    if entry is None:
        return None, None, kernels, standing.released, standing.findings
    return orjson.dumps(entry).decode(), " ".join(words_of(entry.name)), kernels, standing.released, standing.findings


def _known(connection: sa.Connection, wanted: Sequence[str]) -> dict[str, tuple[int | None, int | None]]:
    """The number and the place of each plugin; None where it has none."""
    found: dict[str, tuple[int | None, int | None]] = dict.fromkeys(wanted, (None, None))
    for some, marks in in_parts(wanted):
        query = f"SELECT plugin, id, slot FROM plugins WHERE plugin IN ({marks})"  # noqa: S608 - question marks only
        for plugin, number, place in connection.exec_driver_sql(query, some):
            found[plugin] = (number, place)
    return found


def _texts(connection: sa.Connection, places: Iterable[int | None]) -> dict[int | None, str]:
    """The texts at some places."""
    found: dict[int | None, str] = {}
    for some, marks in in_parts([place for place in places if place is not None]):
        query = f"SELECT rowid, body FROM plugin_text WHERE rowid IN ({marks})"  # noqa: S608 - question marks only
        for place, body in connection.exec_driver_sql(query, some):
            found[place] = body or ""
    return found


def _place(connection: sa.Connection, placed: Sequence[tuple[int, MarketplaceEntry, str]]) -> None:
    """Put entries with their texts where they belong in the full-text tables, and learn how they are spelt."""
    about, text, trigrams, openings, words = [], [], [], [], set[str]()
    for place, entry, body in placed:
        title = f"{entry.name} {entry.id.replace('/', ' ').replace('-', ' ')}"
        facets = " ".join(facet_word(facet, value) for facet, value in facets_of(entry))
        keywords = " ".join(entry.keywords)
        in_title = words_of(title)
        about.append((place, title, keywords, entry.summary, facets))
        text.append((place, f"{title} {keywords} {entry.summary}", body, facets))
        trigrams.append((place, " ".join(in_title)))
        # A table of its own: of a common word in another column, FTS5 would read every row to see which begin with it.
        openings.append((place, " ".join(words_of(entry.name)[:1]), facets))
        words.update(in_title)
    for statement, rows in (
        ("INSERT INTO plugin_about(rowid, title, keywords, summary, facets) VALUES (?, ?, ?, ?, ?)", about),
        ("INSERT INTO plugin_text(rowid, about, body, facets) VALUES (?, ?, ?, ?)", text),
        ("INSERT INTO plugin_trigrams(rowid, title) VALUES (?, ?)", trigrams),
        ("INSERT INTO plugin_openings(rowid, opening, facets) VALUES (?, ?, ?)", openings),
    ):
        connection.exec_driver_sql(statement, rows)
    learn(connection, sorted(words))


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


def downloads_of(connection: sa.Connection, wanted: Sequence[str]) -> dict[str, int]:
    """How often each plugin was downloaded in the last ``ADOPTION_DAYS``; those that never were are left out."""
    found: dict[str, int] = {}
    for some, marks in in_parts(wanted):
        query = f"SELECT plugin, sum(count) FROM downloads WHERE plugin IN ({marks}) GROUP BY plugin"  # noqa: S608
        for plugin, count in connection.exec_driver_sql(query, some):
            found[plugin] = int(count)
    return found


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
            plugins.c.entry["domain"].as_string().is_not(None).label("domain"),
            plugins.c.entry["repository"].as_string().is_not(None).label("repository"),
            lately.c.fetched,
        )
        .outerjoin(lately, lately.c.plugin == plugins.c.plugin)
        .where(plugins.c.slot.is_not(None))
    )
    moved = []
    for row in connection.execute(query):
        verified = verified_by(domain=bool(row.domain), repository=bool(row.repository))
        standing = Standing(row.released, row.findings, row.fetched or 0, verified)
        place = slot(row.id, level(standing, now, deprecated=bool(row.deprecated)))
        if place != row.slot:
            moved.append((place, row.slot, row.id))
            if len(moved) == most:
                break
    for place, old, number in moved:
        for table in _TABLES:
            connection.exec_driver_sql(f"UPDATE {table} SET rowid = ? WHERE rowid = ?", (place, old))  # noqa: S608
        connection.execute(sa.update(plugins).where(plugins.c.id == number).values(slot=place))
    note_changes(connection, [number for _, _, number in moved])
    return len(moved)


def parted(connection: sa.Connection) -> list[str]:
    """The full-text tables that were written in so many parts that search is slower for it."""
    counted = "SELECT count(DISTINCT segid) FROM {}_idx"
    return [each for each in _TABLES if connection.exec_driver_sql(counted.format(each)).scalar_one() > MOST_PARTS]


def merge_index(connection: sa.Connection, table: str, *, begin: bool) -> bool:
    """Merge some of a full-text table's parts; whether there is more to do. ``begin`` takes all of them together.

    As https://www.sqlite.org/fts5.html says of the command ``merge``: a negative number first, then positive ones,
    until a call changes less than two rows.
    """
    changes = "SELECT total_changes()"
    before = connection.exec_driver_sql(changes).scalar_one()
    statement = f"INSERT INTO {table}({table}, rank) VALUES ('merge', ?)"  # noqa: S608 - fixed names
    connection.exec_driver_sql(statement, (-MERGED_PAGES if begin else MERGED_PAGES,))
    return bool(connection.exec_driver_sql(changes).scalar_one() - before >= 2)
