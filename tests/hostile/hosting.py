"""Guests that turn on their host: floods, bombs and tricks over the host's own calls."""

from __future__ import annotations

from tests.hostile.model import BRIEF, SERVED, Hostile
from tests.hostile.text import text

FLOOD, TIME, LARGE, ABSENT = "guest-host-call-limit", "guest-time-limit", "guest-output-limit", "guest-unavailable"
ALLOWED = "at most 100"
PATIENT = {"time_ms": 20_000}
"""For guests that another limit must end, however slow the machine is."""

_ANSWER = "(call $answer (local.get $text) (local.get $len))"


def _forever(call: str, uses: str, data: bytes = b"lead.scored{}key") -> str:
    return text(f"(loop {call} (br 0)) unreachable", uses=[uses], data=data)


def _headers(count: int, size: int) -> str:
    """``count`` headers, each with the same ``size`` bytes for its value: small here, huge once copied."""
    entry = "(i32.add (i32.const 131072) (i32.mul (local.get $i) (i32.const 16)))"
    return text(
        f"""(loop (i32.store {entry} (i32.const 1024)) (i32.store offset=4 {entry} (i32.const 1))
          (i32.store offset=8 {entry} (i32.const 0)) (i32.store offset=12 {entry} (i32.const {size}))
          (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {count}))))
        (call $http.send (i32.const 1024) (i32.const 3) (i32.const 1027) (i32.const 8)
          (i32.const 131072) (i32.const {count}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 128))
        {_ANSWER}""",
        uses=["http.send"], memory="250", data=b"GEThttps://",
    )  # fmt: skip


_REENTERING = """
    (type $again (func)) (table (export "table") 1 funcref)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (call_indirect (type $again) (i32.const 0)) (i32.const 65536))"""

WASI_OUT = """
  (import "wasi:io/error@0.2.3" (instance $err (export "error" (type (sub resource)))))
  (alias export $err "error" (type $e))
  (import "wasi:io/streams@0.2.3" (instance $st
    (alias outer 1 $e (type $e2)) (export "error" (type $error (eq $e2)))
    (type $se (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $serr (eq $se)))
    (export "output-stream" (type $os (sub resource)))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $os)) (param "contents" (list u8)) (result (result (error $serr)))))))
  (alias export $st "output-stream" (type $os))
  (import "wasi:cli/stdout@0.2.3" (instance $so
    (alias outer 1 $os (type $o)) (export "output-stream" (type $o2 (eq $o)))
    (export "get-stdout" (func (result (own $o2))))))"""
_WASI_LOWERED = """(core func $get (canon lower (func $so "get-stdout")))
  (core func $write (canon lower (func $st "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))"""


def _printing(handle: str, memory: str = "2") -> str:
    return text(
        handle, around=WASI_OUT, lowered=_WASI_LOWERED, memory=memory, data=b"noise\n" * 600,
        more=[("get", "(result i32)"), ("write", "(param i32 i32 i32 i32)")],
    )  # fmt: skip


def _wasi(imports: str, name: str, signature: str, lowered: str, handle: str) -> str:
    return text(handle, around=imports, lowered=lowered, more=[(name, signature)])


_POLL = """(import "wasi:io/poll@0.2.12" (instance $p (export "pollable" (type $pl (sub resource)))
    (export "poll" (func (param "in" (list (borrow $pl))) (result (list u32))))))"""
_SLEEP = """(import "wasi:io/poll@0.2.9" (instance $p (export "pollable" (type $pl (sub resource)))))
  (alias export $p "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.9" (instance $c
    (alias outer 1 $pollable (type $q)) (export "pollable" (type $q2 (eq $q)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $q2))))))"""
_RANDOM = """(import "wasi:random/random@0.2.0" (instance $r
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"""
_EXIT = """(import "wasi:cli/exit@0.2.6" (instance $x (export "exit" (func (param "status" (result))))))"""
_OPEN = """(import "wasi:filesystem/types@0.2.6" (instance $f (export "filesystem-error-code" (func (result u32)))))"""
_MEM = '(memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))'

