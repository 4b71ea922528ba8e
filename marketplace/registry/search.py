"""Search: SQLite FTS5 finds candidates, a small documented score puts them in order.

1. Words in title and keywords, then words anywhere (Porter stems, the last word also as a prefix),
   at most ``CANDIDATES`` of each: very common terms would otherwise cost time in proportion to the
   whole catalogue.
2. Score: each query word counts for the best field it is in (``WEIGHTS``), and a title or id that
   is exactly the query counts most. What its publisher advises against counts ``DEPRECATED`` of that.
   Ties are in order of the id.
3. If that finds nothing, each word is corrected to the closest one that titles have (transposed,
   missing or doubled letters), and 1. and 2. run again.
4. If there are still too few, titles with similar trigrams follow (parts of words), most similar
   first, from a Dice coefficient of ``SIMILAR``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from marketplace.registry.tables import plugins
from plugin_sdk.services import MarketplaceEntry

CANDIDATES = 300
MAX_WORDS = 8
SIMILAR = 0.4
CLOSE = 0.75
"""Least share of equal letters (difflib's ratio) that makes one word a correction of another."""
EXACT = 20.0
DEPRECATED = 0.25
WEIGHTS = {"title": 8.0, "title-prefix": 5.0, "keywords": 4.0, "summary": 2.0, "body": 1.0}
_WORD = re.compile(r"[^\W_]+")


def update_search(connection: sa.Connection, plugin: str, entry: MarketplaceEntry | None, body: str | None) -> None:
    """Make ``entry`` what search shows of ``plugin``; None takes it out. ``body`` None keeps the text."""
    row = connection.execute(sa.select(plugins.c.id).where(plugins.c.plugin == plugin)).scalar()
    stored = asdict(entry) if entry else None
    if row is None:
        row = connection.execute(
            sa.insert(plugins).values(plugin=plugin, entry=stored).returning(plugins.c.id)
        ).scalar_one()
    else:
        connection.execute(sa.update(plugins).where(plugins.c.id == row).values(entry=stored))
    old = connection.exec_driver_sql("SELECT body FROM plugin_text WHERE rowid = ?", (row,)).scalar()
    for table in ("plugin_text", "plugin_trigrams"):
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE rowid = ?", (row,))  # noqa: S608 - two fixed names
    if entry is None:
        return
    title = f"{entry.name} {entry.id.replace('/', ' ').replace('-', ' ')}"
    connection.exec_driver_sql(
        "INSERT INTO plugin_text(rowid, title, keywords, summary, body) VALUES (?, ?, ?, ?, ?)",
        (row, title, " ".join(entry.keywords), entry.summary, old if body is None else body),
    )
    connection.exec_driver_sql("INSERT INTO plugin_trigrams(rowid, title) VALUES (?, ?)", (row, title.lower()))


def search(connection: sa.Connection, query: str, limit: int) -> list[MarketplaceEntry]:
    """The best ``limit`` entries for ``query``; without words, the most recently added ones."""
    words = _words(query)[:MAX_WORDS]
    if not words:
        newest = sa.select(plugins.c.id).where(plugins.c.entry.is_not(None)).order_by(plugins.c.id.desc()).limit(limit)
        return _entries(connection, list(connection.execute(newest).scalars()))
    ranked = _ranked_matches(connection, words)
    if not ranked:
        corrected = [_corrected(connection, word) for word in words]
        ranked = _ranked_matches(connection, corrected) if corrected != words else []
    if len(ranked) < limit:
        ranked += [row for row in _similar(connection, words) if row not in set(ranked)]
    return _entries(connection, ranked[:limit])


def _ranked_matches(connection: sa.Connection, words: Sequence[str]) -> list[int]:
    match = " ".join([*(f'"{word}"' for word in words[:-1]), f'"{words[-1]}"*'])
    found = dict.fromkeys(_match(connection, "plugin_text", "{title keywords} : (" + match + ")"))
    if len(found) < CANDIDATES:
        found.update(dict.fromkeys(_match(connection, "plugin_text", match)))
    return _rank(connection, words, list(found))


def _corrected(connection: sa.Connection, word: str) -> str:
    """The word of some title that is closest to ``word`` and begins as it does; ``word`` if none is close."""
    terms = connection.exec_driver_sql(
        "SELECT term FROM plugin_words WHERE col = 'title' AND term >= ? AND term < ? AND length(term) BETWEEN ? AND ?",
        (word[0], chr(ord(word[0]) + 1), len(word) - 2, len(word) + 2),
    ).scalars()
    return next(iter(difflib.get_close_matches(word, list(terms), n=1, cutoff=CLOSE)), word)


def _match(connection: sa.Connection, table: str, expression: str) -> list[int]:
    statement = f"SELECT rowid FROM {table} WHERE {table} MATCH ? LIMIT ?"  # noqa: S608 - two fixed names
    return list(connection.exec_driver_sql(statement, (expression, CANDIDATES)).scalars())


def _rank(connection: sa.Connection, words: Sequence[str], rows: Sequence[int]) -> list[int]:
    scored = []
    for row, plugin, title, keywords, summary, deprecated in _texts(connection, rows):
        fields = {"title": _words(title), "keywords": _words(keywords), "summary": _words(summary)}
        score = sum(_weight(word, fields) for word in words)
        begins = len(fields["title"]) >= len(words) and all(map(_alike, words, fields["title"]))
        if begins or list(words) == _words(plugin):
            score += EXACT
        if deprecated:
            score *= DEPRECATED
        scored.append((-score, plugin, row))
    return [row for _, _, row in sorted(scored)]


def _weight(word: str, fields: dict[str, list[str]]) -> float:
    if any(_alike(word, other) for other in fields["title"]):
        return WEIGHTS["title"]
    if any(other.startswith(word) for other in fields["title"]):
        return WEIGHTS["title-prefix"]
    for name in ("keywords", "summary"):
        if any(other.startswith(word) or _alike(word, other) for other in fields[name]):
            return WEIGHTS[name]
    return WEIGHTS["body"]


def _alike(left: str, right: str) -> bool:
    """Whether two words are the same up to an ending (guard, guards, guarding)."""
    short, long = sorted((left, right), key=len)
    return long == short or (len(short) >= 4 and long.startswith(short) and len(long) - len(short) <= 3)


def _similar(connection: sa.Connection, words: Sequence[str]) -> list[int]:
    wanted = {gram for word in words for gram in _grams(word)}
    if not wanted:
        return []
    rows = _match(connection, "plugin_trigrams", " OR ".join(f'"{gram}"' for gram in sorted(wanted)))
    scored = []
    for row, plugin, title, *_ in _texts(connection, rows):
        titles = [set(_grams(word)) for word in _words(title)]
        nearest = [max((_dice(set(_grams(word)), other) for other in titles), default=0.0) for word in words]
        score = sum(nearest) / len(nearest)
        if score >= SIMILAR:
            scored.append((-score, plugin, row))
    return [row for _, _, row in sorted(scored)]


def _dice(left: set[str], right: set[str]) -> float:
    return 2 * len(left & right) / (len(left) + len(right)) if left and right else 0.0


def _grams(word: str) -> list[str]:
    return [word[i : i + 3] for i in range(len(word) - 2)]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _texts(connection: sa.Connection, rows: Sequence[int]) -> Iterable[tuple[int, str, str, str, str, bool]]:
    if not rows:
        return []
    marks = ",".join("?" * len(rows))
    found: Any = connection.exec_driver_sql(
        "SELECT p.id, p.plugin, t.title, t.keywords, t.summary, "  # noqa: S608 - question marks only
        "json_extract(p.entry, '$.deprecated') IS NOT NULL FROM plugins p "
        f"JOIN plugin_text t ON t.rowid = p.id WHERE p.id IN ({marks})",
        tuple(rows),
    )
    return [tuple(row) for row in found]


def _entries(connection: sa.Connection, rows: Sequence[int]) -> list[MarketplaceEntry]:
    found = connection.execute(sa.select(plugins.c.id, plugins.c.entry).where(plugins.c.id.in_(rows)))
    by_row = {row.id: entry_from(row.entry) for row in found if row.entry is not None}
    return [by_row[row] for row in rows if row in by_row]


def entry_from(stored: dict[str, Any]) -> MarketplaceEntry:
    """The entry in plain data (JSON has lists where the entry has tuples)."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return MarketplaceEntry(**plain)
