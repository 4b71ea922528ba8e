"""The narrow port that searches go through, and the index that every registry has: the one in its own file."""

from __future__ import annotations

from typing import Protocol

from marketplace.registry.search.query import Facets, count_facets, search
from marketplace.registry.tables import Tables
from plugin_sdk.services import MarketplaceEntry, SearchFilters


class SearchIndex(Protocol):
    """Answers searches over one catalogue. Blocking; safe from several threads."""

    def search(self, query: str, limit: int, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """The best ``limit`` entries for ``query``; without words, the most recently added ones."""
        ...

    def facets(self, query: str, filters: SearchFilters | None = None) -> Facets:
        """What the best matches could be narrowed down by."""
        ...


class SqliteIndex:
    """The full-text index in the registry's own database. Never behind: it is written with what it tells of."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def search(self, query: str, limit: int, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """See :class:`SearchIndex`."""
        with self._tables.read() as connection:
            return search(connection, query, limit, filters)

    def facets(self, query: str, filters: SearchFilters | None = None) -> Facets:
        """See :class:`SearchIndex`."""
        with self._tables.read() as connection:
            return count_facets(connection, query, filters)
