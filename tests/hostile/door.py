"""The sandbox as a platform opens it, with the real key-value store, and what is left when it is closed."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from kernel.adapters.sql import SqlDatabase
from kernel.context import Context
from kernel.manifest import PluginManifest
from kernel.outcomes import save_effects
from kernel.ports import GuestCall, GuestResult, GuestRuntime, KvStore, LogLine
from kernel.settings import Settings
from sandbox import open_runtime
from tests.hostile.corpus import GRANTS, good_guest, manifest_of

SLOTS = 8
"""The fewest instances that a pool can have: whatever leaks one a call is found by the ninth."""


class Door:
    """An open sandbox."""

    def __init__(
        self,
        runtime: GuestRuntime,
        kv: KvStore,
        logs: list[tuple[str, LogLine]],
        database: SqlDatabase | None = None,
    ) -> None:
        self.runtime, self.kv, self.logs, self._database = runtime, kv, logs, database

    async def save(self, tenant: str, plugin: str, result: GuestResult) -> None:
        """Keep a call's effects, as the caller of a hook does."""
        assert self._database is not None
        async with self._database.write(tenant) as transaction:
            await save_effects(transaction, self.kv, tenant, plugin, result.effects)

    async def prepare(self, component: bytes, manifest: PluginManifest) -> str:
        """Have a component ready; its digest."""
        digest = hashlib.sha256(component).hexdigest()
        await self.runtime.prepare(digest, component, manifest)
        return digest

    async def run(
        self,
        component: bytes,
        payload: str = "{}",
        *,
        manifest: PluginManifest | None = None,
        tenant: str = "acme",
        grants: frozenset[str] = GRANTS,
        settings: Mapping[str, Any] | None = None,
        context: Context | None = None,
    ) -> GuestResult:
        """Prepare and call."""
        manifest = manifest or manifest_of()
        return await self.runtime.call(
            GuestCall(
                plugin=manifest.id,
                version=manifest.version,
                digest=await self.prepare(component, manifest),
                manifest=manifest,
                hook="user_creating",
                payload=payload,
                context=context or Context(tenant=tenant),
                grants=grants,
                settings=settings or {},
            )
        )

    async def serves(self) -> None:
        """A well-behaved guest of another tenant is served, as if nothing had been."""
        manifest = manifest_of("globex/good", limits={"time_ms": 20_000})
        result = await self.run(good_guest(), '{"n": 1}', manifest=manifest, tenant="globex")
        assert result.output == '{"n": 1}'
        assert not result.effects
        assert not result.logs


def descriptors() -> list[str]:
    """What this process has open, without compiled components: the traceback of a test's own error keeps those."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in found if not name.endswith(".cwasm"))


def _others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def shape_of(lane: str) -> dict[str, Any]:
    """The settings for one of the ways in which guests run."""
    return {"sandbox_lane": "auto" if lane == "apart" else lane, "sandbox_guest_process": lane == "apart"}


@asynccontextmanager
async def open_door(
    home: Path,
    template: Path,
    scratch: Path,
    kv: Callable[[KvStore], KvStore] | None = None,
    find: Callable[[type[Any]], Any] | None = None,
    **changes: Any,
) -> AsyncIterator[Door]:
    """Open a sandbox whose artifacts are in ``home``, on a copy of the database ``template``
    (its store wrapped by ``kv``); asserts that nothing is left when it is closed: no thread, no task, no
    descriptor, no file."""
    threads, tasks, open_files = set(threading.enumerate()), _others(), descriptors()
    artifacts = home / "artifacts"
    path = scratch / "keelstone.db"
    shutil.copyfile(template, path)
    database = SqlDatabase(f"sqlite+aiosqlite:///{path}?synchronous=normal")
    await database.start()
    logs: list[tuple[str, LogLine]] = []
    store = database.kv if kv is None else kv(database.kv)
    shape = {"home": home, "sandbox_slots": SLOTS, "sandbox_threads": 2, "sandbox_max_time_ms": 60_000}
    runtime = open_runtime(
        Settings(**(shape | changes)),
        kv=store,
        log=lambda call, line: logs.append((call.context.tenant, line)),
        find=find,
    )
    try:
        yield Door(runtime, database.kv, logs, database)
    finally:
        await runtime.close()
        await database.close()
    gc.collect()
    # The event loop's own threads stay with it; a database's may still be on its way out.
    added = [t for t in set(threading.enumerate()) - threads if not t.name.startswith("asyncio_")]
    for thread in added:
        thread.join(10)
    assert [thread.name for thread in added if thread.is_alive()] == []
    assert _others() <= tasks
    assert len(descriptors()) <= len(open_files), descriptors()
    left = [p.name for p in artifacts.iterdir()] if artifacts.is_dir() else []
    assert [name for name in left if not name.endswith((".cwasm", ".seal")) and name != "seal.key"] == []
