"""A guest process that runs: what is said to it and what comes from it, which is held against the calls in it."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass, field

from kernel.errors import BulkheadFull
from kernel.manifest import PluginManifest
from kernel.ports import GuestCall, GuestResult, LogLine
from sandbox.calltime import MOST_GIVEN
from sandbox.children import HERE, bare_environment
from sandbox.errors import GuestCancelled, GuestProcessEnded, SandboxError
from sandbox.guest_process import wire
from sandbox.guest_process.answering import Answers, granted, offers, schemas
from sandbox.hostcalls import HostServices, Refused
from sandbox.policy import EffectiveLimits, Pace

END_SECONDS = 5.0
SILENT_SECONDS = 5.0
"""A call that has not ended so long after its time, and all that it can be given back, may still wait for a thread. It
may be that the process has stopped, too, with everything in it: it is asked, and has as long again to answer."""

_log = logging.getLogger("keelstone.sandbox")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a call came to. ``ended`` says that the process ended with the call in it."""

    answer: GuestResult | SandboxError | BulkheadFull
    logs: tuple[LogLine, ...] = ()
    flooded: bool = False
    ended: bool = False


@dataclass(slots=True)
class _UnderWay:
    call: GuestCall
    limits: EffectiveLimits
    answers: Answers
    future: asyncio.Future[Ran]
    watch: asyncio.TimerHandle | None = None
    asks: dict[int, asyncio.Task[None]] = field(default_factory=dict)


class Link:
    """A process that runs, and the calls in it."""

    def __init__(self, process: asyncio.subprocess.Process, services: HostServices) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._services = process, services
        self._writer, self._reader = process.stdin, process.stdout
        self._under_way: dict[int, _UnderWay] = {}
        # A manifest is known by its identity, which is why it must be kept alive here.
        self._known: dict[int, PluginManifest] = {}
        self._reading: asyncio.Task[None] | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._doubted: asyncio.TimerHandle | None = None
        self.ended = False

    @classmethod
    async def open(cls, begin: wire.Begin, services: HostServices) -> Link:
        """Start the process. Raises OSError and Garbled."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sandbox.guest_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=bare_environment(),
            cwd=HERE,
            limit=1 << 20,
        )
        link = cls(process, services)
        try:
            link.send(begin)
            body = await wire.receive(link._reader)
            if body is None or not isinstance(wire.upward(body), wire.Ready):
                raise wire.Garbled("it ended before it was ready")
        except BaseException:
            link.let_go()
            await asyncio.shield(link._reap())
            raise
        link._reading = asyncio.get_running_loop().create_task(link._read())
        return link

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._under_way)

    def send(self, message: wire.Downward) -> None:
        """Hand a message over."""
        self._writer.write(wire.frame(message))

    async def run(self, number: int, call: GuestCall, limits: EffectiveLimits, pace: Pace) -> Ran:
        """Run one call; ``number`` names it."""
        loop = asyncio.get_running_loop()
        if self.ended:
            return Ran(_gone(call, "it ended before the call was in it"))
        if id(call.manifest) not in self._known:
            self._known[id(call.manifest)] = call.manifest
            self.send(wire.Know(id(call.manifest), call.manifest.model_dump(mode="json", exclude_unset=True)))
        remaining = call.context.remaining()
        run = wire.Run(
            number,
            id(call.manifest),
            call.digest,
            call.hook,
            call.payload,
            call.context.tenant,
            None if remaining == float("inf") else remaining,
            tuple(call.grants),
            dict(call.settings),
            call.replay,
            limits,
            pace,
            offers(call, self._services),
            schemas(call, self._services),
        )
        try:
            self.send(run)
        except TypeError as error:
            raise SandboxError(
                "The call cannot be told to the process that the plugin would run in.",
                plugin=call.plugin,
                hook=call.hook,
                tenant=call.context.tenant,
                expected="payload and settings that JSON can say",
                found=str(error),
                fix="Look for text that is no Unicode, or numbers of more than 64 bits.",
            ) from error
        entry = _UnderWay(call, limits, Answers(call, limits, self._services), loop.create_future())
        self._under_way[number] = entry
        self._watch(entry)
        try:
            return await entry.future
        except asyncio.CancelledError:
            if number in self._under_way and not self.ended:
                self.send(wire.GiveUp(number))
            raise

    # ------------------------------------------------------------------ what comes

    async def _read(self) -> None:
        why = "it ended"
        try:
            while (body := await wire.receive(self._reader)) is not None:
                self._take(wire.upward(body))
        except wire.Garbled as error:
            why = f"what it said was {error}"
            self._kill()
        except Exception:
            _log.exception("reading from the guest process failed")
            why = "reading from it failed"
            self._kill()
        finally:
            self._over(why)

    def _take(self, message: wire.Upward) -> None:
        match message:
            case wire.Done(call, result, flooded):
                if (entry := self._under_way.get(call)) is not None:
                    check_result(result, entry)
                    self._finished(call)
                    _settle(entry, Ran(result, flooded=flooded))
            case wire.Failed(call, problem, usage, recording, logs, flooded):
                entry = self._finished(call)
                if entry is not None:
                    asked = entry.call
                    error = wire.error_of(problem, asked.plugin, asked.hook, asked.context.tenant)
                    if isinstance(error, SandboxError):
                        error.usage, error.recording = usage, recording
                    _settle(entry, Ran(error, logs, flooded))
            case wire.Ask(call, ask, wanted):
                found = self._under_way.get(call)
                if found is None:
                    # The call is over: nobody waits for it there either.
                    return
                task = asyncio.get_running_loop().create_task(self._answer(found, ask, wanted))
                found.asks[ask] = task
                task.add_done_callback(lambda _task: found.asks.pop(ask, None))
            case wire.Drop(ask):
                for each in self._under_way.values():
                    if (asked_for := each.asks.get(ask)) is not None:
                        asked_for.cancel()
            case wire.Pong():
                self._trust()
            case wire.Ready():
                raise wire.Garbled("ready a second time")

    async def _answer(self, entry: _UnderWay, ask: int, wanted: wire.Wanted) -> None:
        if not self.ended:
            self.send(wire.Taken(ask))
        try:
            told = wire.Told(ask, await entry.answers.to(wanted))
        except Refused as refused:
            told = wire.Told(ask, failed=(refused.code, refused.message))
        except Exception as error:
            _log.warning("host call failed: %s for %s: %r", wanted.what, entry.call.plugin, error)
            told = wire.Told(ask, failed=("unavailable", "it failed"))
        if not self.ended:
            self.send(told)

    def _finished(self, number: int) -> _UnderWay | None:
        entry = self._under_way.pop(number, None)
        if entry is not None:
            if entry.watch is not None:
                entry.watch.cancel()
            for task in tuple(entry.asks.values()):
                task.cancel()
        return entry

    # ------------------------------------------------------------------ the end

    def _watch(self, entry: _UnderWay) -> None:
        seconds = entry.limits.time_ms / 1_000 + MOST_GIVEN + SILENT_SECONDS
        entry.watch = asyncio.get_running_loop().call_later(seconds, self._doubt, entry)

    def _doubt(self, entry: _UnderWay) -> None:
        self._watch(entry)
        if self._doubted is None:
            self._doubted = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._stopped)
            self.send(wire.Ping())

    def _stopped(self) -> None:
        _log.error("the guest process does not answer: it is ended")
        self._kill()

    def _trust(self) -> None:
        if self._doubted is not None:
            self._doubted.cancel()
            self._doubted = None

    async def _reap(self) -> None:
        # Asked to end, or at its end: killing it at once would take its exit code from whoever waits for that.
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()

    def _over(self, why: str) -> None:
        self.ended = True
        self._trust()
        self._writer.close()
        self._reaping = asyncio.get_running_loop().create_task(self._reap())
        if self._under_way:
            inside = ", ".join(sorted({entry.call.plugin for entry in self._under_way.values()}))
            _log.error("the guest process is gone (%s), and with it the calls of %s", why, inside)
        for number in tuple(self._under_way):
            entry = self._finished(number)
            assert entry is not None
            _settle(entry, Ran(_gone(entry.call, why), ended=True))

    def _kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def let_go(self) -> None:
        """End a process that nothing runs in: it leaves by itself when nobody can speak to it any more."""
        self._writer.close()

    async def close(self) -> None:
        """Give up the calls under way, end the process and wait for it."""
        for number in tuple(self._under_way):
            if (entry := self._finished(number)) is not None:
                _settle(entry, Ran(shutting_down(entry.call)))
        self.let_go()
        await self._reap()
        if self._reading is not None:
            await self._reading
        if self._reaping is not None:
            await self._reaping


def shutting_down(call: GuestCall | None = None) -> GuestCancelled:
    """What a call comes to that the platform's end leaves no time for."""
    return GuestCancelled(
        "The call was given up: the platform is shutting down.",
        plugin=call.plugin if call else None,
        hook=call.hook if call else None,
        tenant=call.context.tenant if call else None,
    )


