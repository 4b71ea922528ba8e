"""Whose time it was: a guest answers for what it computed and waited for, not for turns that it was not given.

A call's limit is told in wall time, for somebody waits for the answer. But on a machine with more to do than cores,
in a process whose interpreter another thread holds, or while a compiled component is read from a slow disk, the
guest's thread stands still through no fault of the guest. That time is given back, within bounds, when the deadline
is reached: a call that ends in time pays for two looks at the clock, at its begin.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import time
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from wasmtime import _ffi as ffi

from kernel.guests import MOST_OWED_SECONDS
from sandbox.engine import SandboxEngine
from sandbox.linking import CurrentCall

LEAST_OWED = 0.002
"""Seconds not worth another look: every call waits so long somewhere."""
MOST_GIVEN = MOST_OWED_SECONDS
"""Seconds that one call can be given back in all. The request's own deadline bounds it as well."""
_CONTINUE = 0
T = TypeVar("T")
_log = logging.getLogger("keelstone.sandbox")
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)


class ThreadTime:
    """The time of one call in the thread that runs it, where it must be made. All in seconds."""

    __slots__ = ("_began", "_cpu", "given", "waited")

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu = time.thread_time()
        self.waited = 0.0
        """What the guest waited for by its own wish, or was made to wait for as a flooder."""
        self.given = 0.0

    def owed(self) -> float:
        """What the thread was not given and has not been given back yet; 0 if it is not worth it."""
        own = time.thread_time() - self._cpu + self.waited
        owed = time.monotonic() - self._began - own - self.given
        return 0.0 if owed < LEAST_OWED else max(0.0, min(owed, MOST_GIVEN - self.given))


class Errand(Generic[T]):
    """Work that a guest's thread waits for while the event loop does it, or hands it on to another process.

    It counts as the guest's own from when somebody takes it up: how busy the loop, or the other, was before does not.
    """

    __slots__ = ("_began", "_counted", "_started", "_time", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], time: ThreadTime | None) -> None:
        self._work, self._time = work, time
        self._started = False
        self._began: float | None = None
        self._counted = 0.0

    async def run(self) -> T:
        """Do the work, on the loop."""
        self._started = True
        self._began = time.monotonic()
        _AT_HAND.set(self)
        return await self._work

    def handed_on(self) -> None:
        """Another process is to do it, and has not taken it up yet."""
        self._began = None

    def taken_up(self) -> None:
        """The other process has begun."""
        self._began = time.monotonic() - self._counted

    def count(self) -> None:
        """Put what it took until now on the call's account; to be called by the thread that waits."""
        began = self._began
        if self._time is not None and began is not None:
            took = time.monotonic() - began
            self._time.waited += took - self._counted
            self._counted = took

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody waits any more, on the thread that did: count it, and let go of work that ``loop`` never took up."""
        self.count()
        if not self._started:
            try:
                # It comes after the cancellation, which is on its way to the loop already and keeps it from beginning.
                loop.call_soon_threadsafe(self._drop)
            except RuntimeError:  # the loop is closed
                self._work.close()

    def _drop(self) -> None:
        if not self._started:
            self._work.close()


_AT_HAND: ContextVar[Errand[Any] | None] = ContextVar("errand", default=None)


def errand_at_hand() -> Errand[Any] | None:
    """The errand whose work the running coroutine does."""
    return _AT_HAND.get()


def deadline_callback(engine: SandboxEngine, current: CurrentCall) -> Any:
    """What wasmtime asks when a guest's epochs are over: some more of them, or the error that ends it.

    For ``wasmtime_store_epoch_deadline_callback``; to be kept as long as the store.
    """

    def reached(_context: Any, _data: Any, more: Any, kind: Any) -> int:
        try:
            call = current.here.call
            seconds = 0.0 if call is None else call.put_off()
            if seconds > 0:
                more[0], kind[0] = engine.ticks(seconds), _CONTINUE
                return 0
        except Exception:
            # Nothing may be raised into wasmtime, which would go on as if the guest had been given more.
            _log.exception("the sandbox could not tell what a call is owed")
        # In wasmtime's own words for it, so that it is read as such an end.
        pointer = ffi.wasmtime_error_new(b"wasm trap: interrupt")
        return int(ctypes.cast(pointer, ctypes.c_void_p).value or 0)

    return _CALLBACK(reached)
