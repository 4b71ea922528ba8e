"""Breaker, retry budget, deadline: as in the literature."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import DeadlineExceeded
from kernel.resilience import Backoff, Breaker, finish_within


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock, threshold: int = 3) -> Breaker:
    breaker = Breaker(threshold=threshold, rest=1.0, longest=4.0, clock=clock)
    for _ in range(threshold):
        assert breaker.allow()
        breaker.failure(breaker.era)
    return breaker


def test_a_breaker_opens_after_failures_in_a_row_and_not_before():
    breaker = Breaker(threshold=3)
    for _ in range(5):
        breaker.failure(breaker.era)
        breaker.failure(breaker.era)
        breaker.success(breaker.era)
    assert breaker.state == "closed"
    assert opened(Clock()).state == "open"


def test_an_open_breaker_lets_nothing_through_until_it_has_rested():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 0.99
    assert not breaker.allow()
    clock.now += 0.01
    assert breaker.allow()
    assert breaker.state == "half_open"


def test_exactly_one_probe_is_let_through_and_its_success_closes():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert [breaker.allow() for _ in range(20)] == [True, *[False] * 19]
    breaker.success(breaker.era)
    assert breaker.state == "closed"
    assert all(breaker.allow() for _ in range(20))


def test_each_failed_probe_doubles_the_rest_up_to_the_longest():
    clock = Clock()
    breaker = opened(clock)
    rests = []
    for _ in range(4):
        began = clock.now
        while not breaker.allow():
            clock.now += 0.5
        rests.append(clock.now - began)
        breaker.failure(breaker.era)
    assert rests == [1.0, 2.0, 4.0, 4.0]


def test_after_a_recovery_the_rest_is_short_again():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.allow()
    breaker.failure(breaker.era)
    clock.now += 2
    assert breaker.allow()
    breaker.success(breaker.era)
    for _ in range(3):
        breaker.failure(breaker.era)
    clock.now += 1
    assert breaker.allow()


def test_a_cancelled_probe_makes_room_for_another():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.allow()
    breaker.abandon(breaker.era)
    assert [breaker.allow(), breaker.allow()] == [True, False]


@pytest.mark.parametrize("what", ["success", "failure", "abandon"])
def test_a_call_from_before_it_opened_neither_ends_the_rest_nor_lets_a_second_probe_in(what):
    clock = Clock()
    breaker = Breaker(threshold=3, rest=1.0, clock=clock)
    assert breaker.allow()
    stale = breaker.era
    for _ in range(3):
        breaker.failure(stale)
    getattr(breaker, what)(stale)
    assert breaker.state == "open"
    clock.now += 1
    assert breaker.allow()
    getattr(breaker, what)(stale)
    assert breaker.state == "half_open"
    assert not breaker.allow(), "the probe is still under way"


@given(st.lists(st.sampled_from(["allow", "success", "failure", "abandon", "wait"]), max_size=60))
def test_whatever_happens_at_most_one_probe_is_under_way(steps):
    clock = Clock()
    breaker = Breaker(threshold=2, rest=1.0, longest=2.0, clock=clock)
    under_way: list[tuple[int, bool]] = []
    for step in steps:
        if step == "wait":
            clock.now += 1
        elif step == "allow":
            if breaker.allow():
                under_way.append((breaker.era, breaker.state == "half_open"))
        elif under_way:
            era, _ = under_way.pop(0)
            getattr(breaker, step)(era)
        probes = [era for era, probe in under_way if probe and era == breaker.era]
        assert len(probes) <= 1
        if breaker.state == "open":
            assert not probes


@given(st.integers(1, 60))
def test_a_backoff_doubles_up_to_its_most_and_spreads_by_half(attempt):
    backoff = Backoff(first=0.05, most=2.0)
    longest = min(2.0, 0.05 * 2 ** (attempt - 1))
    assert longest / 2 <= backoff.pause(attempt) <= longest


async def test_a_coroutine_that_suspended_is_finished_and_its_value_given():
    async def work() -> int:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return 0

    coroutine = work()
    assert await finish_within(coroutine, coroutine.send(None), 5) == 0


async def test_what_it_raises_after_suspending_comes_out_as_it_is():
    async def work() -> None:
        await asyncio.sleep(0)
        raise TimeoutError("its own, not ours")

    coroutine = work()
    with pytest.raises(TimeoutError, match="its own"):
        await finish_within(coroutine, coroutine.send(None), 5)


async def test_a_coroutine_that_does_not_end_is_ended_and_may_clean_up():
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

    coroutine = work()
    with pytest.raises(DeadlineExceeded, match="10 ms"):
        await finish_within(coroutine, coroutine.send(None), 0.01)
    assert cleaned == [True]


async def test_cancelling_the_caller_is_not_taken_for_a_deadline():
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.sleep(3600)

    async def caller() -> None:
        coroutine = work()
        await finish_within(coroutine, coroutine.send(None), 60)

    task = asyncio.create_task(caller())
    await began.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
