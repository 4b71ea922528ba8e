"""The one WebAssembly engine of a process: pooled, copy-on-write, interruptible.

The pooling allocator is missing from ``wasmtime.Config``, so it is set through the C API's symbols
in ``wasmtime._ffi``, which the package generates from its own headers. wasmtime answers a
contradictory configuration by aborting the process, so everything here is derived from three
checked numbers and nothing else can be configured.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version

from wasmtime import Config, Engine
from wasmtime import _ffi as ffi

from kernel.errors import ConfigurationError
from kernel.settings import Settings
from sandbox.policy import WASM_STACK_KB, EffectiveLimits, max_memory_mb

WASMTIME = version("wasmtime")
TICK_MS = 2
"""Length of an epoch: deadlines are this exact, and a tick costs a few microseconds."""

_RESERVATION = 4 << 30
_GUARD = 32 << 20
_KEEP_RESIDENT = 64 << 10
_IDLE_SECONDS = 1.0
_TICK = TICK_MS / 1_000
_LOOSE = 0.01
"""Seconds between two looks at the clock while every call under way is a short one in place. Each look asks
for the GIL beside a loop that hardly ever lets it go: every 2 ms, that took half of the loop's time."""
_LONGEST = 120_000 // TICK_MS
"""Epochs after which every call is over, whatever its limits."""

# Bounds of one component: a CPython guest has about 10 core instances and 5 tables.
# One memory, because a store's limit counts for each memory by itself.
CORE_INSTANCES = 48
MEMORIES = 1
TABLES = 24
TABLE_ELEMENTS = 65_536
MOST_FUEL = 1 << 62
"""Fuel that no call uses up in its time."""
_INSTANCE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class EngineShape:
    """What an operator decides of the engine: instances alive at once, MiB each, calls at once, and
    whether it counts fuel."""

    slots: int
    memory_mb: int
    threads: int
    fuel: bool = False

    @classmethod
    def of(cls, settings: Settings, *, fuel: bool = False) -> EngineShape:
        """The shape that the settings ask for."""
        return cls(settings.sandbox_slots, max_memory_mb(settings), settings.sandbox_threads, fuel)


def fingerprint(fuel: bool = False) -> str:
    """Sixteen hexadecimal digits that are equal where a compiled artifact may be shared."""
    facts = (
        WASMTIME, sys.platform, platform.machine(), _RESERVATION, _GUARD, WASM_STACK_KB, "epochs", "cow", "no-gc",
        "artifact-2",
        *(("fuel",) if fuel else ()),
    )  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def store_bounds(limits: EffectiveLimits) -> tuple[int, int, int, int, int]:
    """What ``wasmtime_store_limiter`` takes: bytes of a memory, elements of a table, core instances,
    tables and memories. A component has one memory, so the bound of one is the bound of all."""
    return (
        limits.memory,
        min(limits.table_elements, TABLE_ELEMENTS),
        min(limits.instances, CORE_INSTANCES),
        min(limits.tables, TABLES),
        MEMORIES,
    )


def fuel_of(limits: EffectiveLimits) -> int:
    """The fuel that a call begins with, where it is counted."""
    return MOST_FUEL if limits.fuel is None else limits.fuel


def _config(shape: EngineShape) -> Config:
    config = Config()
    config.epoch_interruption = True
    config.consume_fuel = shape.fuel
    config.memory_reservation = _RESERVATION
    config.memory_guard_size = _GUARD
    config.memory_init_cow = True
    config.max_wasm_stack = WASM_STACK_KB << 10
    config.wasm_threads = False
    config.wasm_memory64 = False
    # Its heap would be memory beside the one that limits.memory_mb is about; no language of ours needs it.
    config.gc_support = False
    config.wasm_component_model = True
    pool = ffi.wasmtime_pooling_allocation_config_new()
    # Every call that the worker threads can have under way must find room, whatever its component:
    # an exhausted pool would fail a call that did nothing wrong.
    memories = max(shape.slots, shape.threads * MEMORIES)
    for name, value in (
        ("total_component_instances", max(shape.slots, shape.threads)),
        ("total_core_instances", max(shape.slots, shape.threads) * CORE_INSTANCES),
        ("total_memories", memories),
        ("total_tables", max(shape.slots, shape.threads * TABLES)),
        ("max_core_instances_per_component", CORE_INSTANCES),
        ("max_memories_per_component", MEMORIES),
        ("max_tables_per_component", TABLES),
        ("max_core_instance_size", _INSTANCE_BYTES),
        ("max_component_instance_size", _INSTANCE_BYTES),
        ("max_memory_size", shape.memory_mb << 20),
        ("table_elements", TABLE_ELEMENTS),
        ("linear_memory_keep_resident", _KEEP_RESIDENT),
        ("table_keep_resident", _KEEP_RESIDENT),
        ("max_unused_warm_slots", memories),
    ):
        getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    ffi.wasmtime_pooling_allocation_config_delete(pool)
    return config


