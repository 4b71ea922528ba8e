"""The limits that hold for one call: what the manifest asks for, capped by the operator."""

from __future__ import annotations

from dataclasses import dataclass

from kernel.manifest import Limits
from kernel.settings import Settings

WASM_STACK_KB = 1_024
"""Stack of every guest, in KiB: a property of the engine, so the same for all. The manifest's
``stack_kb`` is a statement of need that can never be above it."""

ADDRESSABLE_MB = 4_096
"""What a 32-bit guest can address, in MiB; a larger setting has no meaning."""

MAX_KEY_CHARS = 256
MAX_LOG_CHARS = 4_096
MAX_LISTED_KEYS = 1_000
HOST_CALL_GRACE = 1_000
"""Host calls beyond the limit that are still answered ``limit`` before the call is ended."""
WASI_CALLS = 100_000
"""Calls of clocks, random and standard output in one call, after which it is ended."""


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """Bounds of one call. Times in milliseconds, sizes in bytes."""

    time_ms: int
    memory: int
    input: int
    output: int
    host_calls: int
    http: int
    kv_bytes: int
    kv_keys: int
    events: int
    log_lines: int
    concurrency: int


def effective_limits(asked: Limits, settings: Settings) -> EffectiveLimits:
    """``asked`` capped by ``settings``: an operator can only lower what a manifest says."""
    return EffectiveLimits(
        time_ms=min(asked.time_ms, settings.sandbox_max_time_ms),
        memory=min(asked.memory_mb, max_memory_mb(settings)) << 20,
        input=asked.input_kb << 10,
        output=asked.output_kb << 10,
        host_calls=asked.host_calls,
        http=asked.http_kb << 10,
        kv_bytes=asked.kv_kb << 10,
        kv_keys=asked.kv_keys,
        events=asked.events,
        log_lines=asked.log_lines,
        concurrency=asked.concurrency,
    )


def max_memory_mb(settings: Settings) -> int:
    """The operator's cap on a guest's memory, in MiB."""
    return min(settings.sandbox_max_memory_mb, ADDRESSABLE_MB)
