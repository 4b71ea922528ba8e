"""What hooks answer, turned into the JSON replies of kernel/payloads.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .payload import Payload


class Reject(Exception):
    """Raised by a filter to refuse the payload; ``reason`` is shown to the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Allow:
    """A decide hook's yes."""

    reason: str
    allow: bool = True


@dataclass(frozen=True)
class Deny:
    """A decide hook's no."""

    reason: str
    allow: bool = False


def filter_reply(answer: object) -> dict[str, Any]:
    """A filter's answer: a payload or None. Raises TypeError."""
    if answer is None:
        return {}
    if isinstance(answer, Payload):
        return {"payload": answer.to_json()}
    raise TypeError(f"a filter answers with a payload or None, not {type(answer).__name__}")


def decide_reply(answer: object) -> dict[str, Any]:
    """A decide hook's answer: Allow, Deny or None. Raises TypeError."""
    if answer is None:
        return {}
    if isinstance(answer, (Allow, Deny)):
        return {"answer": {"allow": answer.allow, "reason": answer.reason}}
    raise TypeError(f"a decide hook answers with Allow, Deny or None, not {type(answer).__name__}")


def observe_reply(answer: object) -> dict[str, Any]:
    """An observe hook's answer: nothing. Raises TypeError."""
    if answer is None:
        return {"done": True}
    raise TypeError(f"an observe hook answers None, not {type(answer).__name__}")
