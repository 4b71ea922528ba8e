"""Capability ``random``: unpredictable numbers, fit for keys. Every function raises HostError."""

from __future__ import annotations

from .host import bindings, call

_host = bindings("random")


def number() -> int:
    """Any number of 64 bits."""
    found: int = call(_host, "random", "number")
    return found


def hex(size: int) -> str:
    """So many random bytes (1 to 1024) as hexadecimal text."""
    found: str = call(_host, "random", "hex", size)
    return found
