"""Guests for tests of the whole platform: real components, written as WebAssembly text on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import wasmtime

from marketplace.keys import SigningKey
from marketplace.publishing import SignedPackage
from marketplace.testing import make_signed, write_plugin
from plugin_sdk.sbom import Part

GUESTS = Path(__file__).parents[1] / "guests"

REALLOC = """
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32) (local $end i32) (local $have i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (local.set $end (i32.add (local.get $at) (local.get $size)))
      (local.set $have (i32.shl (memory.size) (i32.const 16)))
      (if (i32.gt_u (local.get $end) (local.get $have))
        (then
          (if (i32.eq (i32.const -1)
                (memory.grow
                  (i32.shr_u (i32.add (i32.sub (local.get $end) (local.get $have)) (i32.const 65535)) (i32.const 16))))
            (then unreachable))))
      (global.set $next (local.get $end))
      (local.get $at))"""
"""An allocator that never gives back, above the first page: part of a core module with a memory."""

_TEXT = """
(component
  (import "keelstone:plugin/types@1.0.0" (instance $types
    (type $f (record (field "code" string) (field "message" string)))
    (export "failure" (type (eq $f)))))
  (alias export $types "failure" (type $failure))
  IMPORTS
  (core module $libc
    (memory (export "memory") 2)
REALLOC)
  (core instance $libc (instantiate $libc))
  LOWERED
  (core module $main
    (import "libc" "memory" (memory 1))
    CORE_IMPORTS
    (data (i32.const 1024) "DATA")
    (func (export "handle") (param $hook i32) (param $hook_len i32) (param $text i32) (param $len i32) (result i32)
      CALLS
      (i32.store (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (i32.const REPLY_AT))
      (i32.store (i32.const 24) (i32.const REPLY_LEN))
      (i32.const 16)))
  (core instance $main (instantiate $main (with "libc" (instance $libc)) WITH_HOST))
  (func (export "handle") (param "hook" string) (param "payload" string) (result (result string (error string)))
    (canon lift (core func $main "handle")
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")) string-encoding=utf8)))
"""
_KV = """(import "keelstone:plugin/kv@1.0.0" (instance $kv
    (alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))
    (export "set" (func (param "key" string) (param "value" string) (result (result (error $failure)))))))"""
_EVENTS = """(import "keelstone:plugin/events@1.0.0" (instance $events
    (alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))
    (export "emit" (func (param "event-type" string) (param "data" string) (result (result (error $failure)))))))"""
_MEMORY = '(memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))'


def guest(
    reply: Any = None, *, kv: tuple[str, str] | None = None, emit: tuple[str, dict[str, Any]] | None = None
) -> bytes:
    """A component that answers ``reply`` to every call, after it has set a key and emitted an event."""
    data = b""

    def place(text: str) -> tuple[int, int]:
        nonlocal data
        raw = text.encode()
        at = 1024 + len(data)
        data += raw
        return at, len(raw)

    def call(name: str, first: str, second: str) -> str:
        numbers = [*place(first), *place(second), 512]
        pushed = " ".join(f"(i32.const {n})" for n in numbers)
        # The host's refusal is the guest's end: a test sees it.
        return f"(call ${name} {pushed}) (if (i32.load8_u (i32.const 512)) (then unreachable))"

    wanted = [("set", "kv", _KV, kv), ("emit", "events", _EVENTS, emit)]
    used = [(name, of, text, value) for name, of, text, value in wanted if value is not None]
    calls = [
        call(name, value[0], value[1] if isinstance(value[1], str) else json.dumps(value[1]))
        for name, _, _, value in used
    ]
    at, length = place(json.dumps({} if reply is None else reply))
    text = _TEXT
    parts = {
        "CORE_IMPORTS": " ".join(
            f'(import "host" "{name}" (func ${name} (param i32 i32 i32 i32 i32)))' for name, *_ in used
        ),
        "IMPORTS": "\n".join(text for _, _, text, _ in used),
        "LOWERED": "\n".join(
            f'(core func ${name} (canon lower (func ${of} "{name}") {_MEMORY}))' for name, of, *_ in used
        ),
        "WITH_HOST": '(with "host" (instance {}))'.format(
            " ".join(f'(export "{name}" (func ${name}))' for name, *_ in used)
        )
        if used
        else "",
        "CALLS": "\n".join(calls),
        "REALLOC": REALLOC.strip("\n"),
        "DATA": "".join(f"\\{byte:02x}" for byte in data),
        "REPLY_AT": str(at),
        "REPLY_LEN": str(length),
    }
    for name, value in parts.items():
        text = text.replace(name, value)
    return bytes(wasmtime.wat2wasm(text))


def text_guest(name: str) -> bytes:
    """A guest of tests/guests (see its README)."""
    return bytes(wasmtime.wat2wasm((GUESTS / f"{name}.wat").read_text()))


CAPABILITIES = {
    "kv": '[capabilities.kv]\nwhy = "Keeps what the tests look for."\n',
    "log": '[capabilities.log]\nwhy = "Writes what the tests look for."\n',
    "events": '[capabilities.events]\nwhy = "Emits what the tests look for."\nemits = ["{type}"]\n\n'
    '[[events.declares]]\ntype = "{type}"\nsummary = "An event of the tests."\n',
}


def _patient(more: str) -> str:
    # What is not about time should not be judged by how busy the machine is.
    if "time_ms" in more:
        return more
    head, _, rest = more.partition("[limits]\n")
    return f"{head}\n[limits]\ntime_ms = 1000\n{rest}"


def signed(
    folder: Path,
    key: SigningKey,
    component: bytes,
    plugin: str,
    version: str = "1.0.0",
    schema: str | None = None,
    parts: Iterable[Part] = (),
    **manifest: str,
) -> SignedPackage:
    """The signed package of a plugin with this component; ``manifest`` is passed to ``write_plugin``,
    ``schema`` replaces its settings' schema, and ``parts`` is what it was linked from. Where the test says nothing
    of time, a call has a second."""
    manifest["more"] = _patient(manifest.get("more", ""))
    home = write_plugin(folder / f"{plugin.replace('/', '-')}-{version}", plugin, version, **manifest)
    if schema is not None:
        (home / "settings.schema.json").write_text(schema)
    return make_signed(home, key, component, parts=parts)