def _gone(call: GuestCall, why: str) -> GuestProcessEnded:
    return GuestProcessEnded(
        "The process that the plugin ran in is gone.",
        plugin=call.plugin,
        hook=call.hook,
        tenant=call.context.tenant,
        expected="an answer",
        found=why,
        fix="Try again: another is started. If it happens again with this plugin alone, it is the cause.",
    )


def _settle(entry: _UnderWay, ran: Ran) -> None:
    if not entry.future.done():
        entry.future.set_result(ran)


def check_result(result: GuestResult, entry: _UnderWay) -> None:
    """Hold a result once more against what the call may do. Raises Garbled: only a process gone wrong comes to that."""
    call, effects = entry.call, result.effects
    if len(result.output.encode()) > entry.limits.output:
        raise wire.Garbled("an answer larger than the call may give")
    if (effects.kv_writes or effects.kv_reads or effects.kv_ttl) and not granted(call, "kv"):
        raise wire.Garbled("state of a call that may have none")
    events = call.manifest.capabilities.events
    may = events.emits if events is not None and granted(call, "events") else ()
    if any(event.type not in may for event in effects.events):
        raise wire.Garbled("an event that the call may not emit")
    if call.replay is not None:
        # What it leaves was bounded when it was recorded.
        return
    written = sum(len(k.encode()) + len(v.encode()) for k, v in effects.kv_writes.items() if v is not None)
    if len(effects.events) > entry.limits.events or written > entry.limits.kv_bytes:
        raise wire.Garbled("more events or state than the call may leave")
