"""``sandbox.threads``, ``sandbox.processes`` and ``sandbox.density``: what two cores and one process hold.

Threads: a compute-heavy guest in one and in two threads of one process. Processes: whole dispatches of a
sandboxed filter in one and in two worker processes, as ``keelstone serve --workers`` runs them. Density:
live instances in one process of its own, with the resident memory of each.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import absolute, alternate, row

COMPUTE_CALLS = 12
PROCESS_SECONDS = 2.0
INSTANCES = 20_000


def _threads() -> dict[str, Any]:
    from sandbox.pool import THREAD_STACK
    from tests.benchmarks.guests import Bare

    bare = Bare("compute", limits={"time_ms": 5_000})

    def work() -> None:
        for _ in range(COMPUTE_CALLS):
            bare.fresh("{}", 5.0)

    def per_second(count: int) -> float:
        before = threading.stack_size(THREAD_STACK)
        threads = [threading.Thread(target=work) for _ in range(count)]
        threading.stack_size(before)
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count * COMPUTE_CALLS / (time.perf_counter() - began)

    two, one = alternate(lambda: per_second(2), lambda: per_second(1))
    bare.close()
    return row(
        "sandbox.threads", ours=two, baseline=one, unit="calls/s", target=">= 1.8x one thread", met=lambda r: r >= 1.8
    )


async def _dispatches(home: Path, seconds: float, ready: Any, go: Any) -> int:
    from kernel.activation import Activations
    from kernel.context import Context
    from kernel.guests import Guests
    from kernel.hooks import Dispatcher
    from kernel.payloads import UserDraft
    from kernel.ports import ActivationRecord, GuestRelease
    from kernel.settings import Settings
    from sandbox import open_runtime
    from tests.benchmarks.guests import component, manifest

    runtime = open_runtime(Settings(home=home))
    asked, data = manifest("wrap"), component("wrap")
    digest = hashlib.sha256(data).hexdigest()
    await runtime.prepare(digest, data, asked)
    guests, activations = Guests(runtime), Activations()
    guests.add(GuestRelease(asked, digest))
    activations.load([ActivationRecord("acme", asked.id, "1.0.0")])
    hooks = Dispatcher(activations, guests)
    context, draft = Context("acme"), UserDraft(email="ada@example.com", name="Ada")
    for _ in range(200):
        await hooks.filter("user_creating", draft, context)
    ready.release()
    go.wait()
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        await hooks.filter("user_creating", draft, context)
        count += 1
    await runtime.close()
    return count


def _worker(home: str, seconds: float, ready: Any, go: Any, counts: Any) -> None:
    counts.put(asyncio.run(_dispatches(Path(home), seconds, ready, go)))


def _processes() -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as home:

        def per_second(count: int) -> float:
            ready, go, counts = context.Semaphore(0), context.Event(), context.Queue()
            workers = [
                context.Process(target=_worker, args=(home, PROCESS_SECONDS, ready, go, counts)) for _ in range(count)
            ]
            for worker in workers:
                worker.start()
            for _ in workers:
                ready.acquire()
            go.set()
            done = sum(counts.get() for _ in workers)
            for worker in workers:
                worker.join()
            return done / PROCESS_SECONDS

        two, one = alternate(lambda: per_second(2), lambda: per_second(1), rounds=5)
    return row(
        "sandbox.processes", ours=two, baseline=one, unit="hook calls/s", target=">= 1.8x one worker",
        met=lambda r: r >= 1.8,
    )  # fmt: skip


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _fill(found: Any) -> None:
    from kernel.settings import Settings
    from tests.benchmarks.guests import Bare

    bare = Bare("echo_live", Settings(sandbox_slots=INSTANCES))
    held = [bare.guest.open(bare.host(), 1.0)]
    held[0].call("user_creating", "{}", bare.host(), 1.0)
    before = _resident()
    while len(held) < INSTANCES:
        instance = bare.guest.open(bare.host(), 1.0)
        instance.call("user_creating", "{}", bare.host(), 1.0)
        held.append(instance)
    each = (_resident() - before) / (len(held) - 1)
    # All of them still answer, each from its own memory.
    answered = sum(i.call("user_creating", '{"n":1}', bare.host(), 1.0).output == '{"n":1}' for i in held)
    found.put((answered, each))
    found.close()
    found.join_thread()
    os._exit(0)


def _density() -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    process = context.Process(target=_fill, args=(found,))
    process.start()
    alive, each = found.get(timeout=300)
    process.join()
    return absolute(
        "sandbox.density", values=[float(alive)], unit="live instances", target=">= 20,000", met=lambda v: v >= 20_000
    ) | {"rss_kib_each": round(each / 1024, 2)}


def rows() -> list[dict[str, Any]]:
    """The three rows; density says the resident KiB of each instance."""
    return [_threads(), _processes(), _density()]


if __name__ == "__main__":
    for found in rows():
        print(found)
