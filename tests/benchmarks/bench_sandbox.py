"""``sandbox.fresh`` and ``sandbox.warm``: a call, 1 KiB in and out, against Extism's Python SDK doing the same.

Fresh: ours is a component with a new store, limits, epoch deadline, instance, call, drop, and the gate
of host calls; Extism's is a plugin made from a ``CompiledPlugin``, called and freed. Warm: both call an
instance that lives. Extism's guest reads its input and writes its output eight bytes at a time, as
Extism's own guest libraries do. Both are called from one thread, in turns.
"""

from __future__ import annotations

from typing import Any

import wasmtime

from tests.benchmarks.guests import PAYLOAD, Bare
from tests.benchmarks.measure import alternate, per_call_us, row

CALLS = 2_000

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
    """Microseconds a call; ``times_faster`` is what the targets speak of."""
    import extism
    from extism.extism import CompiledPlugin

    bare = Bare("echo_live")
    compiled = CompiledPlugin({"wasm": [{"data": bytes(wasmtime.wat2wasm(EXTISM_ECHO))}]}, functions=[])
    data = PAYLOAD.encode()

    def theirs_fresh() -> bytes:
        with extism.Plugin(compiled) as plugin:
            answer: bytes = plugin.call("echo", data)
            return answer

    if bare.fresh() != PAYLOAD or theirs_fresh() != data:
        raise RuntimeError("the two guests do not do the same")
    left, right = alternate(lambda: per_call_us(bare.fresh, CALLS), lambda: per_call_us(theirs_fresh, CALLS // 4))
    fresh = row(
        "sandbox.fresh", ours=left, baseline=right, unit="us", target=">= 15x faster", met=lambda r: r <= 1 / 15
    )
    live = bare.guest.open(bare.host(), 1.0)
    with extism.Plugin(compiled) as plugin:

        def ours_warm() -> str:
            return live.call("user_creating", PAYLOAD, bare.host(), 1.0).output

        if ours_warm() != PAYLOAD:
            raise RuntimeError("the live guest does not do the same")
        left, right = alternate(
            lambda: per_call_us(ours_warm, CALLS), lambda: per_call_us(lambda: plugin.call("echo", data), CALLS)
        )
    live.drop()
    bare.close()
    warm = row("sandbox.warm", ours=left, baseline=right, unit="us", target=">= 3x faster", met=lambda r: r <= 1 / 3)
    return [found | {"times_faster": round(found["baseline"] / found["value"], 2)} for found in (fresh, warm)]


if __name__ == "__main__":
    print(rows())
