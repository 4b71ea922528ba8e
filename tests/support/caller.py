"""Guests that make one host call with given arguments, of any generation of the contract, and answer
what came back: the text (or number, truth value, texts with commas), ``none``, ``done``, or ``!`` and
the failure's code."""

from __future__ import annotations

import functools
import json
from typing import Any

import wasmtime

from sandbox.contract import GENERATIONS, Signature

_OUT = 512
_TEXT_AT = 1_024

_MODULE = """
(component
  (import "keelstone:plugin/types@VERSION" (instance $types
    (type $f (record (field "code" string) (field "message" string)))
    (export "failure" (type (eq $f)))))
  (alias export $types "failure" (type $failure))
  (import "keelstone:plugin/INTERFACE@VERSION" (instance $host
    (alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))
    TYPES
    (export "FUNCTION" (func PARAMETERS RESULT))))
  (core module $libc
    (memory (export "memory") 4)
    (global $next (mut i32) (i32.const 131072))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (core func $call (canon lower (func $host "FUNCTION") MEMORY))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "call" (func $call (param FLAT i32)))
    (data (i32.const 64) "nonedone!,falsetrue")
    (data (i32.const 1024) "DATA")
    (func $answer (param $text i32) (param $len i32) (result i32)
      (i32.store (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (local.get $text))
      (i32.store (i32.const 24) (local.get $len))
      (i32.const 16))
    (func $digits (param $n i64) (result i32)
      (local $at i32)
      (local.set $at (i32.const 400))
      (loop $more
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
        (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
        (br_if $more (i64.ne (local.get $n) (i64.const 0))))
      (call $answer (local.get $at) (i32.sub (i32.const 400) (local.get $at))))
    (func $joined (param $first i32) (param $count i32) (param $optional i32) (result i32)
      (local $to i32) (local $item i32)
      (local.set $to (i32.const 65536))
      (block $end
        (loop $next
          (br_if $end (i32.eqz (local.get $count)))
          (local.set $item (local.get $first))
          (if (local.get $optional)
            (then
              (if (i32.eqz (i32.load8_u (local.get $first)))
                (then
                  (memory.copy (local.get $to) (i32.const 64) (i32.const 4))
                  (local.set $to (i32.add (local.get $to) (i32.const 4))))
                (else (local.set $item (i32.add (local.get $first) (i32.const 4)))))))
          (if (i32.or (i32.eqz (local.get $optional)) (i32.load8_u (local.get $first)))
            (then
              (memory.copy (local.get $to) (i32.load (local.get $item)) (i32.load offset=4 (local.get $item)))
              (local.set $to (i32.add (local.get $to) (i32.load offset=4 (local.get $item))))))
          (i32.store8 (local.get $to) (i32.const 44))
          (local.set $to (i32.add (local.get $to) (i32.const 1)))
          (local.set $first
            (i32.add (local.get $first) (i32.add (i32.const 8) (i32.mul (i32.const 4) (local.get $optional)))))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next)))
      (call $answer (i32.const 65536) (i32.sub (i32.sub (local.get $to) (i32.const 65536)) (i32.const 1))))
    (func (export "handle") (param i32 i32 i32 i32) (result i32)
      (call $call ARGUMENTS (i32.const 512))
      (if (i32.load8_u (i32.const 512)) (then
        (i32.store8 (i32.const 448) (i32.const 33))
        (memory.copy (i32.const 449) (i32.load (i32.const ERROR)) (i32.load (i32.const ERROR_LEN)))
        (return (call $answer (i32.const 448) (i32.add (i32.const 1) (i32.load (i32.const ERROR_LEN)))))))
      GOOD))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "call" (func $call))))))
  (func (export "handle") (param "hook" string) (param "payload" string) (result (result string (error string)))
    (canon lift (core func $main "handle") MEMORY string-encoding=utf8)))
"""
_GOOD = {
    None: "(call $answer (i32.const 68) (i32.const 4))",
    "string": "(call $answer (i32.load (i32.const 516)) (i32.load (i32.const 520)))",
    "bool": "(if (result i32) (i32.load8_u (i32.const 516)) "
    "(then (call $answer (i32.const 79) (i32.const 4))) (else (call $answer (i32.const 74) (i32.const 5))))",
    "u64": "(call $digits (i64.load (i32.const 520)))",
    ("option", "string"): "(if (result i32) (i32.load8_u (i32.const 516)) "
    "(then (call $answer (i32.load (i32.const 520)) (i32.load (i32.const 524)))) "
    "(else (call $answer (i32.const 64) (i32.const 4))))",
    ("list", "string"): "(call $joined (i32.load (i32.const 516)) (i32.load (i32.const 520)) (i32.const 0))",
    (
        "list",
        ("option", "string"),
    ): "(call $joined (i32.load (i32.const 516)) (i32.load (i32.const 520)) (i32.const 1))",
}


