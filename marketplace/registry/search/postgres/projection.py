"""Keeps the copy up with the registry: replays what changed, or makes it anew where replaying can't help.

Each batch is one transaction with the number it has come to, so a crash loses nothing and repeats nothing. One process
does it at a time, under an advisory lock that ends with its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import orjson

from marketplace.registry.search.catalogue import facets_of, words_of
from marketplace.registry.search.feed import Feed, Listed, Sums
from marketplace.registry.search.postgres.layout import (
    Names,
    State,
    drop_others,
    make_base,
    make_indexes,
    make_tables,
    read_state,
)
from marketplace.registry.search.query import entry_from
from marketplace.registry.search.ranking import level_of
from marketplace.registry.search.spelling import remainders_of

BATCH = 500
SPELLINGS_AT_ONCE = 20_000
STATE_SECONDS = 10.0
"""How long a question about the copy's state may take."""
MOST_WORD_BYTES, MOST_TEXT_BYTES = 255, 500_000
"""Longer words, and different words beyond so many bytes of a text, do not find it: PostgreSQL keeps a MiB a vector."""
MOST_KEY = 500
"""Letters of a name that can be looked up as a whole."""
T = TypeVar("T")

_COLUMNS = (
    "id bigint, changed bigint, slot bigint, plugin text, name_key text, opening text, titles text, kernels text, "
    "entry text, facets text[], title text[], about text[], body text[]"
)
_INSERT = (
    "INSERT INTO {listing} SELECT id, changed, slot, plugin, name_key, {schema}.stemmed(opening), titles, kernels, "
    "entry, facets, {schema}.vector(title), {schema}.vector(about), {schema}.vector(body) "
    "FROM json_to_recordset($1::json) AS r({columns})"
)
_SUMS = "SELECT count(*), coalesce(sum(id), 0), coalesce(sum(slot >> 40), 0), coalesce(sum(changed), 0) FROM {listing}"


