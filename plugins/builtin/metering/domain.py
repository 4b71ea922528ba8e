"""Usage, budgets and their periods: values and rules, no I/O.

Times are microseconds, sizes bytes; memory over time is kept as KiB·ms, which a database's integers
hold for years, and shown as MiB·s. Days, months and hours are UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from plugin_sdk import BudgetSpent, ValidationFailed

COUNTERS = (
    "calls",
    "failures",
    "refused",
    "wall_us",
    "cpu_us",
    "memory_kib_ms",
    "host_calls",
    "http_bytes",
    "kv_bytes",
    "ai_tokens",
)
"""What is summed for each plugin, version, tenant, hook and hour, in the order of a ledger's lists."""
CALLS, FAILURES, REFUSED, WALL, CPU, MEMORY, HOST_CALLS, HTTP, KV, AI = range(len(COUNTERS))
OWN = len(COUNTERS)
"""Index of the calls that our own event caused: they are counted and not told again."""

PEAKS = (
    "wall_us",
    "memory_bytes",
    "host_calls",
    "http_bytes",
    "kv_bytes",
    "input_bytes",
    "output_bytes",
    "events",
    "log_lines",
    "ai_tokens",
)
"""The most that one call of a plugin version took for a tenant."""

ALL_PLUGINS = "*"
Period = Literal["day", "month"]
Owner = Literal["operator", "admin"]
By = Literal["hour", "day", "month", "total"]
WARN_AT = 0.8
BUDGETED = ("calls", "wall_ms", "ai_tokens", "http_bytes")
"""What a budget can bound, in the order of a meter's list (times there in microseconds)."""
_BUCKET = "%Y-%m-%dT%H"
LENGTH_OF: dict[str, int] = {"hour": 13, "day": 10, "month": 7, "total": 0}
"""How much of a bucket's name tells the period that it is summed by."""


def bucket_of(moment: datetime) -> str:
    """The hour that a moment belongs to, such as ``2026-11-22T23``."""
    return moment.astimezone(UTC).strftime(_BUCKET)


def period_start(period: Period, now: datetime) -> str:
    """The first bucket of the day or month in which ``now`` lies."""
    now = now.astimezone(UTC)
    return bucket_of(now.replace(hour=0) if period == "day" else now.replace(day=1, hour=0))


@dataclass(frozen=True, slots=True)
class UsageKey:
    """Whose usage: one plugin version's, for one tenant, in one hook."""

    tenant: str
    plugin: str
    version: str
    hook: str


@dataclass(frozen=True, slots=True)
class Usage:
    """A sum over a period; ``period`` is the hour, day or month, empty for everything asked for."""

    period: str
    tenant: str
    plugin: str
    version: str
    hook: str
    calls: int
    failures: int
    refused: int
    wall_us: int
    cpu_us: int
    memory_kib_ms: int
    host_calls: int
    http_bytes: int
    kv_bytes: int
    ai_tokens: int

    @property
    def memory_mib_seconds(self) -> float:
        """Memory over time in MiB·s."""
        return round(self.memory_kib_ms / 1_024_000, 6)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which usage; ``since`` and ``until`` are buckets, ``until`` excluded. None means any."""

    tenant: str | None = None
    plugin: str | None = None
    version: str | None = None
    hook: str | None = None
    since: str = ""
    until: str = "~"
    by: By = "total"


@dataclass(frozen=True, slots=True)
class Budget:
    """A tenant's bound over a day or month for one plugin, or for all together (``*``). None: no bound.

    The operator's and the admin's are kept apart, and both hold: an admin can save, and not overspend.
    ``told`` holds what has been told about a period: the period, then ``warned:calls`` and the like.
    """

    tenant: str
    plugin: str
    period: Period
    owner: Owner
    calls: int | None = None
    wall_ms: int | None = None
    ai_tokens: int | None = None
    http_bytes: int | None = None
    told: tuple[str, ...] = ()
    told_seq: int = 0
    changed_at: datetime | None = None
    changed_by: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from the others."""
        return (self.tenant, self.plugin, self.period, self.owner)

    def allowed(self) -> tuple[int | None, ...]:
        """The bounds in the order of a meter's list, times in microseconds."""
        wall = None if self.wall_ms is None else self.wall_ms * 1_000
        return (self.calls, wall, self.ai_tokens, self.http_bytes)


def check_budget(budget: Budget) -> None:
    """Raise ValidationFailed if a budget bounds nothing."""
    if all(bound is None for bound in budget.allowed()):
        raise ValidationFailed(
            "A budget needs a bound.",
            plugin=budget.plugin,
            tenant=budget.tenant,
            expected=f"at least one of {', '.join(BUDGETED)}",
            found="none",
            fix="To lift a budget, delete it.",
        )


class Meter:
    """A budget with what is spent of it, as far as this process knows. Written on the request path."""

    __slots__ = ("allowed", "budget", "used")

    def __init__(self, budget: Budget, used: Sequence[int]) -> None:
        self.budget = budget
        self.allowed = budget.allowed()
        self.used = list(used)

    def check(self, plugin: str, hook: str) -> None:
        """Raise BudgetSpent if a bound has been reached."""
        for index, bound in enumerate(self.allowed):
            if bound is not None and self.used[index] >= bound:
                raise spent(self.budget, index, self.used[index], plugin, hook)

    def news(self, period: str) -> list[tuple[str, str, int, int]]:
        """What is to be told now and was not yet: (``warned`` or ``spent``, what, used, allowed)."""
        told = self.budget.told if self.budget.told[:1] == (period,) else ()
        found = []
        for index, bound in enumerate(self.allowed):
            if bound is None:
                continue
            name, used = BUDGETED[index], self.used[index]
            if used >= bound:
                if f"spent:{name}" not in told:
                    found.append(("spent", name, used, bound))
            elif used >= bound * WARN_AT and f"warned:{name}" not in told:
                found.append(("warned", name, used, bound))
        return found


def tell(budget: Budget, period: str, news: Sequence[tuple[str, str, int, int]]) -> Budget:
    """The budget once the news has been told."""
    told = budget.told if budget.told[:1] == (period,) else (period,)
    added = tuple(f"{kind}:{name}" for kind, name, _, _ in news)
    return replace(budget, told=(*told, *added), told_seq=budget.told_seq + 1)


def spent(budget: Budget, index: int, used: int, plugin: str, hook: str) -> BudgetSpent:
    """The refusal of a call whose budget is spent."""
    name = BUDGETED[index]
    bound = budget.allowed()[index] or 0
    if name == "wall_ms":
        used, bound = used // 1_000, bound // 1_000
    whose = "all plugins" if budget.plugin == ALL_PLUGINS else budget.plugin
    return BudgetSpent(
        f"This {budget.period}'s {name.replace('_', ' ')} of {whose} are spent.",
        plugin=plugin,
        hook=hook,
        tenant=budget.tenant,
        expected=f"less than {bound} {name} a {budget.period} (the {budget.owner}'s budget)",
        found=used,
        fix=f"It begins anew with the next {budget.period} (UTC); an {budget.owner} can raise it "
        f"(`keelstone budget set`).",
        extra={"budget": name, "period": budget.period, "owner": budget.owner, "used": used, "allowed": bound},
    )
