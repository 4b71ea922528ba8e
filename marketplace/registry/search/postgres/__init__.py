"""A copy of the catalogue in PostgreSQL that many marketplace processes search together.

``layout`` says what is there, ``projection`` keeps it up with the registry, ``finding`` asks it, and ``shared`` is the
search index that uses it while it can and the registry's own while it can't.
"""

from __future__ import annotations

from marketplace.registry.search.postgres.shared import SharedSearch, ping

__all__ = ["SharedSearch", "ping"]
