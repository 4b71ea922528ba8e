"""Live instances: one for each tenant and plugin whose manifest says ``isolation = "tenant"``.

For runtimes that are slow to start (CPython, QuickJS). An instance is never shared by two tenants,
serves one call at a time, and is begun anew after so many calls or seconds, when it holds too much
memory, after anything but an answer, and when the tenant's grants or settings have changed: what a
guest remembers of a revoked grant goes with it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from kernel.ports import GuestCall
from sandbox.errors import GuestError, GuestOutputTooLarge, GuestTimeLimit
from sandbox.guest import Guest
from sandbox.hostcalls import HostCalls
from sandbox.lanes import LiveInstance
from sandbox.lanes.answers import Outcome

SWEEP_SECONDS = 15.0


class Seat:
    """The place of one tenant's instance of one plugin."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._running = threading.Lock()
        self._instance: LiveInstance | None = None
        self._guest: Guest | None = None
        self._calls = 0
        self._ends = 0.0
        self._grants: frozenset[str] = frozenset()
        self._settings: Mapping[str, Any] = {}

    def warm(self, call: GuestCall) -> bool:
        """Whether an instance waits that would serve this call."""
        return self._instance is not None and self._fits(call)

    def _fits(self, call: GuestCall) -> bool:
        return time.monotonic() < self._ends and self._grants == call.grants and self._settings == call.settings

    def run(self, guest: Guest, host: HostCalls, seconds: float) -> Outcome:
        """Call the instance, begun anew if need be. Raises like a fresh call."""
        call, recycle = host.call, host.call.manifest.recycle
        until = time.monotonic() + seconds
        # A call that was given up may still be at work in its thread.
        if not self._running.acquire(timeout=seconds):
            raise GuestTimeLimit(
                "The tenant's instance of the plugin was busy until the call's time was over.",
                plugin=call.plugin,
                hook=call.hook,
                tenant=call.context.tenant,
                expected=f"a turn within {seconds * 1_000:.0f} ms",
                found="an earlier call still at work",
                fix='Answer faster, or use isolation = "call".',
            )
        keep = False
        try:
            if self._instance is None or self._guest is not guest or not self._fits(call):
                self._drop()
                self._instance = guest.open(host, until - time.monotonic())
                self._guest, self._calls, self._ends = guest, 0, time.monotonic() + recycle.seconds
                self._grants, self._settings = call.grants, call.settings
            self._calls += 1
            outcome = self._instance.call(call.hook, call.payload, host, max(0.0, until - time.monotonic()))
            most = host.limits.memory * recycle.memory_percent // 100
            keep = self._calls < recycle.calls and outcome.memory_bytes <= most
            return outcome
        except (GuestError, GuestOutputTooLarge):
            # The guest answered, only not what was hoped for: it is as sound as before.
            keep = self._calls < recycle.calls
            raise
        finally:
            if not keep:
                self._drop()
            self._running.release()

    def _drop(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.drop()

    def release(self, *, wait: bool = False, older_than: float | None = None) -> bool:
        """Drop the instance unless a call runs in it. Whether the seat is empty now."""
        if not self._running.acquire(blocking=wait):
            return False
        try:
            if older_than is None or self._ends <= older_than:
                self._drop()
            return self._instance is None
        finally:
            self._running.release()


class LiveInstances:
    """The seats of a process, least recently used first. At most ``capacity`` instances are alive."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = max(1, capacity)
        self._clock = clock
        self._seats: OrderedDict[tuple[str, str, str], Seat] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._seats)

    def seat(self, call: GuestCall) -> Seat:
        """The seat of the call's tenant and plugin; makes room by dropping what was used longest ago."""
        key = (call.context.tenant, call.plugin, call.digest)
        seat = self._seats.get(key)
        if seat is None:
            self._make_room()
            seat = self._seats[key] = Seat()
            if self._sweep is None:
                self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep_out)
        else:
            self._seats.move_to_end(key)
        return seat

    def _make_room(self) -> None:
        for key in list(self._seats):
            if len(self._seats) < self._capacity:
                return
            if not self._seats[key].turn.locked() and self._seats[key].release():
                del self._seats[key]

    def _sweep_out(self) -> None:
        self._sweep = None
        now = self._clock()
        for key, seat in list(self._seats.items()):
            if not seat.turn.locked() and seat.release(older_than=now):
                del self._seats[key]
        if self._seats:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep_out)

    def forget(self, digest: str) -> None:
        """Drop every instance of a component that is not at work; the rest end by age."""
        for key in [key for key in self._seats if key[2] == digest]:
            if self._seats[key].release():
                del self._seats[key]

    def close(self) -> None:
        """Drop everything. No call may be under way."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for seat in self._seats.values():
            seat.release(wait=True)
        self._seats.clear()
