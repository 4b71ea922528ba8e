"""Deadline, bulkhead, breaker, backoff: as in the literature (Nygard, "Release It!", ch. 5)."""

from __future__ import annotations

import asyncio
import random
import time
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Literal

from kernel.errors import DeadlineExceeded

BreakerState = Literal["closed", "open", "half_open"]


class Breaker:
    """Opens after ``threshold`` failures in a row; rests, then lets exactly one probe through.

    The rest doubles with each failed probe, from ``rest`` to ``longest`` seconds. ``clock`` gives
    seconds on a monotonic clock. ``era`` grows with each change of state: a call remembers the era in
    which it was let through, and what it came to counts only if that era still lasts. So a slow call
    from before the breaker opened neither closes it nor makes room for a second probe.

    ``changed`` is called with the breaker after each change of state; ``error`` says what failed last.
    ``openings`` counts how often it opened since it was last closed.
    """

    __slots__ = (
        "_clock",
        "_longest",
        "_probing",
        "_rest",
        "_threshold",
        "_until",
        "_wait",
        "changed",
        "era",
        "error",
        "failures",
        "openings",
        "state",
    )

    def __init__(
        self,
        threshold: int = 5,
        rest: float = 1.0,
        longest: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._rest = rest
        self._longest = longest
        self._clock = clock
        self._wait = rest
        self._until = 0.0
        self._probing = False
        self.changed: Callable[[Breaker], None] | None = None
        self.era = 0
        self.error = ""
        self.failures = 0
        self.openings = 0
        self.state: BreakerState = "closed"

    @property
    def wait(self) -> float:
        """How long it rests now or will rest next, in seconds."""
        return self._wait

    @property
    def rest_left(self) -> float:
        """Seconds until a probe may go; 0 unless it is open."""
        return max(0.0, self._until - self._clock()) if self.state == "open" else 0.0

    def resume(self, wait: float, rest_left: float, failures: int, openings: int, error: str = "") -> None:
        """Go on resting where an earlier process stopped; times in seconds."""
        self._wait = min(max(wait, self._rest), self._longest)
        self.failures, self.openings, self.error = failures, openings, error
        # A clock set back in between makes nobody wait longer than the rest was meant to be.
        self._until = self._clock() + min(max(rest_left, 0.0), self._wait)
        self._enter("open")

    def reset(self) -> None:
        """Close it by hand: the next call goes through, and counts from nought."""
        self.failures = 0
        self._wait = self._rest
        if self.state != "closed":
            self._enter("closed")

    def allow(self) -> bool:
        """Whether a call may go now. In half-open state only one call at a time may."""
        if self.state == "closed":
            return True
        if self.state == "open":
            if self._clock() < self._until:
                return False
            self._enter("half_open")
        elif self._probing:
            return False
        self._probing = True
        return True

    def success(self, era: int) -> None:
        """A call that was let through in ``era`` went well."""
        if era != self.era:
            return
        self.failures = 0
        if self.state != "closed":
            self._wait = self._rest
            self._enter("closed")

    def failure(self, era: int) -> None:
        """A call that was let through in ``era`` failed."""
        if era != self.era:
            return
        self.failures += 1
        if self.state == "half_open":
            self._wait = min(self._wait * 2, self._longest)
            self._open()
        elif self.failures >= self._threshold:
            self._open()

    def abandon(self, era: int) -> None:
        """A call that was let through in ``era`` was cancelled: it says nothing about the callee."""
        if era == self.era:
            self._probing = False

    def _open(self) -> None:
        self._until = self._clock() + self._wait
        self.openings += 1
        self._enter("open")

    def _enter(self, state: BreakerState) -> None:
        self.state = state
        self.era += 1
        self._probing = False
        if state == "closed":
            self.openings = 0
        if self.changed is not None:
            self.changed(self)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between tries, in seconds: doubled each time up to ``most``, half of each by chance."""

    first: float = 0.05
    most: float = 10.0

    def pause(self, attempt: int) -> float:
        """The pause after the ``attempt``-th failure (from 1)."""
        longest = min(self.most, self.first * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    """Carry on a coroutine that was already sent into once and yielded ``awaited``."""
    while True:
        try:
            sent = yield awaited
        except BaseException as error:
            step: Callable[[Any], Any] = coroutine.throw
            argument: Any = error
        else:
            step = coroutine.send
            argument = sent
        try:
            awaited = step(argument)
        except StopIteration as done:
            return done.value


async def finish_within(coroutine: Coroutine[Any, Any, Any], awaited: Any, seconds: float) -> Any:
    """Finish a coroutine that suspended on ``awaited``, under a timer of its own.

    Implementations that never suspend never pay for a timer: arming one costs more than most of
    them take. Raises DeadlineExceeded if the time is up.
    """
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await _resume(coroutine, awaited)
    except TimeoutError as error:
        if scope.expired():
            raise DeadlineExceeded(f"It did not end within {seconds * 1000:.0f} ms.") from error
        raise
