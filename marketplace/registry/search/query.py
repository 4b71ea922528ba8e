"""Finds: the best plugins for some words, exactly, without looking at all that have them.

A match scores the weight of the narrowest place that has all the words (``PLACES``; the name itself counts most)
times the plugin's quality (``ranking``). The index hands out each place's matches best quality first, so the best
``limit`` of a place are its first ``limit``, and a place need not be asked once those found already score more than
anything in it could (the threshold of R. Fagin, A. Lotem and M. Naor, 2001). Very common words cost no more than
rare ones that way. Of equal scores, the plugin that was here first.

If nothing is found, each word is corrected (``spelling``); if still nothing, parts of words of titles are looked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from kernel.versions import parse_range, parse_version
from marketplace.registry.search.catalogue import FACETS, facet_word, facets_of, words_of
from marketplace.registry.search.ranking import plugin_of, quality_of
from marketplace.registry.search.spelling import corrected
from marketplace.registry.tables import ask
from plugin_sdk.services import MarketplaceEntry, SearchFilters

MAX_WORDS = 8
EXACT, OPENING = 20.0, 12.0
"""What it weighs that a plugin is named exactly so, and that its name begins with the only word that was asked for."""
PLACES = (
    ("plugin_about", "title", "whole", 8.0),
    ("plugin_about", "title keywords summary", "whole", 3.0),
    ("plugin_text", "about body", "whole", 1.0),
)
BEGUN_PLACES = (("plugin_about", "title", "begun", 5.0), ("plugin_text", "about body", "begun", 0.5))
"""Table, columns, how the words stand there (whole: each of them; begun: the last one may be the beginning of a
word), and what that weighs. Beginnings are looked for where whole words find too few: the index has to gather all
words that begin so first."""
COUNTED = 300
"""How many of the best matches facets are counted over."""


@dataclass(frozen=True, slots=True)
class Facets:
    """How many of the best matches have each value, most first. ``counted`` is how many were looked at."""

    counted: int = 0
    values: dict[str, dict[str, int]] = field(default_factory=dict)


def search(
    connection: sa.Connection, query: str, limit: int, filters: SearchFilters | None = None
) -> list[MarketplaceEntry]:
    """The best ``limit`` entries for ``query``; without words, the most recently added ones."""
    wanted = filters or SearchFilters()
    found: list[MarketplaceEntry] = []
    seen = 0
    # What does not run on the contracts asked for is left out at the end: few are, so few are asked for beyond it.
    for most in (limit, limit * 4, limit * 32):
        rows = _rows(connection, words_of(query)[:MAX_WORDS], query, most, wanted)
        found = _entries(connection, rows, wanted)[:limit]
        if len(found) >= limit or len(rows) < most or len(rows) == seen:
            break
        seen = len(rows)
    return found


def count_facets(connection: sa.Connection, query: str, filters: SearchFilters | None = None) -> Facets:
    """What the best matches could be narrowed down by."""
    return facets_among(search(connection, query, COUNTED, filters))


def facets_among(found: Sequence[MarketplaceEntry]) -> Facets:
    """What these entries could be narrowed down by."""
    counts: dict[str, Counter[str]] = {facet: Counter() for facet in FACETS}
    for entry in found:
        for facet, value in facets_of(entry):
            counts[facet][value] += 1
    return Facets(len(found), {facet: dict(counter.most_common(20)) for facet, counter in counts.items()})


def _rows(connection: sa.Connection, words: Sequence[str], query: str, limit: int, filters: SearchFilters) -> list[int]:
    if not words:
        return _newest(connection, limit, filters)
    found = _best(connection, words, query, limit, filters)
    if not found:
        right = [corrected(connection, word) for word in words]
        found = _best(connection, right, "", limit, filters) if right != words else []
    if not found and all(len(word) >= 3 for word in words):
        found = _match(connection, "plugin_trigrams", " ".join(f'"{word}"' for word in words), limit)
        found = [row for row in found if _passes(connection, row, _narrowed(filters))]
    return found


def _newest(connection: sa.Connection, limit: int, filters: SearchFilters) -> list[int]:
    if narrowed := _narrowed(filters):
        rows = _match(connection, "plugin_about", narrowed, -1)
        return sorted(rows, key=plugin_of, reverse=True)[:limit]
    newest = "SELECT slot FROM plugins WHERE slot IS NOT NULL ORDER BY id DESC LIMIT ?"
    return [row for (row,) in ask(connection, newest, (limit,))]


def _best(connection: sa.Connection, words: Sequence[str], query: str, limit: int, filters: SearchFilters) -> list[int]:
    narrowed = _narrowed(filters)
    scores: dict[int, float] = {}
    named = "SELECT slot FROM plugins WHERE slot IS NOT NULL AND (name_key = ? OR plugin = ?) ORDER BY slot LIMIT ?"
    # Whether one of these passes the filters is not in the index of names, so all of them are looked at.
    most = -1 if narrowed else limit
    for (row,) in ask(connection, named, (" ".join(words), query.strip().lower(), most)):
        if _passes(connection, row, narrowed):
            scores[row] = EXACT * quality_of(row)
    if len(words) == 1:
        opening = _also(f'opening : "{words[0]}"', narrowed)
        for row in _match(connection, "plugin_openings", opening, limit + len(scores)):
            scores.setdefault(row, OPENING * quality_of(row))
    for table, columns, how, weight in (*PLACES, *BEGUN_PLACES):
        if len(scores) >= limit and (how == "begun" or sorted(scores.values(), reverse=True)[limit - 1] >= weight):
            break
        expression = _also(_expression(columns, words, how), narrowed)
        # What a narrower place had already is in the wider ones too.
        for row in _match(connection, table, expression, limit + len(scores)):
            scores.setdefault(row, weight * quality_of(row))
    return sorted(scores, key=lambda row: (-scores[row], plugin_of(row)))[:limit]


def _expression(columns: str, words: Sequence[str], how: str) -> str:
    quoted = [f'"{word}"' for word in words]
    if how == "begun":
        quoted[-1] += "*"
    return f"{{{columns}}} : ({' AND '.join(quoted)})"


def _also(expression: str, narrowed: str) -> str:
    return f"({expression}) AND ({narrowed})" if narrowed else expression


def _narrowed(filters: SearchFilters) -> str:
    values = {each: getattr(filters, each) for each in FACETS}
    return " AND ".join(f'facets : "{facet_word(facet, value)}"' for facet, value in values.items() if value)


def _passes(connection: sa.Connection, row: int, narrowed: str) -> bool:
    if not narrowed:
        return True
    statement = "SELECT 1 FROM plugin_about WHERE plugin_about MATCH ? AND rowid = ?"
    return bool(ask(connection, statement, (narrowed, row)))


def _match(connection: sa.Connection, table: str, expression: str, limit: int) -> list[int]:
    statement = f"SELECT rowid FROM {table} WHERE {table} MATCH ? LIMIT ?"  # noqa: S608 - two fixed names
    return [row for (row,) in ask(connection, statement, (expression, limit))]


def _entries(connection: sa.Connection, rows: Sequence[int], filters: SearchFilters) -> list[MarketplaceEntry]:
    numbers = [plugin_of(row) for row in rows]
    marks = ",".join("?" * len(numbers))
    wanted = f"SELECT id, entry, kernels FROM plugins WHERE id IN ({marks}) AND entry IS NOT NULL"  # noqa: S608
    entries = {}
    for number, entry, kernels in ask(connection, wanted, tuple(numbers)):
        if not filters.contracts or runs_on(orjson.loads(kernels), filters.contracts):
            entries[number] = entry_from(orjson.loads(entry))
    return [entries[number] for number in numbers if number in entries]


def runs_on(kernels: Sequence[str], contracts: Sequence[str]) -> bool:
    """Whether something with these ranges of hook contracts (none: any) takes one of some contracts."""
    versions = [parse_version(each) for each in contracts]
    return not kernels or any(version in parse_range(kernel) for kernel in kernels for version in versions)


def entry_from(stored: dict[str, Any]) -> MarketplaceEntry:
    """The entry in plain data (JSON has lists where the entry has tuples)."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return MarketplaceEntry(**plain)
