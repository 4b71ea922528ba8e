"""Use cases of metering: store what the ledger noted, hold calls to budgets, answer what was used."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from plugin_sdk import (
    ALL_TENANTS,
    BackendUnavailable,
    Background,
    Context,
    KeelstoneError,
    NewEvent,
    NotFound,
    system_context,
)
from plugin_sdk.services import Database, GuestCall, Transaction
from plugins.builtin.metering.domain import (
    ALL_PLUGINS,
    CALLS,
    FAILURES,
    OWN,
    WALL,
    Budget,
    Meter,
    Owner,
    Period,
    Usage,
    UsageQuery,
    bucket_of,
    check_budget,
    period_start,
    tell,
)
from plugins.builtin.metering.ledger import Taken, UsageLedger

logger = logging.getLogger(__name__)
PERIODS: tuple[Period, ...] = ("day", "month")
PRUNE_EVERY = 3_600.0
Spending = dict[tuple[str, str], tuple[int, int, int, int]]
"""Calls, wall time (µs), AI tokens and HTTP bytes by (tenant, plugin)."""


class UsageRepository(Protocol):
    """Where sums, budgets and what was told about them are kept."""

    async def add(self, transaction: Transaction, bucket: str, taken: Taken, now: datetime) -> None:
        """Add to what is stored; several processes add up."""
        ...

    async def usage(
        self, transaction: Transaction, query: UsageQuery, after: Sequence[str] | None, limit: int
    ) -> list[Usage]: ...

    async def prune(self, transaction: Transaction, before: str, moment: datetime) -> int:
        """Delete older hours, profiles and uses; how many hours' rows."""
        ...

    async def budgets(self, transaction: Transaction) -> list[Budget]: ...

    async def budgets_mark(self, transaction: Transaction) -> tuple[int, datetime | None]:
        """How many budgets there are and when one was changed last: the same if nothing changed."""
        ...

    async def put_budget(self, transaction: Transaction, budget: Budget) -> None: ...

    async def mark_told(self, transaction: Transaction, budget: Budget) -> bool:
        """Store what was told, unless somebody else did meanwhile (False)."""
        ...

    async def delete_budget(self, transaction: Transaction, key: tuple[str, str, str, str]) -> bool: ...

    async def spending(self, transaction: Transaction, since: str) -> Spending:
        """What the plugins with a budget used since a bucket; ``*`` sums a tenant's."""
        ...


def utc_now() -> datetime:
    """The time now, aware."""
    return datetime.now(UTC)


