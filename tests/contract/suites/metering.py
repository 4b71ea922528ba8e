"""What metering's tables must do on every database: add up, page, prune, tell once, keep a few recordings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from kernel.adapters.sql import SqlDatabase
from kernel.ports import ALL_TENANTS, Effects, GuestCall, GuestResult, GuestUsage
from plugin_sdk import Context
from plugins.builtin.metering.domain import ALL_PLUGINS, Budget, UsageQuery
from plugins.builtin.metering.infrastructure import SCHEMA, SqlProfiles, SqlRecordings, SqlUsage
from plugins.builtin.metering.keeping import Kept
from plugins.builtin.metering.ledger import UsageLedger
from tests.support.manifests import make_manifest

Open = Callable[[], Awaitable[SqlDatabase]]
NOW = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)


def used(ledger: UsageLedger, tenant: str = "acme", plugin: str = "acme/aa", times: int = 1, **more: int) -> None:
    call = GuestCall(plugin, "1.0.0", "d" * 64, make_manifest(), "user_creating", "{}", Context(tenant))
    usage = GuestUsage(more.get("wall", 100), 1 << 20, 1, 5, ai_tokens=2, uses={"kv.get": 1})
    for _ in range(times):
        ledger.note(call, GuestResult("{}", Effects(), usage))


async def flush(database: SqlDatabase, ledger: UsageLedger, bucket: str = "2026-11-22T23") -> None:
    async with database.write(ALL_TENANTS) as transaction:
        await SqlUsage(database.dialect).add(transaction, bucket, ledger.take(), NOW)


class MeteringSuite:
    async def test_several_processes_add_up_and_peaks_are_the_larger(self, open_database: Open) -> None:
        databases = [await open_database(), await open_database()]
        await databases[0].migrate([SCHEMA])
        ledgers = [UsageLedger(), UsageLedger()]
        for number, ledger in enumerate(ledgers):
            for name in ("acme/aa", "acme/bb"):
                used(ledger, plugin=name, times=3, wall=100 + number)
                used(ledger, "globex", plugin=name)
        await asyncio.gather(*(flush(d, ledger) for d, ledger in zip(databases, ledgers, strict=True)))
        database = databases[0]
        async with database.read("acme") as transaction:
            found = await SqlUsage(database.dialect).usage(transaction, UsageQuery(), None, 10)
            assert [(u.plugin, u.calls, u.wall_us, u.ai_tokens) for u in found] == [
                ("acme/aa", 6, 603, 12),
                ("acme/bb", 6, 603, 12),
            ], "and globex's are not to be seen"
            [observed] = await SqlProfiles().observed(transaction, "acme/aa")
        assert (observed.calls, observed.peaks["wall_us"], observed.uses) == (6, 101, {"kv.get": 6})

    async def test_sums_by_period_come_in_order_and_page_by_page(self, open_database: Open) -> None:
        database = await open_database()
        await database.migrate([SCHEMA])
        ledger = UsageLedger()
        for bucket in ("2026-10-31T23", "2026-11-01T00", "2026-11-22T22"):
            for tenant in ("acme", "globex"):
                used(ledger, tenant)
            await flush(database, ledger, bucket)
        repository = SqlUsage(database.dialect)
        async with database.read(ALL_TENANTS) as transaction:
            for by, expected in (("total", [3, 3]), ("month", [1, 1, 2, 2]), ("hour", [1] * 6)):
                query = UsageQuery(by=by)  # type: ignore[arg-type]
                whole = await repository.usage(transaction, query, None, 100)
                assert [u.calls for u in whole] == expected
                paged, after = [], None
                while page := await repository.usage(transaction, query, after, 1):
                    paged += page
                    last = page[-1]
                    after = [last.period, last.tenant, last.plugin, last.version, last.hook]
                assert paged == whole
            november = UsageQuery(since="2026-11", until="2026-12", tenant="acme")
            assert [u.calls for u in await repository.usage(transaction, november, None, 10)] == [2]
        async with database.write(ALL_TENANTS) as transaction:
            assert await repository.prune(transaction, "2026-11-01T00", NOW) == 2
        async with database.read(ALL_TENANTS) as transaction:
            assert sum(u.calls for u in await repository.usage(transaction, UsageQuery(), None, 10)) == 4

    async def test_spending_is_summed_for_tenants_with_a_budget_and_news_is_told_by_one(
        self, open_database: Open
    ) -> None:
        database = await open_database()
        await database.migrate([SCHEMA])
        repository, ledger = SqlUsage(database.dialect), UsageLedger()
        budget = Budget("acme", ALL_PLUGINS, "month", "operator", calls=9, changed_at=NOW, changed_by="me")
        async with database.write("acme") as transaction:
            await repository.put_budget(transaction, budget)
            await repository.put_budget(transaction, replace(budget, calls=10))
        for name in ("acme/aa", "acme/bb"):
            used(ledger, plugin=name, times=2)
        used(ledger, "globex")
        await flush(database, ledger)
        async with database.read(ALL_TENANTS) as transaction:
            assert await repository.budgets_mark(transaction) == (1, NOW)
            assert await repository.budgets(transaction) == [replace(budget, calls=10)]
            spending = await repository.spending(transaction, "2026-11-01T00")
            assert spending["acme", ALL_PLUGINS] == (4, 400, 8, 20)
            assert spending["acme", "acme/aa"] == (2, 200, 4, 10)
            assert ("globex", "acme/aa") not in spending
            assert await repository.spending(transaction, "2026-12-01T00") == {}
        told = replace(budget, told=("2026-11-01T00", "warned:calls"), told_seq=1)
        async with database.write("acme") as transaction:
            assert await repository.mark_told(transaction, told)
            assert not await repository.mark_told(transaction, told), "somebody else did"
            assert await repository.delete_budget(transaction, budget.key)
            assert not await repository.delete_budget(transaction, budget.key)

    async def test_the_newest_recordings_of_each_plugin_and_tenant_stay(self, open_database: Open) -> None:
        database = await open_database()
        await database.migrate([SCHEMA])
        repository = SqlRecordings()
        for tenant in ("acme", "globex"):
            async with database.write(tenant) as transaction:
                for number in range(5):
                    moment = NOW + timedelta(minutes=number)
                    kept = Kept(f"{tenant}{number}", tenant, "acme/aa", "1.0.0", "h", "c", "d", "w", moment, 9)
                    await repository.put(transaction, kept, "sealed")
        async with database.write("acme") as transaction:
            assert await repository.trim(transaction, "acme", "acme/aa", 3) == 2
            assert await repository.trim(transaction, "acme", "acme/aa", 3) == 0
        async with database.read(ALL_TENANTS) as transaction:
            assert len(await repository.page(transaction, "acme/aa", None, 20)) == 8
        async with database.read("acme") as transaction:
            assert [k.id for k in await repository.page(transaction, None, None, 2)] == ["acme4", "acme3"]
            assert [k.id for k in await repository.page(transaction, None, "acme3", 2)] == ["acme2"]
            assert await repository.get(transaction, "globex4") is None
            assert await repository.get(transaction, "acme2") is not None
        async with database.write("acme") as transaction:
            await repository.choose(transaction, "acme", "recordings", {"keep": False}, NOW, "me")
            await repository.choose(transaction, "acme", "recordings", {"keep": True}, NOW, "me")
            assert await repository.choice(transaction, "acme", "recordings") == {"keep": True}
            assert await repository.choice(transaction, "acme", "other") is None
            assert await repository.prune(transaction, NOW + timedelta(days=1)) == 3
