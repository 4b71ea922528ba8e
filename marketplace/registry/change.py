"""What a change of the registry is: applied inside a transaction, checked first, then written.

A change names what it touched; the registry renders the touched documents and signs the metadata in
the same transaction, so a change is visible with its signatures or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from marketplace.log.entry import Entry, entry_key

Render = Callable[[sa.Connection], bytes]
"""A target's bytes, from the rows as they are after the batch."""
T_co = TypeVar("T_co", covariant=True)


@dataclass(slots=True)
class Touched:
    """What a batch of changes touched: plugins with their README, other documents (TUF targets), and what to log."""

    plugins: dict[str, str | None] = field(default_factory=dict)
    documents: dict[str, Render] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    statements: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Envelopes behind ``entries`` that nothing else keeps, by position."""
    _positions: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def put(self, path: str, document: bytes) -> None:
        """Let the target at ``path`` be ``document``."""
        self.documents[path] = lambda after: document

    def render(self, path: str, document: Render) -> None:
        """Let the target at ``path`` be made when the whole batch is written, once however often it was asked for."""
        self.documents[path] = document

    def log(self, entry: Entry, statement: Mapping[str, Any] | None = None) -> None:
        """Add an entry; the last thing that a change does, so that one which is refused logs nothing."""
        if statement is not None:
            self.statements[len(self.entries)] = statement
        self._positions[entry_key(entry)] = len(self.entries)
        self.entries.append(entry)

    def position(self, kind: str, subject: str, version: str) -> int:
        """Where the entry about something is among ``entries``."""
        return self._positions[kind, subject, version]


@dataclass(frozen=True, slots=True)
class Pending:
    """A release whose receipt is written once the snapshot's version and the log's size are known."""

    values: Mapping[str, Any]
    position: int | None
    """Of its entry, in the batch; None if the log has none."""


class Change(Protocol[T_co]):
    """One change. What it answers is kept for whoever asked; a :class:`Pending` becomes its receipt."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> T_co | Pending:
        """Check and write it. ``now`` is ISO 8601 in UTC. Whatever is raised undoes this change alone."""
