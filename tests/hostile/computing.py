"""Guests that hoard: time, stack, memory, tables, instances, handles."""

from __future__ import annotations

from tests.hostile.model import BRIEF, SERVED, Hostile
from tests.hostile.text import text

TIME, TRAP, MEMORY, STACK = "guest-time-limit", "guest-trap", "guest-memory-limit", "guest-stack-limit"
OVER = "limits.time_ms"

_RESOURCE = {
    "around": "(type $r (resource (rep i32)))",
    "lowered": "(core func $new (canon resource.new $r))",
    "more": [("new", "(param i32) (result i32)")],
}


def _canon(name: str, definition: str, signature: str, handle: str, around: str = "") -> str:
    return text(handle, around=around, lowered=f"(core func ${name} (canon {definition}))", more=[(name, signature)])


def _looping_allocator() -> str:
    return text(libc='(func (export "realloc") (param i32 i32 i32 i32) (result i32) (loop (br 0)) unreachable)')


def _post_return(body: str) -> str:
    post = f'(func (export "post") (param i32) {body})'
    return text(module=post, lift='string-encoding=utf8 (post-return (core func $main "post"))')


TIMES = [
    Hostile("loop", "runs for ever", lambda: text("(loop (br 0)) unreachable"), TIME, OVER, limits=BRIEF),
    Hostile(
        "loop_start", "runs for ever before it can be called",
        lambda: text(module="(func $s (loop (br 0))) (start $s)"), TIME, OVER, limits=BRIEF,
    ),
    Hostile(
        "loop_tail_calls", "runs for ever without a loop",
        lambda: text("(return_call $r)", module="(func $r (result i32) (return_call $r))"), TIME, OVER, limits=BRIEF,
    ),
    Hostile("loop_allocator", "runs for ever while it takes its payload", _looping_allocator, TIME, OVER, limits=BRIEF),
    Hostile(
        "loop_post_return", "runs for ever after it has answered",
        lambda: _post_return("(loop (br 0))"), TIME, OVER, limits=BRIEF,
    ),
    Hostile(
        "loop_bulk", "copies its memory over and over, each a long instruction",
        lambda: text(
            "(loop (memory.copy (i32.const 65536) (i32.const 0) (i32.const 8000000)) (br 0)) unreachable",
            memory="160",
        ),
        TIME, OVER, limits=BRIEF,
    ),
    Hostile(
        "loop_yield", "yields for ever to nobody",
        lambda: _canon("yield", "thread.yield", "(result i32)", "(loop (drop (call $yield)) (br 0)) unreachable"),
        TIME, OVER, limits=BRIEF,
    ),
    Hostile(
        "wait_for_nothing", "blocks on a set of nothing to wait for",
        lambda: text(
            "(drop (call $wait (call $new) (i32.const 200))) unreachable",
            lowered="(core func $new (canon waitable-set.new)) (core func $wait "
            '(canon waitable-set.wait (memory (core memory $libc "memory"))))',
            more=[("new", "(result i32)"), ("wait", "(param i32 i32) (result i32)")],
        ),
        TRAP, "cannot block", limits=BRIEF,
    ),
]  # fmt: skip

STACKS = [
    Hostile(
        "recursion", "calls itself",
        lambda: text("(call $r)", module="(func $r (result i32) (i32.add (call $r) (i32.const 1)))"),
        STACK, "1024 KiB",
    ),
    Hostile(
        "recursion_wide", "calls itself with much on the stack",
        lambda: text(
            "(drop (call $r (i64.const 0))) unreachable",
            module="(func $r (param i64) (result i64) (local " + "i64 " * 900 + ")"
            + "".join(f"(local.set {n} (i64.add (local.get 0) (i64.const {n})))" for n in range(1, 900))
            + "(call $r (i64.add (local.get 1) (i64.const 1)))"
            + "".join(f"(local.get {n}) i64.add " for n in range(1, 900)) + ")",
        ),
        STACK, "1024 KiB",
    ),
    Hostile(
        "recursion_indirect", "calls itself through a table",
        lambda: text(
            "(call_indirect (type $t) (i32.const 0))",
            module="(type $t (func (result i32))) (table 1 funcref) (elem (i32.const 0) $r)"
            "(func $r (type $t) (i32.add (call_indirect (type $t) (i32.const 0)) (i32.const 1)))",
        ),
        STACK, "1024 KiB",
    ),
    Hostile(
        "recursion_start", "calls itself before it can be called",
        lambda: text(module="(func $r (result i32) (i32.add (call $r) (i32.const 1))) (func $s (drop (call $r)))"
                     "(start $s)"),
        STACK, "1024 KiB",
    ),
]  # fmt: skip

_GROW = "(loop (br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) unreachable"
_TOUCH = """(local.set $i (memory.grow (i32.const 200)))
  (memory.fill (i32.const 131072) (i32.const 1) (i32.const 13000000))
  (call $answer (local.get $text) (local.get $len))"""
_TABLE = """(drop (table.grow 0 (ref.null func) (i32.const 100000000)))
  (loop (br_if 0 (i32.ne (i32.const -1) (table.grow 0 (ref.null func) (i32.const 1000)))))
  (if (i32.gt_u (table.size 0) (i32.const 65536)) (then unreachable))
  (call $answer (local.get $text) (local.get $len))"""
