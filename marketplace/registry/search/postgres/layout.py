"""What there is in PostgreSQL: one schema for a registry, in it a row that says how far it is, and tables by build.

A build is one making of the tables from nothing. The next one is made beside it under its own names, and becomes the
present one when the row of ``state`` says so. Words are the registry's own (``words_of``), stemmed by PostgreSQL's
Porter stemmer, which is the one SQLite uses; no parser or list of stop words of PostgreSQL's has a say.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from kernel.errors import ConfigurationError

FORMAT = 1
"""Of everything here. It is part of the schema's name: two versions of the marketplace do not fight over one copy."""

_BASE = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TEXT SEARCH DICTIONARY {s}.stem (TEMPLATE = snowball, LANGUAGE = porter);
CREATE FUNCTION {s}.stemmed(word text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  $$ SELECT CASE WHEN length(word) < 3 THEN word
     ELSE coalesce(nullif((ts_lexize('{s}.stem', word))[1], ''), word) END $$;
CREATE FUNCTION {s}.vector(words text[]) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  $$ SELECT array_to_tsvector(ARRAY(SELECT {s}.stemmed(word) FROM unnest(words) word)) $$;
CREATE TABLE {s}.state (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  build integer NOT NULL,
  position bigint NOT NULL,
  trigrams boolean NOT NULL
);
"""
_TABLES = """
CREATE TABLE {listing} (
  id bigint NOT NULL,
  changed bigint NOT NULL,
  slot bigint NOT NULL,
  plugin text COLLATE "C" NOT NULL,
  name_key text COLLATE "C" NOT NULL,
  opening text COLLATE "C" NOT NULL,
  titles text NOT NULL,
  kernels text NOT NULL,
  entry text NOT NULL,
  facets text[] NOT NULL,
  title tsvector NOT NULL,
  about tsvector NOT NULL,
  body tsvector NOT NULL
);
CREATE TABLE {spelling} (remainder text COLLATE "C" NOT NULL, word text COLLATE "C" NOT NULL);
"""
# Three vectors and not one with weights: an index does not know weights, so every match of a common word would have to
# be read to see where the word is.
_INDEXES = """
ALTER TABLE {listing} ADD PRIMARY KEY (id);
CREATE INDEX ON {listing} (plugin);
CREATE INDEX ON {listing} (name_key);
CREATE INDEX ON {listing} (opening, slot);
CREATE INDEX ON {listing} USING gin (title, about, body, facets) WITH (fastupdate = off);
ALTER TABLE {spelling} ADD PRIMARY KEY (remainder, word);
"""
_TRIGRAMS = "CREATE INDEX ON {listing} USING gin (titles {operators}) WITH (fastupdate = off);"
_EXTENSION = (
    "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_trgm'"
)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one build's tables, with their schema."""

    schema: str
    build: int

    @property
    def listing(self) -> str:
        """The table of plugins."""
        return f"{self.schema}.listing_{self.build}"

    @property
    def spelling(self) -> str:
        """The table of corrections."""
        return f"{self.schema}.spelling_{self.build}"


@dataclass(frozen=True, slots=True)
class State:
    """Which build answers, the number of the change up to which it has everything, and whether it knows the parts of
    words."""

    build: int
    position: int
    trigrams: bool


def schema_name(identity: str) -> str:
    """The schema for a registry. ``identity`` is the hex digest of its first root."""
    return f"keelstone_search_{FORMAT}_{identity[:16]}"


def driver() -> Any:
    """PostgreSQL's driver. Raises ConfigurationError if it is not installed."""
    try:
        import asyncpg
    except ImportError as error:
        raise ConfigurationError(
            "PostgreSQL needs a driver that is not installed.",
            fix='Install the extra: pip install "keelstone[postgres]".',
        ) from error
    return asyncpg


async def read_state(connection: Any, schema: str, *, timeout: float | None = None) -> State | None:
    """How far the copy is; None if there is none yet."""
    try:
        row = await connection.fetchrow(f"SELECT build, position, trigrams FROM {schema}.state", timeout=timeout)  # noqa: S608
    except (driver().UndefinedTableError, driver().InvalidSchemaNameError):
        return None
    return None if row is None else State(*row)


async def make_base(connection: Any, schema: str) -> None:
    """Make the schema, if it is not there. Raises ConfigurationError if the database cannot have it."""
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            "The database for searches cannot keep all letters.", expected="encoding UTF8", found=str(encoding)
        )
    if await connection.fetchval("SELECT to_regclass($1)", f"{schema}.state") is None:
        async with connection.transaction():
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            await connection.execute(_BASE.format(s=schema))


async def make_tables(connection: Any, names: Names) -> None:
    """Make a build's tables, without indexes: they are filled first."""
    await connection.execute(_TABLES.format(listing=names.listing, spelling=names.spelling))


async def make_indexes(connection: Any, names: Names) -> bool:
    """Index a build's tables; whether parts of words are indexed, for which PostgreSQL must have ``pg_trgm``."""
    await connection.execute(_INDEXES.format(listing=names.listing, spelling=names.spelling))
    where = await _trigrams(connection)
    if where is not None:
        operators = f'"{where}".gin_trgm_ops'
        await connection.execute(_TRIGRAMS.format(listing=names.listing, operators=operators))
    await connection.execute(f"ANALYZE {names.listing}")
    await connection.execute(f"ANALYZE {names.spelling}")
    return where is not None


async def _trigrams(connection: Any) -> str | None:
    """The schema that has ``pg_trgm``, which is made if that is allowed; None if it cannot be had."""
    found = await connection.fetchval(_EXTENSION)
    if found is None:
        # Not installed, not ours to make, or made by somebody else this very moment.
        with contextlib.suppress(driver().PostgresError):
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        found = await connection.fetchval(_EXTENSION)
    return None if found is None else str(found).replace('"', '""')


async def drop_others(connection: Any, schema: str, build: int) -> None:
    """Drop the tables of all builds but one: of those before it, and of those that were never finished."""
    rows = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename ~ '^(listing|spelling)_[0-9]+$' "
        "ORDER BY tablename",
        schema,
    )
    for (table,) in rows:
        if table not in (f"listing_{build}", f"spelling_{build}"):
            await connection.execute(f"DROP TABLE IF EXISTS {schema}.{table}")
