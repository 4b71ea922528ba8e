"""What a plugin's standing is worth beside the words that found it.

The score of a match is ``weight of where the words are`` x ``quality of the plugin``. Quality is between 0 and 1:

=========== ===== =====================================================================================
part        share how
=========== ===== =====================================================================================
itself      0.35  every plugin has it, so that a newcomer can be found
adoption    0.30  downloads of the last 90 days, on a scale of logarithms that ends at a million
freshness   0.20  halves with each year since the newest release
health      0.10  what monitored rules found in the newest release: nothing, one thing, two, ...
verified    0.05  a domain speaks for its publisher; half of it, if a repository is known to release for them
=========== ===== =====================================================================================

What its publisher advises against has a quarter of its quality. Downloads are counted without saying whose they
are, so they can be pushed up by whoever likes: the logarithm and the share bound what that is worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

ITSELF, ADOPTION, FRESHNESS, HEALTH, VERIFIED = 0.35, 0.3, 0.2, 0.1, 0.05
DEPRECATED = 0.25
ADOPTION_DAYS = 90
MOST_DOWNLOADS = 1_000_000
YEAR = 365.25 * 86_400
LEVELS = 64
"""Steps of quality. A plugin is indexed anew only when it moves to another one."""
_BITS = 40
_ID = (1 << _BITS) - 1


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a plugin besides its words. ``released`` (ISO 8601) is when its newest release was published,
    ``findings`` how many things monitored rules found in it, ``downloads`` how often it was fetched lately;
    ``verified``: a domain speaks for its publisher (1), or a repository is known to release for them (0.5)."""

    released: str | None = None
    findings: int = 0
    downloads: int = 0
    verified: float = 0.0


def verified_by(*, domain: bool, repository: bool) -> float:
    """What it is worth that the marketplace has verified something of a publisher, between 0 and 1."""
    return 1.0 if domain else 0.5 if repository else 0.0


def level(standing: Standing, now: float, *, deprecated: bool) -> int:
    """The plugin's quality at ``now`` (epoch seconds) in steps: 0 is the best, ``LEVELS`` the worst."""
    adoption = min(math.log1p(standing.downloads) / math.log1p(MOST_DOWNLOADS), 1.0)
    age = math.inf if standing.released is None else now - datetime.fromisoformat(standing.released).timestamp()
    freshness, health = 0.5 ** (max(age, 0.0) / YEAR), 1 / (1 + standing.findings)
    quality = ITSELF + ADOPTION * adoption + FRESHNESS * freshness + HEALTH * health + VERIFIED * standing.verified
    if deprecated:
        quality *= DEPRECATED
    return LEVELS - int(quality * LEVELS)


def slot(plugin: int, at: int) -> int:
    """The row of a plugin in the full-text index: rows come out best quality first."""
    return at << _BITS | plugin


def plugin_of(row: int) -> int:
    """The plugin's number in a row of the index."""
    return row & _ID


def quality_of(row: int) -> float:
    """The quality in a row of the index, between 0 and 1."""
    return 1.0 - (row >> _BITS) / LEVELS


def level_of(row: int) -> int:
    """The step of quality in a row of the index: 0 is the best."""
    return row >> _BITS
