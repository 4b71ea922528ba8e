"""How one call is run: where the caller is, or in one of a few threads, within what is left of its time."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial

from kernel.ports import GuestResult
from sandbox.calltime import ThreadTime
from sandbox.errors import GuestCancelled, GuestTimeLimit, SandboxError
from sandbox.guest import Guest
from sandbox.hostcalls import HostCalls
from sandbox.lanes.answers import Outcome
from sandbox.live import Seat
from sandbox.pool import WorkerPool

_log = logging.getLogger("keelstone.sandbox")
_NEVER = float("inf")


class GuestThreads:
    """The threads in which guests run whose calls may be long."""

    def __init__(self, threads: int) -> None:
        self._pool = WorkerPool(threads)
        self._hosts: set[HostCalls] = set()

    async def run(self, guest: Guest, host: HostCalls, seat: Seat | None) -> tuple[Outcome, int]:
        """One call, and the microseconds of a core that it took. Raises SandboxError and BulkheadFull.

        A caller that gives up cannot stop the guest at once, but its next host call ends it and nothing is saved.
        """
        job = partial(_in_thread, guest, host, seat)
        self._hosts.add(host)
        try:
            if seat is None:
                return await self._pool.submit(host.call.plugin, job)
            async with seat.turn:
                return await self._pool.submit(host.call.plugin, job)
        except asyncio.CancelledError:
            host.cancel()
            raise
        finally:
            self._hosts.discard(host)

    def cancel(self) -> None:
        """Give up every call under way."""
        for host in tuple(self._hosts):
            host.cancel()

    def close(self) -> None:
        """End the threads; blocks until they have ended."""
        self._pool.close()


def _in_thread(guest: Guest, host: HostCalls, seat: Seat | None) -> tuple[Outcome, int]:
    began = time.thread_time_ns()
    host.time = ThreadTime()
    guest.engine.keep_exact()
    try:
        outcome = run_guest(guest, host, seat)
    except SandboxError as error:
        if error.usage is not None:
            error.usage = replace(error.usage, cpu_us=(time.thread_time_ns() - began) // 1_000)
        raise
    finally:
        guest.engine.let_loose()
    return outcome, (time.thread_time_ns() - began) // 1_000


def result_of(host: HostCalls, outcome: Outcome, cpu_us: int) -> GuestResult:
    """A call that ended well, as the kernel sees it; ``cpu_us`` are the microseconds of a core that it took."""
    return GuestResult(
        output=outcome.output,
        effects=host.effects,
        usage=host.usage(outcome.wall_us, cpu_us, outcome.memory_bytes),
        logs=tuple(host.logs),
        recording=host.recording,
    )


def seconds_left(host: HostCalls) -> float:
    """What is left of the call's time: its own limit, or less if the request has less."""
    most = host.limits.time_ms / 1_000
    context = host.call.context
    return most if context.deadline == _NEVER else min(most, context.remaining())


def run_guest(guest: Guest, host: HostCalls, seat: Seat | None, most: float = _NEVER) -> Outcome:
    """One call in the calling thread, within what is left of its time and ``most`` seconds. Raises SandboxError."""
    call = host.call
    if host.cancelled:
        raise GuestCancelled("The call was given up before it ran.", plugin=call.plugin, hook=call.hook)
    seconds = min(seconds_left(host), most)
    if seconds <= 0:
        raise GuestTimeLimit(
            "The request's time was over before the plugin could run.",
            plugin=call.plugin,
            hook=call.hook,
            tenant=call.context.tenant,
            expected="some of the request's deadline left",
            found="none",
            fix="The platform is busy: try again, or raise KEELSTONE_SANDBOX_THREADS.",
        )
    began = time.perf_counter_ns()
    try:
        if seat is None:
            return guest.run(call.hook, call.payload, host, seconds)
        return seat.run(guest, host, seconds)
    except SandboxError as error:
        wall_us = (time.perf_counter_ns() - began) // 1_000
        error.usage = host.usage(wall_us, wall_us, error.usage.memory_bytes if error.usage else 0)
        error.recording = host.recording
        raise
    except Exception as error:
        _log.exception("the sandbox failed a call of %s", call.plugin)
        raise SandboxError(
            "The sandbox itself failed.",
            plugin=call.plugin,
            hook=call.hook,
            tenant=call.context.tenant,
            found=f"{type(error).__name__}: {error}",
            fix="This is a defect of the platform; its log has the details.",
        ) from error
    finally:
        if host.flooded:
            guest.placement.flooded()
        host.finish()
