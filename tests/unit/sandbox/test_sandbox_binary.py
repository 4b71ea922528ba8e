"""Components are read from the outside without compiling, and damage never gets past that."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from sandbox.binary import imports_of, outline
from sandbox.errors import BadComponent

GUESTS = Path(__file__).parents[2] / "guests"


def component(name: str) -> bytes:
    return bytes(wasmtime.wat2wasm((GUESTS / f"{name}.wat").read_text()))


ECHO, PRINT = component("echo"), component("print")


def test_imports_are_named_in_order():
    assert imports_of(ECHO) == []
    assert imports_of(PRINT) == ["wasi:io/error@0.2.6", "wasi:io/streams@0.2.6", "wasi:cli/stdout@0.2.6"]


@pytest.mark.parametrize(
    "item",
    [
        '(import "a" (func (param "x" u32)))',
        '(import "a" (type (sub resource)))',
        '(type $t u32) (import "a" (type (eq $t)))',
        '(import "a" (instance (export "f" (func))))',
        '(import "a" (component))',
        '(import "a" (core module (import "x" "y" (func))))',
    ],
)
def test_every_kind_of_import_is_read(item):
    data = bytes(wasmtime.wat2wasm(f'(component {item} (import "b:c/d@1.2.3" (instance)))'))
    assert imports_of(data) == ["a", "b:c/d@1.2.3"]


def test_memories_are_numbered_as_their_instances_are_made():
    data = bytes(
        wasmtime.wat2wasm(
            """(component
              (core module $none)
              (core module $two (memory 3) (memory 1 5))
              (core instance (instantiate $none))
              (core instance $i (instantiate $two))
              (core instance (export "x" (memory $i 0)))
              (core instance (instantiate $two)))""".replace('(core instance (export "x" (memory $i 0)))', "")
        )
    )
    found = outline(data)
    assert found.memories == ((1, 0), (1, 1), (2, 0), (2, 1))
    assert found.least_memory == 4 * 65_536


def test_memories_of_nested_components_are_not_guessed():
    data = bytes(wasmtime.wat2wasm("(component (component (core module (memory 1))))"))
    assert outline(data).memories is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "none"),
        (b"PK\x03\x04zip", "50 4b 03 04"),
        (b"\0asm\x01\0\0\0", "a core module"),
        (ECHO[:-40], "damaged"),
        (ECHO[:8] + b"\x0a\x03\x01\x07\x00", "damaged"),
        (ECHO[:8] + b"\x00\x00" * 20_000, "more than 10000 sections"),
        (ECHO[:8] + b"\x0a\x05\xff\xff\xff\xff\x0f", "more than 10000 items"),
        (ECHO[:8] + b"\x0a\x0a" + b"\xff" * 10, "a number is too long"),
    ],
)
def test_what_is_no_component_is_refused(data, says):
    with pytest.raises(BadComponent) as caught:
        outline(data)
    assert says in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_can_do_more_than_be_refused(tail):
    with contextlib.suppress(BadComponent):
        outline(ECHO[:8] + tail)


@given(st.integers(0, len(PRINT) - 1), st.integers(0, 255))
def test_one_wrong_byte_can_do_no_more_than_be_refused(at, value):
    with contextlib.suppress(BadComponent):
        outline(PRINT[:at] + bytes([value]) + PRINT[at + 1 :])
