"""Component values between Python and the C API, by shape.

wasmtime-py's own conversion is not used: it asks for the types at every call (most of a fresh
call's 48 us), cannot answer ``result<option<string>, record>`` with an error, leaks a box a call and
keeps one process-wide "last exception" that mixes up threads. Values read here are borrowed from
the caller, values written become wasmtime's.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from wasmtime import _ffi as ffi
from wasmtime.component import _types as wt

Shape = str | tuple[Any, ...]
"""``"string"``, ``"u64"``, ... or a tuple: ``("clipped", bytes)`` (a string of which no more is read),
``("list", s)``, ``("option", s)``, ``("tuple", s, ...)``,
``("record", (name, s), ...)``, ``("enum", name, ...)``, ``("variant", (name, s | None), ...)``,
``("result", s | None, s | None)``, ``("own", type id)``, ``("borrow", type id)``."""

_KINDS = {
    "bool": (ffi.WASMTIME_COMPONENT_BOOL.value, "boolean"),
    "u8": (ffi.WASMTIME_COMPONENT_U8.value, "u8"),
    "u16": (ffi.WASMTIME_COMPONENT_U16.value, "u16"),
    "u32": (ffi.WASMTIME_COMPONENT_U32.value, "u32"),
    "u64": (ffi.WASMTIME_COMPONENT_U64.value, "u64"),
}
_STRING = ffi.WASMTIME_COMPONENT_STRING.value
_LIST = ffi.WASMTIME_COMPONENT_LIST.value
_RECORD = ffi.WASMTIME_COMPONENT_RECORD.value
_TUPLE = ffi.WASMTIME_COMPONENT_TUPLE.value
_VARIANT = ffi.WASMTIME_COMPONENT_VARIANT.value
_ENUM = ffi.WASMTIME_COMPONENT_ENUM.value
_OPTION = ffi.WASMTIME_COMPONENT_OPTION.value
_RESULT = ffi.WASMTIME_COMPONENT_RESULT.value
_RESOURCE = ffi.WASMTIME_COMPONENT_RESOURCE.value

Value = ffi.wasmtime_component_val_t
_BYTES = ctypes.POINTER(ctypes.c_ubyte)
_SIZE = ctypes.sizeof(Value)
_U8_OFFSET = Value.of.offset
MAX_ITEMS = 16_384


@dataclass(frozen=True, slots=True)
class Err:
    """The error side of a ``result``."""

    value: Any


class TooManyItems(Exception):
    """A guest handed over a list so long that carrying it would hold up the host."""


class ShapeMismatch(Exception):
    """A value is not of the shape agreed at preparation; only a defect of ours can cause it."""


def string_of(vector: Any) -> str:
    """The text in a C byte vector. wasmtime has checked that it is UTF-8."""
    return ctypes.string_at(vector.data, vector.size).decode() if vector.size else ""


def read(value: Any, shape: Shape, context: Any = None) -> Any:
    """The Python value of a C value. Records are dicts, ``list<u8>`` is bytes, resources are their number."""
    if isinstance(shape, str):
        if shape == "string":
            _expect(value, _STRING, shape)
            return string_of(value.of.string)
        kind, member = _KINDS[shape]
        _expect(value, kind, shape)
        return getattr(value.of, member)
    tag = shape[0]
    if tag == "clipped":
        _expect(value, _STRING, shape)
        text = value.of.string
        return ctypes.string_at(text.data, min(text.size, shape[1])).decode(errors="ignore") if text.size else ""
    if tag == "list":
        _expect(value, _LIST, shape)
        items = value.of.list
        if items.size > MAX_ITEMS:
            raise TooManyItems(items.size)
        if shape[1] == "u8":
            return ctypes.string_at(items.data, items.size * _SIZE)[_U8_OFFSET::_SIZE] if items.size else b""
        return [read(items.data[i], shape[1], context) for i in range(items.size)]
    if tag == "option":
        _expect(value, _OPTION, shape)
        return read(value.of.option.contents, shape[1], context) if value.of.option else None
    if tag == "record":
        _expect(value, _RECORD, shape)
        fields = value.of.record
        return {name: read(fields.data[i].val, inner, context) for i, (name, inner) in enumerate(shape[1:])}
    if tag == "enum":
        _expect(value, _ENUM, shape)
        return string_of(value.of.enumeration)
    if tag == "result":
        _expect(value, _RESULT, shape)
        inner = shape[1] if value.of.result.is_ok else shape[2]
        found = read(value.of.result.val.contents, inner, context) if inner is not None else None
        return found if value.of.result.is_ok else Err(found)
    if tag == "borrow":
        _expect(value, _RESOURCE, shape)
        return _resource_number(value.of.resource, context)
    raise ShapeMismatch(f"cannot read {shape}")


def _expect(value: Any, kind: int, shape: Shape) -> None:
    if value.kind != kind:
        raise ShapeMismatch(f"kind {value.kind} is not {shape}")


def _resource_number(resource: Any, context: Any) -> int:
    host = ctypes.POINTER(ffi.wasmtime_component_resource_host_t)()
    error = ffi.wasmtime_component_resource_any_to_host(context, resource, ctypes.byref(host))
    if error:
        ffi.wasmtime_error_delete(error)
        raise ShapeMismatch("a resource of somebody else's")
    number = int(ffi.wasmtime_component_resource_host_rep(host))
    ffi.wasmtime_component_resource_host_delete(host)
    return number


def write(value: Any, shape: Shape, content: Any, context: Any = None) -> None:
    """Fill the C ``value``, which must be fresh, with ``content``."""
    if isinstance(shape, str):
        if shape == "string":
            value.kind = _STRING
            _fill(value.of.string, content)
        else:
            value.kind, member = _KINDS[shape]
            setattr(value.of, member, content)
        return
    tag = shape[0]
    if tag == "list" and shape[1] == "u8":
        _write_bytes(value, content)
    elif tag in ("list", "tuple"):
        value.kind = _LIST if tag == "list" else _TUPLE
        shapes = [shape[1]] * len(content) if tag == "list" else shape[1:]
        vector = value.of.list if tag == "list" else value.of.tuple
        make = (
            ffi.wasmtime_component_vallist_new_uninit if tag == "list" else ffi.wasmtime_component_valtuple_new_uninit
        )
        make(ctypes.byref(vector), len(content))
        _blank(vector.data, len(content))
        for i, (inner, item) in enumerate(zip(shapes, content, strict=True)):
            write(vector.data[i], inner, item, context)
    elif tag == "record":
        value.kind = _RECORD
        record = value.of.record
        ffi.wasmtime_component_valrecord_new_uninit(ctypes.byref(record), len(shape) - 1)
        for i in range(len(shape) - 1):
            ffi.wasm_byte_vec_new_empty(ctypes.byref(record.data[i].name))
            _blank_one(record.data[i].val)
        for i, (name, inner) in enumerate(shape[1:]):
            _fill(record.data[i].name, name)
            write(record.data[i].val, inner, content[name], context)
    elif tag == "option":
        value.kind = _OPTION
        value.of.option = None if content is None else _boxed(shape[1], content, context)
    elif tag == "result":
        failed = isinstance(content, Err)
        inner, payload = (shape[2], content.value) if isinstance(content, Err) else (shape[1], content)
        box = None if inner is None else _boxed(inner, payload, context)
        value.kind = _RESULT
        value.of.result.is_ok = not failed
        value.of.result.val = box
    elif tag == "variant":
        name, payload = content
        inner = dict(shape[1:])[name]
        box = None if inner is None else _boxed(inner, payload, context)
        value.kind = _VARIANT
        _fill(value.of.variant.discriminant, name)
        value.of.variant.val = box
    elif tag == "own":
        _write_resource(value, shape[1], content, context)
    else:
        raise ShapeMismatch(f"cannot write {shape}")


def _write_bytes(value: Any, content: bytes) -> None:
    # One member at a time costs a microsecond a byte; a language runtime asks for kilobytes at start.
    raw = bytearray(_SIZE * len(content))
    raw[0::_SIZE] = bytes([_KINDS["u8"][0]]) * len(content)
    raw[_U8_OFFSET::_SIZE] = content
    value.kind = _LIST
    ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(value.of.list), len(content))
    if content:
        ctypes.memmove(value.of.list.data, bytes(raw), len(raw))


def _fill(vector: Any, text: str) -> None:
    # A lone surrogate cannot be told to a guest; what stands for it must not end the call.
    data = text.encode("utf-8", "replace")
    if data:
        ffi.wasm_byte_vec_new(ctypes.byref(vector), len(data), ctypes.cast(ctypes.c_char_p(data), _BYTES))
    else:
        ffi.wasm_byte_vec_new_empty(ctypes.byref(vector))


def _blank(data: Any, count: int) -> None:
    for i in range(count):
        _blank_one(data[i])


def _blank_one(value: Any) -> None:
    # Uninitialised members would be freed as garbage if writing stopped half-way.
    value.kind = _KINDS["bool"][0]
    value.of.boolean = False


def _boxed(shape: Shape, content: Any, context: Any) -> Any:
    raw = Value()
    write(raw, shape, content, context)
    return ffi.wasmtime_component_val_new(ctypes.byref(raw))


def _write_resource(value: Any, type_id: int, number: int, context: Any) -> None:
    host = ffi.wasmtime_component_resource_host_new(True, number, type_id)
    found = ctypes.POINTER(ffi.wasmtime_component_resource_any_t)()
    error = ffi.wasmtime_component_resource_host_to_any(context, host, ctypes.byref(found))
    ffi.wasmtime_component_resource_host_delete(host)
    if error:
        ffi.wasmtime_error_delete(error)
        raise ShapeMismatch("a resource could not be made")
    value.kind = _RESOURCE
    value.of.resource = found


def shape_text(shape: Shape | None) -> str:
    """The shape as WIT would say it; names of records and resources left out."""
    if shape is None:
        return "_"
    if isinstance(shape, str):
        return shape
    tag, rest = shape[0], shape[1:]
    if tag == "clipped":
        return "string"
    if tag in ("own", "borrow"):
        return str(tag)
    if tag == "enum":
        return f"enum{{{','.join(rest)}}}"
    if tag in ("record", "variant"):
        return f"{tag}{{{','.join(f'{n}:{shape_text(s)}' for n, s in rest)}}}"
    return f"{tag}<{','.join(shape_text(s) for s in rest)}>"


def type_text(found: Any) -> str:
    """A type of a compiled component in the words of :func:`shape_text`."""
    if found is None:
        return "_"
    if isinstance(found, wt.ListType):
        return f"list<{type_text(found.element)}>"
    if isinstance(found, wt.OptionType):
        return f"option<{type_text(found.payload)}>"
    if isinstance(found, wt.ResultType):
        return f"result<{type_text(found.ok)},{type_text(found.err)}>"
    if isinstance(found, wt.TupleType):
        return f"tuple<{','.join(type_text(e) for e in found.elements)}>"
    if isinstance(found, wt.RecordType):
        return f"record{{{','.join(f'{n}:{type_text(t)}' for n, t in found.fields)}}}"
    if isinstance(found, wt.VariantType):
        return f"variant{{{','.join(f'{n}:{type_text(t)}' for n, t in found.cases)}}}"
    if isinstance(found, wt.EnumType):
        return f"enum{{{','.join(found.names)}}}"
    names = {wt.OwnType: "own", wt.BorrowType: "borrow", wt.FlagsType: "flags"}
    return names.get(type(found), type(found).__name__.lower())


def signature_text(parameters: list[str], result: str | None) -> str:
    """A function's type in one line."""
    return f"({', '.join(parameters)}) -> {result or '()'}"
