"""Which event the work in hand is a consequence of; events emitted meanwhile name it as their cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_cause: ContextVar[str | None] = ContextVar("keelstone_cause", default=None)


def current_cause() -> str | None:
    """The id of the event being handled, or None."""
    return _cause.get()


@contextmanager
def use_cause(event_id: str) -> Iterator[None]:
    """Name ``event_id`` as the cause of every event emitted in the body of the ``with``."""
    token = _cause.set(event_id)
    try:
        yield
    finally:
        _cause.reset(token)
