"""Hostile guests: each gets one clear error, and the next good call works as if nothing had been."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from kernel.errors import BulkheadFull
from sandbox import errors
from sandbox.engine import EngineShape, SandboxEngine

GOOD = '{"email": "ada@example.com"}'


@pytest.mark.parametrize(
    ("guest", "error", "says"),
    [
        ("trap", errors.GuestTrapped, "unreachable"),
        ("loop", errors.GuestTimeLimit, "limits.time_ms"),
        ("start_loop", errors.GuestTimeLimit, "limits.time_ms"),
        ("recursion", errors.GuestStackLimit, "1024 KiB"),
        ("memory", errors.GuestMemoryLimit, "16 MiB"),
        ("flood", errors.GuestOutputTooLarge, "4194304 bytes"),
        ("bad_text", errors.GuestOutputInvalid, "UTF-8"),
        ("bad_pointer", errors.GuestTrapped, "out of bounds"),
        ("error", errors.GuestError, "not today"),
        ("sleep", errors.GuestUnavailable, "subscribe-duration"),
    ],
)
async def test_a_hostile_guest_gets_its_own_error_and_the_next_call_works(box, guest, error, says):
    with pytest.raises(error) as caught:
        await box.run(guest, GOOD)
    text = str(caught.value)
    assert says in text
    assert caught.value.plugin == "acme/guest"
    assert caught.value.hook == "user_creating"
    assert caught.value.tenant == "acme"
    assert caught.value.fix
    assert (await box.run("echo", GOOD)).output == GOOD


@pytest.mark.parametrize(
    ("guest", "error", "says"),
    [
        ("unknown_import", errors.ImportNotCovered, "evil:host/files@1.0.0"),
        ("wrong_type", errors.BadComponent, "another type"),
        ("no_handle", errors.BadComponent, "handle"),
        ("other_handle", errors.BadComponent, "(u32) -> u32"),
        ("memory_min", errors.GuestMemoryLimit, "1024.0 MiB"),
    ],
)
async def test_an_unusable_component_is_refused_when_prepared(box, guest, error, says):
    with pytest.raises(error) as caught:
        await box.run(guest)
    assert says in str(caught.value)
    assert caught.value.plugin == "acme/guest"
    assert caught.value.fix
    assert (await box.run("echo", GOOD)).output == GOOD


async def test_a_component_larger_than_the_whole_pool_allows_is_refused_not_fatal(box, make_manifest):
    with pytest.raises(errors.SandboxError):
        await box.run("memory_min", manifest=make_manifest(limits={"memory_mb": 1024}))
    assert (await box.run("echo", GOOD)).output == GOOD


async def test_a_guest_that_calls_the_host_for_ever_is_ended(box):
    with pytest.raises(errors.GuestHostCallLimit) as caught:
        await box.run("host", "Lflood")
    assert caught.value.expected == "at most 100"
    assert (await box.run("echo", GOOD)).output == GOOD


async def test_no_guest_outlives_the_deadline_of_its_request(box, make_manifest):
    patient = make_manifest(limits={"time_ms": 5_000})
    await box.run("echo", manifest=patient)
    with pytest.raises(errors.GuestTimeLimit) as caught:
        await box.run("loop", seconds=0.2, manifest=patient)
    # Ended by the request's 0.2 s and not by the plugin's own five.
    assert int(str(caught.value.found).removesuffix(" ms")) < 5_000


async def test_a_clock_that_gets_no_turn_for_long_still_ends_the_call(box, make_manifest):
    def starve() -> None:
        # Longer than the call's time and the clock's own patience together.
        with box.runtime._engine._lock:
            time.sleep(1.5)

    brief = make_manifest(limits={"time_ms": 100})
    await box.run("echo", manifest=brief)
    task = asyncio.create_task(box.run("loop", manifest=brief))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(starve)
    with pytest.raises(errors.GuestTimeLimit):
        await task


def test_a_clock_that_catches_up_ends_no_call_early():
    engine = SandboxEngine(EngineShape(slots=8, memory_mb=16, threads=1))
    assert engine.ticks(0.1) in (50, 51, 52)
    engine.close()
    # The clock stands still from here: as if its thread had had no turn for the last second.
    engine._wake.set()
    engine._base -= 1.0
    # 500 epochs will come at once when it has one; the call's own 50 come after those.
    assert engine.ticks(0.1) >= 550


async def test_a_call_whose_time_is_over_before_it_runs_is_not_run(box):
    await box.run("echo")
    with pytest.raises(errors.GuestTimeLimit) as caught:
        await box.run("echo", seconds=0.0)
    assert "before the plugin could run" in str(caught.value)


async def test_the_operator_caps_what_a_manifest_asks_for(opened, make_manifest):
    greedy = make_manifest(limits={"time_ms": 60_000, "memory_mb": 64})
    async with opened(sandbox_max_time_ms=50, sandbox_max_memory_mb=8) as box:
        with pytest.raises(errors.GuestTimeLimit) as slow:
            await box.run("loop", manifest=greedy)
        assert "at most 50 ms" in str(slow.value)
        with pytest.raises(errors.GuestMemoryLimit) as large:
            await box.run("memory", manifest=greedy)
        assert "8 MiB" in str(large.value)


async def test_a_payload_above_the_limit_never_reaches_the_guest(box, make_manifest):
    with pytest.raises(errors.GuestInputTooLarge) as caught:
        await box.run("echo", "x" * 2_000, manifest=make_manifest(limits={"input_kb": 1}))
    assert caught.value.status == 413
    assert caught.value.found == "2000 bytes"


async def test_nothing_is_left_from_one_call_to_the_next(box):
    answers = [(await box.run("counter", tenant=tenant)).output for tenant in ("acme", "globex", "acme")]
    assert answers == ["11", "11", "11"]


async def test_twenty_calls_at_once_each_get_their_own_answer(box, make_manifest):
    wide = make_manifest(limits={"concurrency": 32, "time_ms": 5_000})
    await box.run("echo", manifest=wide)
    answers = await asyncio.gather(*(box.run("echo", f'{{"n": {n}}}', manifest=wide) for n in range(20)))
    assert [a.output for a in answers] == [f'{{"n": {n}}}' for n in range(20)]


async def test_errors_of_calls_at_once_are_never_mixed_up(box, make_manifest):
    wide = make_manifest(limits={"concurrency": 64, "time_ms": 5_000})
    kinds = ["error", "trap", "sleep", "echo"]
    for kind in kinds:
        await asyncio.gather(box.run(kind, manifest=wide), return_exceptions=True)
    found = await asyncio.gather(*(box.run(kind, GOOD, manifest=wide) for kind in kinds * 8), return_exceptions=True)
    expected = [errors.GuestError, errors.GuestTrapped, errors.GuestUnavailable]
    for kind, result in zip(kinds * 8, found, strict=True):
        if kind == "echo":
            assert result.output == GOOD
        else:
            assert type(result) is expected[kinds.index(kind)]


async def test_a_plugin_may_not_have_more_calls_under_way_than_it_says(box, make_manifest):
    narrow = make_manifest(limits={"concurrency": 2, "time_ms": 400})
    await box.run("echo", manifest=narrow)
    found = await asyncio.gather(*(box.run("loop", manifest=narrow) for _ in range(4)), return_exceptions=True)
    assert sorted(type(f).__name__ for f in found) == ["BulkheadFull"] * 2 + ["GuestTimeLimit"] * 2
    full = next(f for f in found if isinstance(f, BulkheadFull))
    assert full.tenant == "acme"


async def test_one_plugin_cannot_take_every_thread(opened, make_manifest):
    hog = make_manifest(id="acme/hog", limits={"concurrency": 16, "time_ms": 1_500})
    async with opened(sandbox_threads=2) as box:
        await box.run("echo")
        await asyncio.gather(box.run("loop", manifest=hog, seconds=0.01), return_exceptions=True)
        hogs = [asyncio.create_task(box.run("loop", manifest=hog, seconds=4)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert (await box.run("echo", GOOD)).output == GOOD
        assert not any(task.done() for task in hogs)
        for task in hogs:
            task.cancel()
        await asyncio.gather(*hogs, return_exceptions=True)


async def test_closing_ends_the_calls_under_way(opened, make_manifest):
    patient = make_manifest(limits={"time_ms": 60_000})
    async with opened(sandbox_max_time_ms=60_000) as box:
        await box.run("echo", manifest=patient)
        tasks = [asyncio.create_task(box.run("loop", manifest=patient)) for _ in range(6)]
        await asyncio.sleep(0.3)
    # Those that ran are interrupted, those that still waited for a thread never begin.
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in found} == {errors.GuestTimeLimit, errors.GuestCancelled}


async def test_a_cancelled_call_leaves_its_slot(box, make_manifest):
    single = make_manifest(limits={"concurrency": 1, "time_ms": 300})
    await box.run("echo", manifest=single)
    task = asyncio.create_task(box.run("loop", manifest=single))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await box.run("echo", GOOD, manifest=single)).output == GOOD


async def test_what_a_call_used_is_reported(box):
    result = await box.run("host", "cgreeting", settings={"greeting": "hi"})
    assert result.output == '"hi"'
    assert result.usage.wall_us > 0
    assert result.usage.memory_bytes == 65_536
    assert result.usage.host_calls == 1
    assert result.usage.http_bytes == 0


async def test_a_component_other_than_announced_is_refused(box, make_manifest, bytes_of):
    with pytest.raises(errors.BadComponent) as caught:
        await box.runtime.prepare("0" * 64, bytes_of("error"), make_manifest())
    assert "not the one" in str(caught.value)


async def test_an_oversized_component_is_refused_before_it_is_read(opened, make_manifest):
    async with opened(max_package_mb=1) as box:
        with pytest.raises(errors.BadComponent) as caught:
            await box.runtime.prepare("0" * 64, bytes(2 << 20), make_manifest())
    assert "2.0 MiB" in str(caught.value)


async def test_an_import_without_its_capability_is_refused(box, make_manifest, bytes_of):
    data = bytes_of("host")
    less = make_manifest(capabilities={"log": {"why": "only logging"}}, events={})
    with pytest.raises(errors.ImportNotCovered) as caught:
        await box.runtime.prepare(hashlib.sha256(data).hexdigest(), data, less)
    assert "keelstone:plugin/config@1.0.0" in str(caught.value)
    assert "[capabilities.config]" in str(caught.value)
