"""``sandbox.fresh``: a fresh isolated call, 1 KiB in and out, against Extism's Python SDK doing the same.

Ours is a component: new store, limits, epoch deadline, instance, call, drop, and the gate of host
calls. Extism's is a plugin made from a ``CompiledPlugin``, called and freed, with a guest that reads
its input and writes its output eight bytes at a time, as Extism's own guest libraries do. Both are
called from one thread, in turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wasmtime
from wasmtime.component import Component

from kernel.context import Context
from kernel.manifest import manifest_from_dict
from kernel.ports import GuestCall
from kernel.settings import Settings
from sandbox.engine import EngineShape, SandboxEngine
from sandbox.guest import Guest
from sandbox.hostcalls import HostCalls, HostServices
from sandbox.policy import effective_limits
from tests.benchmarks.measure import alternate, per_call_us, row

CALLS = 2_000
PAYLOAD = '{"text":"' + "a" * 1_013 + '"}'
ECHO = Path(__file__).parents[1] / "guests" / "echo.wat"

EXTISM_ECHO = """
(module
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory (export "memory") 1)
  (func (export "echo") (result i32)
    (local $size i64) (local $at i64) (local $out i64)
    (local.set $size (call $input_length))
    (block $read
      (loop $words
        (br_if $read (i64.gt_u (i64.add (local.get $at) (i64.const 8)) (local.get $size)))
        (i64.store (i32.wrap_i64 (local.get $at)) (call $input_load_u64 (local.get $at)))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words)))
    (block $rest
      (loop $bytes
        (br_if $rest (i64.ge_u (local.get $at) (local.get $size)))
        (i32.store8 (i32.wrap_i64 (local.get $at)) (call $input_load_u8 (local.get $at)))
        (local.set $at (i64.add (local.get $at) (i64.const 1)))
        (br $bytes)))
    (local.set $out (call $alloc (local.get $size)))
    (local.set $at (i64.const 0))
    (block $written
      (loop $words
        (br_if $written (i64.gt_u (i64.add (local.get $at) (i64.const 8)) (local.get $size)))
        (call $store_u64 (i64.add (local.get $out) (local.get $at)) (i64.load (i32.wrap_i64 (local.get $at))))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words)))
    (block $last
      (loop $bytes
        (br_if $last (i64.ge_u (local.get $at) (local.get $size)))
        (call $store_u8 (i64.add (local.get $out) (local.get $at)) (i32.load8_u (i32.wrap_i64 (local.get $at))))
        (local.set $at (i64.add (local.get $at) (i64.const 1)))
        (br $bytes)))
    (call $output_set (local.get $out) (local.get $size))
    (i32.const 0)))
"""


def rows() -> list[dict[str, Any]]:
    """The row ``sandbox.fresh`` in microseconds; ``times_faster`` is what its target speaks of."""
    import extism
    from extism.extism import CompiledPlugin

    manifest = manifest_from_dict(
        {
            "manifest": 1,
            "id": "bench/echo",
            "version": "1.0.0",
            "name": "Echo",
            "summary": "Answers its payload",
            "license": "Apache-2.0",
        }
    )
    settings = Settings()
    engine = SandboxEngine(EngineShape.of(settings))
    # The memory's number is what compiling finds out and proves for a component like this one.
    guest = Guest(Component(engine.engine, wasmtime.wat2wasm(ECHO.read_text())), engine, ((1, 0),))
    call = GuestCall("bench/echo", "1.0.0", "", manifest, "user_creating", PAYLOAD, Context("acme"))
    limits, services = effective_limits(manifest.limits, settings), HostServices()
    compiled = CompiledPlugin({"wasm": [{"data": bytes(wasmtime.wat2wasm(EXTISM_ECHO))}]}, functions=[])
    data = PAYLOAD.encode()

    def ours() -> str:
        return guest.run("user_creating", PAYLOAD, HostCalls(call, limits, services), 1.0).output

    def theirs() -> bytes:
        with extism.Plugin(compiled) as plugin:
            answer: bytes = plugin.call("echo", data)
            return answer

    if ours() != PAYLOAD or theirs() != data:
        raise RuntimeError("the two guests do not do the same")
    left, right = alternate(lambda: per_call_us(ours, CALLS), lambda: per_call_us(theirs, CALLS // 4))
    engine.close()
    found = row(
        "sandbox.fresh", ours=left, baseline=right, unit="us", target=">= 4x faster", met=lambda ratio: ratio <= 0.25
    )
    return [found | {"times_faster": round(found["baseline"] / found["value"], 2)}]


if __name__ == "__main__":
    print(rows())