class Metering:
    """The ledger's owner: flushes it every ``interval`` seconds, keeps meters true, prunes old hours."""

    def __init__(
        self,
        database: Database,
        repository: UsageRepository,
        *,
        interval: float = 5.0,
        retention_days: int = 400,
        prune_also: Callable[[], Awaitable[object]] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._interval = interval
        self._retention = timedelta(days=retention_days)
        self._prune_also = prune_also
        self._now = now
        self._meters: dict[tuple[str, str], tuple[Meter, ...]] = {}
        self._mark: tuple[int, datetime | None] = (0, None)
        self._bucket = bucket_of(now())
        self._pruned = 0.0
        self._flushing = asyncio.Lock()
        self._news = asyncio.Event()
        self._background = Background(self._run, "metering")
        self.ledger = UsageLedger(self.meters)

    # ------------------------------------------------------------------ the request path

    def meters(self, tenant: str, plugin: str) -> tuple[Meter, ...]:
        """The budgets to which a tenant's calls of a plugin are held."""
        found = self._meters
        if not found:
            return ()
        return found.get((tenant, plugin), ()) + found.get((tenant, ALL_PLUGINS), ())

    def admit(self, call: GuestCall) -> None:
        """Let a call through, or raise BudgetSpent."""
        if self._meters:
            self.ledger.admit(call)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Read the budgets and flush from now on."""
        await self.reread_budgets()
        self._background.start()

    async def stop(self) -> None:
        """Stop and store what is left."""
        await self._background.stop()
        await self.flush()

    def budgets_changed(self, tenant: str, data: Mapping[str, Any]) -> None:
        """A budget was set or lifted, maybe in another process: look at once."""
        self._news.set()

    async def _run(self) -> None:
        while True:
            now = self._now()
            to_the_hour = 3_600 - (now.minute * 60 + now.second + now.microsecond / 1e6)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._interval, to_the_hour + 0.001)):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.flush()
                await self.reread_budgets()
                await self._prune()
            except KeelstoneError as error:
                logger.warning("metering has to try again: %s", error)
            except Exception:
                logger.exception("metering has to try again")

    async def flush(self) -> None:
        """Store what was noted, with one event for each plugin and hook. What can't be stored is kept."""
        async with self._flushing:
            bucket, self._bucket = self._bucket, bucket_of(self._now())
            taken = self.ledger.take()
            if not taken.sums and not taken.profiles:
                return
            try:
                async with self._database.write(ALL_TENANTS, system_context("platform")) as transaction:
                    await self._repository.add(transaction, bucket, taken, self._now())
                    self._emit(transaction, taken)
            except KeelstoneError as error:
                logger.warning("usage could not be stored (kept for the next time): %s", error)
                self.ledger.give_back(taken)
            except BaseException:
                self.ledger.give_back(taken)
                raise

    def _emit(self, transaction: Transaction, taken: Taken) -> None:
        for key, sums in taken.sums.items():
            calls = sums[CALLS] - sums[OWN]
            if calls <= 0:
                continue
            data = {
                "plugin": key.plugin,
                "version": key.version,
                "hook": key.hook,
                "calls": calls,
                "failures": min(sums[FAILURES], calls),
                "microseconds": sums[WALL],
            }
            transaction.emit(f"execution:{key.plugin}", NewEvent("plugin.executed", data), tenant=key.tenant)

    async def _prune(self) -> None:
        if time.monotonic() - self._pruned < PRUNE_EVERY and self._pruned:
            return
        self._pruned = time.monotonic()
        await self.prune()
        if self._prune_also is not None:
            await self._prune_also()

    async def prune(self) -> int:
        """Delete what is older than the retention; how many hours' rows went."""
        before = self._now() - self._retention
        async with self._database.write(ALL_TENANTS) as transaction:
            gone = await self._repository.prune(transaction, bucket_of(before), before)
        if gone:
            logger.info("usage before %s was deleted: %d rows", bucket_of(before), gone)
        return gone

    # ------------------------------------------------------------------ usage

    async def usage(
        self, tenant: str | None, query: UsageQuery, after: Sequence[str] | None = None, limit: int = 100
    ) -> list[Usage]:
        """Sums in order of period, tenant, plugin, version and hook. ``tenant`` None: every tenant's."""
        await self.flush()
        async with self._database.read(tenant or ALL_TENANTS) as transaction:
            return await self._repository.usage(transaction, query, after, limit)

    # ------------------------------------------------------------------ budgets

    async def budgets(self, tenant: str) -> list[tuple[Budget, tuple[int, ...]]]:
        """A tenant's budgets, each with what is spent of it (calls, wall µs, AI tokens, HTTP bytes)."""
        await self.flush()
        await self.reread_budgets()
        found = [m for (owner, _), meters in self._meters.items() if owner == tenant for m in meters]
        return [(m.budget, tuple(m.used)) for m in sorted(found, key=lambda m: m.budget.key)]

    async def set_budget(self, context: Context, budget: Budget) -> Budget:
        """Make or replace a budget. Raises ValidationFailed if it bounds nothing."""
        check_budget(budget)
        budget = replace(budget, changed_at=self._now(), changed_by=context.principal.id)
        async with self._database.write(context.tenant, context) as transaction:
            await self._repository.put_budget(transaction, budget)
            data = {"plugin": budget.plugin, "period": budget.period, "owner": budget.owner, "removed": False}
            transaction.emit(f"budget:{budget.plugin}", NewEvent("budget.changed", data))
        await self.reread_budgets(anyway=True)
        return budget

    async def remove_budget(self, context: Context, plugin: str, period: Period, owner: Owner) -> None:
        """Lift a budget. Raises NotFound."""
        async with self._database.write(context.tenant, context) as transaction:
            key = (context.tenant, plugin, period, owner)
            if not await self._repository.delete_budget(transaction, key):
                raise NotFound(
                    f"There is no such budget of the {owner}.",
                    tenant=context.tenant,
                    expected="one of those in `keelstone budget list`",
                    found=f"{plugin} a {period}",
                )
            data = {"plugin": plugin, "period": period, "owner": owner, "removed": True}
            transaction.emit(f"budget:{plugin}", NewEvent("budget.changed", data))
        await self.reread_budgets(anyway=True)

    async def reread_budgets(self, *, anyway: bool = False) -> None:
        """Make the meters true: budgets as stored, spending as stored by every process plus our own."""
        async with self._database.read(ALL_TENANTS) as transaction:
            mark = await self._repository.budgets_mark(transaction)
            if mark == self._mark == (0, None) and not anyway:
                return
            budgets = await self._repository.budgets(transaction)
            now = self._now()
            starts = {period: period_start(period, now) for period in PERIODS}
            spending = {
                period: await self._repository.spending(transaction, starts[period])
                for period in {b.period for b in budgets}
            }
        meters: dict[tuple[str, str], list[Meter]] = {}
        for budget in budgets:
            stored = spending[budget.period].get((budget.tenant, budget.plugin), (0, 0, 0, 0))
            own = self.ledger.unstored(budget.tenant, None if budget.plugin == ALL_PLUGINS else budget.plugin)
            used = [a + b for a, b in zip(stored, own, strict=True)]
            meters.setdefault((budget.tenant, budget.plugin), []).append(Meter(budget, used))
        self._mark = mark
        self._meters = {key: tuple(found) for key, found in meters.items()}
        self.ledger.renew_meters()
        for key in meters:
            for meter in self._meters[key]:
                await self._tell(meter, starts[meter.budget.period])

    async def _tell(self, meter: Meter, period: str) -> None:
        news = meter.news(period)
        if not news:
            return
        told = tell(meter.budget, period, news)
        try:
            async with self._database.write(told.tenant, system_context(told.tenant)) as transaction:
                if not await self._repository.mark_told(transaction, told):
                    return
                for kind, name, used, allowed in news:
                    unit = 1_000 if name == "wall_ms" else 1
                    data = {
                        "plugin": told.plugin,
                        "period": told.period,
                        "owner": told.owner,
                        "budget": name,
                        "used": used // unit,
                        "allowed": allowed // unit,
                    }
                    transaction.emit(f"budget:{told.plugin}", NewEvent(f"budget.{kind}", data))
        except BackendUnavailable as error:
            logger.warning("a budget's news has to wait: %s", error)
            return
        meter.budget = told
