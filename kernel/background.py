"""Work beside the requests: one task with a name, begun and ended by its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """Runs ``work`` from :meth:`start` until :meth:`stop`. What must still be done then is the owner's to do."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(self._work(), name=self._name)

    async def stop(self) -> None:
        """Cancel the work and wait until it has ended; without a start, nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            # Not awaited by itself: that would take a cancellation of our own caller for the task's.
            await asyncio.gather(task, return_exceptions=True)
