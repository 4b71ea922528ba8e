"""Finds in PostgreSQL what ``query`` finds in SQLite: the same places, weights and threshold, the same corrections.

PostgreSQL's index does not hand out matches in the order of their standing. So a question first asks how many there
are, up to ``MANY``: few are simply put in order, and of many the best are asked for by steps of quality, which are in
the index beside the words (``level_facet``), some thousand plugins at a time. A very common word costs no more than a
rare one that way, however long the texts are: no row is read but for its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from marketplace.registry.search.catalogue import FACETS, words_of
from marketplace.registry.search.postgres.layout import Names, State, driver, read_state
from marketplace.registry.search.postgres.projection import facet_key, level_facet, plain
from marketplace.registry.search.query import (
    BEGUN_PLACES,
    EXACT,
    MAX_WORDS,
    OPENING,
    PLACES,
    entry_from,
    runs_on,
)
from marketplace.registry.search.ranking import LEVELS, plugin_of, quality_of
from marketplace.registry.search.spelling import nearest, tries
from plugin_sdk.services import MarketplaceEntry, SearchFilters

MANY = 2_000
"""Matches from which the best are asked for by steps of quality."""
BAND = 1_000
"""Plugins in the first band of steps; each following one has four times as many."""
WHOLE: tuple[tuple[int, ...], ...] = (tuple(range(LEVELS + 1)),)
_VECTORS = {"title": "title", "title keywords summary": "about", "about body": "body"}
"""The vector for each of ``PLACES``' columns."""

# Of matches in any order; each is filled in with the build's table and a condition.
_FEW = (
    "SELECT count(*), (array_agg(slot ORDER BY slot))[1:$1] FROM "
    "(SELECT slot FROM {listing} WHERE {where} LIMIT {most}) matched"
)
_BEST = (
    "WITH matched AS MATERIALIZED (SELECT slot FROM {listing} WHERE {where}) "
    "SELECT slot FROM matched ORDER BY slot LIMIT $1"
)
_NEWEST = (
    "WITH matched AS MATERIALIZED (SELECT id, slot FROM {listing} WHERE {where}) "
    "SELECT slot FROM matched ORDER BY id DESC LIMIT $1"
)
_FIRST = "SELECT slot FROM {listing} WHERE {where} ORDER BY slot LIMIT $1"
"""Of matches that an index hands out in order, or of which there are few."""


async def bands_of(connection: Any, schema: str) -> tuple[tuple[int, ...], ...]:
    """All steps of quality, best first, in bands of so many plugins as are asked for at a time. Reads all rows."""
    state = await read_state(connection, schema)
    if state is None:
        return WHOLE
    listing = Names(schema, state.build).listing
    rows = await connection.fetch(f"SELECT (slot >> 40)::int, count(*) FROM {listing} GROUP BY 1")  # noqa: S608
    there = dict(map(tuple, rows))
    bands, band, size, most = [], list[int](), 0, BAND
    for level in range(LEVELS + 1):
        band.append(level)
        size += there.get(level, 0)
        if size >= most:
            bands.append(tuple(band))
            band, size, most = [], 0, most * 4
    return (*bands, tuple(band)) if band else tuple(bands)