FLOODS = [
    Hostile("flood_log", "logs for ever", lambda: _forever(
        "(call $log.write (i32.const 1) (i32.const 1024) (i32.const 4))", "log.write"), FLOOD, ALLOWED, limits=PATIENT),
    Hostile("flood_config", "asks for ever", lambda: _forever(
        "(call $config.get (i32.const 1024) (i32.const 4) (i32.const 128))", "config.get"), FLOOD, ALLOWED,
        limits=PATIENT),
    Hostile("flood_kv", "reads for ever", lambda: _forever(
        "(call $kv.get (i32.const 1037) (i32.const 3) (i32.const 128))", "kv.get"), FLOOD, ALLOWED, limits=PATIENT),
    Hostile("flood_writes", "writes for ever", lambda: _forever(
        "(call $kv.set (i32.const 1037) (i32.const 3) (i32.const 1024) (i32.const 4) (i32.const 128))", "kv.set"),
        FLOOD, ALLOWED, limits=PATIENT),
    Hostile("event_storm", "emits for ever", lambda: _forever(
        "(call $events.emit (i32.const 1024) (i32.const 11) (i32.const 1035) (i32.const 2) (i32.const 128))",
        "events.emit"), FLOOD, ALLOWED, limits=PATIENT),
    Hostile("flood_start", "floods the host before it can be called", lambda: text(
        uses=["log.write"], module="(func $s (loop (call $log.write (i32.const 1) (i32.const 1024) (i32.const 4))"
        " (br 0))) (start $s)", data=b"noise"), FLOOD, ALLOWED, limits=PATIENT),
    Hostile("flood_random", "draws numbers for ever", lambda: _wasi(
        _RANDOM, "draw", "(param i64 i32)", f'(core func $draw (canon lower (func $r "get-random-bytes") {_MEM}))',
        "(loop (call $draw (i64.const 1) (i32.const 128)) (br 0)) unreachable"), FLOOD, "at most",
        limits={"time_ms": 60_000}),
    Hostile("flood_print", "prints for ever", lambda: _printing(
        "(local.set $i (call $get)) (loop (call $write (local.get $i) (i32.const 1024) (i32.const 3600)"
        " (i32.const 128)) (br 0)) unreachable"), TIME, "limits.time_ms", limits=BRIEF),
    Hostile("flood_handles", "takes handles of the host's for ever", lambda: _printing(
        "(loop (drop (call $get)) (br 0)) unreachable"), TIME, "limits.time_ms", limits=BRIEF),
]  # fmt: skip

BOMBS = [
    Hostile("log_bomb", "logs 8 MiB in one line", lambda: text(
        f"(call $log.write (i32.const 3) (i32.const 0) (i32.const 8388608)) {_ANSWER}", uses=["log.write"],
        memory="130"), SERVED, "ada@example.com"),
    Hostile("log_level", "logs at a level that does not exist", lambda: text(
        f"(call $log.write (i32.const 9) (i32.const 0) (i32.const 1)) {_ANSWER}", uses=["log.write"]),
        "guest-trap", "discriminant 9"),
    Hostile("log_no_utf8", "logs what is not UTF-8", lambda: text(
        f"(call $log.write (i32.const 1) (i32.const 1024) (i32.const 2)) {_ANSWER}", uses=["log.write"],
        data=b"\xff\xff"), "guest-output-invalid", "UTF-8"),
    Hostile("print_bomb", "prints 8 MiB at once", lambda: _printing(
        f"(call $write (call $get) (i32.const 0) (i32.const 8388608) (i32.const 128)) {_ANSWER}", "130"),
        LARGE, "128 MiB"),
    Hostile("headers_amplified", "sends one megabyte as a hundred thousand headers",
            lambda: _headers(100_000, 1 << 20), LARGE, "128 MiB", limits=PATIENT),
    Hostile("headers_many", "sends 900,000 headers", lambda: _headers(900_000, 1), LARGE, "128 MiB", limits=PATIENT),
    Hostile("headers_long", "sends 20,000 headers, which are carried over, and refused",
            lambda: _headers(20_000, 1), FLOOD, "16384", limits=PATIENT),
    Hostile("random_bomb", "wants more random bytes than there are", lambda: _wasi(
        _RANDOM, "draw", "(param i64 i32)", f'(core func $draw (canon lower (func $r "get-random-bytes") {_MEM}))',
        "(call $draw (i64.const -1) (i32.const 128)) unreachable"), "guest-trap", "random bytes"),
    Hostile("reenter", "calls the host from the allocator that the host is calling", lambda: text(
        uses=["kv.get"], libc=_REENTERING, taken='(import "libc" "table" (table 1 funcref))', module="(elem"
        " (i32.const 0) $again) (func $again (call $kv.get (i32.const 1024) (i32.const 3) (i32.const 128)))",
        data=b"key"), "guest-trap", "cannot leave"),
]  # fmt: skip

ABSENCES = [
    Hostile("sleep", "sleeps for an hour", lambda: _wasi(
        _SLEEP, "sleep", "(param i64) (result i32)", '(core func $sleep (canon lower (func $c "subscribe-duration")))',
        "(call $sleep (i64.const 3600000000000))"), ABSENT, "subscribe-duration", limits=PATIENT),
    Hostile("poll", "waits for what never happens", lambda: _wasi(
        _POLL, "poll", "(param i32 i32 i32)", f'(core func $poll (canon lower (func $p "poll") {_MEM}))',
        f"(call $poll (i32.const 0) (i32.const 0) (i32.const 128)) {_ANSWER}"), ABSENT, "poll", limits=PATIENT),
    Hostile("open_file", "looks for files", lambda: _wasi(
        _OPEN, "open", "(result i32)", '(core func $open (canon lower (func $f "filesystem-error-code")))',
        "(call $open)"), ABSENT, "wasi:filesystem/types"),
    Hostile("exit", "ends the process", lambda: _wasi(
        _EXIT, "exit", "(param i32)", '(core func $exit (canon lower (func $x "exit")))',
        "(call $exit (i32.const 1)) unreachable"), "guest-exit", "exit with an error"),
]  # fmt: skip

HOSTING = [*FLOODS, *BOMBS, *ABSENCES]
