"""What is measured of a version on trial, in numbers that several processes can add up, and the verdict.

Times go into a histogram of 16 buckets per doubling, so that a quantile read from it is at most 4.5 %
too large and histograms of several processes simply add (the idea of HdrHistogram, without its digits).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PER_DOUBLING = 16
DOUBT = 0.001
"""How likely one end of an interval may be wrong by chance. Each look takes calls that no look before took."""


def bucket(micros: int) -> int:
    """The histogram bucket of a time in microseconds."""
    return 0 if micros < 1 else math.ceil(math.log2(micros) * _PER_DOUBLING) + 1


def bound(index: int) -> float:
    """The longest time of a bucket, in microseconds."""
    return 0.0 if index == 0 else float(2.0 ** ((index - 1) / _PER_DOUBLING))


@dataclass(slots=True)
class Arm:
    """Calls of one version: how many, how many failed, how long they took."""

    calls: int = 0
    failures: int = 0
    times: Counter[int] = field(default_factory=Counter)

    def note(self, micros: int | None, failed: bool) -> None:
        """Add one call; ``micros`` is None if it never ran."""
        self.calls += 1
        self.failures += failed
        if micros is not None:
            self.times[bucket(micros)] += 1

    def quantile(self, share: float) -> float | None:
        """The time in microseconds that ``share`` of the calls stayed within; None without any."""
        total = self.times.total()
        if not total:
            return None
        wanted, seen = math.ceil(share * total), 0
        for index in sorted(self.times):
            seen += self.times[index]
            if seen >= wanted:
                return bound(index)
        return bound(max(self.times))

    def slower_than(self, micros: float) -> int:
        """How many calls certainly took longer."""
        return sum(count for index, count in self.times.items() if bound(index - 1) >= micros)

    def __add__(self, other: Arm) -> Arm:
        return Arm(self.calls + other.calls, self.failures + other.failures, self.times + other.times)

    def __sub__(self, other: Arm) -> Arm:
        return Arm(self.calls - other.calls, self.failures - other.failures, self.times - other.times)

    def plain(self) -> dict[str, Any]:
        """JSON-ready."""
        times = {str(index): count for index, count in sorted(self.times.items())}
        return {"calls": self.calls, "failures": self.failures, "times": times}

    @staticmethod
    def of(data: Mapping[str, Any]) -> Arm:
        """What :meth:`plain` gave."""
        times = Counter({int(index): int(count) for index, count in data.get("times", {}).items()})
        return Arm(int(data.get("calls", 0)), int(data.get("failures", 0)), times)

    def summary(self) -> dict[str, Any]:
        """For people: calls, failures, p50 and p99 in milliseconds."""
        shown: dict[str, Any] = {"calls": self.calls, "failures": self.failures}
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            micros = self.quantile(share)
            shown[name] = None if micros is None else round(micros / 1000, 3)
        return shown


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a canary is worse than it may be.

    Nothing is decided on fewer than ``min_calls``. The error rate may exceed the stable version's by
    ``error_points`` percentage points, the p99 by ``slower_percent`` per cent and ``slower_ms``
    milliseconds, whichever is more. After ``promote_after_minutes`` without cause it is promoted; 0: never by itself.
    """

    min_calls: int = 100
    error_points: float = 1.0
    slower_percent: float = 50.0
    slower_ms: float = 5.0
    promote_after_minutes: float = 0.0


def at_least(successes: int, total: int) -> float:
    """The least rate that ``successes`` of ``total`` leave plausible: the lower end of the exact interval of
    C. J. Clopper and E. S. Pearson (1934), wrong with probability ``DOUBT`` at most."""
    if successes <= 0:
        return 0.0
    low, high = 0.0, successes / total
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _or_more(successes, total, middle) < DOUBT else (low, middle)
    return low


def at_most(successes: int, total: int) -> float:
    """The largest rate that ``successes`` of ``total`` leave plausible; the upper end of the same interval."""
    return 1.0 - at_least(total - successes, total)


def _or_more(successes: int, total: int, rate: float) -> float:
    """The chance of so many successes or more, for a ``rate`` below theirs: a binomial tail, term by term."""
    if rate <= 0:
        return 0.0
    log = math.lgamma(total + 1) - math.lgamma(successes + 1) - math.lgamma(total - successes + 1)
    term = math.exp(log + successes * math.log(rate) + (total - successes) * math.log1p(-rate))
    odds, summed, at = rate / (1 - rate), term, successes
    while at < total and term > summed * 1e-12:
        term *= (total - at) / (at + 1) * odds
        at += 1
        summed += term
    return summed


def verdict(canary: Arm, stable: Arm, thresholds: Thresholds) -> str | None:
    """Why the canary must go back, or None.

    Errors: the least plausible error rate of the canary lies above the largest plausible one of the stable
    version, plus the margin. Latency: plausibly more than 1 % of its calls, and more than of the stable
    version's, are slower than the stable version's p99 plus the margin. If the canary is no worse, a look is
    wrong with probability 2 ``DOUBT`` at most: one of the two intervals must be. With fewer than ``min_calls``
    on the stable side there is nobody to compare with: then errors are held against the margin alone, and
    latency is not judged.
    """
    if canary.calls < thresholds.min_calls:
        return None
    comparable = stable.calls >= thresholds.min_calls
    usual = at_most(stable.failures, stable.calls) if comparable else 0.0
    if at_least(canary.failures, canary.calls) > usual + thresholds.error_points / 100:
        return f"{canary.failures} of {canary.calls} calls of the new version failed; of the stable version " + (
            f"{stable.failures} of {stable.calls}." if comparable else "there were too few to compare."
        )
    p99, timed, others = stable.quantile(0.99), canary.times.total(), stable.times.total()
    if not comparable or p99 is None or not timed:
        return None
    limit = max(p99 * (1 + thresholds.slower_percent / 100), p99 + thresholds.slower_ms * 1000)
    slow = canary.slower_than(limit)
    if at_least(slow, timed) > max(0.01, at_most(stable.slower_than(limit), others)):
        return (
            f"{slow} of {timed} calls of the new version took longer than {limit / 1000:.1f} ms; the stable "
            f"version's p99 is {p99 / 1000:.1f} ms."
        )
    return None
