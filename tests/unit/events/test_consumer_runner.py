"""Consumers: what needs no database."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from kernel.consumers import ConsumerRunner, EventHandler, LazyTransaction, RetryPolicy
from kernel.context import system_context
from kernel.events import Event, NewEvent


async def nothing(event: Event, transaction: Any) -> None:
    return None


def an_event(kind: str) -> Event:
    return Event("e", kind, "acme", "s", 1, 1, datetime(2026, 1, 1, tzinfo=UTC), {}, {}, "0", "1")


class FakeDatabase:
    dialect = "fake"

    def __init__(self) -> None:
        self.log: list[Any] = []

    @asynccontextmanager
    async def write(self, scope: str, context: Any = None) -> Any:
        self.log.append(("open", scope))
        try:
            yield self
        except BaseException:
            self.log.append("undo")
            raise
        self.log.append("commit")

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        self.log.append(statement)

    def emit(self, stream: str, *events: NewEvent, **more: Any) -> None:
        self.log.append(("emit", stream))

    def after_commit(self, callback: Any) -> None:
        self.log.append("after")


def lazy(database: FakeDatabase) -> LazyTransaction:
    return LazyTransaction(database, "acme", system_context("acme"))  # type: ignore[arg-type]


async def test_a_lazy_transaction_opens_at_its_first_statement_and_keeps_the_order() -> None:
    database = FakeDatabase()
    async with lazy(database) as transaction:
        transaction.emit("early")
        transaction.after_commit(lambda: None)
        assert database.log == []
        await transaction.execute("one")
        await transaction.execute("two")
        transaction.emit("late")
    assert database.log == [("open", "acme"), ("emit", "early"), "after", "one", "two", ("emit", "late"), "commit"]


async def test_a_lazy_transaction_that_was_never_used_does_nothing() -> None:
    database = FakeDatabase()
    async with lazy(database):
        pass
    assert database.log == []


async def test_an_error_undoes_a_lazy_transaction() -> None:
    database = FakeDatabase()

    async def fail() -> None:
        async with lazy(database) as transaction:
            await transaction.execute("one")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await fail()
    assert database.log[-1] == "undo"


def test_two_consumers_of_one_name_are_refused() -> None:
    twins = [EventHandler("same", ("a.b",), nothing), EventHandler("same", ("c.d",), nothing)]
    with pytest.raises(ValueError, match="same"):
        ConsumerRunner(None, None, handlers=twins)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("types", "kind", "takes"),
    [
        (("user.created",), "user.created", True),
        (("user.*",), "user.created", True),
        (("*",), "x", True),
        (("user.*",), "users.created", False),
        ((), "user.created", False),
    ],
)
def test_handlers_get_the_types_they_asked_for(types: tuple[str, ...], kind: str, takes: bool) -> None:
    handler = EventHandler("c", types, nothing)
    runner = ConsumerRunner(None, None, handlers=[handler])  # type: ignore[arg-type]
    assert (runner.handlers_for(an_event(kind)) == [handler]) is takes


@pytest.mark.parametrize("attempt", [1, 3, 40])
def test_retries_pause_longer_each_time_up_to_a_bound(attempt: int) -> None:
    policy = RetryPolicy(first=0.1, most=2.0)
    longest = min(2.0, 0.1 * 2.0 ** (attempt - 1))
    assert all(longest / 2 <= policy.pause(attempt) <= longest for _ in range(20))
