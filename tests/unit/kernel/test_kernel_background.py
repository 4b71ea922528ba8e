"""Work beside the requests: it ends when it is told to, and takes no other cancellation for its own."""

from __future__ import annotations

import asyncio

import pytest

from kernel.background import Background


async def test_it_runs_under_its_name_until_it_is_stopped():
    seen = []

    async def work():
        seen.append(asyncio.current_task().get_name())
        await asyncio.Event().wait()

    background = Background(work, "a-name")
    background.start()
    await asyncio.sleep(0)
    await background.stop()
    assert seen == ["a-name"]
    assert "a-name" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_stopping_what_never_began_or_has_failed_is_nothing():
    async def work():
        raise RuntimeError("broken")

    background = Background(work, "broken")
    await background.stop()
    background.start()
    await asyncio.sleep(0)
    await background.stop()
    await background.stop()


async def test_an_owner_that_is_cancelled_while_it_waits_is_told_so():
    begun = asyncio.Event()

    async def stubborn():
        try:
            await asyncio.Event().wait()
        finally:
            begun.set()
            await asyncio.sleep(0.05)

    background = Background(stubborn, "stubborn")
    background.start()
    await asyncio.sleep(0)
    stopping = asyncio.create_task(background.stop())
    await begun.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
