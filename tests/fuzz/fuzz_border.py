"""The border between guest and host: every host call with values of the right shape and any content.

Values go through the C structures that wasmtime would hand over, so reading and writing them is tried
too. The store is empty, names have private addresses only, and nothing leaves the process.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from kernel.context import Context
from kernel.plain import flaw_in
from kernel.ports import Effects, GuestCall, KvValue, Transaction
from kernel.settings import Settings
from sandbox import abi
from sandbox.contract import KEELSTONE
from sandbox.egress import Egress
from sandbox.errors import SandboxError
from sandbox.hostcalls import HostCalls, HostServices
from sandbox.policy import EffectiveLimits, effective_limits
from tests.fuzz.feed import Feed, told
from tests.hostile.corpus import manifest_of

FUNCTIONS = [(interface, name) for interface, table in KEELSTONE.items() for name in table]
_WHY = "needed by the tests"
_WORDS = (
    "", "k", "lead.scored", '{"score": 1}', "https://api.example.com/", "http://10.0.0.1/", "GET", "POST", "x-guest",
    "authorization", "{{secret:crm:", "../", "\0", "\u202e", "1e999", "[" * 40 + "]" * 40, '{"a": "\\u0000"}',
)  # fmt: skip


class EmptyStore:
    """A key-value store with nothing in it."""

    async def get(self, tenant: str, plugin: str, key: str) -> KvValue | None:
        return None

    async def get_many(self, tenant: str, plugin: str, keys: Sequence[str]) -> dict[str, KvValue]:
        return {}

    async def list_keys(self, tenant: str, plugin: str, prefix: str, limit: int) -> list[str]:
        return []

    async def usage(self, tenant: str, plugin: str) -> tuple[int, int]:
        return 0, 0

    async def apply(self, transaction: Transaction, tenant: str, plugin: str, effects: Effects) -> None:
        raise AssertionError("a host call saves nothing")

    async def purge(self, transaction: Transaction, plugin: str, tenant: str | None = None) -> int:
        raise AssertionError("a host call deletes nothing")


async def _private(_host: str, _port: int) -> list[str]:
    return ["10.0.0.1"]


@cache
def _world() -> tuple[asyncio.AbstractEventLoop, HostServices, GuestCall, EffectiveLimits]:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="border", daemon=True).start()
    manifest = manifest_of(
        capabilities={
            "log": {"why": _WHY},
            "config": {"why": _WHY},
            "kv": {"why": _WHY},
            "http": {"why": _WHY, "hosts": ["api.example.com", "*.example.org", "setting:hook"], "methods": ["GET"]},
            "events": {"why": _WHY, "emits": ["lead.scored"]},
            "clock": {"why": _WHY},
            "random": {"why": _WHY},
        }
    )
    call = GuestCall(
        manifest.id, manifest.version, "0" * 64, manifest, "user_creating", "{}", Context(tenant="acme"),
        frozenset(manifest.capabilities.asked()), {"k": {"nested": ["\u20ac", 1.5, None]}, "hook": "https://x.example/"},
    )  # fmt: skip
    services = HostServices(kv=EmptyStore(), egress=Egress(resolver=_private), now=lambda: 10**18, monotonic=lambda: 7)
    return loop, services, call, replace(effective_limits(manifest.limits, Settings()), kv_bytes=4_096)


def value_of(feed: Feed, shape: abi.Shape) -> Any:
    """Any value of the shape."""
    if isinstance(shape, tuple) and shape[0] == "clipped":
        return value_of(feed, "string")
    if isinstance(shape, str):
        if shape == "string":
            return feed.choice(_WORDS) if feed.byte() & 1 else feed.text()
        return bool(feed.byte() & 1) if shape == "bool" else feed.number(int(shape[1:]) // 8)
    tag = shape[0]
    if tag == "list":
        return [value_of(feed, shape[1]) for _ in range(feed.byte() % 9)]
    if tag == "option":
        return value_of(feed, shape[1]) if feed.byte() & 1 else None
    if tag == "record":
        return {name: value_of(feed, inner) for name, inner in shape[1:]}
    assert tag == "enum", shape
    return feed.choice(shape[1:])


def carried(shape: abi.Shape, content: Any) -> Any:
    """``content`` after it has been a C value."""
    value = abi.Value()
    abi.write(value, shape, content)
    try:
        return abi.read(value, shape)
    finally:
        abi.ffi.wasmtime_component_val_delete(ctypes.byref(value))


def _writable(shape: abi.Shape) -> bool:
    return isinstance(shape, str) or (shape[0] not in ("enum", "clipped") and all(_writable(s) for s in _inner(shape)))


def _inner(shape: abi.Shape) -> list[abi.Shape]:
    if shape[0] == "record":
        return [inner for _, inner in shape[1:]]
    return [inner for inner in shape[1:] if inner is not None]


def TestOneInput(data: bytes) -> None:
    """A series of host calls of one guest call."""
    loop, services, call, limits = _world()
    feed = Feed(data)
    host = HostCalls(call, limits, services, loop)
    host.deadline = time.monotonic() + 60
    for _ in range(8):
        interface, name = feed.choice(FUNCTIONS)
        signature = KEELSTONE[interface][name]
        arguments = [value_of(feed, shape) for shape in signature.parameters]
        for shape, content in zip(signature.parameters, arguments, strict=True):
            # Enums only ever come in, so they are not written.
            assert not _writable(shape) or carried(shape, content) == content
        try:
            answer = host.host(interface, name)(*arguments)
        except SandboxError as error:
            told(error)
            break
        if signature.result is not None:
            assert carried(signature.result, answer) == answer
        if not feed:
            break
    _check(host)


def _check(host: HostCalls) -> None:
    effects, limits = host.effects, host.limits
    for event in effects.events:
        assert flaw_in(event.data) is None, f"what cannot be stored everywhere was let in: {flaw_in(event.data)}"
    for key, value in effects.kv_writes.items():
        assert key.isprintable()
        assert flaw_in(value) is None, f"what cannot be stored everywhere was let in: {flaw_in(value)}"
    written = sum(len(k.encode()) + len(v.encode()) for k, v in effects.kv_writes.items() if v is not None)
    assert written <= limits.kv_bytes
    assert len(effects.events) <= limits.events
    assert len(host.logs) <= limits.log_lines + 1
    usage = host.usage(1, 1, 0)
    assert usage.host_calls <= 8
    assert host.recording is not None
