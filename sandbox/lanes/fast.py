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
from dataclasses import dataclass
from functools import cache
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any

from wasmtime import _ffi as ffi

from sandbox.calltime import deadline_callback
from sandbox.engine import SandboxEngine, fuel_of, store_bounds
from sandbox.lanes.answers import MAX_MESSAGE, Outcome, no_result, own_failure, too_large
from sandbox.lanes.layout import FUNCTION_SIZE, INSTANCE_SIZE, RESULT_KIND, STRING_KIND, VALUE_OF, VALUE_SIZE
from sandbox.linking import Here, Prepared, memory_handle, take_message
from sandbox.traps import explain

if TYPE_CHECKING:
    from sandbox.hostcalls import HostCalls
    from sandbox.policy import EffectiveLimits

_u64, _i64, _size = ctypes.c_uint64, ctypes.c_int64, ctypes.c_size_t
_string_at = ctypes.string_at
_decode = ctypes.pythonapi["PyUnicode_DecodeUTF8"]
_decode.restype = ctypes.py_object
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
    on_deadline: Any
    instantiate: Any
    get_function: Any
    call: Any
    value_delete: Any
    memory_size: Any
    set_fuel: Any
    get_fuel: Any


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
        on_deadline=of(holding, "store_epoch_deadline_callback", None),
        instantiate=of(releasing, "component_linker_instantiate", ctypes.c_void_p),
        get_function=of(holding, "component_instance_get_func", ctypes.c_bool),
        call=of(releasing, "component_func_call", ctypes.c_void_p),
        value_delete=of(holding, "component_val_delete", None),
        memory_size=of(holding, "memory_data_size", _size),
        set_fuel=of(holding, "context_set_fuel", ctypes.c_void_p),
        get_fuel=of(holding, "context_get_fuel", ctypes.c_void_p),
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


class _Buffers:
    """Arguments and result, one set a thread. ``hook`` is the name that the arguments hold now."""

    __slots__ = ("_keep", "fields", "handles", "hook", "hook_data", "hook_size")

    def __init__(self, memories: tuple[tuple[int, int], ...]) -> None:
        arguments = (ctypes.c_uint8 * (2 * VALUE_SIZE))()
        result = (ctypes.c_uint8 * VALUE_SIZE)()
        for at in (0, VALUE_SIZE):
            arguments[at] = STRING_KIND
        self._keep = (arguments, result)
        self.hook: str | None = None
        self.hook_size = _size.from_buffer(arguments, VALUE_OF)
        self.hook_data = ctypes.c_char_p.from_buffer(arguments, VALUE_OF + 8)
        self.handles = _Handles(memories)
        self.fields = (
            _address(arguments),
            _address(result),
            _size.from_buffer(arguments, VALUE_SIZE + VALUE_OF),
            ctypes.c_char_p.from_buffer(arguments, VALUE_SIZE + VALUE_OF + 8),
            ctypes.c_uint8.from_buffer(result),
            ctypes.c_bool.from_buffer(result, VALUE_OF),
            _size.from_buffer(result, VALUE_OF + 8),
        )

    def name(self, hook: str) -> None:
        """Put the hook's name among the arguments; it stays there for the calls to come."""
        data = hook.encode()
        self.hook_size.value, self.hook_data.value, self.hook = len(data), data, hook


