"""Joins a component's imports to the host's functions.

Host functions are called by wasmtime in the guest's thread. Nothing may be raised out of them:
whatever goes wrong is kept in the call at hand, which the thread holds, and the guest is ended with
an error of that very call.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from wasmtime import _ffi as ffi
from wasmtime.component import Component, ComponentInstanceType, ExportIndex, FuncType, Linker, ResourceType

from sandbox import abi
from sandbox.contract import HANDLE_TYPE, KEELSTONE, Signature, keelstone_interface, wasi_interface
from sandbox.engine import SandboxEngine
from sandbox.errors import BadComponent, GuestUnavailable
from sandbox.wasi import RESOURCES, WASI


class CallAtHand(Protocol):
    """What a host function needs to know of the call that it serves."""

    stopped: BaseException | None
    """Why the call was ended by the host, if it was."""

    def host(self, interface: str, function: str) -> Callable[..., Any]:
        """The implementation of ``keelstone:plugin/<interface>.<function>``."""
        ...

    def wasi(self, name: str, function: str) -> Callable[..., Any]:
        """The implementation of a WASI function."""
        ...

    def put_off(self) -> float:
        """The deadline is reached: the seconds that are left nevertheless, 0 if none."""
        ...


class Here:
    """What one thread has in hand: the call, and whatever the lane keeps for its next one."""

    __slots__ = ("buffers", "call")

    def __init__(self) -> None:
        self.call: CallAtHand | None = None
        self.buffers: Any = None


class CurrentCall(threading.local):
    """The call at hand of each thread, where host functions find it. One look-up serves a whole call."""

    def __init__(self) -> None:
        self.here = Here()


def memory_handle(core: int, index: int) -> Any:
    """A handle of a linear memory, whose store is yet to be set: the C API makes none for components."""
    handle = ffi.wasmtime_memory_t()
    setattr(handle._anon_1, "__private1", core)
    setattr(handle, "__private2", index)
    return handle


@dataclass(frozen=True, slots=True)
class HostTable:
    """The functions offered: by interface, then function."""

    keelstone: Mapping[str, Mapping[str, Signature]]
    wasi: Mapping[str, Mapping[str, Signature]]
    resources: Mapping[str, int]
    """Type ids of the resources that WASI functions hand out, by name."""


class Linked:
    """A linker for one component, with the callbacks that it must keep alive."""

    def __init__(self, linker: Linker, callbacks: list[Any]) -> None:
        self.linker = linker
        self._callbacks = callbacks


@dataclass(frozen=True, slots=True)
class Prepared:
    """A linked component with what calling it needs. ``memories`` are (core instance, memory) numbers."""

    component: Component
    linked: Linked
    export: ExportIndex
    current: CurrentCall
    memories: tuple[tuple[int, int], ...]
    engine: Any

    @property
    def pointers(self) -> tuple[Any, Any, Any, Any]:
        """C pointers of the engine, the linker, the component and the export."""
        return self.engine, self.linked.linker.ptr(), self.component.ptr(), self.export.ptr()


def check_types(component: Component, engine: SandboxEngine, table: HostTable) -> list[str]:
    """The component's imports, after checking that it exports ``handle`` and imports our functions
    with their exact types. Raises BadComponent. Slow for large components: done once, at compiling.
    """
    raw = engine.engine
    exported = component.type.exports(raw).get("handle")
    found = exported.ty if exported is not None else None
    text = _type_of(found) if isinstance(found, FuncType) else "no function of that name"
    if text != HANDLE_TYPE:
        raise BadComponent(
            "The component does not export the contract's function `handle`.",
            expected=f"handle: func{HANDLE_TYPE}",
            found=text,
            fix="Build it against plugin_sdk/wit/keelstone.wit.",
        )
    imports = component.type.imports(raw)
    for name, extern in imports.items():
        item = extern.ty
        if not isinstance(item, ComponentInstanceType):
            raise BadComponent(
                f"The component imports {name}, which is not an interface.",
                expected="interfaces only",
                found=type(item).__name__,
                fix="Build it against plugin_sdk/wit/keelstone.wit.",
            )
        for function, member in item.exports(raw).items():
            ty = member.ty
            known = _signature(name, function, table)
            if isinstance(ty, FuncType) and known is not None and _type_of(ty) != known.text():
                raise BadComponent(
                    f"The component imports {name}.{function} with another type than the host's.",
                    expected=known.text(),
                    found=_type_of(ty),
                    fix="Build it against plugin_sdk/wit/keelstone.wit.",
                )
    return list(imports)


def _type_of(function: FuncType) -> str:
    result = function.result
    return abi.signature_text(
        [abi.type_text(ty) for _, ty in function.params], None if result is None else abi.type_text(result)
    )


def _signature(interface: str, function: str, table: HostTable) -> Signature | None:
    ours = keelstone_interface(interface)
    if ours is not None:
        return table.keelstone[ours].get(function)
    theirs = wasi_interface(interface)
    return table.wasi.get(theirs, {}).get(function) if theirs else None


def link(component: Component, engine: SandboxEngine, table: HostTable, current: CurrentCall) -> Linked:
    """Define every import: ours, the few of WASI, and for the rest a function that ends the call."""
    linker = Linker(engine.engine)
    keep: list[Any] = []
    with linker.root() as root:
        for name, extern in component.type.imports(engine.engine).items():
            item = extern.ty
            if not isinstance(item, ComponentInstanceType):
                continue
            with root.add_instance(name) as instance:
                for member, found in item.exports(engine.engine).items():
                    ty = found.ty
                    if isinstance(ty, ResourceType):
                        _add_resource(instance, member, table.resources.get(member, 0), keep)
                    elif isinstance(ty, FuncType):
                        signature = _signature(name, member, table)
                        _add_function(instance, member, _callback(name, member, signature, current), keep)
    return Linked(linker, keep)


def _add_resource(instance: Any, name: str, type_id: int, keep: list[Any]) -> None:
    kind = ResourceType.host(type_id)
    data = name.encode()
    error = ffi.wasmtime_component_linker_instance_add_resource(
        instance.ptr(), ctypes.create_string_buffer(data), len(data), kind.ptr(), _FORGET, None, _NOTHING
    )
    _raise(error)
    keep.append(kind)


def _add_function(instance: Any, name: str, callback: Any, keep: list[Any]) -> None:
    data = name.encode()
    error = ffi.wasmtime_component_linker_instance_add_func(
        instance.ptr(), ctypes.create_string_buffer(data), len(data), callback, None, _NOTHING
    )
    _raise(error)
    keep.append(callback)


def _raise(error: Any) -> None:
    if error:
        raise BadComponent(f"The component cannot be linked: {take_message(error)}")


def take_message(error: Any) -> str:
    """The text of a C error, which is freed."""
    message = ffi.wasm_byte_vec_t()
    ffi.wasmtime_error_message(error, ctypes.byref(message))
    text = ctypes.string_at(message.data, message.size).decode("utf-8", "replace")
    ffi.wasm_byte_vec_delete(ctypes.byref(message))
    ffi.wasmtime_error_delete(error)
    return text


# wasmtime wants C functions for "nothing to do"; they hold no state.
_NOTHING = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _data: None)
_FORGET = ffi.wasmtime_component_resource_destructor_t(lambda _data, _context, _number: 0)


def _callback(interface: str, function: str, signature: Signature | None, current: CurrentCall) -> Any:
    ours = keelstone_interface(interface)
    theirs = wasi_interface(interface)

    def run(_data: Any, context: Any, _type: Any, arguments: Any, _count: int, results: Any, _result_count: int) -> int:
        call = current.here.call
        try:
            if signature is None or call is None:
                raise GuestUnavailable(
                    f"The guest called {interface}.{function}, which the sandbox does not have.",
                    expected="functions of the capabilities in its manifest",
                    found=f"{interface}.{function}",
                    fix="Files, sockets and sleeping do not exist for guests; use the host calls.",
                )
            target = call.host(ours, function) if ours else call.wasi(theirs or "", function)
            values = [abi.read(arguments[i], shape, context) for i, shape in enumerate(signature.parameters)]
            answer = target(*values)
            if signature.result is not None:
                abi.write(results[0], signature.result, answer, context)
            return 0
        except BaseException as error:
            if call is not None and call.stopped is None:
                call.stopped = error
            pointer = ffi.wasmtime_error_new(b"ended by the host")
            return int(ctypes.cast(pointer, ctypes.c_void_p).value or 0)

    return ffi.wasmtime_component_func_callback_t(run)


def host_table() -> HostTable:
    """Everything that this host offers."""
    return HostTable(KEELSTONE, WASI, RESOURCES)
