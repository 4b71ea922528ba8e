"""Shares of tenants or of calls, chosen by a stable hash: asked again, the answer is the same, and a larger
share holds everything that a smaller one held."""

from __future__ import annotations

import hashlib


def in_share(salt: str, key: str, percent: float) -> bool:
    """Whether ``key`` belongs to the first ``percent`` (0 to 100) of all keys under ``salt``.

    The hash is BLAKE2b over salt and key, read as a fraction of its range: uniform, the same in every
    process, and independent between salts.
    """
    if percent >= 100:
        return True
    hashed = hashlib.blake2b(f"{salt}\n{key}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big") * 100 < percent * (1 << 64)
