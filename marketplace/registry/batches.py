"""Work that costs little more for many than for one: what arrives meanwhile is done with the next batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """Batches of one kind of work, one at a time, in a thread. For one event loop.

    ``work`` takes at most ``most`` items and gives for each what came of it, an error for one that failed. What it
    raises is everybody's error. ``gather`` is awaited before each batch, for those who are about to come.
    """

    def __init__(
        self,
        work: Callable[[list[T]], list[R | Exception]],
        most: int,
        *,
        threads: Executor | None = None,
        gather: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._work, self._most, self._threads, self._gather = work, most, threads, gather
        self._waiting: list[tuple[T, asyncio.Future[R | Exception]]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many items wait for the next batch."""
        return len(self._waiting)

    async def do(self, item: T) -> R:
        """Have one item done; raises its error."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R | Exception] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._drain())
        outcome = await future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def finish(self) -> None:
        """Wait for the batches under way."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _drain(self) -> None:
        """Batch by batch until nobody waits. A task of its own: a caller who leaves takes nobody along."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            if self._gather is not None:
                await self._gather()
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            outcomes: list[R | Exception]
            try:
                outcomes = await loop.run_in_executor(self._threads, self._work, [item for item, _ in batch])
            except Exception as error:
                outcomes = [error] * len(batch)
            except BaseException:
                # The process is ending (or its loop is): whoever waits must not wait for ever.
                for _, future in [*batch, *self._waiting]:
                    future.cancel()
                raise
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
