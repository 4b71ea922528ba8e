"""The limits that hold for one call: what the manifest asks for, capped by the operator."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kernel.caps import Caps
from kernel.manifest import Limits, PluginManifest
from kernel.settings import Settings

WASM_STACK_KB = 1_024
"""Stack of every guest, in KiB: a property of the engine, so the same for all. The manifest's
``stack_kb`` is a statement of need that can never be above it."""

_log = logging.getLogger("keelstone.sandbox")

ADDRESSABLE_MB = 4_096
"""What a 32-bit guest can address, in MiB; a larger setting has no meaning."""

MAX_KEY_CHARS = 256
MAX_LOG_CHARS = 4_096
MAX_LISTED_KEYS = 1_000
WASI_CALLS = 2_048
"""Calls of clocks, random and standard output in one call, after which it is ended."""
HOST_CALL_GRACE = 100
"""Host calls beyond the limit that are still answered ``limit`` before the call is ended."""
FLOOD_GRACE, FLOOD_WASI = 16, 256
"""Host calls beyond the limit, or calls of WASI, in one call that make its guest a known flooder."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a call may call the host: after ``free`` calls, each ``every``-th waits ``seconds``. It is ended
    ``grace`` calls past its limit.

    Answers are given in Python, so a flood takes the interpreter from everybody; waiting costs only its own time.
    """

    free: int
    every: int
    seconds: float
    grace: int = HOST_CALL_GRACE


USUAL_PACE = Pace(64, 8, 0.000_3)
STRANGERS_PACE = Pace(16, 2, 0.000_5)
FLOODERS_PACE = Pace(16, 1, 0.004, FLOOD_GRACE)


MAX_TTL = 366 * 86_400
"""Seconds after which a value that has an end must have ended."""
MAX_RANDOM_BYTES = 1_024
MAX_BATCH = 100
"""Keys that one batch reads or writes."""


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """Bounds of one call. Times in milliseconds, sizes in bytes. ``fuel`` is None where nothing meters it."""

    time_ms: int
    memory: int
    input: int
    output: int
    host_calls: int
    http: int
    kv_bytes: int
    kv_keys: int
    events: int
    log_lines: int
    concurrency: int
    ai_tokens: int
    notices: int
    tables: int
    table_elements: int
    instances: int
    fuel: int | None = None


_PLAIN = (
    "time_ms", "host_calls", "kv_keys", "events", "log_lines", "concurrency", "ai_tokens", "notices", "tables",
    "table_elements", "instances",
)  # fmt: skip
_KIB = {"input": "input_kb", "output": "output_kb", "http": "http_kb", "kv_bytes": "kv_kb"}


def effective_limits(asked: Limits, settings: Settings, plan: Caps | None = None) -> EffectiveLimits:
    """``asked`` capped by the operator and by the tenant's plan, which can only lower what a manifest says.

    Takes some microseconds: calls take theirs from :class:`LimitBook`.
    """
    caps = (settings.sandbox_caps,) if plan is None else (settings.sandbox_caps, plan)

    def least(name: str) -> int:
        bounds = [int(bound) for c in caps if (bound := getattr(c, name)) is not None]
        return min(int(getattr(asked, name)), *bounds) if bounds else int(getattr(asked, name))

    found = {name: least(name) for name in _PLAIN} | {mine: least(name) << 10 for mine, name in _KIB.items()}
    found["time_ms"] = min(found["time_ms"], settings.sandbox_max_time_ms)
    fuel = [c.fuel for c in caps if c.fuel is not None]
    return EffectiveLimits(
        **found,
        memory=min(least("memory_mb"), max_memory_mb(settings)) << 20,
        fuel=min(fuel) if fuel else None,
    )


class LimitBook:
    """The effective limits of every (manifest, tenant) in use, worked out once.

    ``plan_of`` tells a tenant's plan; what it said is believed for ``PLAN_SECONDS``. It is not asked
    where no plan has caps, and a plan that cannot be read is as good as none: a call must not fail
    because of its limits' bookkeeping.
    """

    PLAN_SECONDS = 30.0
    _MOST = 10_000

    def __init__(
        self,
        settings: Settings,
        plan_of: Callable[[str], Awaitable[str | None]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._plan_of = plan_of if settings.plans else None
        self._now = now
        # A manifest is known by its identity, which is why it must be kept alive here.
        self._known: dict[tuple[int, str], tuple[EffectiveLimits, float, PluginManifest]] = {}

    def known(self, manifest: PluginManifest, tenant: str) -> EffectiveLimits | None:
        """The limits if they are at hand, without waiting."""
        found = self._known.get((id(manifest), tenant if self._plan_of else ""))
        return found[0] if found is not None and (self._plan_of is None or found[1] > self._now()) else None

    async def of(self, manifest: PluginManifest, tenant: str) -> EffectiveLimits:
        """The limits, asking for the tenant's plan if need be."""
        found = self.known(manifest, tenant)
        if found is not None:
            return found
        plan = None if self._plan_of is None else await self._plan(tenant)
        limits = effective_limits(manifest.limits, self._settings, plan)
        if len(self._known) >= self._MOST:
            self._known.clear()
        key = (id(manifest), tenant if self._plan_of else "")
        self._known[key] = (limits, self._now() + self.PLAN_SECONDS, manifest)
        return limits

    async def _plan(self, tenant: str) -> Caps | None:
        assert self._plan_of is not None
        try:
            name = await self._plan_of(tenant)
        except Exception as error:
            _log.warning("the plan of tenant %s cannot be read: %r", tenant, error)
            return None
        return None if name is None else self._settings.plans.get(name)


def max_memory_mb(settings: Settings) -> int:
    """The operator's cap on a guest's memory, in MiB."""
    return min(settings.sandbox_max_memory_mb, ADDRESSABLE_MB)
