"""Writes components as WebAssembly text: the frame is ours, the hostile part is the caller's.

Every guest has one core module with its memory and ``cabi_realloc`` (``$libc``) and one with
``handle`` (``$main``). A guest overrides what it attacks through: the allocator, the start function,
the canonical options, the sections around them.
"""

from __future__ import annotations

from collections.abc import Sequence

import wasmtime

from tests.support.guests import REALLOC

_FAILURE = '(alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))'
_TYPES = """
  (import "keelstone:plugin/types@1.0.0" (instance $types
    (type $f (record (field "code" string) (field "message" string)))
    (export "failure" (type (eq $f)))))
  (alias export $types "failure" (type $failure))"""

INTERFACES = {
    "log": """
  (import "keelstone:plugin/log@1.0.0" (instance $log
    (type $l (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $l)))
    (export "write" (func (param "level" $level) (param "message" string)))))""",
    "config": f"""
  (import "keelstone:plugin/config@1.0.0" (instance $config {_FAILURE}
    (export "get" (func (param "key" string) (result (result (option string) (error $failure)))))))""",
    "kv": f"""
  (import "keelstone:plugin/kv@1.0.0" (instance $kv {_FAILURE}
    (export "get" (func (param "key" string) (result (result (option string) (error $failure)))))
    (export "set" (func (param "key" string) (param "value" string) (result (result (error $failure)))))
    (export "delete" (func (param "key" string) (result (result (error $failure)))))
    (export "list-keys"
      (func (param "prefix" string) (param "limit" u32) (result (result (list string) (error $failure)))))))""",
    "http": f"""
  (import "keelstone:plugin/http@1.0.0" (instance $http {_FAILURE}
    (type $h (record (field "name" string) (field "value" string)))
    (export "header" (type $header (eq $h)))
    (type $q (record (field "method" string) (field "url" string)
      (field "headers" (list $header)) (field "body" (option string))))
    (export "request" (type $request (eq $q)))
    (type $s (record (field "status" u16) (field "headers" (list $header)) (field "body" string)))
    (export "response" (type $response (eq $s)))
    (export "send" (func (param "request" $request) (result (result $response (error $failure)))))))""",
    "events": f"""
  (import "keelstone:plugin/events@1.0.0" (instance $events {_FAILURE}
    (export "emit" (func (param "event-type" string) (param "data" string) (result (result (error $failure)))))))""",
}
"""What a guest imports of the contract, by capability; functions are named ``$interface`` there."""

CORE_TYPES = {
    "log.write": "(param i32 i32 i32)",
    "config.get": "(param i32 i32 i32)",
    "kv.get": "(param i32 i32 i32)",
    "kv.set": "(param i32 i32 i32 i32 i32)",
    "kv.delete": "(param i32 i32 i32)",
    "kv.list-keys": "(param i32 i32 i32 i32)",
    "http.send": "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
    "events.emit": "(param i32 i32 i32 i32 i32)",
}
"""The flattened types of the host's functions: strings are (address, length), the last is where the result goes."""

_CANON = '(memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))'

ANSWER = """
    (func $answer (param $text i32) (param $len i32) (result i32)
      (i32.store (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (local.get $text))
      (i32.store (i32.const 24) (local.get $len))
      (i32.const 16))"""
"""``(call $answer address length)`` is a good answer of that text."""


def escaped(data: bytes) -> str:
    """Bytes as WebAssembly text writes them."""
    return "".join(f"\\{byte:02x}" for byte in data)


def text(
    handle: str = "(call $answer (local.get $text) (local.get $len))",
    *,
    uses: Sequence[str] = (),
    module: str = "",
    data: bytes = b"",
    libc: str = REALLOC,
    memory: str = "2",
    around: str = "",
    lowered: str = "",
    more: Sequence[tuple[str, str]] = (),
    taken: str = "",
    lift: str = "string-encoding=utf8",
    canon: str = _CANON,
) -> str:
    """The text of a component.

    ``handle`` is the body of ``handle`` (parameters ``$hook $hook_len $text $len``); ``uses`` names
    functions of the host (``kv.set``), callable as ``$kv.set``; ``module`` is further text of the main
    core module, ``data`` lies at address 1024; ``libc`` replaces the allocator; ``around`` is text of
    the component before everything, ``lowered`` makes further core functions, which ``more`` hands to
    the main module as (name, core type); ``taken`` is text of the main module's imports.
    """
    interfaces = list(dict.fromkeys(name.partition(".")[0] for name in uses))
    imports = (_TYPES if interfaces else "") + "".join(INTERFACES[name] for name in interfaces)
    lowers = "\n".join(
        f'  (core func ${name} (canon lower (func ${name.partition(".")[0]} "{name.partition(".")[2]}") {_CANON}))'
        for name in uses
    )
    wanted = [(name, CORE_TYPES[name]) for name in uses] + list(more)
    core = "\n".join(f'    (import "host" "{name}" (func ${name} {signature}))' for name, signature in wanted)
    handed = " ".join(f'(export "{name}" (func ${name}))' for name, _ in wanted)
    return f"""(component {around} {imports}
  (core module $libc (memory (export "memory") {memory}) {libc})
  (core instance $libc (instantiate $libc))
{lowers} {lowered}
  (core module $main
    (import "libc" "memory" (memory 0)) {taken}
{core}
    (data (i32.const 1024) "{escaped(data)}") {ANSWER} {module}
    (func (export "handle") (param $hook i32) (param $hook_len i32) (param $text i32) (param $len i32) (result i32)
      (local $i i32) (local $n i64)
      {handle}))
  (core instance $main (instantiate $main (with "libc" (instance $libc)) (with "host" (instance {handed}))))
  (func (export "handle") (param "hook" string) (param "payload" string) (result (result string (error string)))
    (canon lift (core func $main "handle") {canon} {lift})))"""


def compiled(source: str) -> bytes:
    """The component's bytes. wasmtime writes no more than its text format can say, and checks nothing."""
    return bytes(wasmtime.wat2wasm(source))
