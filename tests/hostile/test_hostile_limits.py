"""Deadlines, concurrency and the operator's caps: they hold whatever a guest does, for its callers and for others."""

from __future__ import annotations

import asyncio
import hashlib
import re

import pytest

from kernel.context import Context
from kernel.errors import BulkheadFull, GuestFailure, KeelstoneError
from sandbox.policy import FLOOD_GRACE, HOST_CALL_GRACE
from tests.hostile.conftest import Opener
from tests.hostile.corpus import CORPUS, good_guest, manifest_of
from tests.hostile.door import Door
from tests.hostile.text import compiled, text

BY_NAME = {guest.name: guest for guest in CORPUS}
GOOD = '{"email": "ada@example.com"}'


def of(name: str) -> bytes:
    return compiled(BY_NAME[name].text())


async def test_no_guest_outlives_the_deadline_of_its_request(door: Door) -> None:
    patient = manifest_of(limits={"time_ms": 20_000})
    await door.prepare(of("loop"), patient)
    # The time that a process of its own needs to start is none of the guest's.
    await door.run(good_guest(), manifest=manifest_of())
    with pytest.raises(GuestFailure) as caught:
        await door.run(of("loop"), manifest=patient, context=Context(tenant="acme").within(0.2))
    assert caught.value.code == "guest-time-limit"
    # Ended by the request's 0.2 s and not by the plugin's own twenty.
    assert int(str(caught.value.found).removesuffix(" ms")) < 20_000


async def test_a_call_whose_time_is_over_before_it_runs_is_not_run(door: Door) -> None:
    await door.prepare(good_guest(), manifest_of())
    with pytest.raises(GuestFailure, match="before the plugin could run"):
        await door.run(good_guest(), context=Context(tenant="acme").within(0.0))


async def test_the_operator_caps_what_a_manifest_asks_for(doors: Opener) -> None:
    greedy = manifest_of(limits={"time_ms": 60_000, "memory_mb": 64})
    async with doors(sandbox_max_time_ms=50, sandbox_max_memory_mb=8) as door:
        with pytest.raises(GuestFailure, match="at most 50 ms"):
            await door.run(of("loop"), manifest=greedy)
        with pytest.raises(GuestFailure, match="at most 8 MiB"):
            await door.run(of("memory"), manifest=greedy)


async def test_a_component_larger_than_the_whole_pool_allows_is_refused_not_fatal(door: Door) -> None:
    # The manifest allows it; the operator's pool has no place of that size.
    with pytest.raises(GuestFailure):
        await door.run(of("memory_min"), manifest=manifest_of(limits={"memory_mb": 1024}))
    await door.serves()


async def test_a_payload_above_the_limit_never_reaches_the_guest(door: Door) -> None:
    with pytest.raises(GuestFailure) as caught:
        await door.run(of("trap"), "x" * 2_000, manifest=manifest_of(limits={"input_kb": 1}))
    assert (caught.value.code, caught.value.status) == ("guest-input-limit", 413)
    assert caught.value.found == "2000 bytes"


async def test_twenty_calls_at_once_each_get_their_own_answer(doors: Opener) -> None:
    wide = manifest_of(limits={"concurrency": 32, "time_ms": 20_000})
    async with doors(sandbox_threads=4, sandbox_slots=32) as door:
        await door.prepare(good_guest(), wide)
        answers = await asyncio.gather(*(door.run(good_guest(), f'{{"n": {n}}}', manifest=wide) for n in range(20)))
    assert [a.output for a in answers] == [f'{{"n": {n}}}' for n in range(20)]


async def test_errors_of_calls_at_once_are_never_mixed_up(doors: Opener) -> None:
    wide = manifest_of(limits={"concurrency": 64, "time_ms": 20_000})
    kinds = ["error_no_utf8", "trap", "sleep", "answer_tag", "recursion", "exit"]
    components = {kind: of(kind) for kind in kinds}

    async def code(kind: str) -> str:
        with pytest.raises(KeelstoneError, match=re.escape(BY_NAME[kind].says)) as caught:
            await door.run(components[kind], GOOD, manifest=wide)
        return caught.value.code

    async with doors(sandbox_threads=4, sandbox_slots=32) as door:
        for component in components.values():
            await door.prepare(component, wide)
        found = await asyncio.gather(*(code(kind) for kind in kinds * 8))
    assert found == [BY_NAME[kind].verdict for kind in kinds * 8]


