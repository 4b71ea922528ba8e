"""What the host answered in one call, kept in order; and a call that gets such answers again.

A recording is bounded: past :data:`MAX_WEIGHT` it ends with an exchange that says so, and a replay
that comes so far ends there.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from kernel.ports import HostExchange, Replay
from sandbox.errors import ReplayDiverged

MAX_WEIGHT = 1 << 20
"""Bytes of arguments and answers, roughly, that one call's recording holds."""
CUT = "recording.cut"
"""The function named by the exchange that ends a recording that grew too large."""
_EXCHANGE_WEIGHT = 64
LEAVES = frozenset({"http.send", "ai.complete", "notify.send", "services.call"})
"""What a mirrored call must not do a second time."""
_NONCE = re.compile(r"\{\{secret:([a-z][a-z0-9_]*):[0-9a-f]{32}\}\}")


class Recorder:
    """Collects exchanges."""

    __slots__ = ("exchanges", "weight")

    def __init__(self) -> None:
        self.exchanges: list[HostExchange] = []
        self.weight = 0

    def add(self, function: str, arguments: tuple[Any, ...], answer: Any, failed: bool = False) -> None:
        """Note one host call as it was answered."""
        if self.weight > MAX_WEIGHT:
            return
        self.weight += _EXCHANGE_WEIGHT + _weight(arguments) + _weight(answer)
        if self.weight > MAX_WEIGHT:
            self.exchanges.append(HostExchange(CUT, (), {"code": "limit", "message": f"{MAX_WEIGHT} bytes"}, True))
        else:
            self.exchanges.append(HostExchange(function, arguments, answer, failed))


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return 8 + sum(map(_weight, value))
    if isinstance(value, Mapping):
        return 8 + sum(len(k) + _weight(v) for k, v in value.items())
    return 8


class Replayer:
    """Gives recorded answers (see :class:`kernel.ports.Replay`)."""

    __slots__ = ("_at", "_by_call", "_exchanges", "stored", "strict")

    def __init__(self, replay: Replay) -> None:
        self.strict = replay.strict
        self._exchanges = replay.exchanges
        self._at = 0
        self._by_call: dict[str, deque[HostExchange]] = {}
        self.stored = {} if replay.strict else _first_reads(replay.exchanges)
        if not replay.strict:
            for exchange in replay.exchanges:
                if exchange.function in LEAVES:
                    self._by_call.setdefault(_key(exchange.function, exchange.arguments), deque()).append(exchange)

    def next(self, function: str, arguments: tuple[Any, ...]) -> HostExchange:
        """The next exchange of a strict replay. Raises ReplayDiverged if it was another call."""
        found = self._exchanges[self._at] if self._at < len(self._exchanges) else None
        if found is None or found.function != function or _listed(found.arguments) != _listed(arguments):
            raise ReplayDiverged(
                "The guest called the host otherwise than in the recording.",
                expected=_told(found.function, found.arguments) if found else "no further host call",
                found=_told(function, arguments),
                fix="Replay with the very component that was recorded; a changed one is meant to differ here.",
                extra={"position": self._at},
            )
        self._at += 1
        return found

    def left(self, function: str, arguments: tuple[Any, ...]) -> HostExchange | None:
        """The recorded answer to a mirrored call that would leave the platform; each is given once."""
        waiting = self._by_call.get(_key(function, arguments))
        return waiting.popleft() if waiting else None


def _first_reads(exchanges: tuple[HostExchange, ...]) -> dict[str, str | None]:
    """Stored values as a call found them, before it wrote any itself: its mirror finds the same, though
    the call's own writes may have been saved by then."""
    found: dict[str, str | None] = {}
    written: set[str] = set()
    for exchange in exchanges:
        if exchange.failed:
            continue
        arguments = exchange.arguments
        if exchange.function in ("kv.set", "kv.set-for", "kv.set-if", "kv.delete"):
            written.add(arguments[0])
        elif exchange.function == "kv.set-many":
            written.update(entry["key"] for entry in arguments[0])
        elif exchange.function == "kv.get" and arguments[0] not in written:
            found.setdefault(arguments[0], exchange.answer)
        elif exchange.function == "kv.get-many":
            for key, value in zip(arguments[0], exchange.answer, strict=True):
                if key not in written:
                    found.setdefault(key, value)
    return found


def _key(function: str, arguments: tuple[Any, ...]) -> str:
    # A secret stands under another random name in every call; it is the same secret nevertheless.
    return function + _NONCE.sub(r"{{secret:\1}}", repr(_listed(arguments)))


def _listed(value: Any) -> Any:
    """JSON knows no tuples: what was stored and read back must be equal to what is at hand."""
    if isinstance(value, (list, tuple)):
        return [_listed(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _listed(v) for k, v in sorted(value.items())}
    return value


def _told(function: str, arguments: tuple[Any, ...]) -> str:
    text = ", ".join(repr(a) for a in arguments)
    return f"{function}({text if len(text) <= 300 else text[:300] + '...'})"
