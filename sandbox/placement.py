"""Where a call runs is decided by what calls have cost: short ones in place on the event loop, the rest in threads.

A hop to a thread and back costs several times what a short guest takes. A guest that has kept its
99th percentile under a millisecond is therefore called where the dispatch already is, under a deadline
of its own that is much shorter than the call's: a guest that overruns it is moved to the threads with
all its hooks, for a rest that doubles each time and is forgiven slowly (on a busy machine a call can be
late without having done anything). What has to wait for the outside is moved by the hook.
Nothing that leaves the platform can happen in place, so the same call is repeated in a thread unseen.

One that is not known yet runs in a process of its own (sandbox.guest_process) until some of its calls have ended
well, and so does, for a while, one that has flooded the host or with which that process has ended: whatever it does
there, it takes neither the interpreter nor the loop from anybody.

How fast a guest may call the host follows from its calls too. One that is not known yet goes a little slowly, and one
that has flooded the host goes very slowly for a while.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

from sandbox.policy import FLOODERS_PACE, STRANGERS_PACE, USUAL_PACE, WASM_STACK_KB, Pace

IN_PLACE_SECONDS = 0.005
"""Looked at every 10 ms while only such calls run: a runaway holds the loop for 15 ms at most, and once."""
SHORT_US = 1_000
LEAST_CALLS = 20
WINDOW = 400
FIRST_REST, LONGEST_REST = 0.1, 600.0
FIRST_PENANCE = 60.0
ROOM_KB = 1_024
"""Stack that the host's own functions need beside the guest's, in KiB."""


class Placement:
    """What is known of one guest's calls. Times in microseconds; ``clock`` gives monotonic seconds."""

    __slots__ = (
        "_apart", "_apart_until", "_calls", "_clock", "_known", "_penance", "_penance_until", "_rest", "_slow",
        "_until", "_waiting",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls = self._slow = 0
        self._known = False
        self._until = 0.0
        self._rest = FIRST_REST
        self._penance, self._penance_until = FIRST_PENANCE, 0.0
        self._apart, self._apart_until = FIRST_PENANCE, 0.0
        self._waiting: dict[str, float] = {}

    def in_place(self, hook: str) -> bool:
        """Whether the next call of ``hook`` may run on the event loop."""
        if self._calls < LEAST_CALLS or self._slow * 100 > max(self._calls, 100):
            return False
        if self._until and self._clock() < self._until:
            return False
        if self._penitent() or self._suspect():
            # On the event loop nobody can be made to wait, and what ended a process would end the platform.
            return False
        return not self._waiting or self._clock() >= self._waiting.get(hook, 0.0)

    def note(self, micros: int) -> None:
        """A call took so much of a core. The last few hundred count; older ones fade."""
        self._calls += 1
        if micros >= SHORT_US:
            self._slow += 1
        if self._calls >= LEAST_CALLS:
            self._known = True
        if self._calls >= WINDOW:
            self._calls //= 2
            self._slow //= 2
            self._rest = max(self._rest / 2, FIRST_REST)
            self._penance = max(self._penance / 2, FIRST_PENANCE)

    def overran(self) -> None:
        """A call in place did not end in time: the guest runs in threads for a while."""
        self._until = self._clock() + self._rest
        self._rest = min(self._rest * 2, LONGEST_REST)
        self._calls = self._slow = 0

    def flooded(self) -> None:
        """A call flooded the host: the guest's next ones may call it slowly, for a time that doubles."""
        self._penance_until = self._clock() + self._penance
        self._penance = min(self._penance * 2, LONGEST_REST)

    def broke(self) -> None:
        """The process ended while a call was in it: the guest's next ones stay there, for a time that doubles.

        It may have been another's doing that was in it as well; that costs this one a little time.
        """
        self._apart_until = self._clock() + self._apart
        self._apart = min(self._apart * 2, LONGEST_REST)

    def apart(self) -> bool:
        """Whether the next call belongs in a process of its own."""
        return not self._known or self._penitent() or self._suspect()

    def pace(self) -> Pace:
        """How fast the next call may call the host."""
        if self._penitent():
            return FLOODERS_PACE
        return STRANGERS_PACE if self._calls < LEAST_CALLS else USUAL_PACE

    def _penitent(self) -> bool:
        return bool(self._penance_until) and self._clock() < self._penance_until

    def _suspect(self) -> bool:
        return bool(self._apart_until) and self._clock() < self._apart_until

    def waits(self, hook: str) -> None:
        """A call in place of this hook had to wait for the outside, as it will again."""
        self._waiting[hook] = self._clock() + LONGEST_REST


def stack_is_large_enough() -> bool:
    """Whether the calling thread's stack can hold a guest's and the host's functions below it.

    A guest whose stack is larger than its thread's ends the process, so where the size cannot be told
    (it is asked of glibc or musl: pthread_getattr_np(3)) the answer is no.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(256)
    address, size = ctypes.c_void_p(), ctypes.c_size_t()
    libc.pthread_self.restype = ctypes.c_void_p
    try:
        if libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes):
            return False
        libc.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(size))
        libc.pthread_attr_destroy(attributes)
    except AttributeError:
        return False
    return size.value >= (WASM_STACK_KB + ROOM_KB) << 10
