"""Short guests run on the event loop; whatever is long or waits is moved to a thread, unseen by the caller."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import pytest

from kernel.context import Context
from kernel.ports import GuestCall
from sandbox import errors
from sandbox.placement import LEAST_CALLS

pytestmark = pytest.mark.lanes("fast", "package")


def placement(box, bytes_of, guest):
    return box.runtime._shelves._usual.get(hashlib.sha256(bytes_of(guest)).hexdigest()).placement


@pytest.fixture
def where(box, monkeypatch):
    """The threads in which guests ran, in order."""
    from sandbox.guest import Guest

    seen: list[bool] = []
    run = Guest.run

    def spy(self, *arguments):
        seen.append(threading.current_thread() is threading.main_thread())
        return run(self, *arguments)

    monkeypatch.setattr(Guest, "run", spy)
    # A busy machine makes a short call cost a millisecond now and then, which is not what is looked at here.
    monkeypatch.setattr("sandbox.placement.SHORT_US", 1_000_000)
    return seen


async def test_a_guest_that_has_shown_to_be_short_runs_in_place(box, where):
    for _ in range(LEAST_CALLS + 5):
        assert (await box.run("echo", '{"a":1}')).output == '{"a":1}'
    assert where == [False] * LEAST_CALLS + [True] * 5


async def test_in_place_a_call_never_suspends(box, bytes_of, make_manifest, where):
    for _ in range(LEAST_CALLS):
        result = await box.run("echo")
    call = _call(make_manifest(), bytes_of, "echo")
    with pytest.raises(StopIteration) as done:
        box.runtime.call(call).send(None)
    assert done.value.value.output == result.output


async def test_an_operator_can_forbid_it(opened, monkeypatch):
    async with opened(sandbox_in_place=False) as box:
        for _ in range(LEAST_CALLS + 1):
            await box.run("echo")
        assert not box.runtime._may_run_here()


async def test_a_call_that_overruns_in_place_is_repeated_in_a_thread_and_its_guest_moved(box, bytes_of, where):
    # This guest loops for ever on one payload; what is measured of the others says that it is short.
    for _ in range(LEAST_CALLS + 1):
        await box.run("echo")
    at = placement(box, bytes_of, "echo")
    at.overran()
    assert (await box.run("echo", '{"a":2}')).output == '{"a":2}'
    assert where[-2:] == [True, False]


async def test_a_loop_that_was_thought_short_ends_by_its_deadline_and_never_runs_in_place_again(
    box, bytes_of, make_manifest, where
):
    limited = make_manifest(limits={"time_ms": 60})
    with pytest.raises(errors.GuestTimeLimit):
        await box.run("loop", manifest=limited)
    at = placement(box, bytes_of, "loop")
    for _ in range(LEAST_CALLS * 100):
        at.note(10)
    where.clear()
    with pytest.raises(errors.GuestTimeLimit) as caught:
        await box.run("loop", manifest=limited)
    # In place it was stopped after 5 ms and repeated in a thread, where it had its whole time.
    assert where == [True, False]
    assert "60 ms" in str(caught.value.expected)
    with pytest.raises(errors.GuestTimeLimit):
        await box.run("loop", manifest=limited)
    assert where == [True, False, False]


async def test_the_loop_goes_on_while_a_guest_runs_in_a_thread(box, make_manifest):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    with pytest.raises(errors.GuestTimeLimit):
        await box.run("loop", manifest=make_manifest(limits={"time_ms": 150}))
    ticking.cancel()
    assert ticks > 20


async def test_a_host_call_that_must_be_waited_for_moves_the_hook_to_a_thread(box, bytes_of, where):
    await box.run("host", "ga")
    at = placement(box, bytes_of, "host")
    for _ in range(LEAST_CALLS * 100):
        at.note(10)
    where.clear()
    first = await box.run("host", "ga")
    assert where == [True, False]
    second = await box.run("host", "ga")
    assert where == [True, False, False]
    assert first.output == second.output
    assert first.usage.host_calls == second.usage.host_calls == 1


async def test_the_logs_of_a_repeated_call_are_told_once(box, bytes_of, where):
    await box.run("host", "lx")
    at = placement(box, bytes_of, "host")
    for _ in range(LEAST_CALLS * 100):
        at.note(10)
    box.logs.clear()
    await box.run("host", "ga")
    await box.run("host", "lx")
    assert len(box.logs) == 1


async def test_what_a_failed_call_used_is_told_with_its_error(box, bytes_of, make_manifest):
    with pytest.raises(errors.GuestTimeLimit) as caught:
        await box.run("loop", manifest=make_manifest(limits={"time_ms": 30}))
    used = caught.value.usage
    assert used.wall_us >= 25_000
    assert used.cpu_us > 0


def _call(asked, bytes_of, guest):
    digest = hashlib.sha256(bytes_of(guest)).hexdigest()
    return GuestCall(asked.id, asked.version, digest, asked, "user_creating", "{}", Context("acme"))


async def test_a_flood_on_the_event_loop_is_remembered_too(box, bytes_of, make_manifest, where):
    few = make_manifest(limits={"host_calls": 5})
    for _ in range(LEAST_CALLS):
        await box.run("host", "cgreeting", manifest=few)
    with pytest.raises(errors.GuestHostCallLimit):
        await box.run("host", "R", manifest=few)
    assert where == [False] * LEAST_CALLS + [True]
    await box.run("host", "cgreeting", manifest=few)
    assert where[-1] is False
