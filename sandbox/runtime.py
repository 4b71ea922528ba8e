"""The WebAssembly host as the kernel sees it: prepare, call, forget."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from kernel.errors import BulkheadFull
from kernel.manifest import PluginManifest
from kernel.ports import GuestCall, GuestResult, LogLine
from kernel.settings import Settings
from sandbox.binary import outline
from sandbox.calltime import ThreadTime
from sandbox.contract import check_imports
from sandbox.errors import (
    BadComponent,
    GuestCancelled,
    GuestInputTooLarge,
    GuestMemoryLimit,
    GuestTimeLimit,
    NeedsThread,
    SandboxError,
)
from sandbox.guest import Guest
from sandbox.hostcalls import HostCalls, HostServices
from sandbox.lanes.answers import Outcome
from sandbox.live import LiveInstances, Seat
from sandbox.placement import IN_PLACE_SECONDS, stack_is_large_enough
from sandbox.policy import EffectiveLimits, LimitBook, effective_limits
from sandbox.pool import WorkerPool
from sandbox.schemas import check_event_schema
from sandbox.shelf import Shelf, meters_fuel

LogSink = Callable[[GuestCall, LogLine], None]
"""Takes every line that a guest wrote, whether its call succeeded or not."""

_log = logging.getLogger("keelstone.sandbox")
_NEVER = float("inf")


class SandboxRuntime:
    """Implements :class:`kernel.ports.GuestRuntime`. One per process."""

    def __init__(self, settings: Settings, artifacts: Path, services: HostServices, log: LogSink | None = None) -> None:
        self._settings = settings
        self._services = services
        self._log_sink = log
        # Where every call is metered, nothing is compiled for an engine that does not count.
        always = settings.sandbox_caps.fuel is not None
        self._shelf = Shelf(settings, artifacts, fuel=always)
        self._metered = Shelf(settings, artifacts, fuel=True) if meters_fuel(settings) and not always else None
        self._shelves = [shelf for shelf in (self._shelf, self._metered) if shelf is not None]
        self._pool = WorkerPool(settings.sandbox_threads)
        self._compiling = asyncio.Lock()
        self._under_way: Counter[tuple[str, str, bool]] = Counter()
        self._hosts: set[HostCalls] = set()
        # Half of the pool at most: fresh calls must always find room.
        self._live = LiveInstances(settings.sandbox_slots // 2)
        self._limits = LimitBook(settings, services.plan_of)
        self._stacks: dict[int, bool] = {}

    async def prepare(self, digest: str, component: bytes, manifest: PluginManifest) -> None:
        """Compile (once, in a separate process) and check the component. Raises SandboxError."""
        try:
            await self._prepare(digest, component, manifest)
        except SandboxError as error:
            error.plugin = error.plugin or manifest.id
            raise

    async def _prepare(self, digest: str, component: bytes, manifest: PluginManifest) -> None:
        limit = self._settings.max_package_mb << 20
        if len(component) > limit:
            raise BadComponent(
                "The component is too large.",
                plugin=manifest.id,
                expected=f"at most {self._settings.max_package_mb} MiB (KEELSTONE_MAX_PACKAGE_MB)",
                found=f"{len(component) / (1 << 20):.1f} MiB",
                fix="Make it smaller, or raise the setting.",
            )
        seen = await asyncio.to_thread(outline, component)
        check_imports(seen.imports, manifest)
        allowed = effective_limits(manifest.limits, self._settings).memory
        if seen.least_memory > allowed:
            raise GuestMemoryLimit(
                "The component starts with more memory than it may have.",
                plugin=manifest.id,
                expected=f"at most {allowed >> 20} MiB (limits.memory_mb, capped by KEELSTONE_SANDBOX_MAX_MEMORY_MB)",
                found=f"{seen.least_memory / (1 << 20):.1f} MiB",
                fix="Raise limits.memory_mb in plugin.toml, or build with a smaller initial memory.",
            )
        for declared in manifest.events.declares:
            check_event_schema(declared.type, declared.data, manifest.id)
        async with self._compiling:
            for shelf in self._shelves:
                guest = await shelf.make(digest, component, manifest)
        # wasmtime's own list of imports is the one that counts; ours spared compiling.
        check_imports(guest.imports, manifest)

    def prepared(self, digest: str) -> bool:
        """Whether the compiled artifact is at hand."""
        return all(shelf.has(digest) for shelf in self._shelves)

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call. Raises SandboxError's subclasses, each with what the call had used, and BulkheadFull."""
        tenant = call.context.tenant
        limits = self._limits.known(call.manifest, tenant) or await self._limits.of(call.manifest, tenant)
        shelf = self._shelf if limits.fuel is None or self._metered is None else self._metered
        guest = shelf.get(call.digest) or await shelf.load(call.digest)
        if len(call.payload) * 4 > limits.input:
            _check_input(call, limits)
        seat = self._live.seat(call) if call.manifest.isolation == "tenant" else None
        if guest.placement.in_place(call.hook) and (seat is None or seat.warm(call)) and self._may_run_here():
            host = HostCalls(call, limits, self._services)
            host.in_place = True
            try:
                outcome = _run(guest, host, seat, IN_PLACE_SECONDS)
            except NeedsThread:
                guest.placement.waits(call.hook)
            except GuestTimeLimit:
                if _seconds(host) < IN_PLACE_SECONDS:
                    self._tell(host)
                    raise
                guest.placement.overran()
            except BaseException:
                self._tell(host)
                raise
            else:
                guest.placement.note(outcome.wall_us)
                return self._result(host, outcome, outcome.wall_us)
        # A mirrored call takes no place from the calls that somebody waits for.
        key = (call.plugin, call.context.tenant, call.replay is None)
        if self._under_way[key] >= limits.concurrency:
            raise BulkheadFull(
                "Too many calls of the plugin are under way for this tenant.",
                plugin=call.plugin,
                hook=call.hook,
                tenant=call.context.tenant,
                expected=f"at most {limits.concurrency} at once (limits.concurrency)",
                found=self._under_way[key],
                fix="Try again, or raise limits.concurrency in plugin.toml.",
                extra={"limit": "concurrency", "allowed": limits.concurrency, "used": self._under_way[key]},
            )
        host = HostCalls(call, limits, self._services, asyncio.get_running_loop())
        host.pace = guest.placement.pace()
        self._under_way[key] += 1
        self._hosts.add(host)
        try:
            if seat is None:
                outcome, cpu_us = await self._pool.submit(call.plugin, partial(_run_in_thread, guest, host, None))
            else:
                async with seat.turn:
                    outcome, cpu_us = await self._pool.submit(call.plugin, partial(_run_in_thread, guest, host, seat))
        except asyncio.CancelledError:
            # The guest cannot be stopped at once, but its next host call ends it and nothing is saved.
            host.cancel()
            self._tell(host)
            raise
        except BaseException:
            self._tell(host)
            raise
        finally:
            self._hosts.discard(host)
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
        # Not its wall time: on a busy machine that says more about the machine than about the guest.
        guest.placement.note(cpu_us)
        return self._result(host, outcome, cpu_us)

    def _result(self, host: HostCalls, outcome: Outcome, cpu_us: int) -> GuestResult:
        if host.logs:
            self._tell(host)
        return GuestResult(
            output=outcome.output,
            effects=host.effects,
            usage=host.usage(outcome.wall_us, cpu_us, outcome.memory_bytes),
            logs=tuple(host.logs),
            recording=host.recording,
        )

    def _may_run_here(self) -> bool:
        thread = threading.get_ident()
        found = self._stacks.get(thread)
        if found is None:
            found = self._stacks[thread] = self._settings.sandbox_in_place and stack_is_large_enough()
        return found

    def _tell(self, host: HostCalls) -> None:
        if self._log_sink is not None:
            for line in tuple(host.logs):
                self._log_sink(host.call, line)

    async def forget(self, digest: str) -> None:
        """Delete the compiled artifact. Calls under way keep theirs."""
        self._live.forget(digest)
        for shelf in self._shelves:
            await shelf.forget(digest)

    async def close(self) -> None:
        """End the calls under way and stop the threads."""
        for host in tuple(self._hosts):
            host.cancel()
        for shelf in self._shelves:
            shelf.engine.interrupt_all()
        await asyncio.to_thread(self._pool.close)
        self._live.close()
        for shelf in self._shelves:
            await asyncio.to_thread(shelf.close)


