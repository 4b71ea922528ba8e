"""What every store of guests' keys must do (``kernel.ports.KvStore``)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest
from sqlalchemy import select

from kernel.adapters.sql import SqlDatabase
from kernel.adapters.sql.kv import SqlKvStore
from kernel.adapters.sql.schema import kv as kv_table
from kernel.errors import TenantMismatch
from kernel.ports import ALL_TENANTS, Effects, KvConflict, KvStore, KvValue

PLUGIN, OTHER = "acme/lead-scorer", "acme/notifier"


async def save(database: SqlDatabase, tenant: str, effects: Effects, plugin: str = PLUGIN) -> None:
    async with database.write(tenant) as transaction:
        await database.kv.apply(transaction, tenant, plugin, effects)


class KvSuite:
    async def test_versions_grow_by_one_and_begin_again_after_a_delete(self, database: SqlDatabase) -> None:
        kv = database.kv
        assert await kv.get("acme", PLUGIN, "k") is None
        await save(database, "acme", Effects(kv_writes={"k": "1"}))
        assert await kv.get("acme", PLUGIN, "k") == KvValue("1", 1)
        await save(database, "acme", Effects(kv_writes={"k": ""}))
        assert await kv.get("acme", PLUGIN, "k") == KvValue("", 2)
        await save(database, "acme", Effects(kv_writes={"k": None, "absent": None}))
        assert await kv.get("acme", PLUGIN, "k") is None

    async def test_keys_are_private_to_tenant_and_plugin(self, database: SqlDatabase) -> None:
        await save(database, "acme", Effects(kv_writes={"k": "acme"}))
        await save(database, "globex", Effects(kv_writes={"k": "globex"}))
        await save(database, "acme", Effects(kv_writes={"k": "other"}), OTHER)
        assert await database.kv.get("acme", PLUGIN, "k") == KvValue("acme", 1)
        assert await database.kv.get("globex", PLUGIN, "k") == KvValue("globex", 1)
        assert await database.kv.get("globex", OTHER, "k") is None
        assert await database.kv.list_keys("acme", OTHER, "", 10) == ["k"]

    async def test_effects_can_not_be_saved_in_another_scope(self, database: SqlDatabase) -> None:
        for scope in ("globex", ALL_TENANTS):
            async with database.write(scope) as transaction:
                with pytest.raises(TenantMismatch):
                    await database.kv.apply(transaction, "acme", PLUGIN, Effects(kv_writes={"k": "1"}))

    @pytest.mark.parametrize("seen", [0, 1, 3])
    async def test_a_key_read_and_written_must_not_have_moved(self, database: SqlDatabase, seen: int) -> None:
        await save(database, "acme", Effects(kv_writes={"k": "1"}))
        await save(database, "acme", Effects(kv_writes={"k": "2"}))
        stale = Effects(kv_writes={"other": "x", "k": "stale"}, kv_reads={"k": seen})
        with pytest.raises(KvConflict):
            await save(database, "acme", stale)
        assert await database.kv.get("acme", PLUGIN, "k") == KvValue("2", 2)
        assert await database.kv.get("acme", PLUGIN, "other") is None
        await save(database, "acme", Effects(kv_writes={"k": "3"}, kv_reads={"k": 2}))
        assert await database.kv.get("acme", PLUGIN, "k") == KvValue("3", 3)

    async def test_a_key_only_read_may_move(self, database: SqlDatabase) -> None:
        await save(database, "acme", Effects(kv_writes={"k": "1"}))
        await save(database, "acme", Effects(kv_writes={"other": "x"}, kv_reads={"k": 0}))
        assert await database.kv.get("acme", PLUGIN, "other") == KvValue("x", 1)

    async def test_a_key_seen_as_absent_must_still_be_absent(self, database: SqlDatabase) -> None:
        await save(database, "acme", Effects(kv_writes={"k": "1"}, kv_reads={"k": 0}))
        with pytest.raises(KvConflict):
            await save(database, "acme", Effects(kv_writes={"k": "2"}, kv_reads={"k": 0}))

    async def test_keys_are_listed_by_prefix_literally(self, database: SqlDatabase) -> None:
        names = ["a%b", "a_b", "aXb", "a", "b", "ä"]
        await save(database, "acme", Effects(kv_writes=dict.fromkeys(names, "1")))
        assert await database.kv.list_keys("acme", PLUGIN, "a_", 10) == ["a_b"]
        assert await database.kv.list_keys("acme", PLUGIN, "a%", 10) == ["a%b"]
        assert sorted(await database.kv.list_keys("acme", PLUGIN, "", 10)) == sorted(names)
        assert len(await database.kv.list_keys("acme", PLUGIN, "", 2)) == 2

    async def test_usage_counts_bytes_not_characters(self, database: SqlDatabase) -> None:
        assert await database.kv.usage("acme", PLUGIN) == (0, 0)
        await save(database, "acme", Effects(kv_writes={"kä": "üüü", "b": "1"}))
        assert await database.kv.usage("acme", PLUGIN) == (2, 3 + 6 + 1 + 1)
        assert await database.kv.usage("globex", PLUGIN) == (0, 0)

    async def test_purge_takes_one_tenants_keys_or_everybodys(self, database: SqlDatabase) -> None:
        for tenant in ("acme", "globex"):
            await save(database, tenant, Effects(kv_writes={"a": "1", "b": "2"}))
            await save(database, tenant, Effects(kv_writes={"a": "1"}), OTHER)
        async with database.write("acme") as transaction:
            assert await database.kv.purge(transaction, PLUGIN, "acme") == 2
        assert await database.kv.usage("acme", PLUGIN) == (0, 0)
        assert (await database.kv.usage("globex", PLUGIN))[0] == 2
        async with database.write(ALL_TENANTS) as transaction:
            assert await database.kv.purge(transaction, OTHER) == 2
            assert await database.kv.purge(transaction, PLUGIN, "globex") == 2


class KvBench(Protocol):
    """A store with its time in the test's hand."""

    store: KvStore
    seconds: float

    async def save(self, effects: Effects) -> None:
        """Apply a call's writes in the tenant acme. Raises KvConflict."""
        ...


