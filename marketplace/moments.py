"""How the marketplace writes moments: ISO 8601 in UTC with a Z, so that they compare as texts."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_text(at: datetime | float, timespec: str = "seconds") -> str:
    """``at`` (with its zone, or epoch seconds) cut to ``timespec``, such as ``2026-11-23T10:00:00Z``."""
    moment = at.astimezone(UTC) if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")
