"""``isolation = "tenant"``: a live instance for each tenant and plugin, and when it is begun anew."""

from __future__ import annotations

import asyncio

import pytest

from sandbox import errors

FRESH = "11"


async def test_an_instance_remembers_for_its_tenant_and_only_for_it(box, make_manifest):
    live = make_manifest(isolation="tenant")
    assert [(await box.run("counter", manifest=live)).output for _ in range(3)] == ["11", "22", "33"]
    assert (await box.run("counter", manifest=live, tenant="globex")).output == FRESH
    assert (await box.run("counter", manifest=live)).output == "44"


async def test_a_call_isolated_plugin_remembers_nothing(box):
    assert [(await box.run("counter")).output for _ in range(30)] == [FRESH] * 30


async def test_it_is_begun_anew_after_its_number_of_calls(box, make_manifest):
    live = make_manifest(isolation="tenant", recycle={"calls": 2})
    assert [(await box.run("counter", manifest=live)).output for _ in range(5)] == ["11", "22", "11", "22", "11"]


async def test_it_is_begun_anew_when_it_is_too_old(box, make_manifest):
    live = make_manifest(isolation="tenant", recycle={"seconds": 1})
    assert (await box.run("counter", manifest=live)).output == FRESH
    await asyncio.sleep(1.1)
    assert (await box.run("counter", manifest=live)).output == FRESH


async def test_it_is_begun_anew_when_it_holds_too_much_memory(box, make_manifest):
    # The echo guest never frees its input, so its memory grows with each call.
    live = make_manifest(isolation="tenant", limits={"memory_mb": 1, "input_kb": 512}, recycle={"memory_percent": 60})
    for _ in range(12):
        found = await box.run("echo", '"' + "a" * 200_000 + '"', manifest=live)
        assert found.usage.memory_bytes <= 1 << 20


async def test_new_grants_or_settings_begin_it_anew(box, make_manifest):
    live = make_manifest(isolation="tenant")
    assert (await box.run("counter", manifest=live)).output == FRESH
    assert (await box.run("counter", manifest=live, grants=frozenset())).output == FRESH
    assert (await box.run("counter", manifest=live, grants=frozenset(), settings={"limit": 3})).output == FRESH
    assert (await box.run("counter", manifest=live, grants=frozenset(), settings={"limit": 3})).output == "22"


@pytest.mark.parametrize(
    ("guest", "error"),
    [("trap", errors.GuestTrapped), ("loop", errors.GuestTimeLimit), ("memory", errors.GuestMemoryLimit)],
)
async def test_an_instance_that_failed_is_never_used_again(box, make_manifest, guest, error):
    live = make_manifest(isolation="tenant", limits={"time_ms": 50, "memory_mb": 1})
    for _ in range(3):
        with pytest.raises(error):
            await box.run(guest, manifest=live)
    seats = box.runtime._live._seats.values()
    assert all(seat._instance is None for seat in seats)


async def test_calls_of_one_tenant_take_turns_and_all_are_answered(box, make_manifest):
    live = make_manifest(isolation="tenant", limits={"concurrency": 32})
    found = await asyncio.gather(*(box.run("counter", manifest=live) for _ in range(8)))
    assert sorted(r.output for r in found) == [f"{n}{n}" for n in range(1, 9)]


@pytest.mark.lanes("fast", "package")
async def test_more_tenants_than_room_drop_the_one_that_was_used_longest_ago(opened, make_manifest):
    live = make_manifest(isolation="tenant")
    async with opened(sandbox_slots=8, sandbox_threads=1) as box:
        for tenant in "abcde":
            assert (await box.run("counter", manifest=live, tenant=tenant)).output == FRESH
        assert len(box.runtime._live) == 4
        assert (await box.run("counter", manifest=live, tenant="e")).output == "22"
        assert (await box.run("counter", manifest=live, tenant="a")).output == FRESH


async def test_a_call_that_was_given_up_does_not_disturb_the_next(box, make_manifest):
    live = make_manifest(isolation="tenant", limits={"time_ms": 200})
    given_up = asyncio.create_task(box.run("loop", manifest=live))
    await asyncio.sleep(0.05)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert (await box.run("counter", manifest=live)).output == FRESH
    with pytest.raises(errors.GuestTimeLimit):
        await box.run("loop", manifest=live)


async def test_forgetting_a_plugin_drops_its_instances(box, make_manifest, bytes_of):
    import hashlib

    live = make_manifest(isolation="tenant")
    await box.run("counter", manifest=live)
    await box.runtime.forget(hashlib.sha256(bytes_of("counter")).hexdigest())
    assert len(box.runtime._live) == 0
    assert (await box.run("counter", manifest=live)).output == FRESH
