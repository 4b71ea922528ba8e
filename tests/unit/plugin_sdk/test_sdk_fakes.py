"""The harness's own parts: the fake store, the samples."""

import pytest

from kernel.hookspecs import HOOKS
from kernel.ports import Effects, KvConflict, KvStore
from plugin_sdk.testing import FakeKv, FakeTransaction, sample_event, sample_payload
from plugin_sdk.testing.samples import sample_types
from tests.contract.suites.kv import KvExpirySuite


class FakeBench:
    """The fake store with its time in the test's hand."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.store = FakeKv(now=lambda: self.seconds)

    async def save(self, effects: Effects) -> None:
        await self.store.apply(TRANSACTION, "acme", "acme/lead-scorer", effects)


class TestExpiry(KvExpirySuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench()


TRANSACTION = FakeTransaction("acme")


async def write(kv: KvStore, tenant: str = "acme", plugin: str = "me/hello", **values: str | None) -> None:
    await kv.apply(TRANSACTION, tenant, plugin, Effects(kv_writes=dict(values)))


async def test_values_are_private_to_tenant_and_plugin() -> None:
    kv = FakeKv()
    await write(kv, a="1")
    assert (await kv.get("acme", "me/hello", "a")) is not None
    assert await kv.get("globex", "me/hello", "a") is None
    assert await kv.get("acme", "me/other", "a") is None
    assert await kv.list_keys("globex", "me/hello", "", 10) == []
    assert await kv.usage("acme", "me/other") == (0, 0)


async def test_keys_come_in_order_by_prefix_and_at_most_as_many_as_asked() -> None:
    kv = FakeKv()
    await write(kv, b2="", a1="", b1="", b3="")
    assert await kv.list_keys("acme", "me/hello", "b", 2) == ["b1", "b2"]


async def test_versions_grow_and_a_deleted_key_is_gone() -> None:
    kv = FakeKv()
    await write(kv, a="1")
    await write(kv, a="2")
    found = await kv.get("acme", "me/hello", "a")
    assert found is not None
    assert (found.value, found.version) == ("2", 2)
    await write(kv, a=None)
    assert await kv.get("acme", "me/hello", "a") is None


async def test_a_key_that_moved_since_it_was_read_is_a_conflict_and_nothing_is_written() -> None:
    kv = FakeKv()
    await write(kv, a="1")
    stale = Effects(kv_reads={"a": 0}, kv_writes={"b": "x", "a": "2"})
    with pytest.raises(KvConflict):
        await kv.apply(TRANSACTION, "acme", "me/hello", stale)
    assert await kv.get("acme", "me/hello", "b") is None
    only_read = Effects(kv_reads={"a": 0}, kv_writes={"b": "x"})
    await kv.apply(TRANSACTION, "acme", "me/hello", only_read)
    assert await kv.get("acme", "me/hello", "b") is not None


async def test_usage_is_in_bytes_of_keys_and_values() -> None:
    kv = FakeKv()
    await write(kv, ab="é")
    assert await kv.usage("acme", "me/hello") == (1, 4)


async def test_purge_takes_one_tenant_or_all() -> None:
    kv = FakeKv()
    for tenant in ("acme", "globex"):
        await write(kv, tenant=tenant, a="1")
        await write(kv, tenant=tenant, plugin="me/other", a="1")
    assert await kv.purge(TRANSACTION, "me/hello", "acme") == 1
    assert await kv.purge(TRANSACTION, "me/hello") == 1
    assert await kv.usage("globex", "me/other") == (1, 2)


@pytest.mark.parametrize("hook", sorted(n for n, s in HOOKS.items() if s.for_guests and s.payload))
def test_there_is_a_valid_sample_for_every_hook_of_guests(hook: str) -> None:
    model = HOOKS[hook].payload
    assert model is not None
    sample = sample_payload(hook)
    assert model.model_validate(sample).model_dump(mode="json") == sample


def test_sample_events_have_the_data_asked_for_and_an_id_of_their_own() -> None:
    first, second = sample_event("user.created"), sample_event("user.created", {"user": "x"}, stream="s")
    assert first["id"] != second["id"]
    assert first["data"]["email"] == "ann@example.com"
    assert (second["data"], second["stream"]) == ({"user": "x"}, "s")


def test_a_plugin_without_subscriptions_is_tried_with_a_common_event() -> None:
    assert sample_types(None) == ["user.created"]