class KvExpirySuite:
    """Keys that end, and writes that depend on what was there. Needs the fixture ``bench``, a KvBench."""

    async def test_a_key_is_there_until_its_time_is_over_and_then_absent_in_every_way(self, bench: KvBench) -> None:
        await bench.save(Effects(kv_writes={"soon": "1", "stays": "22"}, kv_ttl={"soon": 60}))
        bench.seconds += 59
        assert await bench.store.get("acme", PLUGIN, "soon") == KvValue("1", 1)
        assert await bench.store.usage("acme", PLUGIN) == (2, 5 + 7)
        bench.seconds += 1
        assert await bench.store.get("acme", PLUGIN, "soon") is None
        assert await bench.store.list_keys("acme", PLUGIN, "", 10) == ["stays"]
        assert await bench.store.usage("acme", PLUGIN) == (1, 7)

    async def test_a_key_that_ended_begins_again_at_version_1(self, bench: KvBench) -> None:
        await bench.save(Effects(kv_writes={"k": "1"}, kv_ttl={"k": 5}))
        await bench.save(Effects(kv_writes={"k": "2"}, kv_ttl={"k": 5}))
        bench.seconds += 5
        await bench.save(Effects(kv_writes={"k": "3"}, kv_reads={"k": 0}))
        assert await bench.store.get("acme", PLUGIN, "k") == KvValue("3", 1)

    async def test_who_saw_a_key_that_has_ended_meanwhile_must_look_again(self, bench: KvBench) -> None:
        await bench.save(Effects(kv_writes={"k": "1"}, kv_ttl={"k": 5}))
        bench.seconds += 5
        with pytest.raises(KvConflict):
            await bench.save(Effects(kv_writes={"k": "2"}, kv_reads={"k": 1}))

    async def test_writing_without_an_end_takes_the_end_away(self, bench: KvBench) -> None:
        await bench.save(Effects(kv_writes={"k": "1"}, kv_ttl={"k": 5}))
        await bench.save(Effects(kv_writes={"k": "2"}))
        bench.seconds += 1_000
        assert await bench.store.get("acme", PLUGIN, "k") == KvValue("2", 2)

    async def test_deleting_a_key_that_has_ended_is_nothing(self, bench: KvBench) -> None:
        await bench.save(Effects(kv_writes={"k": "1"}, kv_ttl={"k": 5}))
        bench.seconds += 5
        await bench.save(Effects(kv_writes={"k": None}))
        assert await bench.store.usage("acme", PLUGIN) == (0, 0)

    async def test_two_that_saw_the_same_value_can_not_both_replace_it(self, bench: KvBench) -> None:
        await bench.save(Effects(kv_writes={"k": "1"}))
        await bench.save(Effects(kv_writes={"k": "2"}, kv_reads={"k": 1}))
        with pytest.raises(KvConflict):
            await bench.save(Effects(kv_writes={"k": "3"}, kv_reads={"k": 1}))
        assert await bench.store.get("acme", PLUGIN, "k") == KvValue("2", 2)


class SqlKvBench:
    """The SQL store."""

    def __init__(self, database: SqlDatabase) -> None:
        self.seconds = 0.0
        self.database = database
        began = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = SqlKvStore(database, lambda: began + timedelta(seconds=self.seconds))

    async def save(self, effects: Effects) -> None:
        async with self.database.write("acme") as transaction:
            await self.store.apply(transaction, "acme", PLUGIN, effects)


class SqlKvExpirySuite(KvExpirySuite):
    """The same on SQL, and that ended rows are really gone."""

    @pytest.fixture
    async def bench(self, database: SqlDatabase) -> SqlKvBench:
        return SqlKvBench(database)

    async def test_ended_rows_are_cleared_away_by_the_next_call_that_makes_such(self, bench: SqlKvBench) -> None:
        for key in ("a", "b", "c"):
            await bench.save(Effects(kv_writes={key: "1"}, kv_ttl={key: 5}))
        bench.seconds += 5
        await bench.save(Effects(kv_writes={"d": "1"}, kv_ttl={"d": 5}))
        async with bench.database.read("acme") as transaction:
            rows = (await transaction.execute(select(kv_table.c.key))).scalars()
            assert list(rows) == ["d"]
