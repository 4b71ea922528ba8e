"""What every store of guests' keys must do (``kernel.ports.KvStore``)."""

from __future__ import annotations

import pytest

from kernel.adapters.sql import SqlDatabase
from kernel.errors import TenantMismatch
from kernel.ports import ALL_TENANTS, Effects, KvConflict, KvValue

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
