"""The work in hand: ids in order of time, deadlines that only shrink, a context of its own for each task."""

from __future__ import annotations

import asyncio
import time
import uuid

from kernel.context import (
    PLATFORM_TENANT,
    Context,
    Principal,
    current_context,
    new_id,
    system_context,
    use_context,
)


def test_ids_are_version_7_and_sort_by_the_millisecond_they_were_made_in():
    ids = []
    for _ in range(5):
        ids.append(new_id())
        began = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == began:
            pass
    assert ids == sorted(ids)
    for text in ids:
        made = uuid.UUID(text)
        assert len(text) == 32
        assert made.version == 7
        assert made.variant == uuid.RFC_4122
    stamp = uuid.UUID(ids[0]).int >> 80
    assert abs(stamp - time.time_ns() // 1_000_000) < 60_000


def test_ids_made_at_once_differ():
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_a_deadline_only_ever_moves_nearer():
    context = Context("acme").within(60)
    nearer = context.within(1)
    assert nearer.deadline < context.deadline
    assert nearer.within(100).deadline == nearer.deadline
    assert 0 < nearer.remaining() <= 1
    assert context.within(-5).remaining() == 0.0
    assert Context("acme").remaining() == float("inf")


async def test_tasks_do_not_see_each_others_context():
    async def work(tenant: str) -> str:
        with use_context(Context(tenant)):
            await asyncio.sleep(0)
            found = current_context()
            assert found is not None
            return found.tenant

    assert await asyncio.gather(*(work(t) for t in ("acme", "globex"))) == ["acme", "globex"]
    assert current_context() is None


def test_a_context_is_given_back_when_its_block_ends_even_by_an_error():
    outer = Context("acme")
    with use_context(outer):
        try:
            with use_context(Context("globex")):
                raise ValueError
        except ValueError:
            pass
        assert current_context() is outer


def test_an_operator_is_of_the_platform_and_may_everything():
    assert Principal("o", "user", PLATFORM_TENANT, permissions=frozenset({"*"})).is_operator
    assert not Principal("o", "user", "acme", permissions=frozenset({"*"})).is_operator
    assert not Principal("o", "user", PLATFORM_TENANT, permissions=frozenset({"users:*"})).is_operator
    assert system_context("acme").principal.tenant == "acme"
    assert not system_context("acme").principal.is_operator
