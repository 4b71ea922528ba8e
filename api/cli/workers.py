"""``keelstone serve --workers``: several whole platforms on one port, one for each core.

Python runs one thread at a time in a process, so short guests and requests scale over processes. The
parent binds the port and does no other work: it starts the workers, which accept from the same socket,
starts one that died again, and stops all. The first worker migrates and seeds before the others start.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass

from api.cli.server import Worker, listen, run_server
from kernel.errors import ConfigurationError
from kernel.resilience import Backoff
from kernel.settings import Settings

logger = logging.getLogger("keelstone.workers")
STOP_SECONDS = 45.0
HEALTHY_SECONDS = 60.0
"""A worker that has lived so long is started again at once; one that has not, after a pause."""


def check_shared(settings: Settings) -> None:
    """Raise ConfigurationError unless everything that workers share lies outside of them."""
    missing = [
        name
        for name, found in (
            ("KEELSTONE_DATABASE_URL (PostgreSQL)", (settings.database_url or "").startswith("postgres")),
            ("KEELSTONE_BUS_URL", settings.bus_url),
            ("KEELSTONE_MARKETPLACE_URL", settings.marketplace_url),
        )
        if not found
    ]
    if missing:
        raise ConfigurationError(
            "Several workers need a database, a bus and a marketplace that they share.",
            expected="KEELSTONE_DATABASE_URL (PostgreSQL), KEELSTONE_BUS_URL and KEELSTONE_MARKETPLACE_URL",
            found=f"not set: {', '.join(missing)}",
            fix="Set them, or serve with one worker. `keelstone marketplace serve` runs the marketplace by itself.",
        )


@dataclass(slots=True)
class _Running:
    process: asyncio.subprocess.Process
    began: float


class Supervisor:
    """The parent of ``count`` workers on one listening socket."""

    def __init__(self, settings: Settings, count: int, listener: socket.socket, *, json: bool) -> None:
        self._settings = settings
        self._count = count
        self._listener = listener
        self._json = json
        self._workers: dict[int, _Running] = {}
        self._stopping = asyncio.Event()
        self._backoff = Backoff(first=0.5, most=30.0)
        self._noted = settings.home / "server.json"

    async def run(self) -> int:
        """Start the workers and keep them until a signal; the exit code."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self._stopping.set)
        keepers: list[asyncio.Task[None]] = []
        try:
            for number in range(self._count):
                if not await self._start(number):
                    return 1
            keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
            await self._stopping.wait()
            return 0
        finally:
            self._stopping.set()
            self._noted.unlink(missing_ok=True)
            await self._stop()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _start(self, number: int) -> bool:
        """Start one worker; whether it became ready."""
        reading, writing = os.pipe()
        part = "first" if number == 0 else "last" if number == self._count - 1 else "more"
        arguments = [str(self._listener.fileno()), str(writing), part, "json" if self._json else "text"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api.cli.workers", *arguments,
            pass_fds=(self._listener.fileno(), writing),
            env={**os.environ, **_environment(self._settings)},
        )  # fmt: skip
        os.close(writing)
        again = number in self._workers
        self._workers[number] = _Running(process, time.monotonic())
        if number or again:
            # The first one serves already, and the last one welcomes: commands must find the way by then.
            self._note()
        with os.fdopen(reading, "rb") as pipe:
            # The pipe closes without a word if the worker ends before it is ready.
            ready = await asyncio.to_thread(pipe.read)
        if not ready:
            await process.wait()
        return bool(ready)

    def _note(self) -> None:
        host, port = self._listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        pids = [self._workers[number].process.pid for number in sorted(self._workers)]
        self._noted.write_text(jsonlib.dumps({"url": url, "pid": os.getpid(), "workers": pids}))

    async def _keep(self, number: int) -> None:
        failures = 0
        while True:
            running = self._workers[number]
            code = await running.process.wait()
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - running.began > HEALTHY_SECONDS else failures + 1
            logger.error("worker %s (pid %s) ended with %s; it is started again", number, running.process.pid, code)
            await asyncio.sleep(self._backoff.pause(failures) if failures else 0)
            await self._start(number)

    async def _stop(self) -> None:
        waiting = []
        for running in self._workers.values():
            if running.process.returncode is None:
                running.process.send_signal(signal.SIGTERM)
                waiting.append(running.process)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*(process.wait() for process in waiting))
        except TimeoutError:
            for process in waiting:
                if process.returncode is None:
                    logger.error("worker pid %s did not stop within %.0f s and is killed", process.pid, STOP_SECONDS)
                    process.kill()


def _environment(settings: Settings) -> dict[str, str]:
    """What the command line said, for the workers."""
    return {"KEELSTONE_HOST": settings.host, "KEELSTONE_SEED": str(settings.seed), "KEELSTONE_HOME": str(settings.home)}


async def run_workers(settings: Settings, count: int, json: bool) -> int:
    """Serve with ``count`` workers until a signal; the exit code. Raises ConfigurationError."""
    check_shared(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    listener = listen(settings)
    try:
        return await Supervisor(settings, count, listener, json=json).run()
    finally:
        listener.close()


def main() -> int:
    """One worker: ``python -m api.cli.workers LISTENER-FD READY-FD first|more|last json|text``."""
    listener, ready, part, form = sys.argv[1:5]
    worker = Worker(socket.socket(fileno=int(listener)), int(ready), seeds=part == "first", welcomes=part == "last")
    return asyncio.run(run_server(Settings(), form == "json", worker))


if __name__ == "__main__":
    sys.exit(main())
