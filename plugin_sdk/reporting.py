"""What platforms tell a marketplace of the plugins that they run: figures (if the operator lets them), and ratings.

Both are statements that the platform signs (``StatementSigner``), handed in with its public keys. A platform is
known by a name made from those keys; a tenant by a pseudonym that differs from plugin to plugin, so that nobody can
tell which plugins one tenant runs.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugin_sdk.services import StatementSigner

FIGURES = "keelstone-figures+jws"
RATING = "keelstone-rating+jws"
_PSEUDONYM = "keelstone-pseudonym+jws"
LATENCY_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
"""Upper ends of a latency histogram's steps, in milliseconds; a last one takes what is slower."""
TENANTS = (1, 2, 5, 10, 25, 100, 500)
"""A number of tenants is told as the largest of these that is not above it."""
MOST_TEXT = 1_000
"""Characters of a rating's text, and of an answer to it."""


def platform_name(keys: Mapping[str, Any]) -> str:
    """The name of the platform with these public keys (a JSON Web Key Set)."""
    digest = hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()
    return f"platform-{digest[:16]}"


def pseudonym(signer: StatementSigner, plugin: str, tenant: str) -> str:
    """A tenant's name for one plugin's sake: always the same, and nobody without the platform's key can make it.

    It is the digest of an Ed25519 signature, which is the same each time (RFC 8032) and cannot be foreseen.
    """
    signed = signer.sign(_PSEUDONYM, {"plugin": plugin, "tenant": tenant})
    return f"tenant-{hashlib.sha256(signed.encode()).hexdigest()[:16]}"


def coarse(tenants: int) -> int:
    """A number of tenants as it is told."""
    return TENANTS[bisect_right(TENANTS, tenants) - 1] if tenants > 0 else 0


def step(milliseconds: float) -> int:
    """The step of the latency histogram that a call belongs to."""
    return bisect_left(LATENCY_MS, milliseconds)


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """About how many milliseconds ``share`` of the calls took at most: straight between a step's ends.

    None without calls. What is slower than the last end is told as that end.
    """
    total = sum(histogram)
    if not total:
        return None
    wanted, before = share * total, 0.0
    for at, number in enumerate(histogram):
        if number and before + number >= wanted:
            low = LATENCY_MS[at - 1] if at else 0
            high = LATENCY_MS[min(at, len(LATENCY_MS) - 1)]
            return low + (high - low) * (wanted - before) / number if high > low else float(high)
        before += number
    return float(LATENCY_MS[-1])
