"""One prepared component: linked once, with its export looked up once, ready for calls by a lane."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from wasmtime import _bindings as c
from wasmtime import _ffi as ffi
from wasmtime.component import Component

from sandbox.engine import MOST_FUEL, SandboxEngine
from sandbox.errors import BadComponent, GuestUnavailable
from sandbox.hostcalls import HostCalls
from sandbox.lanes import LiveInstance, lane_for
from sandbox.lanes.answers import Outcome
from sandbox.linking import CurrentCall, Prepared, host_table, link, memory_handle, take_message
from sandbox.placement import Placement
from sandbox.wasi import WasiCalls

_byref = ctypes.byref


class Guest:
    """A component ready to be called, from any number of threads at once."""

    def __init__(
        self,
        component: Component,
        engine: SandboxEngine,
        memories: tuple[tuple[int, int], ...] = (),
        imports: tuple[str, ...] = (),
        lane: str | None = None,
    ) -> None:
        """``memories`` number its linear memories, as found and proven when it was compiled: the C API
        has no way from a component to its memories, and a wrong number aborts the process."""
        self.imports = imports
        self.engine = engine
        current = CurrentCall()
        linked = link(component, engine, host_table(), current)
        export = component.get_export_index("handle")
        if export is None:
            raise BadComponent("The component does not export `handle`.", expected="handle", found="no such export")
        prepared = Prepared(component, linked, export, current, memories, engine.engine.ptr())
        self.placement = Placement()
        self.lane = lane_for(engine, prepared, lane)

    def run(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """Call ``handle`` in a fresh instance; see :meth:`sandbox.lanes.Lane.fresh`."""
        return self.lane.fresh(hook, payload, host, seconds)

    def open(self, host: HostCalls, seconds: float) -> LiveInstance:
        """A live instance; see :meth:`sandbox.lanes.Lane.open`."""
        return self.lane.open(host, seconds)


class _Starting:
    """The call at hand while a component is only started: clocks and random answer, nothing else does."""

    def __init__(self) -> None:
        self.stopped: BaseException | None = None
        self._wasi = WasiCalls(lambda is_error, line: None)

    def host(self, interface: str, function: str) -> Callable[..., Any]:
        raise GuestUnavailable(f"{interface}.{function} does not answer before the first call.")

    def wasi(self, name: str, function: str) -> Callable[..., Any]:
        return self._wasi.function(name, function)

    def put_off(self) -> float:
        return 0.0


def prove_memories(
    component: Component, engine: SandboxEngine, handles: list[tuple[int, int]], seconds: float
) -> list[tuple[int, int]]:
    """``handles`` if every one is a memory of a real instance, none if the component cannot start so.

    A handle is (number of the core instance, number of its memory). Aborts the process if one is
    wrong: only for the compiler's own process.
    """
    current = CurrentCall()
    current.here.call = _Starting()
    linked = link(component, engine, host_table(), current)
    store = c._wasmtime_store_new(engine.engine.ptr(), None, ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p)))
    context = c._wasmtime_store_context(store)
    c._wasmtime_context_set_epoch_deadline(context, engine.ticks(seconds))
    if engine.shape.fuel:
        c._wasmtime_context_set_fuel(context, MOST_FUEL)
    instance = ffi.wasmtime_component_instance_t()
    error = c._wasmtime_component_linker_instantiate(linked.linker.ptr(), context, component.ptr(), _byref(instance))
    if error:
        take_message(error)
        return []
    for core, index in handles:
        handle = memory_handle(core, index)
        handle._anon_1.store_id = instance.store_id
        c._wasmtime_memory_data_size(context, _byref(handle))
    return handles
