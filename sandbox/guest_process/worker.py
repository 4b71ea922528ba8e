"""The guest process itself: runs calls with the platform's own gate, threads and limits, and asks it for the rest."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kernel.context import Context
from kernel.errors import BulkheadFull, GuestFailure, KeelstoneError
from kernel.manifest import PluginManifest
from kernel.ports import GuestCall
from sandbox.calltime import Errand, errand_at_hand
from sandbox.engine import EngineShape
from sandbox.errors import SandboxError
from sandbox.guest_process import wire
from sandbox.guest_process.asking import failure, services_of
from sandbox.hostcalls import HostCalls
from sandbox.live import LiveInstances
from sandbox.running import GuestThreads, result_of
from sandbox.shelf import Shelves

_log = logging.getLogger("keelstone.sandbox")


class Worker:
    """Runs the calls that come in. ``send`` takes a message for the platform."""

    def __init__(self, begin: wire.Begin, send: Callable[[wire.Upward], None]) -> None:
        shape = EngineShape(begin.slots, begin.memory_mb, begin.threads)
        self._shelves = Shelves(shape, Path(begin.artifacts), begin.lane, begin.metering)
        self._threads = GuestThreads(begin.threads)
        self._live = LiveInstances(begin.slots // 2)
        self._send = send
        self._manifests: dict[int, PluginManifest] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[int, tuple[asyncio.Future[Any], Errand[Any] | None]] = {}
        self._asks = 0

    def take(self, message: wire.Downward) -> None:
        """Do what a message says; what takes time is begun."""
        match message:
            case wire.Know(number, manifest):
                self._manifests[number] = PluginManifest.model_validate(manifest)
            case wire.Run():
                task = asyncio.get_running_loop().create_task(self._run(message))
                self._running[message.call] = task
                task.add_done_callback(lambda _task: self._running.pop(message.call, None))
            case wire.GiveUp(call):
                if (running := self._running.get(call)) is not None:
                    running.cancel()
            case wire.Taken(ask):
                _, errand = self._asked.get(ask, (None, None))
                if errand is not None:
                    errand.taken_up()
            case wire.Told(ask, value, failed):
                waiting, _ = self._asked.pop(ask, (None, None))
                if waiting is not None and not waiting.done():
                    if failed is None:
                        waiting.set_result(value)
                    else:
                        waiting.set_exception(failure(*failed))
            case wire.Forget(digest):
                self._live.forget(digest)
                self._shelves.let_go(digest)
            case wire.Ping():
                self._send(wire.Pong())
            case wire.Begin():
                raise wire.Garbled("a second beginning")

    async def _run(self, run: wire.Run) -> None:
        host: HostCalls | None = None
        try:
            manifest = self._manifests[run.manifest]
            call = GuestCall(
                plugin=manifest.id,
                version=manifest.version,
                digest=run.digest,
                manifest=manifest,
                hook=run.hook,
                payload=run.payload,
                context=Context(
                    run.tenant, deadline=float("inf") if run.seconds is None else time.monotonic() + run.seconds
                ),
                grants=frozenset(run.grants),
                settings=run.settings,
                replay=run.replay,
            )
            shelf = self._shelves.of(run.limits)
            guest = shelf.get(run.digest) or await shelf.load(run.digest)
            seat = self._live.seat(call) if manifest.isolation == "tenant" else None
            services = services_of(run, partial(self._ask, run.call))
            host = HostCalls(call, run.limits, services, asyncio.get_running_loop())
            host.pace = run.pace
            outcome, cpu_us = await self._threads.run(guest, host, seat)
            self._send(wire.Done(run.call, result_of(host, outcome, cpu_us), host.flooded))
        except asyncio.CancelledError:
            self._failed(run, host, SandboxError("The call was given up."))
        except (SandboxError, BulkheadFull) as error:
            self._failed(run, host, error)
        except Exception as error:
            _log.exception("the guest process failed a call")
            self._failed(
                run, host, SandboxError("The sandbox itself failed.", found=f"{type(error).__name__}: {error}")
            )

    def _failed(self, run: wire.Run, host: HostCalls | None, error: KeelstoneError) -> None:
        usage, recording = (error.usage, error.recording) if isinstance(error, GuestFailure) else (None, ())
        logs, flooded = ((), False) if host is None else (tuple(host.logs), host.flooded)
        self._send(wire.Failed(run.call, wire.problem_of(error), usage, recording, logs, flooded))

    async def _ask(self, call: int, wanted: wire.Wanted) -> Any:
        self._asks += 1
        ask, errand = self._asks, errand_at_hand()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[ask] = future, errand
        if errand is not None:
            errand.handed_on()
        self._send(wire.Ask(call, ask, wanted))
        try:
            return await future
        except asyncio.CancelledError:
            if self._asked.pop(ask, None) is not None:
                self._send(wire.Drop(ask))
            raise


async def _serve(reading: int, writing: int) -> None:
    """Take messages from one descriptor and answer on another until the platform is gone. Raises Garbled."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0))
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(writing, "wb", 0))
    worker: Worker | None = None
    while (body := await wire.receive(reader)) is not None:
        message = wire.DOWNWARD.validate_json(body)
        if worker is not None:
            worker.take(message)
        elif isinstance(message, wire.Begin):
            worker = Worker(message, lambda said: writer.write(wire.frame(said)))
            writer.write(wire.frame(wire.Ready()))
        else:
            raise wire.Garbled("no beginning")


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not where there is no POSIX
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Serve over the standard streams. The exit code is 0 when the platform has ended the talk."""
    from sandbox import SWITCH_SECONDS

    _limit()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s guest process: %(message)s")
    # A Ctrl-C on the terminal is the platform's to take: it ends the talk.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_SECONDS)
    # What anybody prints must not come between two frames.
    reading, writing = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    asyncio.run(_serve(reading, writing))
    sys.stderr.flush()
    # Guests may be at work, and freeing a large engine takes long: nothing here is worth an orderly end.
    os._exit(0)
