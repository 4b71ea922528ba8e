"""The fast lane: libwasmtime's C functions through ctypes, with nothing in between.

What makes it fast, measured on the call path: pointers are ready-made ``c_void_p`` objects (ctypes
then converts nothing), buffers are made once a thread, what does not change between calls is looked up
once, no wrapper object is made, and the short functions keep the GIL (``PyDLL``), which is let go only
for the guest's own code (``CDLL``). Prototypes here have no ``argtypes``: every argument must be a
ctypes object of its exact width, and every pointer one that wasmtime gave or that addresses a buffer
of the layout in ``layout.py``. So this file is the whole of it, and nothing here is for others to call.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from functools import cache
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any

from wasmtime import _ffi as ffi

from sandbox.engine import CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES, SandboxEngine
from sandbox.lanes.answers import MAX_MESSAGE, Outcome, no_result, own_failure, too_large
from sandbox.lanes.layout import FUNCTION_SIZE, INSTANCE_SIZE, RESULT_KIND, STRING_KIND, VALUE_OF, VALUE_SIZE
from sandbox.linking import Prepared, memory_handle, take_message
from sandbox.traps import explain

if TYPE_CHECKING:
    from sandbox.hostcalls import HostCalls

_u64, _i64, _size = ctypes.c_uint64, ctypes.c_int64, ctypes.c_size_t
_string_at = ctypes.string_at
_TWO, _ONE = _size(2), _size(1)


class _Pointer(ctypes.c_void_p):
    """A subclass, so that ctypes hands the object back instead of turning it into a number."""


class _Text(ctypes.Structure):
    _fields_ = [("size", _size), ("data", ctypes.c_void_p)]


_text_at = _Text.from_address


@dataclass(frozen=True, slots=True)
class _Library:
    """The functions of the call path."""

    store_new: Any
    store_context: Any
    store_limiter: Any
    store_delete: Any
    set_deadline: Any
    instantiate: Any
    get_function: Any
    call: Any
    value_delete: Any
    memory_size: Any


@cache
def _library() -> _Library:
    path = ffi.dll._name
    holding, releasing = ctypes.PyDLL(path), ctypes.CDLL(path)

    def of(library: Any, name: str, result: Any) -> Any:
        function = library[f"wasmtime_{name}"]
        function.restype = result
        return function

    return _Library(
        store_new=of(holding, "store_new", _Pointer),
        store_context=of(holding, "store_context", _Pointer),
        store_limiter=of(holding, "store_limiter", None),
        store_delete=of(holding, "store_delete", None),
        set_deadline=of(holding, "context_set_epoch_deadline", None),
        instantiate=of(releasing, "component_linker_instantiate", ctypes.c_void_p),
        get_function=of(holding, "component_instance_get_func", ctypes.c_bool),
        call=of(releasing, "component_func_call", ctypes.c_void_p),
        value_delete=of(holding, "component_val_delete", None),
        memory_size=of(holding, "memory_data_size", _size),
    )


def _address(buffer: Any) -> _Pointer:
    return _Pointer(ctypes.addressof(buffer))


class _Handles:
    """The C structures that name one instance, its function and its memories."""

    __slots__ = ("_keep", "function", "instance", "memories", "store_id")

    def __init__(self, memories: tuple[tuple[int, int], ...]) -> None:
        instance = (ctypes.c_uint8 * INSTANCE_SIZE)()
        function = (ctypes.c_uint8 * FUNCTION_SIZE)()
        handles = [memory_handle(core, index) for core, index in memories]
        self._keep = (instance, function, handles)
        self.instance, self.function = _address(instance), _address(function)
        self.store_id = _u64.from_buffer(instance)
        self.memories = tuple((_u64.from_buffer(handle), _address(handle)) for handle in handles)


class _Buffers(threading.local):
    """Arguments and result, one set a thread."""

    def __init__(self, memories: tuple[tuple[int, int], ...]) -> None:
        arguments = (ctypes.c_uint8 * (2 * VALUE_SIZE))()
        result = (ctypes.c_uint8 * VALUE_SIZE)()
        for at in (0, VALUE_SIZE):
            arguments[at] = STRING_KIND
        self.arguments, self.result = _address(arguments), _address(result)
        self.hook_size = _size.from_buffer(arguments, VALUE_OF)
        self.hook_data = ctypes.c_char_p.from_buffer(arguments, VALUE_OF + 8)
        self.payload_size = _size.from_buffer(arguments, VALUE_SIZE + VALUE_OF)
        self.payload_data = ctypes.c_char_p.from_buffer(arguments, VALUE_SIZE + VALUE_OF + 8)
        self.kind = ctypes.c_uint8.from_buffer(result)
        self.is_ok = ctypes.c_bool.from_buffer(result, VALUE_OF)
        self.value = _size.from_buffer(result, VALUE_OF + 8)
        self.handles = _Handles(memories)
        self.fields = (
            self.arguments, self.result, self.hook_size, self.hook_data, self.payload_size, self.payload_data,
            self.kind, self.is_ok, self.value, self.handles,
        )  # fmt: skip


class FastLane:
    """Calls of one prepared component. Implements :class:`sandbox.lanes.Lane`."""

    name = "fast"

    def __init__(self, engine: SandboxEngine, prepared: Prepared) -> None:
        self._engine = engine
        self._prepared = prepared
        self._c = _library()
        self._ticks = engine.ticks
        self._current = prepared.current
        self._buffers = _Buffers(prepared.memories)
        self._engine_pointer, self._linker, self._component, self._export = (
            _Pointer(ctypes.cast(pointer, ctypes.c_void_p).value) for pointer in prepared.pointers
        )
        self._bounds: dict[int, tuple[Any, ...]] = {}

    def _bounds_of(self, host: HostCalls) -> tuple[Any, ...]:
        memory = host.limits.memory
        found = self._bounds.get(memory)
        if found is None:
            values = (memory, TABLE_ELEMENTS, CORE_INSTANCES, TABLES, MEMORIES)
            found = self._bounds[memory] = tuple(_i64(value) for value in values)
        return found

    def fresh(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """See :meth:`sandbox.lanes.Lane.fresh`. Written out in one piece: every call here costs a tenth."""
        c = self._c
        arguments, result, hook_size, hook_data, payload_size, payload_data, kind, is_ok, value, handles = (
            self._buffers.fields
        )
        began = perf_counter_ns()
        host.deadline = monotonic() + seconds
        current = self._current
        store = c.store_new(self._engine_pointer, None, None)
        current.call = host
        memory = 0
        try:
            context = c.store_context(store)
            c.store_limiter(store, *self._bounds_of(host))
            c.set_deadline(context, _u64(self._ticks(seconds)))
            error = c.instantiate(self._linker, context, self._component, handles.instance)
            if error:
                raise explain(_message(error), host, began, 0)
            c.get_function(handles.instance, context, self._export, handles.function)
            # The arguments' bytes stay ours, alive until the end: wasmtime copies them into the guest.
            name, text = hook.encode(), payload.encode()
            hook_size.value, hook_data.value = len(name), name
            payload_size.value, payload_data.value = len(text), text
            error = c.call(handles.function, context, arguments, _TWO, result, _ONE)
            for owner, handle in handles.memories:
                owner.value = handles.store_id.value
                memory += c.memory_size(context, handle)
            if error:
                raise explain(_message(error), host, began, memory)
            try:
                if kind.value != RESULT_KIND:
                    raise no_result(host)
                answer = _text_at(value.value + VALUE_OF)
                size = answer.size
                if not is_ok.value:
                    raise own_failure(host, _string_at(answer.data, min(size, MAX_MESSAGE)) if size else b"")
                if size > host.limits.output:
                    raise too_large(host, size)
                output = _string_at(answer.data, size).decode() if size else ""
            finally:
                c.value_delete(result)
                kind.value = 0
        finally:
            current.call = None
            c.store_delete(store)
        return Outcome(output, (perf_counter_ns() - began) // 1_000, memory)

    def open(self, host: HostCalls, seconds: float) -> _FastInstance:
        """See :meth:`sandbox.lanes.Lane.open`."""
        c = self._c
        began = perf_counter_ns()
        host.deadline = monotonic() + seconds
        handles = _Handles(self._prepared.memories)
        store = c.store_new(self._engine_pointer, None, None)
        try:
            self._current.call = host
            context = c.store_context(store)
            c.store_limiter(store, *self._bounds_of(host))
            c.set_deadline(context, _u64(self._ticks(seconds)))
            error = c.instantiate(self._linker, context, self._component, handles.instance)
            if error:
                raise explain(_message(error), host, began, 0)
            c.get_function(handles.instance, context, self._export, handles.function)
            for owner, _ in handles.memories:
                owner.value = handles.store_id.value
        except BaseException:
            c.store_delete(store)
            raise
        finally:
            self._current.call = None
        return _FastInstance(self, store, context, handles)


class _FastInstance:
    """A live instance. Implements :class:`sandbox.lanes.LiveInstance`."""

    __slots__ = ("_context", "_handles", "_lane", "_store")

    def __init__(self, lane: FastLane, store: Any, context: Any, handles: _Handles) -> None:
        self._lane, self._store, self._context, self._handles = lane, store, context, handles

    def call(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """See :meth:`sandbox.lanes.LiveInstance.call`."""
        lane, context, handles = self._lane, self._context, self._handles
        c = lane._c
        arguments, result, hook_size, hook_data, payload_size, payload_data, kind, is_ok, value, _ = (
            lane._buffers.fields
        )
        began = perf_counter_ns()
        host.deadline = monotonic() + seconds
        current = lane._current
        current.call = host
        memory = 0
        try:
            c.set_deadline(context, _u64(lane._ticks(seconds)))
            name, text = hook.encode(), payload.encode()
            hook_size.value, hook_data.value = len(name), name
            payload_size.value, payload_data.value = len(text), text
            error = c.call(handles.function, context, arguments, _TWO, result, _ONE)
            for _, handle in handles.memories:
                memory += c.memory_size(context, handle)
            if error:
                raise explain(_message(error), host, began, memory)
            try:
                if kind.value != RESULT_KIND:
                    raise no_result(host)
                answer = _text_at(value.value + VALUE_OF)
                size = answer.size
                if not is_ok.value:
                    raise own_failure(host, _string_at(answer.data, min(size, MAX_MESSAGE)) if size else b"")
                if size > host.limits.output:
                    raise too_large(host, size)
                output = _string_at(answer.data, size).decode() if size else ""
            finally:
                c.value_delete(result)
                kind.value = 0
        finally:
            current.call = None
        return Outcome(output, (perf_counter_ns() - began) // 1_000, memory)

    def drop(self) -> None:
        """See :meth:`sandbox.lanes.LiveInstance.drop`."""
        self._lane._c.store_delete(self._store)


def _message(error: int) -> str:
    return take_message(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