async def find(
    connection: Any,
    schema: str,
    bands: tuple[tuple[int, ...], ...],
    query: str,
    limit: int,
    filters: SearchFilters | None,
) -> list[MarketplaceEntry] | None:
    """What ``query.search`` finds, from one view of the copy; None if there is no copy."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        state = await read_state(connection, schema)
        if state is None:
            return None
        return await _Search(connection, schema, state, bands, filters or SearchFilters()).search(query, limit)


class _Search:
    """One search on one connection."""

    def __init__(
        self, connection: Any, schema: str, state: State, bands: tuple[tuple[int, ...], ...], filters: SearchFilters
    ) -> None:
        self._connection, self._schema, self._trigrams, self._bands = connection, schema, state.trigrams, bands
        self._names = Names(schema, state.build)
        self._contracts = filters.contracts
        values = {each: getattr(filters, each) for each in FACETS}
        self._facets = [facet_key(facet, value) for facet, value in values.items() if value]

    async def search(self, query: str, limit: int) -> list[MarketplaceEntry]:
        """See ``query.search``."""
        found: list[MarketplaceEntry] = []
        seen = 0
        for ask in (limit, limit * 4, limit * 32):
            rows = await self._rows(words_of(query)[:MAX_WORDS], query, ask)
            found = (await self._entries(rows))[:limit]
            if len(found) >= limit or len(rows) < ask or len(rows) == seen:
                break
            seen = len(rows)
        return found

    async def _rows(self, words: Sequence[str], query: str, limit: int) -> list[int]:
        if not words:
            return await self._newest(limit)
        found = await self._best(words, query, limit)
        if not found:
            right = [await self._corrected(word) for word in words]
            found = await self._best(right, "", limit) if right != list(words) else []
        if not found and all(len(word) >= 3 for word in words):
            found = await self._parts(words, limit)
        return found

    async def _newest(self, limit: int) -> list[int]:
        if not self._facets:
            rows = await self._connection.fetch(
                f"SELECT slot FROM {self._names.listing} ORDER BY id DESC LIMIT $1",  # noqa: S608
                limit,
            )
            return [slot for (slot,) in rows]
        return await self._slots(_NEWEST, "facets @> $2", limit, self._facets)

    async def _best(self, words: Sequence[str], query: str, limit: int) -> list[int]:
        stems = await self._stems(words)
        scores: dict[int, float] = {}
        name, plugin = " ".join(words), plain(query.strip().lower())
        for row in await self._narrowed("(name_key = $2 OR plugin = $3)", limit, name, plugin):
            scores[row] = EXACT * quality_of(row)
        if len(words) == 1:
            for row in await self._narrowed("opening = $2", limit + len(scores), stems[0]):
                scores.setdefault(row, OPENING * quality_of(row))
        for _, columns, how, weight in (*PLACES, *BEGUN_PLACES):
            if len(scores) >= limit and (how == "begun" or sorted(scores.values(), reverse=True)[limit - 1] >= weight):
                break
            wanted = " & ".join(f"'{stem}'" for stem in stems) + (":*" if how == "begun" else "")
            # What a narrower place had already is in the wider ones too.
            for row in await self._match(_VECTORS[columns], wanted, limit + len(scores)):
                scores.setdefault(row, weight * quality_of(row))
        return sorted(scores, key=lambda row: (-scores[row], plugin_of(row)))[:limit]

    def _also(self, condition: str, *values: Any) -> tuple[str, tuple[Any, ...]]:
        """A condition on values (from ``$2`` on), and that the filters let it pass."""
        if not self._facets:
            return condition, values
        return f"{condition} AND facets @> ${len(values) + 2}", (*values, self._facets)

    async def _narrowed(self, condition: str, limit: int, *values: Any) -> list[int]:
        where, told = self._also(condition, *values)
        return await self._slots(_FIRST, where, limit, *told)

    async def _match(self, vector: str, wanted: str, limit: int) -> list[int]:
        """The best rows whose vector has all words."""
        where, told = self._also(f"{vector} @@ $2::text::tsquery", wanted)
        statement = _FEW.format(listing=self._names.listing, where=where, most=MANY + 1)
        count, best = await self._connection.fetchrow(statement, limit, *told)
        if count <= MANY:
            return list(best or ())
        found: list[int] = []
        for band in self._bands:
            levels = [level_facet(level) for level in band]
            step = f"{where} AND facets && ${len(told) + 2}"
            found += await self._slots(_BEST, step, limit - len(found), *told, levels)
            if len(found) >= limit:
                break
        return found

    async def _parts(self, words: Sequence[str], limit: int) -> list[int]:
        """Rows whose titles have parts of words, best first. Without an index of them the best plugins are looked
        through, as far as it takes."""
        condition = " AND ".join(f"titles LIKE ${at}" for at, _ in enumerate(words, 2))
        where, told = self._also(condition, *(f"%{word}%" for word in words))
        return await self._slots(_BEST if self._trigrams else _FIRST, where, limit, *told)

    async def _corrected(self, word: str) -> str:
        """See ``spelling.corrected``."""
        statement = f"SELECT DISTINCT word FROM {self._names.spelling} WHERE remainder = ANY($1)"  # noqa: S608
        for mistakes, remainders in tries(word):
            known = [found for (found,) in await self._connection.fetch(statement, remainders)]
            if (right := nearest(word, known, mistakes)) is not None:
                return right
        return word

    async def _stems(self, words: Sequence[str]) -> list[str]:
        statement = (
            f"SELECT {self._schema}.stemmed(word) FROM unnest($1::text[]) WITH ORDINALITY w(word, at) ORDER BY at"  # noqa: S608
        )
        return [stem for (stem,) in await self._connection.fetch(statement, list(words))]

    async def _slots(self, statement: str, where: str, *values: Any) -> list[int]:
        rows = await self._connection.fetch(statement.format(listing=self._names.listing, where=where), *values)
        return [slot for (slot,) in rows]

    async def _entries(self, rows: Sequence[int]) -> list[MarketplaceEntry]:
        numbers = [plugin_of(row) for row in rows]
        wanted = f"SELECT id, entry, kernels FROM {self._names.listing} WHERE id = ANY($1)"  # noqa: S608
        entries = {}
        for number, entry, kernels in await self._connection.fetch(wanted, numbers):
            if not self._contracts or runs_on(orjson.loads(kernels), self._contracts):
                entries[number] = entry_from(orjson.loads(entry))
        return [entries[number] for number in numbers if number in entries]


def gone(error: BaseException) -> bool:
    """Whether a search met a build that was replaced meanwhile: asked again, it meets the new one."""
    return isinstance(error, driver().UndefinedTableError)
