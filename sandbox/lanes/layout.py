"""What the fast lane takes for granted of libwasmtime 50.0.1 (x86-64 and AArch64), and whether it holds.

The wheels ship no headers: sizes and offsets were read from the C API's headers of that version and
are compared here with the structures that the ``wasmtime`` package generated from them.
"""

from __future__ import annotations

import ctypes
from functools import cache

VERSION = "50.0.1"
VALUE_SIZE, VALUE_OF = 32, 8
"""``wasmtime_component_val_t``: a kind (one byte), then at VALUE_OF the union."""
INSTANCE_SIZE, FUNCTION_SIZE, MEMORY_SIZE = 16, 32, 24
STRING_KIND, RESULT_KIND = 12, 19


@cache
def mismatch() -> str | None:
    """What differs from the expected library, in one line; None if nothing does."""
    from importlib.metadata import version

    found = version("wasmtime")
    if found != VERSION:
        return f"wasmtime {found} is installed, the fast lane knows {VERSION}"
    return _layout_mismatch()


def _layout_mismatch() -> str | None:
    from wasmtime import _ffi as ffi

    value = ffi.wasmtime_component_val_t
    facts = {
        "size of a pointer": (ctypes.sizeof(ctypes.c_void_p), 8),
        "size of wasmtime_component_val_t": (ctypes.sizeof(value), VALUE_SIZE),
        "offset of its union": (value.of.offset, VALUE_OF),
        "size of its kind": (value.kind.size, 1),
        "size of wasmtime_component_instance_t": (ctypes.sizeof(ffi.wasmtime_component_instance_t), INSTANCE_SIZE),
        "size of wasmtime_component_func_t": (ctypes.sizeof(ffi.wasmtime_component_func_t), FUNCTION_SIZE),
        "size of wasmtime_memory_t": (ctypes.sizeof(ffi.wasmtime_memory_t), MEMORY_SIZE),
        "kind of a string": (ffi.WASMTIME_COMPONENT_STRING.value, STRING_KIND),
        "kind of a result": (ffi.WASMTIME_COMPONENT_RESULT.value, RESULT_KIND),
    }
    for what, (found, expected) in facts.items():
        if found != expected:
            return f"the {what} is {found}, the fast lane expects {expected}"
    return None
