"""The real sandbox with guests compiled from text; artifacts are shared by the session's tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from kernel.context import Context
from kernel.manifest import PluginManifest, manifest_from_dict
from kernel.ports import Effects, GuestCall, GuestResult, KvValue, LogLine
from kernel.settings import Settings
from sandbox import open_runtime
from sandbox.runtime import SandboxRuntime

GUESTS = Path(__file__).parents[2] / "guests"
ALL = frozenset({"log", "config", "kv", "http", "events", "secrets", "ai", "notify", "clock", "random", "services"})


def component(name: str) -> bytes:
    """The bytes of a guest of tests/guests."""
    return bytes(wasmtime.wat2wasm((GUESTS / f"{name}.wat").read_text()))


def manifest(**changes: Any) -> PluginManifest:
    """A manifest that asks for every capability; ``changes`` replace its members.

    Unless a test says otherwise its calls have a second: what is not about time must not fail for it on a busy machine.
    """
    why = "needed by the tests"
    base: dict[str, Any] = {
        "manifest": 1,
        "id": "acme/guest",
        "version": "1.0.0",
        "name": "Guest",
        "summary": "A guest of the sandbox's tests",
        "license": "Apache-2.0",
        "hooks": {"user_creating": {}},
        "capabilities": {
            "log": {"why": why},
            "config": {"why": why},
            "kv": {"why": why},
            "http": {"why": why, "hosts": ["api.example.com", "setting:hook_url"], "methods": ["GET", "POST"]},
            "events": {"why": why, "emits": ["lead.scored"]},
            "secrets": {"why": why, "names": {"token": {"why": why, "hosts": ["setting:hook_url"]}}},
            "ai": {"why": why, "models": ["fast"]},
            "notify": {"why": why, "channels": ["email"]},
            "clock": {"why": why},
            "random": {"why": why},
            "services": {"why": why, "calls": {"keelstone/users": ["find"]}},
        },
        "events": {
            "declares": [
                {
                    "type": "lead.scored",
                    "summary": "A lead has a score",
                    "data": {
                        "type": "object",
                        "properties": {"score": {"type": "integer", "minimum": 0}},
                        "required": ["score"],
                        "additionalProperties": False,
                    },
                },
                {"type": "lead.lost", "summary": "A lead was lost"},
            ]
        },
    }
    return manifest_from_dict(base | changes | {"limits": {"time_ms": 1_000} | changes.get("limits", {})})


class MemoryKv:
    """A key-value store in memory, as kernel.ports.KvStore reads."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, str], dict[str, KvValue]] = {}

    def space(self, tenant: str, plugin: str) -> dict[str, KvValue]:
        return self.data.setdefault((tenant, plugin), {})

    async def get(self, tenant: str, plugin: str, key: str) -> KvValue | None:
        return self.space(tenant, plugin).get(key)

    async def get_many(self, tenant: str, plugin: str, keys: Sequence[str]) -> dict[str, KvValue]:
        space = self.space(tenant, plugin)
        return {key: space[key] for key in keys if key in space}

    async def list_keys(self, tenant: str, plugin: str, prefix: str, limit: int) -> list[str]:
        return sorted(k for k in self.space(tenant, plugin) if k.startswith(prefix))[:limit]

    async def usage(self, tenant: str, plugin: str) -> tuple[int, int]:
        space = self.space(tenant, plugin)
        return len(space), sum(len(k.encode()) + len(v.value.encode()) for k, v in space.items())

    async def apply(self, transaction: Any, tenant: str, plugin: str, effects: Effects) -> None:
        space = self.space(tenant, plugin)
        for key, value in effects.kv_writes.items():
            if value is None:
                space.pop(key, None)
            else:
                before = space.get(key)
                space[key] = KvValue(value, before.version + 1 if before else 1)

    async def purge(self, transaction: Any, plugin: str, tenant: str | None = None) -> int:
        raise AssertionError("the sandbox purges nothing")


class Sandbox:
    """A runtime with one guest prepared on demand, and what it wrote."""

    def __init__(self, runtime: SandboxRuntime, kv: MemoryKv, logs: list[LogLine]) -> None:
        self.runtime, self.kv, self.logs = runtime, kv, logs

    async def run(
        self,
        guest: str | bytes,
        payload: str = "{}",
        *,
        tenant: str = "acme",
        grants: frozenset[str] = ALL,
        settings: dict[str, Any] | None = None,
        seconds: float | None = None,
        manifest: PluginManifest = manifest(),
    ) -> GuestResult:
        data = component(guest) if isinstance(guest, str) else guest
        digest = hashlib.sha256(data).hexdigest()
        await self.runtime.prepare(digest, data, manifest)
        context = Context(tenant=tenant)
        if seconds is not None:
            context = context.within(seconds)
        return await self.runtime.call(
            GuestCall(
                plugin=manifest.id,
                version=manifest.version,
                digest=digest,
                manifest=manifest,
                hook="user_creating",
                payload=payload,
                context=context,
                grants=grants,
                settings=settings or {},
            )
        )


Opener = Callable[..., Any]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keelstone")


LANES = ("fast", "package", "apart")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Everything holds over both ways into wasmtime, and in a process of its own, where nobody can look inside."""
    if "lane" in metafunc.fixturenames:
        chosen = metafunc.definition.get_closest_marker("lanes")
        metafunc.parametrize("lane", LANES if chosen is None else chosen.args)


@pytest.fixture
def opened(home: Path, lane: str) -> Opener:
    """Opens a sandbox with the given settings: ``async with opened(sandbox_threads=2) as box``.

    ``ports`` are the services that plugins have published, by port.
    """
    chosen = {"sandbox_lane": "package" if lane == "package" else "auto", "sandbox_guest_process": lane == "apart"}

    @asynccontextmanager
    async def open_box(ports: dict[type[Any], Any] | None = None, **changes: Any) -> AsyncIterator[Sandbox]:
        kv, logs = MemoryKv(), []
        settings = Settings(**({"home": home, "sandbox_slots": 32, "sandbox_threads": 4} | chosen | changes))
        find = (ports or {}).get
        runtime = open_runtime(settings, kv=kv, log=lambda _call, line: logs.append(line), find=find)
        assert isinstance(runtime, SandboxRuntime)
        try:
            yield Sandbox(runtime, kv, logs)
        finally:
            await runtime.close()

    return open_box


@pytest.fixture
async def box(opened: Opener) -> AsyncIterator[Sandbox]:
    async with opened() as sandbox:
        yield sandbox


@pytest.fixture
def make_manifest() -> Callable[..., PluginManifest]:
    return manifest


@pytest.fixture
def bytes_of() -> Callable[[str], bytes]:
    return component


Run = Callable[..., Awaitable[GuestResult]]