class FastLane:
    """Calls of one prepared component. Implements :class:`sandbox.lanes.Lane`."""

    name = "fast"

    def __init__(self, engine: SandboxEngine, prepared: Prepared) -> None:
        self._engine = engine
        self._prepared = prepared
        self._c = _library()
        self._ticks = engine.ticks
        self._fuel = engine.shape.fuel
        self._current = prepared.current
        self._on_deadline = deadline_callback(engine, prepared.current)
        self._engine_pointer, self._linker, self._component, self._export = (
            _Pointer(ctypes.cast(pointer, ctypes.c_void_p).value) for pointer in prepared.pointers
        )
        self._bounds: tuple[EffectiveLimits | None, tuple[Any, ...]] = (None, ())

    def _buffers_for(self, here: Here) -> _Buffers:
        made = here.buffers = _Buffers(self._prepared.memories)
        return made

    def _bounds_of(self, host: HostCalls) -> tuple[Any, ...]:
        limits = host.limits
        known, bounds = self._bounds
        if known is not limits:
            bounds = tuple(_i64(value) for value in store_bounds(limits))
            self._bounds = limits, bounds
        return bounds

    def _refuel(self, context: Any, host: HostCalls) -> None:
        self._c.set_fuel(context, _u64(fuel_of(host.limits)))

    def _count_fuel(self, context: Any, host: HostCalls) -> None:
        left = _u64()
        self._c.get_fuel(context, _address(left))
        host.fuel = fuel_of(host.limits) - left.value

    def _begin(self, host: HostCalls, handles: _Handles, seconds: float, now: float) -> tuple[Any, Any]:
        """Store and context of a new instance, which ``handles`` then name."""
        c = self._c
        began = perf_counter_ns()
        store = c.store_new(self._engine_pointer, None, None)
        try:
            context = c.store_context(store)
            c.store_limiter(store, *self._bounds_of(host))
            c.set_deadline(context, _u64(self._ticks(seconds, now)))
            if not host.in_place:
                c.on_deadline(store, self._on_deadline, None, None)
            if self._fuel:
                self._refuel(context, host)
            error = c.instantiate(self._linker, context, self._component, handles.instance)
            if error:
                raise explain(_message(error), host, began, 0)
            c.get_function(handles.instance, context, self._export, handles.function)
            for owner, _ in handles.memories:
                owner.value = handles.store_id.value
        except BaseException:
            c.store_delete(store)
            raise
        return store, context

    def _ask(
        self, context: Any, handles: _Handles, here: Here, hook: str, payload: str, host: HostCalls, began: int
    ) -> tuple[str, int]:
        """The guest's answer, and the bytes of its memories afterwards."""
        c = self._c
        buffers = here.buffers or self._buffers_for(here)
        arguments, result, payload_size, payload_data, kind, is_ok, value = buffers.fields
        # The arguments' bytes stay ours, alive until the end: wasmtime copies them into the guest.
        if buffers.hook != hook:
            buffers.name(hook)
        text = payload.encode()
        payload_size.value, payload_data.value = len(text), text
        error = c.call(handles.function, context, arguments, _TWO, result, _ONE)
        if self._fuel:
            self._count_fuel(context, host)
        memory = 0
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
            return _decode(_Pointer(answer.data), _size(size), None) if size else "", memory
        finally:
            c.value_delete(result)
            kind.value = 0

    def fresh(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """See :meth:`sandbox.lanes.Lane.fresh`."""
        began, now = perf_counter_ns(), monotonic()
        host.deadline = now + seconds
        here = self._current.here
        handles = (here.buffers or self._buffers_for(here)).handles
        here.call = host
        try:
            store, context = self._begin(host, handles, seconds, now)
            try:
                output, memory = self._ask(context, handles, here, hook, payload, host, began)
            finally:
                self._c.store_delete(store)
        finally:
            here.call = None
        return Outcome(output, (perf_counter_ns() - began) // 1_000, memory)

    def open(self, host: HostCalls, seconds: float) -> _FastInstance:
        """See :meth:`sandbox.lanes.Lane.open`."""
        now = monotonic()
        host.deadline = now + seconds
        handles = _Handles(self._prepared.memories)
        here = self._current.here
        here.call = host
        try:
            return _FastInstance(self, *self._begin(host, handles, seconds, now), handles)
        finally:
            here.call = None


class _FastInstance:
    """A live instance. Implements :class:`sandbox.lanes.LiveInstance`."""

    __slots__ = ("_context", "_handles", "_lane", "_store")

    def __init__(self, lane: FastLane, store: Any, context: Any, handles: _Handles) -> None:
        self._lane, self._store, self._context, self._handles = lane, store, context, handles

    def call(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """See :meth:`sandbox.lanes.LiveInstance.call`."""
        lane, context = self._lane, self._context
        began, now = perf_counter_ns(), monotonic()
        host.deadline = now + seconds
        here = lane._current.here
        here.call = host
        try:
            lane._c.set_deadline(context, _u64(lane._ticks(seconds, now)))
            if lane._fuel:
                lane._refuel(context, host)
            output, memory = lane._ask(context, self._handles, here, hook, payload, host, began)
        finally:
            here.call = None
        return Outcome(output, (perf_counter_ns() - began) // 1_000, memory)

    def drop(self) -> None:
        """See :meth:`sandbox.lanes.LiveInstance.drop`."""
        self._lane._c.store_delete(self._store)


def _message(error: int) -> str:
    return take_message(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