class SandboxEngine:
    """The engine with its clock. Epochs advance only while calls are under way."""

    def __init__(self, shape: EngineShape) -> None:
        """Raises ConfigurationError if the installed wasmtime has no pool that we know how to set."""
        self.shape = shape
        try:
            self.engine = Engine(_config(shape))
        except AttributeError as error:
            raise ConfigurationError(
                "The sandbox cannot configure the installed wasmtime.",
                expected="a version with the C functions of wasmtime 50",
                found=f"wasmtime {WASMTIME}: {error}",
                fix="Install from the lock file.",
            ) from error
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._epoch = 0
        self._base = 0.0
        self._needed_until = 0.0
        self._exact = 0
        self._closed = False
        self._ticker = threading.Thread(target=self._tick, name="keelstone-epochs", daemon=True)
        self._ticker.start()

    def ticks(self, seconds: float, now: float | None = None) -> int:
        """Epochs from ``now`` until ``seconds`` have passed; sees to it that the clock runs that long."""
        now = time.monotonic() if now is None else now
        until = now + seconds
        # The clock cannot stop before ``_needed_until``: within it nothing has to be told or locked.
        if until > self._needed_until:
            with self._lock:
                self._needed_until = max(self._needed_until, until + _IDLE_SECONDS)
                if not self._wake.is_set():
                    self._base = now - self._epoch * _TICK
                    self._wake.set()
        # Counted from what the epoch is, not from what it should be: a clock that has fallen
        # behind catches up by jumps, which must not end this call before its time.
        return int((until - self._base) / _TICK) + 1 - self._epoch

    def keep_exact(self) -> None:
        """A call begins whose deadline is to be kept to an epoch. Each has its :meth:`let_loose`."""
        with self._lock:
            self._exact += 1

    def let_loose(self) -> None:
        """Such a call has ended."""
        with self._lock:
            self._exact -= 1

    def _tick(self) -> None:
        # Keeps the GIL: letting it go for each increment would mean asking for it again each time, beside
        # a loop that is calling guests, and every such contest costs that loop tens of microseconds.
        increment = ctypes.PyDLL(ffi.dll._name)["wasmtime_engine_increment_epoch"]
        increment.restype = None
        pointer = ctypes.cast(self.engine.ptr(), ctypes.c_void_p)
        while not self._closed:
            self._wake.wait()
            with self._lock:
                # On a busy machine this thread may get its turn late: epochs follow the time that has
                # passed, not the number of turns, or deadlines would stretch and the clock stop early.
                now = time.monotonic()
                due = int((now - self._base) / _TICK)
                for _ in range(min(due - self._epoch, _LONGEST)):
                    increment(pointer)
                self._epoch = max(due, self._epoch)
                if now > self._needed_until and not self._closed:
                    self._needed_until = 0.0
                    self._wake.clear()
                pause = _TICK if self._exact else _LOOSE
            time.sleep(pause)

    def interrupt_all(self) -> None:
        """End every call that is under way, whatever its deadline (used at shutdown)."""
        for _ in range(_LONGEST):
            ffi.wasmtime_engine_increment_epoch(self.engine.ptr())

    def close(self) -> None:
        """Stop the clock and give the pool's memory back. No call may be under way, and none may follow."""
        self._closed = True
        self._wake.set()
        self._ticker.join(timeout=5)
        if not self._ticker.is_alive():
            # Not left to the garbage collector: a pool reserves much of the address space, and whoever
            # still holds a stopped platform (a framework's cache is enough) would hold it too.
            self.engine.close()
