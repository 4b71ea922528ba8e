"""Order by key, one runner for all buses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.adapters.keyed import KeyedRunner
from kernel.ports import BusMessage
from kernel.resilience import Backoff

NOW = Backoff(first=0.0, most=0.0)


def message(key: str, number: int) -> BusMessage:
    return BusMessage(key, str(number), b"")


async def drained(runner: KeyedRunner) -> None:
    while runner.under_way:  # noqa: ASYNC110 the runner rings no bell when empty
        await asyncio.sleep(0)


@given(
    keys=st.lists(st.sampled_from("abc"), max_size=40),
    failing=st.sets(st.integers(0, 39)),
    concurrency=st.integers(1, 4),
    backlog=st.integers(1, 10),
)
def test_whatever_fails_each_key_is_handled_and_acknowledged_in_order(
    keys: list[str], failing: set[int], concurrency: int, backlog: int
) -> None:
    handled: list[tuple[str, int]] = []
    acknowledged: list[int] = []
    failed: set[int] = set()

    async def handle(item: BusMessage) -> None:
        await asyncio.sleep(0)
        number = int(item.id)
        if number in failing and number not in failed:
            failed.add(number)
            raise RuntimeError("once")
        handled.append((item.key, number))

    async def done(_: BusMessage, token: Any) -> None:
        acknowledged.append(token)

    async def run() -> None:
        runner = KeyedRunner(handle, done, concurrency=concurrency, backlog=backlog, redelivery=NOW)
        for number, key in enumerate(keys):
            await runner.room()
            runner.put(message(key, number), number)
            assert runner.under_way <= backlog
        await drained(runner)

    asyncio.run(run())
    for key in "abc":
        assert [n for k, n in handled if k == key] == [n for n, k in enumerate(keys) if k == key]
    assert sorted(acknowledged) == list(range(len(keys)))


async def test_an_acknowledgement_that_fails_is_tried_again_without_handling_twice() -> None:
    handled, tries = [], []

    async def handle(item: BusMessage) -> None:
        handled.append(item.id)

    async def done(_: BusMessage, __: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("away")

    runner = KeyedRunner(handle, done, redelivery=NOW)
    runner.put(message("a", 1))
    await drained(runner)
    assert (handled, len(tries)) == (["1"], 3)


async def test_dropping_a_partition_acknowledges_nothing_of_it_and_leaves_the_others() -> None:
    release, acknowledged = asyncio.Event(), []

    async def handle(item: BusMessage) -> None:
        if item.key == "gone":
            await asyncio.sleep(3_600)
        await release.wait()

    async def done(item: BusMessage, token: Any) -> None:
        acknowledged.append((item.key, token))

    runner = KeyedRunner(handle, done, redelivery=NOW)
    for number in range(3):
        runner.put(message("gone", number), 1)
        runner.put(message("kept", number), 2)
    await asyncio.sleep(0)
    await runner.drop(lambda _, token: token == 1)
    assert runner.under_way == 3
    release.set()
    await drained(runner)
    assert acknowledged == [("kept", 2)] * 3


async def test_handlers_under_way_get_their_grace() -> None:
    started, finished, acknowledged = asyncio.Event(), [], []

    async def handle(item: BusMessage) -> None:
        started.set()
        await asyncio.sleep(0.01)
        finished.append(item.id)

    async def done(item: BusMessage, _: Any) -> None:
        acknowledged.append(item.id)

    runner = KeyedRunner(handle, done, redelivery=NOW)
    runner.put(message("a", 1))
    runner.put(message("a", 2))
    await started.wait()
    await runner.close(grace=60)
    assert finished == acknowledged == ["1"]
    assert runner.under_way == 0


@pytest.mark.parametrize("attempt", [1, 2, 5, 50, 10_000])
def test_pauses_grow_to_a_bound(attempt: int) -> None:
    redelivery = Backoff(first=0.1, most=3.0)
    longest = min(3.0, 0.1 * 2.0 ** min(attempt - 1, 60))
    assert all(longest / 2 <= redelivery.pause(attempt) <= longest for _ in range(20))
