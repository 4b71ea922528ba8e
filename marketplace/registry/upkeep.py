"""What a registry does by the hour: sign what is about to expire, forget what nobody asks for, rank anew."""

from __future__ import annotations

import threading
from collections import Counter

from kernel.ports import Clock
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.search import merge_index, note_downloads, parted, refresh_standings
from marketplace.registry.tables import Tables
from marketplace.tuf_repository import Renewal, TufRepository


class Upkeep:
    """The upkeep of one registry. Blocking, for any thread."""

    def __init__(self, tables: Tables, repository: TufRepository, clock: Clock) -> None:
        self._tables, self._repository, self._clock = tables, repository, clock
        self._downloaded: Counter[str] = Counter()
        self._counting = threading.Lock()

    def downloaded(self, digest: str) -> None:
        """A package was fetched: it counts for its plugin's place in search, from the next :meth:`renew` on."""
        with self._counting:
            self._downloaded[digest] += 1

    def renew(self) -> Renewal:
        """Do all of it; what was signed anew, and what could not be."""
        with self._tables.write() as connection:
            rows = MetadataRows(connection, self._clock.now())
            renewal = self._repository.renew(rows)
            rows.prune()
            LogRows(connection, self._clock.now()).prune()
        self._rank()
        self._merge()
        return renewal

    def finish(self) -> None:
        """Let what was fetched since the last time count before the end."""
        if self._downloaded:
            self._rank()

    def _merge(self) -> None:
        """Keep search quick where many small commits have parted its index, some pages at a time."""
        with self._tables.read() as connection:
            tables = parted(connection)
        for table in tables:
            begin = more = True
            while more:
                with self._tables.write() as connection:
                    more, begin = merge_index(connection, table, begin=begin), False

    def _rank(self) -> None:
        """Count what was downloaded, and put plugins where they now belong in search, some at a time: nobody who
        publishes waits long."""
        with self._counting:
            counted, self._downloaded = self._downloaded, Counter()
        with self._tables.write() as connection:
            note_downloads(connection, counted, self._clock.now())
        more = True
        while more:
            with self._tables.write() as connection:
                more = refresh_standings(connection, self._clock.now()) > 0
