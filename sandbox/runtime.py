"""The WebAssembly host as the kernel sees it: prepare, call, forget."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from kernel.errors import BulkheadFull, KeelstoneError
from kernel.manifest import PluginManifest
from kernel.ports import GuestCall, GuestResult, LogLine
from kernel.settings import Settings
from sandbox.binary import outline
from sandbox.contract import check_imports
from sandbox.engine import EngineShape
from sandbox.errors import BadComponent, GuestInputTooLarge, GuestMemoryLimit, GuestTimeLimit, NeedsThread, SandboxError
from sandbox.guest import Guest
from sandbox.guest_process.keeper import GuestProcess
from sandbox.hostcalls import HostCalls, HostServices
from sandbox.lanes.answers import Outcome
from sandbox.live import LiveInstances, Seat
from sandbox.placement import IN_PLACE_SECONDS, stack_is_large_enough
from sandbox.policy import EffectiveLimits, LimitBook, effective_limits
from sandbox.running import GuestThreads, result_of, run_guest, seconds_left
from sandbox.schemas import check_event_schema
from sandbox.shelf import Shelves, lane_of, metering

LogSink = Callable[[GuestCall, LogLine], None]
"""Takes every line that a guest wrote, whether its call succeeded or not."""


class SandboxRuntime:
    """Implements :class:`kernel.ports.GuestRuntime`. One per process."""

    def __init__(
        self,
        settings: Settings,
        artifacts: Path,
        services: HostServices,
        log: LogSink | None = None,
        *,
        apart: bool = False,
    ) -> None:
        """``apart`` says that guests that are not known yet run in a process of their own."""
        self._settings = settings
        self._services = services
        self._log_sink = log
        self._shelves = Shelves(EngineShape.of(settings), artifacts, lane_of(settings), metering(settings))
        self._threads = GuestThreads(settings.sandbox_threads)
        self._process = GuestProcess(settings, artifacts, services) if apart else None
        self._compiling = asyncio.Lock()
        self._under_way: Counter[tuple[str, str, bool]] = Counter()
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
        if self._process is not None:
            self._process.expect()
        async with self._compiling:
            guest = await self._shelves.make(digest, component, manifest)
        # wasmtime's own list of imports is the one that counts; ours spared compiling.
        check_imports(guest.imports, manifest)

    def prepared(self, digest: str) -> bool:
        """Whether the compiled artifact is at hand."""
        return self._shelves.has(digest)

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call. Raises SandboxError's subclasses, each with what the call had used, and BulkheadFull."""
        tenant = call.context.tenant
        limits = self._limits.known(call.manifest, tenant) or await self._limits.of(call.manifest, tenant)
        shelf = self._shelves.of(limits)
        guest = shelf.get(call.digest) or await shelf.load(call.digest)
        if len(call.payload) * 4 > limits.input:
            _check_input(call, limits)
        seat = self._seat(call, guest) if call.manifest.isolation == "tenant" else None
        if guest.placement.in_place(call.hook) and (seat is None or seat.warm(call)) and self._may_run_here():
            host = HostCalls(call, limits, self._services)
            host.in_place = True
            try:
                outcome = run_guest(guest, host, seat, IN_PLACE_SECONDS)
            except NeedsThread:
                guest.placement.waits(call.hook)
            except GuestTimeLimit:
                if seconds_left(host) < IN_PLACE_SECONDS:
                    self._tell(call, host.logs)
                    raise
                guest.placement.overran()
            except BaseException:
                self._tell(call, host.logs)
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
        self._under_way[key] += 1
        try:
            if self._process is not None and guest.placement.apart():
                return await self._run_apart(self._process, guest, call, limits)
            return await self._run_in_thread(guest, call, limits, seat)
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]

    def _seat(self, call: GuestCall, guest: Guest) -> Seat | None:
        """The place of the tenant's instance, unless that is in the other process."""
        return None if self._process is not None and guest.placement.apart() else self._live.seat(call)

    async def _run_in_thread(
        self, guest: Guest, call: GuestCall, limits: EffectiveLimits, seat: Seat | None
    ) -> GuestResult:
        host = HostCalls(call, limits, self._services, asyncio.get_running_loop())
        host.pace = guest.placement.pace()
        try:
            outcome, cpu_us = await self._threads.run(guest, host, seat)
        except BaseException:
            self._tell(call, host.logs)
            raise
        # Not its wall time: on a busy machine that says more about the machine than about the guest.
        guest.placement.note(cpu_us)
        return self._result(host, outcome, cpu_us)

    async def _run_apart(
        self, process: GuestProcess, guest: Guest, call: GuestCall, limits: EffectiveLimits
    ) -> GuestResult:
        ran = await process.run(call, limits, guest.placement.pace())
        if ran.flooded:
            guest.placement.flooded()
        if ran.ended:
            guest.placement.broke()
        if isinstance(ran.answer, KeelstoneError):
            self._tell(call, ran.logs)
            raise ran.answer
        guest.placement.note(ran.answer.usage.cpu_us)
        self._tell(call, ran.answer.logs)
        return ran.answer

    def _result(self, host: HostCalls, outcome: Outcome, cpu_us: int) -> GuestResult:
        if host.logs:
            self._tell(host.call, host.logs)
        return result_of(host, outcome, cpu_us)

    def _may_run_here(self) -> bool:
        thread = threading.get_ident()
        found = self._stacks.get(thread)
        if found is None:
            found = self._stacks[thread] = self._settings.sandbox_in_place and stack_is_large_enough()
        return found

    def _tell(self, call: GuestCall, lines: Iterable[LogLine]) -> None:
        if self._log_sink is not None:
            for line in tuple(lines):
                self._log_sink(call, line)

    async def forget(self, digest: str) -> None:
        """Delete the compiled artifact. Calls under way keep theirs."""
        self._live.forget(digest)
        if self._process is not None:
            self._process.forget(digest)
        await self._shelves.forget(digest)

    async def close(self) -> None:
        """End the calls under way, the threads and the process."""
        self._threads.cancel()
        self._shelves.interrupt()
        if self._process is not None:
            await self._process.close()
        await asyncio.to_thread(self._threads.close)
        self._live.close()
        await asyncio.to_thread(self._shelves.close)


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
