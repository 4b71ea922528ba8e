"""How far a revocation has come, by whoever has the marketplace's data folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kernel.settings import Settings
from marketplace.datafolder import reading


def reach_here(settings: Settings, digest: str) -> dict[str, Any]:
    """The revocation of a package and who has carried it out, as plain data; times in seconds. Raises NotFound."""
    with reading(settings) as reader:
        revoked, reached = reader.revocations.reach(digest)
    return {
        **asdict(revoked),
        "platforms": len(reached),
        "had_it": sum(each.installed for each in reached),
        "slowest": max((each.seconds for each in reached), default=None),
        "reached": [asdict(each) for each in reached],
    }
