"""Guests that behave until they are trusted: in place on the event loop, or in an instance that lives on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kernel.errors import GuestFailure
from tests.hostile.conftest import Opener
from tests.hostile.corpus import manifest_of
from tests.hostile.door import Door
from tests.hostile.probes import turncoat
from tests.hostile.text import compiled

ATTACKS = {
    "loop": ("(loop (br 0))", "", "guest-time-limit"),
    "recursion": ("(drop (call $r))", "(func $r (result i32) (i32.add (call $r) (i32.const 1)))", "guest-stack-limit"),
    "trap": ("unreachable", "", "guest-trap"),
    "memory": (
        "(loop (br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) unreachable", "", "guest-memory-limit",
    ),
    "giant": ("(return (call $answer (i32.const 0) (i32.const -1)))", "", "guest-trap"),
    "tag": ("(i32.store (i32.const 16) (i32.const 7)) (return (i32.const 16))", "", "guest-trap"),
    "no_utf8": (
        "(i32.store8 (i32.const 64) (i32.const 255)) (return (call $answer (i32.const 64) (i32.const 1)))",
        "", "guest-output-invalid",
    ),
}  # fmt: skip
TRUSTED = 60
"""Short calls after which a guest runs in place, and more."""


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_guest_trusted_on_the_event_loop_harms_neither_it_nor_others(door: Door, name: str) -> None:
    attack, module, code = ATTACKS[name]
    component = compiled(turncoat(attack, module))
    manifest = manifest_of(limits={"time_ms": 200})
    for turn in range(3):
        for n in range(TRUSTED):
            assert (await door.run(component, f"{n}", manifest=manifest)).output == f"{n}"
        with pytest.raises(GuestFailure) as caught:
            await door.run(component, "!", manifest=manifest)
        assert caught.value.code == code, turn
        await door.serves()


async def test_the_event_loop_goes_on_while_a_trusted_guest_loops(door: Door) -> None:
    """It may hold the loop for a few milliseconds, not for its whole time: others' work is done meanwhile."""
    component = compiled(turncoat("(loop (br 0))"))
    manifest = manifest_of(limits={"time_ms": 2_000})
    for _ in range(TRUSTED):
        await door.run(component, "-", manifest=manifest)
    task = asyncio.create_task(door.run(component, "!", manifest=manifest))
    await asyncio.sleep(0)
    await door.serves()
    assert not task.done()
    with pytest.raises(GuestFailure, match="interrupted"):
        await task


def _counting(attack: str) -> str:
    count = """(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (i32.store8 (i32.const 64) (i32.add (i32.const 48) (global.get $calls)))"""
    return (
        turncoat(attack, f"(global $calls (mut i32) (i32.const 0)) {_RECURSION}")
        .replace(
            "(if (i32.eq (i32.load8_u (local.get $text)) (i32.const 33))",
            f"{count} (if (i32.eq (i32.load8_u (local.get $text)) (i32.const 33))",
        )
        .replace("(call $answer (local.get $text) (local.get $len))))", "(call $answer (i32.const 64) (i32.const 1))))")
    )


_RECURSION = "(func $r (result i32) (i32.add (call $r) (i32.const 1)))"


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_instance_that_was_poisoned_is_never_used_again(door: Door, name: str) -> None:
    attack, _, code = ATTACKS[name]
    component = compiled(_counting(attack))
    manifest = manifest_of(isolation="tenant", limits={"time_ms": 200})
    options: dict[str, Any] = {"manifest": manifest, "tenant": "acme"}
    for _ in range(3):
        assert [(await door.run(component, "-", **options)).output for _ in range(3)] == ["1", "2", "3"]
        with pytest.raises(GuestFailure) as caught:
            await door.run(component, "!", **options)
        assert caught.value.code == code
    # Another tenant's instance of the same plugin has gone on as if nothing had been.
    assert (await door.run(component, "-", manifest=manifest, tenant="globex")).output == "1"
    with pytest.raises(GuestFailure):
        await door.run(component, "!", **options)
    assert (await door.run(component, "-", manifest=manifest, tenant="globex")).output == "2"


async def test_many_tenants_instances_that_trap_leave_room_for_others(doors: Opener) -> None:
    """More tenants than the pool has places, each with an instance that it poisons and one that lives."""
    component = compiled(_counting("unreachable"))
    manifest = manifest_of(isolation="tenant", limits={"time_ms": 5_000})
    async with doors(sandbox_slots=8) as door:
        for n in range(40):
            tenant = f"tenant-{n}"
            assert (await door.run(component, "-", manifest=manifest, tenant=tenant)).output == "1"
            with pytest.raises(GuestFailure):
                await door.run(component, "!", manifest=manifest, tenant=tenant)
            assert (await door.run(component, "-", manifest=manifest, tenant=tenant)).output == "1"
        await door.serves()


async def test_a_live_instance_that_was_given_up_is_ended_and_begun_anew(door: Door) -> None:
    component = compiled(_counting("(loop (br 0))"))
    manifest = manifest_of(isolation="tenant", limits={"time_ms": 1_000})
    assert (await door.run(component, "-", manifest=manifest)).output == "1"
    task = asyncio.create_task(door.run(component, "!", manifest=manifest))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    patient = manifest_of(isolation="tenant", limits={"time_ms": 20_000})
    assert (await door.run(component, "-", manifest=patient)).output == "1"
