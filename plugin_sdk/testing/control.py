"""Time and chance under a test's control: what the guest's clocks and random numbers answer."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from typing import Any

_WALL, _MONOTONIC = "wasi:clocks/wall-clock.now", "wasi:clocks/monotonic-clock.now"


class ControlledClock:
    """The guest's time. Real until it is set; then it stands still, and moves when told.

    It is what ``clock`` of the guest contract, a language's own clock and time spans see.
    """

    def __init__(self) -> None:
        self._at: int | None = None
        self._start = 0

    def set(self, at: datetime | float | str) -> None:
        """Stand at a moment: a datetime (UTC if it has no zone), seconds since the epoch, or ISO 8601."""
        if isinstance(at, str):
            at = datetime.fromisoformat(at)
        if isinstance(at, datetime):
            at = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        if self._at is None:
            # The same in every run: a second after some moment.
            self._start = 1_000_000_000 - round(at * 1e9)
        self._at = round(at * 1e9)

    def advance(self, seconds: float) -> None:
        """Go on by so many seconds; a clock that runs is stopped first."""
        if self._at is None:
            self.set(time.time())
        assert self._at is not None
        self._at += round(seconds * 1e9)

    def run(self) -> None:
        """Show the real time again."""
        self._at = None

    def time_ns(self) -> int:
        """Nanoseconds since the epoch, as the guest sees them."""
        return time.time_ns() if self._at is None else self._at

    def monotonic_ns(self) -> int:
        """The guest's monotonic clock, in nanoseconds."""
        return time.monotonic_ns() if self._at is None else self._start + self._at

    def answer(self, function: str) -> Any:
        """The answer to a host call about time; None to leave it to the host."""
        if self._at is None:
            return None
        if function == _WALL:
            seconds, nanoseconds = divmod(self._at, 1_000_000_000)
            return {"seconds": seconds, "nanoseconds": nanoseconds}
        if function in (_MONOTONIC, "clock.monotonic"):
            return self.monotonic_ns()
        return self._at // 1_000_000 if function == "clock.now" else None


class ControlledRandom:
    """The guest's chance. Real until it is seeded; the same seed gives the same calls the same numbers."""

    def __init__(self) -> None:
        self._source: random.Random | None = None
        self._asked: random.Random | None = None
        self._lock = threading.Lock()

    def seed(self, seed: int) -> None:
        """Begin a reproducible sequence."""
        self._source = random.Random(seed)  # noqa: S311 - for tests, to be the same each time
        # What the guest asks for by its capability is apart from what its language's runtime takes for itself.
        self._asked = random.Random(f"{seed}, asked")  # noqa: S311

    def run(self) -> None:
        """Be random again."""
        self._source = self._asked = None

    def bytes(self, size: int) -> bytes | None:
        """The next bytes, or None if nothing was seeded."""
        with self._lock:
            return None if self._source is None else self._source.randbytes(size)

    def answer(self, function: str, arguments: tuple[Any, ...]) -> Any:
        """The answer to a host call about chance; None to leave it to the host."""
        if self._source is None or self._asked is None:
            return None
        if function in ("random.number", "random.hex"):
            with self._lock:
                size = int(arguments[0]) if arguments else 8
                drawn = self._asked.randbytes(size)
            return drawn.hex() if function == "random.hex" else int.from_bytes(drawn, "little")
        name = function.rpartition(".")[2]
        if name in ("get-random-bytes", "get-insecure-random-bytes"):
            return {"hex": (self.bytes(int(arguments[0])) or b"").hex()}
        if name == "insecure-seed":
            return [self._number(), self._number()]
        return self._number() if name in ("get-random-u64", "get-insecure-random-u64") else None

    def _number(self) -> int:
        return int.from_bytes(self.bytes(8) or b"", "little")