class _Writer:
    """Lays arguments out in memory and on the stack, as the canonical ABI wants them."""

    def __init__(self) -> None:
        self.data = b""
        self.types: list[str] = []

    def place(self, raw: bytes) -> int:
        self.data += b"\0" * (-len(self.data) % 8)
        at = _TEXT_AT + len(self.data)
        self.data += raw
        return at

    def wat(self, shape: Any) -> str:
        """The type's name, defined and exported where it must be."""
        if isinstance(shape, str):
            return shape
        tag = shape[0]
        if tag in ("list", "option"):
            return f"({tag} {self.wat(shape[1])})"
        body = (
            " ".join(f'(field "{n}" {self.wat(s)})' for n, s in shape[1:])
            if tag == "record"
            else " ".join(f'"{n}"' for n in shape[1:])
        )
        name = f"t{len(self.types)}"
        self.types.append(f'(type ${name} ({tag} {body})) (export "{name}" (type ${name}x (eq ${name})))')
        return f"${name}x"

    def flat(self, shape: Any, value: Any) -> list[tuple[str, int]]:
        if shape == "string":
            raw = value.encode()
            return [("i32", self.place(raw)), ("i32", len(raw))]
        if shape == "u64":
            return [("i64", value)]
        if isinstance(shape, str):
            return [("i32", int(value))]
        if shape[0] == "record":
            return [item for name, inner in shape[1:] for item in self.flat(inner, value[name])]
        if shape[0] == "option":
            if value is None:
                return [("i32", 0), *((kind, 0) for kind, _ in self.flat(shape[1], ""))]
            return [("i32", 1), *self.flat(shape[1], value)]
        if shape[0] == "enum":
            return [("i32", shape[1:].index(value))]
        # Only lists of texts and of records of texts are given to the host.
        stored = b"".join(
            n.to_bytes(4, "little") for item in value for kind, n in self.flat(shape[1], item) if kind == "i32"
        )
        return [("i32", self.place(stored)), ("i32", len(value))]


@functools.cache
def _component(generation: str, interface: str, function: str, arguments: tuple[str, ...]) -> bytes:
    signature: Signature = GENERATIONS[generation][interface][function]
    writer = _Writer()
    names = [writer.wat(shape) for shape in signature.parameters]
    flat = [f for s, v in zip(signature.parameters, map(json.loads, arguments), strict=True) for f in writer.flat(s, v)]
    assert isinstance(signature.result, tuple)
    good = signature.result[1]
    error = 520 if good == "u64" else 516
    result = f"(result (result {writer.wat(good) if good is not None else ''} (error $failure)))"
    if isinstance(good, tuple) and good[0] == "record":
        # The first text of a record, or of a response's (status, headers, body) the last.
        good = "string" if good[1][1] == "string" else "response"
    parts = {
        "VERSION": f"{generation}.0",
        "INTERFACE": interface,
        "FUNCTION": function,
        "TYPES": "\n    ".join(writer.types),
        "PARAMETERS": " ".join(f'(param "p{i}" {name})' for i, name in enumerate(names)),
        "RESULT": result,
        "MEMORY": '(memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))',
        "FLAT": " ".join(kind for kind, _ in flat),
        "DATA": "".join(f"\\{byte:02x}" for byte in writer.data),
        "ARGUMENTS": " ".join(f"({kind}.const {n})" for kind, n in flat),
        "ERROR_LEN": str(error + 4),
        "ERROR": str(error),
        "GOOD": "(call $answer (i32.load (i32.const 528)) (i32.load (i32.const 532)))"
        if good == "response"
        else _GOOD[good],
    }
    text = _MODULE
    for name, value in parts.items():
        text = text.replace(name, value)
    return bytes(wasmtime.wat2wasm(text))


def caller(generation: str, interface: str, function: str, *arguments: Any) -> bytes:
    """The component that makes this one call."""
    return _component(generation, interface, function, tuple(json.dumps(a) for a in arguments))
