"""In-memory implementations of ports, with the real ones' promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kernel.events import NewEvent
from kernel.ports import BreakerRecord, Effects, KvConflict, KvValue, Transaction


class FakeTransaction:
    """A transaction of nothing: remembers emitted events by stream, and what waits for its commit."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.emitted: list[tuple[str, NewEvent]] = []
        self._callbacks: list[Callable[[], None]] = []

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """There is no database here. Raises TypeError."""
        raise TypeError("FakeTransaction runs no SQL; use the real SQLite adapter in such a test")

    def emit(
        self, stream: str, *events: NewEvent, tenant: str | None = None, expected_version: int | None = None
    ) -> None:
        """Remember ``events``."""
        self.emitted += [(stream, event) for event in events]

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Remember ``callback`` for :meth:`commit`."""
        self._callbacks.append(callback)

    def commit(self) -> None:
        """Run the callbacks, as a real transaction does when it ends well."""
        for callback in self._callbacks:
            callback()


class FakeKv:
    """A KvStore in a dictionary: (tenant, plugin) private, versions from 1, conflicts like the real one.

    ``now`` gives seconds; keys that end do so by it.
    """

    def __init__(
        self, values: Mapping[tuple[str, str, str], str] | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._values = {where: KvValue(value, 1) for where, value in (values or {}).items()}
        self._ends: dict[tuple[str, str, str], float] = {}
        self._now = now

    async def get(self, tenant: str, plugin: str, key: str) -> KvValue | None:
        return self._present((tenant, plugin, key))

    async def get_many(self, tenant: str, plugin: str, keys: Sequence[str]) -> dict[str, KvValue]:
        return {key: found for key in keys if (found := self._present((tenant, plugin, key)))}

    async def list_keys(self, tenant: str, plugin: str, prefix: str, limit: int) -> list[str]:
        return sorted(k for k in self.snapshot(tenant, plugin) if k.startswith(prefix))[:limit]

    async def usage(self, tenant: str, plugin: str) -> tuple[int, int]:
        mine = self.snapshot(tenant, plugin)
        return len(mine), sum(len(k.encode()) + len(v.encode()) for k, v in mine.items())

    async def apply(self, transaction: Transaction, tenant: str, plugin: str, effects: Effects) -> None:
        self.save(tenant, plugin, effects)

    async def purge(self, transaction: Transaction, plugin: str, tenant: str | None = None) -> int:
        gone = [w for w in self._values if w[1] == plugin and tenant in (None, w[0])]
        for where in gone:
            del self._values[where]
            self._ends.pop(where, None)
        return len(gone)

    def save(self, tenant: str, plugin: str, effects: Effects) -> None:
        """Apply a call's writes, all or none. Raises KvConflict."""
        for key, seen in effects.kv_reads.items():
            present = self._present((tenant, plugin, key))
            if key in effects.kv_writes and (present.version if present else 0) != seen:
                raise KvConflict(key)
        for key, value in effects.kv_writes.items():
            where = (tenant, plugin, key)
            before = self._present(where)
            self._ends.pop(where, None)
            if value is None:
                self._values.pop(where, None)
            else:
                self._values[where] = KvValue(value, before.version + 1 if before else 1)
                if key in effects.kv_ttl:
                    self._ends[where] = self._now() + effects.kv_ttl[key]

    def snapshot(self, tenant: str, plugin: str) -> dict[str, str]:
        """Everything that one plugin keeps in one tenant."""
        return {w[2]: v.value for w in sorted(self._values) if w[:2] == (tenant, plugin) and (v := self._present(w))}

    def _present(self, where: tuple[str, str, str]) -> KvValue | None:
        if where in self._ends and self._ends[where] <= self._now():
            del self._ends[where], self._values[where]
        return self._values.get(where)


class FakeBreakerStore:
    """A BreakerStore in a dictionary."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str, str], BreakerRecord] = {}

    async def load(self) -> list[BreakerRecord]:
        return [replace(record, state="open") for record in self._kept.values()]

    async def save(self, records: Sequence[BreakerRecord]) -> None:
        for record in records:
            key = (record.plugin, record.version, record.tenant, record.hook)
            if record.state == "closed":
                self._kept.pop(key, None)
            else:
                self._kept[key] = record
