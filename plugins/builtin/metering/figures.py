"""Figures of guest calls for the marketplace: by plugin version, of all tenants together, once a day.

Only where the operator sets ``KEELSTONE_MARKETPLACE_FIGURES``. What leaves the platform is how many calls there were,
how many failed, how long they took in coarse steps, and a coarse number of tenants.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from plugin_sdk import Background, KeelstoneError
from plugin_sdk.reporting import FIGURES, LATENCY_MS, coarse, step
from plugin_sdk.services import GuestCall, GuestResult, Marketplace, StatementSigner

logger = logging.getLogger(__name__)
RETRY_SECONDS = 900.0
KEPT_DAYS = 3
"""Reports that could not be handed in are kept so long: a marketplace takes none that is older."""


class _Count:
    __slots__ = ("calls", "errors", "latency", "tenants")

    def __init__(self) -> None:
        self.calls = self.errors = 0
        self.latency = [0] * (len(LATENCY_MS) + 1)
        self.tenants: set[str] = set()


class Figures:
    """Counts calls of this process and hands the sums in when the day (UTC) has ended, or the process does."""

    def __init__(
        self,
        marketplace: Callable[[], Marketplace],
        signer: Callable[[], StatementSigner],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._marketplace, self._signer, self._now = marketplace, signer, now
        self._counts: dict[tuple[str, str], _Count] = {}
        self._waiting: list[dict[str, Any]] = []
        self._background = Background(self._run, "figures")

    def note(self, call: GuestCall, result: GuestResult | KeelstoneError) -> None:
        """Count one call, on the request path: additions only."""
        if call.replay is not None:
            return
        key = (call.plugin, call.version)
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = _Count()
        found.calls += 1
        found.tenants.add(call.context.tenant)
        usage = getattr(result, "usage", None)
        if type(result) is not GuestResult:
            found.errors += 1
        if usage is not None:
            found.latency[step(usage.wall_us / 1_000)] += 1

    def start(self) -> None:
        """Begin to hand in."""
        self._background.start()

    async def stop(self) -> None:
        """Hand in what there is of today. What a marketplace does not take now is lost with the process."""
        await self._background.stop()
        self.take(self._today())
        await self.hand_in()

    def take(self, day: date) -> None:
        """Close the counting of ``day``; from now on another one begins."""
        counts, self._counts = self._counts, {}
        if not counts:
            return
        rows = [
            {
                "plugin": plugin,
                "version": version,
                "tenants": coarse(len(count.tenants)),
                "calls": count.calls,
                "errors": count.errors,
                "latency": count.latency,
            }
            for (plugin, version), count in sorted(counts.items())
        ]
        self._waiting.append({"day": day.isoformat(), "part": secrets.token_hex(8), "rows": rows})

    async def hand_in(self) -> bool:
        """Hand in what waits; whether nothing is left."""
        oldest = (self._today() - timedelta(days=KEPT_DAYS)).isoformat()
        self._waiting = [report for report in self._waiting if report["day"] >= oldest]
        while self._waiting:
            signer = self._signer()
            try:
                statement = signer.sign(FIGURES, self._waiting[0])
                await self._marketplace().hand_in("figures", statement, signer.public_keys())
            except KeelstoneError as error:
                logger.warning("figures were not handed in: %s", error)
                return False
            self._waiting.pop(0)
        return True

    async def _run(self) -> None:
        while True:
            day = self._today()
            midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC).timestamp()
            rest = max(midnight - self._now(), 0.0) + 1.0
            if not await self.hand_in():
                rest = min(rest, RETRY_SECONDS)
            await asyncio.sleep(rest)
            if self._today() != day:
                self.take(day)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._now(), UTC).date()
