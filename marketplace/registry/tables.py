"""The registry's own database: one SQLite file, opened for many readers and one writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

from marketplace.errors import RegistryDamaged

T = TypeVar("T")
SCHEMA_VERSION = 5
FILE_NAME = "registry.db"
schema = sa.MetaData()

tuf_metadata = sa.Table(
    "tuf_metadata",
    schema,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("superseded", sa.Float, nullable=True, index=True),
)

tuf_targets = sa.Table(
    "tuf_targets",
    schema,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("superseded", sa.Float, nullable=True, index=True),
)

namespaces = sa.Table(
    "namespaces",
    schema,
    sa.Column("publisher", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("registered", sa.Text, nullable=False),
)

# Every key set of the namespaces that have had more than one, with its places in the log.
key_sets = sa.Table(
    "key_sets",
    schema,
    sa.Column("publisher", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("entry", sa.Integer, nullable=False),
    sa.Column("owner_entry", sa.Integer, nullable=True),
    sa.Column("recovered", sa.Boolean, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)

plugins = sa.Table(
    "plugins",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("plugin", sa.Text, nullable=False, unique=True),
    sa.Column("entry", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("deprecation", sa.JSON(none_as_null=True), nullable=True),
    # What search is derived from, and where the plugin is in it.
    sa.Column("slot", sa.Integer, nullable=True),
    sa.Column("name_key", sa.Text, nullable=True, index=True),
    sa.Column("kernels", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("released", sa.Text, nullable=True),
    sa.Column("findings", sa.Integer, nullable=False, server_default="0"),
)

downloads = sa.Table(
    "downloads",
    schema,
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
)

spellings = sa.Table(
    "spellings",
    schema,
    sa.Column("remainder", sa.Text, primary_key=True),
    sa.Column("word", sa.Text, primary_key=True),
    sqlite_with_rowid=False,
)

releases = sa.Table(
    "releases",
    schema,
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("kernel", sa.Text, nullable=False),
    sa.Column("published", sa.Text, nullable=False),
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("envelope", sa.JSON, nullable=False),
    sa.Column("yank", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("receipt", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("yank_receipt", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("findings", sa.JSON, nullable=False, server_default="[]"),
)

revocations = sa.Table(
    "revocations",
    schema,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("plugin", sa.Text, nullable=False, index=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)

reach = sa.Table(
    "reach",
    schema,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("installed", sa.Boolean, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("reported", sa.Float, nullable=False),
)

log_entries = sa.Table(
    "log_entries",
    schema,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("statement", sa.JSON(none_as_null=True), nullable=True),
    sa.Index("log_entries_about", "subject", "kind", "version"),
)

log_tiles = sa.Table(
    "log_tiles",
    schema,
    sa.Column("level", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)

log_checkpoints = sa.Table(
    "log_checkpoints",
    schema,
    sa.Column("size", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("note", sa.LargeBinary, nullable=False),
    sa.Column("superseded", sa.Float, nullable=True, index=True),
)

log_cosignatures = sa.Table(
    "log_cosignatures",
    schema,
    sa.Column("size", sa.Integer, primary_key=True),
    sa.Column("witness", sa.Text, primary_key=True),
    sa.Column("line", sa.Text, nullable=False),
)

OLD_TEXT = "plugin_text_before_4"
"""The index of an older schema: whoever opens the registry makes the new one from it and drops it."""
_SEARCH = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS plugin_about USING fts5("
    "title, keywords, summary, facets, prefix = '2 3', tokenize = 'porter unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE IF NOT EXISTS plugin_text USING fts5("
    "about, body, facets, prefix = '2 3', tokenize = 'porter unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE IF NOT EXISTS plugin_openings USING fts5("
    "opening, facets, tokenize = 'porter unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE IF NOT EXISTS plugin_trigrams USING fts5(title, tokenize = 'trigram')",
)
_FROM_1 = (
    "ALTER TABLE releases ADD COLUMN findings JSON NOT NULL DEFAULT '[]'",
    "ALTER TABLE plugins ADD COLUMN deprecation JSON",
)
_FROM_3 = (
    "ALTER TABLE plugins ADD COLUMN slot INTEGER",
    "ALTER TABLE plugins ADD COLUMN name_key TEXT",
    "CREATE INDEX ix_plugins_name_key ON plugins (name_key)",
    "ALTER TABLE plugins ADD COLUMN kernels JSON NOT NULL DEFAULT '[]'",
    "ALTER TABLE plugins ADD COLUMN released TEXT",
    "ALTER TABLE plugins ADD COLUMN findings INTEGER NOT NULL DEFAULT 0",
    "DROP TABLE plugin_words",
    "DROP TABLE plugin_trigrams",
    f"ALTER TABLE plugin_text RENAME TO {OLD_TEXT}",
)


def in_parts(values: Sequence[T], most: int = 500) -> Iterator[tuple[tuple[T, ...], str]]:
    """The values some at a time, each time with as many question marks: one question takes a limited number."""
    for at in range(0, len(values), most):
        some = tuple(values[at : at + most])
        yield some, ",".join("?" * len(some))


def ask(connection: sa.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """The rows that plain SQL gives, as tuples; inside the connection's transaction, which begins if it has to.

    By the driver itself: of one short question, more than half the time is around it otherwise, and each release of a
    batch asks several.
    """
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.driver_connection
    rows: list[Any] = driver.execute(statement, values).fetchall()
    return rows


class Tables:
    """Transactions over the registry's database. Every write begins immediately (``FACTS``: SQLite's
    busy timeout does not cover a read that becomes a write)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._engine = sa.create_engine(f"sqlite:///{folder / FILE_NAME}", pool_size=8, max_overflow=32)
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._shared = threading.local()

    def create(self) -> None:
        """Make what is missing. Raises RegistryDamaged if a newer version wrote the file."""
        with self.write() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found > SCHEMA_VERSION:
                raise RegistryDamaged(
                    "The registry's database was written by a newer version.",
                    expected=f"schema {SCHEMA_VERSION} or older",
                    found=f"schema {found}",
                    fix="Start the newer version, or restore a backup from before.",
                )
            for statement in (*(_FROM_1 if found == 1 else ()), *(_FROM_3 if 1 <= found <= 3 else ())):
                connection.exec_driver_sql(statement)
            schema.create_all(connection)
            for statement in _SEARCH:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view."""
        shared: sa.Connection | None = getattr(self._shared, "connection", None)
        if shared is not None:
            yield shared
            return
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def one_view(self) -> Iterator[None]:
        """Every :meth:`read` of this thread in the body is of one view, begun once: for many short ones in a row."""
        with self._engine.connect() as connection:
            self._shared.connection = connection
            try:
                yield
            finally:
                self._shared.connection = None

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction, alone among writers of all processes; commits if the body ends well."""
        with self._engine.connect().execution_options(keelstone_write=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _prepare(connection: Any, record: Any) -> None:
    # The driver must not begin transactions by itself: `_begin` does, with the right kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 15000", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("keelstone_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
