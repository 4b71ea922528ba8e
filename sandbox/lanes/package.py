"""The package's lane: the ``wasmtime`` package's own bindings, which are made for the library beside them.

Slower by half than the fast lane and the same in every answer. It serves wherever the fast lane does
not know the library.
"""

from __future__ import annotations

import ctypes
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any

from wasmtime import _bindings as c
from wasmtime import _ffi as ffi

from sandbox.abi import Value, string_of
from sandbox.calltime import deadline_callback
from sandbox.engine import SandboxEngine, fuel_of, store_bounds
from sandbox.lanes.answers import MAX_MESSAGE, Outcome, no_result, own_failure, too_large
from sandbox.linking import Prepared, memory_handle, take_message
from sandbox.traps import explain

if TYPE_CHECKING:
    from sandbox.hostcalls import HostCalls

_BYTES = ctypes.POINTER(ctypes.c_ubyte)
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_byref = ctypes.byref
_cast: Any = ctypes.cast  # typeshed does not know that bytes can be cast


class _Buffers:
    """Arguments and result, one set a thread."""

    def __init__(self) -> None:
        self.result = Value()
        self.texts = (Value * 2)()
        for text in self.texts:
            text.kind = ffi.WASMTIME_COMPONENT_STRING.value


class PackageLane:
    """Calls of one prepared component. Implements :class:`sandbox.lanes.Lane`."""

    name = "package"

    def __init__(self, engine: SandboxEngine, prepared: Prepared) -> None:
        self._engine = engine
        self._prepared = prepared
        self._on_deadline = deadline_callback(engine, prepared.current)

    def _refuel(self, context: Any, host: HostCalls) -> None:
        if self._engine.shape.fuel:
            c._wasmtime_context_set_fuel(context, fuel_of(host.limits))

    def _count_fuel(self, context: Any, host: HostCalls) -> None:
        if self._engine.shape.fuel:
            left = ctypes.c_uint64()
            c._wasmtime_context_get_fuel(context, _byref(left))
            host.fuel = fuel_of(host.limits) - left.value

    def fresh(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """See :meth:`sandbox.lanes.Lane.fresh`."""
        began, until = perf_counter_ns(), monotonic() + seconds
        instance = self.open(host, seconds)
        try:
            found = instance.call(hook, payload, host, until - monotonic())
        finally:
            instance.drop()
        found.wall_us = (perf_counter_ns() - began) // 1_000
        return found

    def open(self, host: HostCalls, seconds: float) -> _PackageInstance:
        """See :meth:`sandbox.lanes.Lane.open`."""
        prepared = self._prepared
        began = perf_counter_ns()
        engine, linker, component, export = prepared.pointers
        host.deadline = monotonic() + seconds
        store = c._wasmtime_store_new(engine, None, _NO_FINALIZER)
        here = prepared.current.here
        here.call = host
        try:
            context = c._wasmtime_store_context(store)
            c._wasmtime_store_limiter(store, *store_bounds(host.limits))
            c._wasmtime_context_set_epoch_deadline(context, self._engine.ticks(seconds))
            if not host.in_place:
                c._wasmtime_store_epoch_deadline_callback(store, self._on_deadline, None, _NO_FINALIZER)
            self._refuel(context, host)
            instance, function = ffi.wasmtime_component_instance_t(), ffi.wasmtime_component_func_t()
            error = c._wasmtime_component_linker_instantiate(linker, context, component, _byref(instance))
            if error:
                raise explain(take_message(error), host, began, 0)
            c._wasmtime_component_instance_get_func(_byref(instance), context, export, _byref(function))
        except BaseException:
            c._wasmtime_store_delete(store)
            raise
        finally:
            here.call = None
        return _PackageInstance(self, store, context, instance, function)


class _PackageInstance:
    """A live instance. Implements :class:`sandbox.lanes.LiveInstance`."""

    def __init__(self, lane: PackageLane, store: Any, context: Any, instance: Any, function: Any) -> None:
        self._lane, self._store, self._context, self._function = lane, store, context, function
        self._memories = [memory_handle(core, index) for core, index in lane._prepared.memories]
        for handle in self._memories:
            handle._anon_1.store_id = instance.store_id

    def call(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """See :meth:`sandbox.lanes.LiveInstance.call`."""
        lane, context = self._lane, self._context
        here = lane._prepared.current.here
        buffers = here.buffers
        if buffers is None:
            buffers = here.buffers = _Buffers()
        texts, result = buffers.texts, buffers.result
        began = perf_counter_ns()
        host.deadline = monotonic() + seconds
        here.call = host
        try:
            c._wasmtime_context_set_epoch_deadline(context, lane._engine.ticks(seconds))
            lane._refuel(context, host)
            # The arguments' bytes stay ours, alive until the end: wasmtime copies them into the guest.
            encoded = (hook.encode(), payload.encode())
            for i in (0, 1):
                vector = texts[i].of.string
                vector.size = len(encoded[i])
                vector.data = _cast(encoded[i], _BYTES)
            error = c._wasmtime_component_func_call(_byref(self._function), context, texts, 2, _byref(result), 1)
            lane._count_fuel(context, host)
            memory = sum(c._wasmtime_memory_data_size(context, _byref(handle)) for handle in self._memories)
            if error:
                raise explain(take_message(error), host, began, memory)
            try:
                output = _answer(result, host)
            finally:
                c._wasmtime_component_val_delete(_byref(result))
                result.kind = 0
        finally:
            here.call = None
        return Outcome(output, (perf_counter_ns() - began) // 1_000, memory)

    def drop(self) -> None:
        """See :meth:`sandbox.lanes.LiveInstance.drop`."""
        c._wasmtime_store_delete(self._store)


def _answer(result: Any, host: HostCalls) -> str:
    if result.kind != ffi.WASMTIME_COMPONENT_RESULT.value:
        raise no_result(host)
    text = result.of.result.val.contents.of.string
    if not result.of.result.is_ok:
        raise own_failure(host, ctypes.string_at(text.data, min(text.size, MAX_MESSAGE)) if text.size else b"")
    if text.size > host.limits.output:
        raise too_large(host, text.size)
    return string_of(text)
