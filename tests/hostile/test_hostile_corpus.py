"""Every guest of the corpus gets its own answer, every time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from kernel.errors import GuestFailure, KeelstoneError
from tests.hostile.conftest import Opener
from tests.hostile.corpus import CORPUS, hostile_guests, manifest_of
from tests.hostile.door import SLOTS, Door
from tests.hostile.model import SERVED, Hostile
from tests.hostile.text import compiled

AGAIN = SLOTS + 2
"""Calls of each guest: more than the pool has instances."""


@pytest.mark.parametrize("guest", CORPUS, ids=str)
async def test_a_hostile_guest_gets_its_answer_and_nobody_else_notices(door: Door, guest: Hostile) -> None:
    component, manifest = compiled(guest.text()), manifest_of(limits=dict(guest.limits))
    calls = AGAIN if guest.when == "call" else 1
    for _ in range(calls):
        if guest.verdict == SERVED:
            result = await door.run(component, guest.payload, manifest=manifest)
            assert guest.says in result.output
            assert result.usage.memory_bytes <= 16 << 20
            continue
        with pytest.raises(KeelstoneError) as caught:
            await door.run(component, guest.payload, manifest=manifest)
        _check(guest, caught.value)
    await door.serves()
    assert await door.kv.usage("acme", manifest.id) == (0, 0)
    assert len(door.logs) <= calls * (manifest.limits.log_lines + 1)
    assert all(len(line.message) <= 4_096 for _, line in door.logs)


def _check(guest: Hostile, error: KeelstoneError) -> None:
    assert error.code == guest.verdict, str(error)
    text = str(error)
    assert guest.says in text
    assert len(text) < 5_000
    assert error.plugin == "acme/hostile"
    if guest.when == "prepare":
        return
    assert isinstance(error, GuestFailure)
    assert (error.hook, error.tenant) == ("user_creating", "acme")
    assert error.fix
    assert error.usage is not None
    assert error.usage.wall_us > 0
    assert guest.verdict == "guest-error" or (error.expected and error.found), "what was allowed and what was used"


def test_every_guest_has_a_name_and_a_sentence_of_its_own() -> None:
    assert len({g.name for g in CORPUS}) == len({g.does for g in CORPUS}) == len(CORPUS)


def test_the_same_guests_make_noise_for_others() -> None:
    drawn = hostile_guests()
    assert {name for name, *_ in drawn} == {g.name for g in CORPUS if g.when == "call"}
    assert all(component.startswith(b"\0asm") for _, component, _, _ in drawn)
    assert len({manifest.id for _, _, manifest, _ in drawn}) == len(drawn)


async def test_all_of_them_at_once_and_a_good_guest_in_between(doors: Opener) -> None:
    """In an order drawn anew from a fixed seed: errors never mix, and each call of the good guest is served."""
    guests = [g for g in CORPUS if g.when == "call" and g.limits.get("time_ms", 0) < 10_000]
    order = random.Random(20).sample(guests, len(guests))
    async with doors(sandbox_threads=4, sandbox_slots=16) as door:
        await door.serves()

        async def attack(guest: Hostile) -> str:
            manifest = manifest_of(f"acme/{guest.name.replace('_', '-')}", limits=dict(guest.limits))
            try:
                await door.run(compiled(guest.text()), guest.payload, manifest=manifest)
            except KeelstoneError as error:
                return error.code
            return SERVED

        for start in range(0, len(order), 12):
            batch = order[start : start + 12]
            found = await asyncio.gather(*(attack(guest) for guest in batch), *(door.serves() for _ in range(4)))
            assert dict(zip((g.name for g in batch), found, strict=False)) == {g.name: g.verdict for g in batch}
