"""The index of known weaknesses: a database file of its own, so that a long import keeps no publisher waiting.

It is asked by package, so that nothing is loaded whole.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketplace.osv.severity import SEVERITIES
from marketplace.osv.versions import is_affected
from marketplace.osv.weakness import Place, Weakness, plain_span, read_weakness, same_flaw, span_from_dict

FILE = "osv.db"
_TABLES = """
CREATE TABLE IF NOT EXISTS weaknesses(
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, modified REAL NOT NULL, summary TEXT NOT NULL,
  severity TEXT NOT NULL, vector TEXT, malicious INTEGER NOT NULL, withdrawn INTEGER NOT NULL, aliases TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS places(
  ecosystem TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, span TEXT NOT NULL,
  PRIMARY KEY (ecosystem, name, number, at)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS places_of ON places(number);
CREATE TABLE IF NOT EXISTS imports(number INTEGER PRIMARY KEY, at TEXT NOT NULL, taken INTEGER NOT NULL);
"""
_COLUMNS = "id, modified, summary, severity, vector, malicious, withdrawn, aliases"


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import: documents ``read``, of them ``taken`` as new or newer (``malicious`` ones among them);
    ``known`` already, ``elsewhere`` (about no ecosystem of ours), and ``unreadable``."""

    read: int
    taken: int
    malicious: int
    known: int
    elsewhere: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class IndexState:
    """What the index holds. ``imports`` counts imports that changed it; ``imported`` is the last one's moment, ISO 8601
    in UTC; ``packages`` and ``weaknesses`` by ecosystem."""

    imports: int
    imported: str | None
    weaknesses: dict[str, int]
    malicious: int


class WeaknessIndex:
    """The index in one registry's folder. Blocking; safe from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._threads = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._opening = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether anything was ever imported."""
        return self._path.exists()

    def close(self) -> None:
        """Close every connection."""
        with self._opening:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._threads = threading.local()

    def take(self, documents: Iterable[Any], now: str) -> Imported:
        """Take in what is new or newer, all of it or nothing. A thousand documents are some 50 ms."""
        counts = dict.fromkeys(("read", "taken", "malicious", "known", "elsewhere", "unreadable"), 0)
        with self._write() as connection:
            for said in documents:
                counts["read"] += 1
                try:
                    weakness, places = read_weakness(said)
                except ValueError:
                    counts["unreadable"] += 1
                    continue
                outcome = "elsewhere" if not places else "taken" if _put(connection, weakness, places) else "known"
                counts[outcome] += 1
                counts["malicious"] += outcome == "taken" and weakness.malicious
            if counts["taken"]:
                connection.execute("INSERT INTO imports(at, taken) VALUES (?, ?)", (now, counts["taken"]))
        return Imported(**counts)

    def generation(self) -> int:
        """How often the index has changed."""
        if not self.exists:
            return 0
        return int(self._reader().execute("SELECT coalesce(max(number), 0) FROM imports").fetchone()[0])

    def state(self) -> IndexState:
        """What the index holds."""
        if not self.exists:
            return IndexState(0, None, {}, 0)
        with self._view() as connection:
            last = connection.execute("SELECT number, at FROM imports ORDER BY number DESC LIMIT 1").fetchone()
            rows = connection.execute(
                "SELECT ecosystem, count(DISTINCT number) FROM places GROUP BY ecosystem ORDER BY ecosystem"
            ).fetchall()
            malicious = connection.execute("SELECT count(*) FROM weaknesses WHERE malicious").fetchone()[0]
        return IndexState(last[0] if last else 0, last[1] if last else None, dict(rows), malicious)

    def about(self, ecosystem: str, name: str, version: str) -> list[Weakness]:
        """The weaknesses of a version of a package, the gravest first; of what several databases say, the gravest word.
        ``name`` is in the spelling of ``package_name``."""
        query = (
            f"SELECT span, {_COLUMNS} FROM places JOIN weaknesses USING (number) "  # noqa: S608 - columns of our own
            "WHERE ecosystem = ? AND name = ? AND NOT withdrawn"
        )
        found: dict[str, Weakness] = {}
        for span, *row in self._reader().execute(query, (ecosystem, name)).fetchall() if self.exists else ():
            if is_affected(ecosystem, span_from_dict(json.loads(span)), version):
                found[row[0]] = _weakness(row)
        ordered = sorted(found.values(), key=lambda w: (not w.malicious, -SEVERITIES.index(w.severity), w.id))
        told: list[Weakness] = []
        for each in ordered:
            if not any(same_flaw(each, other) for other in told):
                told.append(each)
        return told

    @contextmanager
    def _view(self) -> Iterator[sqlite3.Connection]:
        connection = self._reader()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = _connect(self._path)
            with self._opening:
                self._open.append(connection)
            self._threads.connection = connection
        return connection

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with closing(_connect(self._path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60.0, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(_TABLES)
    return connection


def _put(connection: sqlite3.Connection, weakness: Weakness, places: list[Place]) -> bool:
    """Keep it in place of an older word; whether it is news."""
    known = connection.execute("SELECT number, modified FROM weaknesses WHERE id = ?", (weakness.id,)).fetchone()
    if known is not None and known[1] >= weakness.modified:
        return False
    values = (
        weakness.id,
        weakness.modified,
        weakness.summary,
        weakness.severity,
        weakness.vector,
        weakness.malicious,
        weakness.withdrawn,
        json.dumps(weakness.aliases),
    )
    if known is None:
        marks = ", ".join("?" * len(values))
        number = connection.execute(f"INSERT INTO weaknesses({_COLUMNS}) VALUES ({marks})", values).lastrowid  # noqa: S608
    else:
        number = known[0]
        changed = ", ".join(f"{column} = ?" for column in _COLUMNS.split(", "))
        connection.execute(f"UPDATE weaknesses SET {changed} WHERE number = ?", (*values, number))  # noqa: S608
        connection.execute("DELETE FROM places WHERE number = ?", (number,))
    rows = [
        (place.ecosystem, place.name, number, at, json.dumps(plain_span(place.span), separators=(",", ":")))
        for at, place in enumerate(places)
    ]
    connection.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?)", rows)
    return True


def _weakness(row: list[Any]) -> Weakness:
    id_, modified, summary, severity, vector, malicious, withdrawn, aliases = row
    return Weakness(
        id_, modified, summary, severity, vector, bool(malicious), bool(withdrawn), tuple(json.loads(aliases))
    )
