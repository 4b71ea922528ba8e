"""Sums guest calls and emits ``plugin.executed`` now and then: one event per call would drown the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from plugin_sdk import KeelstoneError, NewEvent, system_context
from plugin_sdk.services import Database, GuestCall, GuestResult

logger = logging.getLogger(__name__)
Key = tuple[str, str, str, str]
_OWN_EVENT = '"type":"plugin.executed"'


class ExecutionLedger:
    """Counts calls by (tenant, plugin, version, hook); ``interval`` is in seconds."""

    def __init__(self, database: Database, interval: float = 10.0) -> None:
        self._database = database
        self._interval = interval
        self._sums: dict[Key, list[int]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, call: GuestCall, result: GuestResult | KeelstoneError) -> None:
        """Count one call with what it came to."""
        # A plugin that observes plugin.executed would otherwise keep itself busy for ever.
        if call.hook == "event_received" and _OWN_EVENT in call.payload:
            return
        sums = self._sums.setdefault((call.context.tenant, call.plugin, call.version, call.hook), [0, 0, 0])
        sums[0] += 1
        sums[1] += isinstance(result, KeelstoneError)
        used = getattr(result, "usage", None)
        sums[2] += used.wall_us if used is not None else 0

    def start(self) -> None:
        """Flush every ``interval`` from now on."""
        self._task = asyncio.create_task(self._run(), name="execution-ledger")

    async def stop(self) -> None:
        """Stop and flush what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.flush()

    async def flush(self) -> None:
        """Emit what was counted. What can't be stored now is kept for the next time."""
        taken, self._sums = self._sums, {}
        for key, (calls, failures, micros) in taken.items():
            tenant, plugin, version, hook = key
            data = {
                "plugin": plugin,
                "version": version,
                "hook": hook,
                "calls": calls,
                "failures": failures,
                "microseconds": micros,
            }
            try:
                async with self._database.write(tenant, system_context(tenant)) as transaction:
                    transaction.emit(f"execution:{plugin}", NewEvent("plugin.executed", data))
            except KeelstoneError:
                logger.exception("executions of %s could not be stored", plugin)
                kept = self._sums.setdefault(key, [0, 0, 0])
                for index, amount in enumerate((calls, failures, micros)):
                    kept[index] += amount

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.flush()
