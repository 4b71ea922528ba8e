"""Worker threads for guest calls: few, with stacks large enough, shared fairly between plugins."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, TypeVar

from kernel.errors import BulkheadFull

T = TypeVar("T")

THREAD_STACK = 8 << 20
"""Bytes. Guests may use 1 MiB of it (policy.WASM_STACK_KB); a smaller stack would be overrun, which
no handler survives."""
QUEUE_PER_THREAD = 50


class WorkerPool:
    """Runs blocking jobs. No key (plugin) holds more than half of the threads while others wait."""

    def __init__(self, threads: int) -> None:
        self._share = max(1, (threads + 1) // 2)
        self._capacity = threads * QUEUE_PER_THREAD
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()
        self._running: Counter[str] = Counter()
        self._condition = threading.Condition()
        self._closed = False
        # The stack size is the process's setting for threads yet to start; it is put back at once.
        before = threading.stack_size(THREAD_STACK)
        try:
            self._threads = [
                threading.Thread(target=self._work, name=f"keelstone-guest-{i}", daemon=True) for i in range(threads)
            ]
            for thread in self._threads:
                thread.start()
        finally:
            threading.stack_size(before)

    def submit(self, key: str, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``job`` in a worker; a future of the running loop. Raises BulkheadFull."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        def run() -> None:
            result: Any = None
            failed: BaseException | None = None
            if not future.cancelled():
                try:
                    result = job()
                except BaseException as error:
                    failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failed)

        with self._condition:
            if self._closed or len(self._waiting) >= self._capacity:
                raise BulkheadFull(
                    "The sandbox has too many calls waiting.",
                    plugin=key,
                    expected=f"at most {self._capacity} waiting",
                    found="shutting down" if self._closed else len(self._waiting),
                    fix="Try again; an operator may raise KEELSTONE_SANDBOX_THREADS.",
                )
            self._waiting.append((key, run))
            self._condition.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._condition:
                taken = self._take()
                while taken is None:
                    if self._closed:
                        return
                    self._condition.wait()
                    taken = self._take()
                key, job = taken
                self._running[key] += 1
            try:
                job()
            finally:
                with self._condition:
                    self._running[key] -= 1
                    if not self._running[key]:
                        del self._running[key]
                    # A job that waited for its plugin's share may be anybody's to take now.
                    self._condition.notify()

    def _take(self) -> tuple[str, Callable[[], None]] | None:
        for index, (key, _) in enumerate(self._waiting):
            if self._running[key] < self._share:
                item = self._waiting[index]
                del self._waiting[index]
                return item
        return None

    def close(self, timeout: float = 10.0) -> None:
        """Finish the jobs under way, drop none that waits, and end the threads."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(timeout)
