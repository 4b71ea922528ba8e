"""One prepared component, and one call of it: store, limits, deadline, instantiate, call, drop.

This is the whole hot path, and it is synchronous: :class:`~sandbox.runtime.SandboxRuntime` runs it
in a worker thread. A call reaches wasmtime through the C API directly, with what does not change
between calls (linker, export index, types) looked up once.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

from wasmtime import _bindings as c
from wasmtime import _ffi as ffi
from wasmtime.component import Component

from sandbox.abi import string_of
from sandbox.engine import CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES, SandboxEngine
from sandbox.errors import BadComponent, GuestError, GuestOutputInvalid, GuestOutputTooLarge
from sandbox.hostcalls import HostCalls
from sandbox.linking import CurrentCall, host_table, link, take_message
from sandbox.traps import explain

_RESULT = ffi.WASMTIME_COMPONENT_RESULT.value
_BYTES = ctypes.POINTER(ctypes.c_ubyte)
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_byref = ctypes.byref
_cast: Any = ctypes.cast  # typeshed does not know that bytes can be cast


class Outcome:
    """What a call came to: its answer, microseconds, and bytes of linear memory at its end."""

    __slots__ = ("memory_bytes", "output", "wall_us")

    def __init__(self, output: str, wall_us: int, memory_bytes: int) -> None:
        self.output, self.wall_us, self.memory_bytes = output, wall_us, memory_bytes


class Guest:
    """A component ready to be called, from any number of threads at once."""

    def __init__(
        self,
        component: Component,
        engine: SandboxEngine,
        memories: tuple[tuple[int, int], ...] = (),
        imports: tuple[str, ...] = (),
    ) -> None:
        """``memories`` number its linear memories, as found and proven when it was compiled."""
        self.imports = imports
        self._engine = engine
        self._component = component
        self._current = CurrentCall(memories)
        self._linked = link(component, engine, host_table(), self._current)
        export = component.get_export_index("handle")
        if export is None:
            raise BadComponent("The component does not export `handle`.", expected="handle", found="no such export")
        self._export = export
        self._pointers = (
            engine.engine.ptr(), self._linked.linker.ptr(), component.ptr(), export.ptr(),
        )  # fmt: skip

    def run(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """Call ``handle`` in a fresh instance. Raises one of the sandbox's errors, never a bare trap.

        ``seconds`` bounds everything, the component's own start functions and host calls included.
        The thread's stack must be larger than the engine's WebAssembly stack.
        """
        engine, linker, component, export = self._pointers
        limits, here = host.limits, self._current
        began = time.perf_counter_ns()
        host.deadline = time.monotonic() + seconds
        store = c._wasmtime_store_new(engine, None, _NO_FINALIZER)
        here.call = host
        memory = 0
        try:
            context = c._wasmtime_store_context(store)
            c._wasmtime_store_limiter(store, limits.memory, TABLE_ELEMENTS, CORE_INSTANCES, TABLES, MEMORIES)
            c._wasmtime_context_set_epoch_deadline(context, self._engine.ticks(seconds))
            instance = _byref(here.instance)
            error = c._wasmtime_component_linker_instantiate(linker, context, component, instance)
            if error:
                raise explain(take_message(error), host, began, 0)
            function = _byref(here.function)
            c._wasmtime_component_instance_get_func(instance, context, export, function)
            # The arguments' bytes stay ours, alive until the end: wasmtime copies them into the guest.
            texts = (hook.encode(), payload.encode())
            for i in (0, 1):
                vector = here.texts[i].of.string
                vector.size = len(texts[i])
                vector.data = _cast(texts[i], _BYTES)
            result = here.result
            error = c._wasmtime_component_func_call(function, context, here.texts, 2, _byref(result), 1)
            memory = self._memory_in_use(context)
            if error:
                raise explain(take_message(error), host, began, memory)
            try:
                output = self._answer(result, host)
            finally:
                c._wasmtime_component_val_delete(_byref(result))
                result.kind = 0
        finally:
            here.call = None
            c._wasmtime_store_delete(store)
        return Outcome(output, (time.perf_counter_ns() - began) // 1_000, memory)

    def _answer(self, result: Any, host: HostCalls) -> str:
        call, limit = host.call, host.limits.output
        if result.kind != _RESULT:
            raise GuestOutputInvalid("The guest's answer is not a result.", plugin=call.plugin, hook=call.hook)
        answer = result.of.result
        text = answer.val.contents.of.string
        if not answer.is_ok:
            message = ctypes.string_at(text.data, min(text.size, 2_000)).decode("utf-8", "replace") if text.size else ""
            raise GuestError(
                f"The plugin reported a failure: {message or '(no message)'}",
                plugin=call.plugin,
                hook=call.hook,
                tenant=call.context.tenant,
                fix="The message is the plugin's own; its log may say more.",
            )
        if text.size > limit:
            raise GuestOutputTooLarge(
                "The plugin answered too much.",
                plugin=call.plugin,
                hook=call.hook,
                tenant=call.context.tenant,
                expected=f"at most {limit} bytes (limits.output_kb)",
                found=f"{text.size} bytes",
                fix="Answer less, or raise limits.output_kb in plugin.toml.",
            )
        return string_of(text)

    def _memory_in_use(self, context: Any) -> int:
        """Bytes of all linear memories, which never shrink: the call's peak.

        The C API has no way from a component to its memories. A handle is (store, number of the
        core instance, number of its memory); the numbers were proven when the component was
        compiled, in that process, because a wrong one aborts (see sandbox.compile).
        """
        total, here = 0, self._current
        for handle in here.memories:
            handle._anon_1.store_id = here.instance.store_id
            total += c._wasmtime_memory_data_size(context, _byref(handle))
        return total


def prove_memories(
    component: Component, engine: SandboxEngine, handles: list[tuple[int, int]], seconds: float
) -> list[tuple[int, int]]:
    """``handles`` if every one is a memory of a real instance, none if the component cannot start so.

    Aborts the process if one is wrong: only for the compiler's own process.
    """
    here = CurrentCall(tuple(handles))
    linked = link(component, engine, host_table(), here)
    store = c._wasmtime_store_new(engine.engine.ptr(), None, _NO_FINALIZER)
    context = c._wasmtime_store_context(store)
    c._wasmtime_context_set_epoch_deadline(context, engine.ticks(seconds))
    error = c._wasmtime_component_linker_instantiate(
        linked.linker.ptr(), context, component.ptr(), _byref(here.instance)
    )
    if error:
        take_message(error)
        return []
    for handle in here.memories:
        handle._anon_1.store_id = here.instance.store_id
        c._wasmtime_memory_data_size(context, _byref(handle))
    return handles
