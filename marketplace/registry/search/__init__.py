"""Search: SQLite FTS5 finds, a small documented score puts in order.

``catalogue`` keeps the index current, ``ranking`` says what a plugin's standing is worth, ``query`` finds,
``spelling`` corrects. Everything here is derived from the registry's other tables and can be built again.
"""

from __future__ import annotations

from marketplace.registry.search.catalogue import (
    note_downloads,
    recent_downloads,
    refresh_standings,
    update_search,
)
from marketplace.registry.search.query import Facets, count_facets, search
from marketplace.registry.search.ranking import Standing

__all__ = [
    "Facets",
    "Standing",
    "count_facets",
    "note_downloads",
    "recent_downloads",
    "refresh_standings",
    "search",
    "update_search",
]
