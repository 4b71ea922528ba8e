"""Capability ``clock``: what time it is. Every function raises HostError."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from .host import bindings, call

_host = bindings("clock")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - older Pythons run this too


def now() -> datetime:
    """The time in UTC, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=call(_host, "clock", "now"))


def monotonic() -> int:
    """Nanoseconds from some moment on, which never go back: for measuring."""
    found: int = call(_host, "clock", "monotonic")
    return found
