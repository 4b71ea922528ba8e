"""Search: SQLite FTS5 finds, a small documented score puts in order.

``catalogue`` keeps the index current, ``ranking`` says what a plugin's standing is worth, ``query`` finds,
``spelling`` corrects. Everything here is derived from the registry's other tables and can be built again. ``port`` is
how it is asked; ``feed`` says what changed, from which ``postgres`` keeps a copy that many processes share.
"""

from __future__ import annotations

from marketplace.registry.search.catalogue import (
    Listing,
    downloads_of,
    merge_index,
    note_downloads,
    parted,
    refresh_standings,
    update_listings,
    update_search,
)
from marketplace.registry.search.port import SearchIndex, SqliteIndex
from marketplace.registry.search.query import Facets, count_facets, search
from marketplace.registry.search.ranking import Standing, verified_by

__all__ = [
    "Facets",
    "Listing",
    "SearchIndex",
    "SqliteIndex",
    "Standing",
    "count_facets",
    "downloads_of",
    "merge_index",
    "note_downloads",
    "parted",
    "refresh_standings",
    "search",
    "update_listings",
    "update_search",
    "verified_by",
]
