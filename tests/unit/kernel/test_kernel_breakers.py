"""Breakers of a process: kept across restarts, watched, reset, and failing to be stored without harm."""

from __future__ import annotations

import pytest

from kernel.activation import Activations
from kernel.breakers import FORGET_AFTER, BreakerKey, Breakers
from kernel.context import Context
from kernel.errors import BackendUnavailable, PluginUnavailable
from kernel.hooks import Dispatcher
from kernel.hookspecs import hookimpl
from kernel.payloads import UserDraft
from kernel.resilience import Breaker
from plugin_sdk.testing.fakes import FakeBreakerStore
from tests.support.manifests import make_manifest

KEY = BreakerKey("acme/aa", "1.0.0", "acme", "user_creating")


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def process(store, time: Time) -> Breakers:
    return Breakers(store, lambda: Breaker(threshold=2, rest=1.0, longest=60.0, clock=time), wall=time)


def fail(breaker: Breaker, times: int = 2) -> None:
    for _ in range(times):
        breaker.failure(breaker.era)


async def test_an_open_breaker_rests_on_after_a_restart_for_what_was_left():
    store, time = FakeBreakerStore(), Time()
    first = process(store, time)
    await first.start()
    breaker = first.of(KEY)
    breaker.error = "guest-trap: unreachable"
    fail(breaker)
    await first.stop()
    time.now += 0.4
    second = process(store, time)
    await second.start()
    found = second.get(KEY)
    assert found is not None
    assert (found.state, found.error, found.openings) == ("open", "guest-trap: unreachable", 1)
    time.now += 0.5
    assert not found.allow(), "0.9 of 1 second"
    time.now += 0.1
    assert found.allow()
    found.failure(found.era)
    assert found.wait == 2.0, "the back-off goes on where it was"
    assert found.openings == 2
    await second.stop()
    assert [r.wait for r in await store.load()] == [2.0]


async def test_a_breaker_that_closed_is_forgotten():
    store, time = FakeBreakerStore(), Time()
    breakers = process(store, time)
    await breakers.start()
    breaker = breakers.of(KEY)
    fail(breaker)
    await breakers.save()
    assert len(await store.load()) == 1
    time.now += 1
    assert breaker.allow()
    breaker.success(breaker.era)
    await breakers.stop()
    assert await store.load() == []
    assert breakers.states() == []


async def test_a_clock_set_back_makes_nobody_wait_longer_than_one_rest():
    store, time = FakeBreakerStore(), Time()
    first = process(store, time)
    await first.start()
    fail(first.of(KEY))
    await first.stop()
    time.now -= 500
    second = process(store, time)
    await second.start()
    assert second.of(KEY).rest_left == 1.0
    await second.stop()


async def test_what_nobody_called_for_long_is_forgotten_at_a_start():
    store, time = FakeBreakerStore(), Time()
    first = process(store, time)
    await first.start()
    fail(first.of(KEY))
    await first.stop()
    time.now += FORGET_AFTER + 2
    second = process(store, time)
    await second.start()
    assert second.get(KEY) is None
    await second.stop()
    assert await store.load() == []


async def test_observers_are_told_of_each_change_and_one_that_fails_harms_nobody(caplog):
    time = Time()
    breakers = process(None, time)
    seen = []

    def broken(record) -> None:
        raise RuntimeError("mine")

    breakers.watch(broken)
    breakers.watch(lambda record: seen.append((record.state, record.openings)))
    breaker = breakers.of(KEY)
    with caplog.at_level("CRITICAL"):
        fail(breaker)
        time.now += 1
        breaker.allow()
        breaker.success(breaker.era)
    assert seen == [("open", 1), ("half_open", 1), ("closed", 0)]


async def test_what_cannot_be_stored_is_stored_later():
    store, time = FakeBreakerStore(), Time()
    breakers = process(store, time)
    await breakers.start()
    fail(breakers.of(KEY))
    real, away = store.save, True

    async def save(records):
        if away:
            raise BackendUnavailable("away")
        await real(records)

    store.save = save
    with pytest.raises(BackendUnavailable):
        await breakers.save()
    away = False
    await breakers.stop()
    assert len(await store.load()) == 1


async def test_a_reset_closes_a_plugins_breakers_for_one_tenant_only():
    time = Time()
    breakers = process(None, time)
    other = KEY._replace(tenant="globex")
    fail(breakers.of(KEY))
    fail(breakers.of(other))
    assert breakers.reset("acme", "acme/aa") == 1
    assert [(r.tenant, r.state) for r in breakers.states()] == [("globex", "open")]
    assert breakers.of(KEY).allow()


async def test_what_a_breaker_remembers_of_a_failure_holds_no_address_and_is_clean_text():
    activations = Activations()
    hooks = Dispatcher(activations)

    class Failing:
        @hookimpl
        def user_creating(self, payload):
            raise ValueError(f"no room for {payload.email}\0\ud800")

    hooks.register(Failing(), make_manifest("acme/aa", kind="builtin"))
    for _ in range(5):
        with pytest.raises(PluginUnavailable):
            await hooks.filter("user_creating", UserDraft(email="ada@example.com", name="Ada"), Context("acme"))
    [record] = hooks.breakers.states("acme")
    assert record.state == "open"
    assert record.error.startswith("plugin-failed: ValueError: no room for a***@example.com")
    assert "\0" not in record.error
    record.error.encode()
