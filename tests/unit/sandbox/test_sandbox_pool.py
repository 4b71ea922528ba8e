"""Worker threads: fair between plugins, bounded, with stacks that a guest cannot overrun."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kernel.errors import BulkheadFull
from sandbox.pool import QUEUE_PER_THREAD, WorkerPool


@pytest.fixture
def pool():
    made = WorkerPool(2)
    yield made
    made.close()


async def test_a_job_runs_in_a_worker_and_answers(pool):
    name = await pool.submit("a", lambda: threading.current_thread().name)
    assert name.startswith("keelstone-guest-")


async def test_what_a_job_raises_reaches_the_caller(pool):
    def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await pool.submit("a", fail)
    assert await pool.submit("a", lambda: 7) == 7


async def test_a_busy_plugin_leaves_room_for_another(pool):
    gate = threading.Event()
    busy = [pool.submit("busy", gate.wait) for _ in range(10)]
    assert await asyncio.wait_for(pool.submit("other", lambda: "served"), 10) == "served"
    gate.set()
    assert await asyncio.gather(*busy) == [True] * 10


async def test_a_full_queue_refuses(pool):
    gate, started = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        gate.wait()

    jobs = [pool.submit("busy", hold)]
    await asyncio.to_thread(started.wait)
    jobs += [pool.submit("busy", gate.wait) for _ in range(2 * QUEUE_PER_THREAD)]
    with pytest.raises(BulkheadFull) as caught:
        pool.submit("busy", gate.wait)
    assert caught.value.plugin == "busy"
    gate.set()
    await asyncio.gather(*jobs)


async def test_a_cancelled_job_that_waits_is_not_run(pool):
    gate, ran = threading.Event(), []
    first = pool.submit("a", gate.wait)
    second = pool.submit("a", lambda: ran.append(1))
    second.cancel()
    gate.set()
    await first
    await pool.submit("a", lambda: None)
    assert ran == []


async def test_a_closed_pool_finishes_what_waits_and_takes_no_more():
    pool = WorkerPool(1)
    gate = threading.Event()
    jobs = [pool.submit("a", gate.wait), pool.submit("a", lambda: True)]
    gate.set()
    await asyncio.to_thread(pool.close)
    assert await asyncio.gather(*jobs) == [True, True]
    with pytest.raises(BulkheadFull):
        pool.submit("a", lambda: None)


def test_the_process_keeps_its_own_stack_size():
    before = threading.stack_size()
    WorkerPool(1).close()
    assert threading.stack_size() == before
