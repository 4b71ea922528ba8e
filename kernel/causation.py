"""Which event the work in hand is a consequence of; events emitted meanwhile name it as their cause.

Plugins that answer each other's events could go on for ever, or multiply. So every event knows its
distance from what began it: one hop more than its cause, and one more again for each doubling when
several are emitted at once. Strangers' handlers take events up to ``MAX_HOPS`` only, which bounds a
chain's length and, fewer than 2 ** MAX_HOPS events along any one path of handlers, its breadth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MAX_HOPS = 10
"""Farthest distance from its beginning at which an event still reaches plugins."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The event being handled, and its own distance from what began it."""

    id: str
    hops: int = 0

    def hops_of(self, count: int) -> int:
        """Hops of ``count`` events emitted together in consequence."""
        return self.hops + max(1, count.bit_length())


_cause: ContextVar[Cause | None] = ContextVar("keelstone_cause", default=None)


def current_cause() -> Cause | None:
    """The event being handled, or None."""
    return _cause.get()


@contextmanager
def use_cause(event_id: str, hops: int = 0) -> Iterator[None]:
    """Name the event as the cause of every event emitted in the body of the ``with``."""
    token = _cause.set(Cause(event_id, hops))
    try:
        yield
    finally:
        _cause.reset(token)
