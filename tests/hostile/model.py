"""One hostile guest: what it does, and the answer that it must get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Hostile:
    """A guest with its verdict.

    ``text`` makes its WebAssembly text. ``verdict`` is the code of the error that it gets, or "served" if
    its trick is simply of no effect; ``says`` is part of the error, or the answer. ``when`` tells
    whether it is refused when prepared or fails when called. ``limits`` are the manifest's.
    """

    name: str
    does: str
    text: Callable[[], str]
    verdict: str
    says: str = ""
    when: Literal["prepare", "call"] = "call"
    payload: str = '{"email": "ada@example.com"}'
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


SERVED = "served"
BRIEF: Mapping[str, Any] = {"time_ms": 60}
"""For guests that only a deadline ends."""