def _check_input(call: GuestCall, limits: EffectiveLimits) -> None:
    size = len(call.payload.encode("utf-8", "replace"))
    if size > limits.input:
        raise GuestInputTooLarge(
            "The payload is larger than the plugin takes.",
            plugin=call.plugin,
            hook=call.hook,
            tenant=call.context.tenant,
            expected=f"at most {limits.input} bytes (limits.input_kb)",
            found=f"{size} bytes",
            fix="Send less, or raise limits.input_kb in plugin.toml.",
            extra={"limit": "input", "allowed": limits.input, "used": size},
        )


def _seconds(host: HostCalls) -> float:
    """What is left of the call's time: its own limit, or less if the request has less."""
    most = host.limits.time_ms / 1_000
    context = host.call.context
    return most if context.deadline == _NEVER else min(most, context.remaining())


def _run_in_thread(guest: Guest, host: HostCalls, seat: Seat | None) -> tuple[Outcome, int]:
    began = time.thread_time_ns()
    host.time = ThreadTime()
    guest.engine.keep_exact()
    try:
        outcome = _run(guest, host, seat, _NEVER)
    except SandboxError as error:
        if error.usage is not None:
            error.usage = replace(error.usage, cpu_us=(time.thread_time_ns() - began) // 1_000)
        raise
    finally:
        guest.engine.let_loose()
    return outcome, (time.thread_time_ns() - began) // 1_000


def _run(guest: Guest, host: HostCalls, seat: Seat | None, most: float) -> Outcome:
    """One call within what is left of its time and ``most`` seconds, wherever it was decided to run."""
    call = host.call
    if host.cancelled:
        raise GuestCancelled("The call was given up before it ran.", plugin=call.plugin, hook=call.hook)
    seconds = min(_seconds(host), most)
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