_STRUCTS = "(type $t (struct (field (ref null $t)))) (global $g (mut (ref null $t)) (ref.null $t))"

MEMORIES = [
    Hostile("memory", "takes all memory and crashes", lambda: text(_GROW), MEMORY, "16 MiB"),
    Hostile(
        # Nobody can look into an instance that never was, so this is known as a crash only.
        "memory_start", "takes all memory before it can be called",
        lambda: text(module=f"(func $s {_GROW}) (start $s)"), TRAP, "unreachable",
    ),
    Hostile("memory_min", "wants a gigabyte from the start", lambda: text(memory="16384"), MEMORY, "1024.0 MiB",
            when="prepare"),
    Hostile("memory_full", "fills nearly all that it may have", lambda: text(_TOUCH), SERVED, "ada@example.com"),
    Hostile("memories", "has a second memory, which is not counted", lambda: text(module="(memory 1)"),
            "bad-component", "maximum of 1", when="prepare"),
    Hostile("memories_hundred", "has a hundred memories", lambda: text(module="(memory 1)" * 100),
            "bad-component", "memories", when="prepare"),
    Hostile("memory64", "has a memory without end", lambda: text(module="(memory i64 1)"),
            "bad-component", "memory64", when="prepare"),
    Hostile("memory_shared", "shares its memory with threads", lambda: text(module="(memory 1 2 shared)"),
            "bad-component", "shared", when="prepare"),
    Hostile("table", "grows a table without end", lambda: text(_TABLE, module="(table 1 funcref)"), SERVED,
            "ada@example.com"),
    Hostile("table_min", "wants a table of ten million", lambda: text(module="(table 10000000 funcref)"),
            "bad-component", "65536", when="prepare"),
    Hostile("tables", "has a hundred tables", lambda: text(module="(table 1 funcref)" * 100),
            "bad-component", "tables", when="prepare"),
    Hostile(
        "instances", "has two hundred instances",
        lambda: text(around="(core module $x)" + "(core instance (instantiate $x))" * 200),
        "bad-component", "maximum of 48", when="prepare",
    ),
    Hostile("globals", "has as many globals as fit nowhere",
            lambda: text(module="(global (mut i64) (i64.const 0))" * 200_000),
            "bad-component", "", when="prepare"),
    Hostile(
        "garbage", "keeps all that it makes on the collected heap, which is no memory of its own",
        lambda: text("(loop (global.set $g (struct.new $t (global.get $g))) (br 0)) unreachable", module=_STRUCTS),
        "bad-component", "gc types are disabled", when="prepare",
    ),
    Hostile(
        "handles", "makes handles of its own without end",
        lambda: text("(loop (drop (call $new (i32.const 1))) (br 0)) unreachable", **_RESOURCE),
        TRAP, "handle limit",
    ),
    Hostile(
        "waitables", "makes sets of waitables without end",
        lambda: _canon("new", "waitable-set.new", "(result i32)", "(loop (drop (call $new)) (br 0)) unreachable"),
        TRAP, "handle limit",
    ),
    Hostile(
        "streams", "makes streams without end",
        lambda: _canon("new", "stream.new $s", "(result i64)", "(loop (drop (call $new)) (br 0)) unreachable",
                       "(type $s (stream u8))"),
        TRAP, "handle limit",
    ),
]  # fmt: skip

CRASHES = [
    Hostile("trap", "executes the unreachable", lambda: text("unreachable"), TRAP, "unreachable"),
    Hostile("divide", "divides by zero", lambda: text("(i32.div_u (i32.const 1) (i32.const 0))"), TRAP,
            "divide by zero"),
    Hostile("outside", "reads outside its memory", lambda: text("(i32.load (i32.const -4))"), TRAP, "out of bounds"),
    Hostile(
        "wrong_call", "calls through a table with another type",
        lambda: text("(call_indirect (type $t) (i32.const 0))",
                     module="(type $t (func (result i32))) (table 1 funcref) (elem (i32.const 0) $f) (func $f)"),
        TRAP, "indirect call type mismatch",
    ),
    Hostile("throw", "throws what nobody catches", lambda: text("(throw $e)", module="(tag $e)"),
            "bad-component", "disabled", when="prepare"),
    Hostile("trap_start", "crashes before it can be called",
            lambda: text(module="(func $s unreachable) (start $s)"), TRAP, "unreachable"),
    Hostile("trap_post_return", "crashes after it has answered", lambda: _post_return("unreachable"), TRAP,
            "unreachable"),
    Hostile(
        "trap_allocator", "crashes while it takes its payload",
        lambda: text(libc='(func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)'),
        TRAP, "unreachable",
    ),
    Hostile(
        "allocator_outside", "takes its payload outside its memory",
        lambda: text(libc='(func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const -8))'),
        TRAP, "beyond end of memory",
    ),
    Hostile(
        "backpressure", "overflows a counter of the runtime",
        lambda: _canon("more", "backpressure.inc", "", "(loop (call $more) (br 0)) unreachable"), TRAP, "overflow",
    ),
]  # fmt: skip

COMPUTING = [*TIMES, *STACKS, *MEMORIES, *CRASHES]
