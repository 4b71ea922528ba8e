"""What a dispatch did, kept for a while so that a person can ask why: explain by correlation id."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from pydantic import BaseModel


class Step(NamedTuple):
    """One implementation's part. ``micros`` is wall time; payloads are frozen, kept by reference."""

    plugin: str
    version: str
    outcome: str
    micros: float
    before: BaseModel | None
    after: BaseModel | None
    error: str | None
    breaker: str


class DispatchTrace(NamedTuple):
    """One dispatch of one hook for one tenant."""

    hook: str
    kind: str
    tenant: str
    correlation_id: str
    generation: str
    steps: tuple[Step, ...]


def changed_fields(before: BaseModel | None, after: BaseModel | None) -> list[str]:
    """Names of the fields whose values differ (values are left out: they may be personal)."""
    if before is None or after is None or before is after:
        return []
    old, new = before.model_dump(), after.model_dump()
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def describe(trace: DispatchTrace) -> dict[str, Any]:
    """The trace, JSON-ready."""
    return {
        "hook": trace.hook,
        "kind": trace.kind,
        "tenant": trace.tenant,
        "correlation_id": trace.correlation_id,
        "generation": trace.generation,
        "implementations": [
            {
                "order": number,
                "plugin": step.plugin,
                "version": step.version,
                "outcome": step.outcome,
                "microseconds": round(step.micros, 1),
                "changed": changed_fields(step.before, step.after),
                "error": step.error,
                "breaker": step.breaker,
            }
            for number, step in enumerate(trace.steps, 1)
        ],
    }


class TraceLog:
    """The last ``capacity`` pieces of work, by correlation id; the oldest go first."""

    def __init__(self, capacity: int = 2_000, per_work: int = 100) -> None:
        self._capacity = capacity
        self._per_work = per_work
        self._traces: OrderedDict[str, list[DispatchTrace]] = OrderedDict()

    def record(self, trace: DispatchTrace) -> None:
        """Keep a trace."""
        kept = self._traces.get(trace.correlation_id)
        if kept is None:
            self._traces[trace.correlation_id] = [trace]
            if len(self._traces) > self._capacity:
                self._traces.popitem(last=False)
        elif len(kept) < self._per_work:
            kept.append(trace)

    def find(self, correlation_id: str, tenant: str | None = None) -> list[DispatchTrace]:
        """Traces of one piece of work; with ``tenant`` only that tenant's."""
        return [t for t in self._traces.get(correlation_id, ()) if tenant is None or t.tenant == tenant]