class Projection:
    """One registry's copy in one schema. Every call takes the connection it works on."""

    def __init__(self, feed: Feed, schema: str) -> None:
        self._feed, self._schema = feed, schema
        self.rebuilt = self.replayed = 0
        """How often the copy was made anew here, and how many changes were replayed."""

    def _insert(self, names: Names) -> str:
        return _INSERT.format(listing=names.listing, schema=self._schema, columns=_COLUMNS)

    async def standing(self, connection: Any) -> tuple[int | None, int]:
        """How far the copy and the registry have come; None if there is no copy of this registry as it is."""
        state = await read_state(connection, self._schema, timeout=STATE_SECONDS)
        newest = await asyncio.to_thread(self._feed.newest)
        return (None if state is None or state.position > newest else state.position), newest

    async def catch_up(self, connection: Any) -> bool:
        """Bring the copy up to date; False if another process is at it. Raises ConfigurationError if the database
        can't have it."""
        if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", self._schema):
            return False
        try:
            state = await read_state(connection, self._schema)
            newest = await asyncio.to_thread(self._feed.newest)
            if state is None or state.position > newest:  # more than there is: the registry is an older backup
                state = await self._rebuild(connection, state)
            await self._replay(connection, state)
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", self._schema)
        return True

    async def check(self, connection: Any) -> bool:
        """Whether the copy has what the registry has; where it certainly has not, it is made anew. Reads all rows."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            state = await read_state(connection, self._schema)
            if state is None:
                return False
            row = await connection.fetchrow(_SUMS.format(listing=Names(self._schema, state.build).listing))
        newest, ours = await asyncio.to_thread(self._feed.sums)
        if newest != state.position or ours == Sums(*map(int, row)):
            return True  # if one of them has moved meanwhile, there is nothing to compare
        await connection.execute(f"UPDATE {self._schema}.state SET position = $1", 2**62)  # noqa: S608
        return False

    async def _rebuild(self, connection: Any, present: State | None) -> State:
        """Make the next build beside the present one, and put it in its place in one transaction."""
        await make_base(connection, self._schema)
        # What an earlier one left that was cut off goes first: it may be as large as what is made now.
        before = 0 if present is None else present.build
        await drop_others(connection, self._schema, before)
        names = Names(self._schema, before + 1)
        # Read first: what changes from now on comes again when it is replayed.
        position = await asyncio.to_thread(self._feed.newest)
        await make_tables(connection, names)
        async for rows in _in_thread(_records(each) for each in self._feed.listed(BATCH)):
            await connection.execute(self._insert(names), rows)
        table = names.spelling.rpartition(".")[2]
        async for some in _in_thread(self._feed.spellings(SPELLINGS_AT_ONCE)):
            await connection.copy_records_to_table(table, schema_name=self._schema, records=some)
        trigrams = await make_indexes(connection, names)
        async with connection.transaction():
            await connection.execute(
                f"INSERT INTO {self._schema}.state(build, position, trigrams) VALUES ($1, $2, $3) ON CONFLICT (one) "  # noqa: S608
                "DO UPDATE SET build = excluded.build, position = excluded.position, trigrams = excluded.trigrams",
                names.build,
                position,
                trigrams,
            )
            await drop_others(connection, self._schema, names.build)
        self.rebuilt += 1
        return State(names.build, position, trigrams)

    async def _replay(self, connection: Any, state: State) -> None:
        """What changed since, in the order of its numbers."""
        names, position = Names(self._schema, state.build), state.position
        while changed := await asyncio.to_thread(self._feed.after, position, BATCH):
            rows, learnt = await asyncio.to_thread(_records, changed), await asyncio.to_thread(_learnt, changed)
            position = changed[-1].change
            async with connection.transaction():
                gone = [each.id for each in changed]
                await connection.execute(f"DELETE FROM {names.listing} WHERE id = ANY($1)", gone)  # noqa: S608
                await connection.execute(self._insert(names), rows)
                await connection.execute(
                    f"INSERT INTO {names.spelling} SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING",  # noqa: S608
                    [remainder for remainder, _ in learnt],
                    [word for _, word in learnt],
                )
                await connection.execute(f"UPDATE {self._schema}.state SET position = $1", position)  # noqa: S608
            self.replayed += len(changed)


async def _in_thread(parts: Iterable[T]) -> Any:
    """Each part, made in a thread: reading the registry must not hold up those who search."""
    iterator = iter(parts)
    nothing: list[T] = []

    def following() -> Any:
        return next(iterator, nothing)

    while (part := await asyncio.to_thread(following)) is not nothing:
        yield part


def _records(changed: Sequence[Listed]) -> str:
    """The rows of what is listed, as JSON."""
    return orjson.dumps(list(_rows(changed))).decode()


def _rows(changed: Sequence[Listed]) -> Iterator[dict[str, Any]]:
    for each in changed:
        if each.slot is None or each.entry is None:
            continue
        entry = entry_from(orjson.loads(each.entry))
        title = words_of(f"{entry.name} {entry.id}")
        about = [*title, *words_of(" ".join(entry.keywords)), *words_of(entry.summary)]
        facets = [facet_key(facet, value) for facet, value in facets_of(entry)]
        yield {
            "id": each.id,
            "changed": each.change,
            "slot": each.slot,
            "plugin": each.plugin,
            "name_key": (each.name_key or "")[:MOST_KEY],
            "opening": next(iter(words_of(entry.name)), "")[:MOST_KEY],
            "titles": " ".join(title),
            "kernels": each.kernels,
            "entry": each.entry,
            "facets": [*facets, level_facet(level_of(each.slot))],
            "title": _bounded(title),
            "about": _bounded(about),
            "body": _bounded([*about, *words_of(each.body or "")]),
        }


def facet_key(facet: str, value: str) -> str:
    """What stands for a facet's value among a row's facets."""
    return f"{facet}:{plain(value.lower())}"


def plain(text: str) -> str:
    """The text without what PostgreSQL does not take."""
    return text.replace("\x00", "").encode("utf-8", "ignore").decode()


def level_facet(level: int) -> str:
    """What stands for a step of quality among a row's facets, where the index can narrow a common word down by it."""
    return f"level:{level}"


def _bounded(words: Iterable[str]) -> list[str]:
    """Each word once, as far as PostgreSQL takes them."""
    kept, size = [], 0
    for word in dict.fromkeys(words):
        length = len(word.encode())
        if length > MOST_WORD_BYTES:
            continue
        size += length
        if size > MOST_TEXT_BYTES:
            break
        kept.append(word)
    return kept


def _learnt(changed: Sequence[Listed]) -> list[tuple[str, str]]:
    words = dict.fromkeys(
        word
        for each in changed
        if each.entry is not None
        for word in words_of(" ".join(orjson.loads(each.entry)[name] for name in ("name", "id")))
    )
    return [(remainder, word) for word in words for remainder in sorted(remainders_of(word))]