async def test_a_plugin_may_not_have_more_calls_under_way_than_it_says(door: Door) -> None:
    narrow = manifest_of(limits={"concurrency": 2, "time_ms": 400})
    await door.prepare(of("loop"), narrow)
    found = await asyncio.gather(*(door.run(of("loop"), manifest=narrow) for _ in range(4)), return_exceptions=True)
    assert sorted(type(f).__name__ for f in found) == ["BulkheadFull"] * 2 + ["GuestTimeLimit"] * 2
    full = next(f for f in found if isinstance(f, BulkheadFull))
    assert full.tenant == "acme"


async def test_one_plugin_cannot_take_every_thread(door: Door) -> None:
    hog = manifest_of("acme/hog", limits={"concurrency": 16, "time_ms": 30_000})
    loop, good = of("loop"), good_guest()
    await door.prepare(loop, hog)
    await door.prepare(good, manifest_of())
    hogs = [asyncio.create_task(door.run(loop, manifest=hog)) for _ in range(3)]
    await asyncio.sleep(0.1)
    await door.serves()
    assert not any(task.done() for task in hogs)
    for task in hogs:
        task.cancel()
    await asyncio.gather(*hogs, return_exceptions=True)


async def test_closing_ends_the_calls_under_way(doors: Opener, lane: str) -> None:
    patient = manifest_of(limits={"time_ms": 60_000})
    async with doors() as door:
        await door.prepare(of("loop"), patient)
        tasks = [asyncio.create_task(door.run(of("loop"), manifest=patient)) for _ in range(6)]
        await asyncio.sleep(0.3)
    # Those that ran are interrupted, those that still waited for a thread never begin; another process ends with all.
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert len([error for error in found if isinstance(error, KeelstoneError)]) == 6
    ends = {"guest-cancelled"} if lane == "apart" else {"guest-cancelled", "guest-time-limit"}
    assert {error.code for error in found if isinstance(error, KeelstoneError)} == ends


async def test_a_cancelled_call_leaves_its_slot(door: Door) -> None:
    single = manifest_of(limits={"concurrency": 1, "time_ms": 300})
    await door.prepare(of("loop"), single)
    task = asyncio.create_task(door.run(of("loop"), manifest=single))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await door.run(good_guest(), GOOD, manifest=single)).output == GOOD


async def test_what_a_call_used_is_said(door: Door) -> None:
    asking = compiled(
        text(
            "(call $config.get (i32.const 1024) (i32.const 8) (i32.const 128))"
            "(call $answer (local.get $text) (local.get $len))",
            uses=["config.get"],
            data=b"greeting",
        )
    )
    usage = (await door.run(asking, settings={"greeting": "hi"})).usage
    assert usage.wall_us > 0
    assert usage.memory_bytes == 131_072
    assert usage.host_calls == 1
    assert usage.http_bytes == 0


async def test_a_component_other_than_announced_is_refused(door: Door) -> None:
    with pytest.raises(KeelstoneError, match="not the one"):
        await door.runtime.prepare("0" * 64, compiled(text(data=b"never seen")), manifest_of())


async def test_an_oversized_component_is_refused_before_it_is_read(doors: Opener) -> None:
    async with doors(max_package_mb=1) as door:
        with pytest.raises(KeelstoneError, match="too large") as caught:
            await door.runtime.prepare("0" * 64, bytes(2 << 20), manifest_of())
    assert caught.value.found == "2.0 MiB"


async def test_an_import_without_its_capability_is_refused(door: Door) -> None:
    data = of("flood_config")
    less = manifest_of(capabilities={"log": {"why": "only logging"}}, events={})
    with pytest.raises(KeelstoneError, match=r"\[capabilities.config\]") as caught:
        await door.runtime.prepare(hashlib.sha256(data).hexdigest(), data, less)
    assert caught.value.code == "import-not-covered"


async def test_a_guest_that_has_flooded_the_host_is_ended_sooner_the_next_time(door: Door) -> None:
    data, asked = of("flood_config"), manifest_of(limits={"time_ms": 5_000, "host_calls": 10})
    used = []
    for _ in range(2):
        with pytest.raises(GuestFailure) as caught:
            await door.run(data, manifest=asked)
        assert caught.value.code == "guest-host-call-limit"
        used.append(caught.value.extra["used"])
    assert used == [10 + HOST_CALL_GRACE + 1, 10 + FLOOD_GRACE + 1]
