"""Guests that look for what is not theirs: in their own leftovers, in the store, on the network."""

from __future__ import annotations

from tests.hostile.text import text

SEPARATOR = "\x01"
"""Between the fields of a probe's payload."""

_OPTIONAL = """
    (func $put (param $from i32) (param $len i32)
      (memory.copy (global.get $o) (local.get $from) (local.get $len))
      (global.set $o (i32.add (global.get $o) (local.get $len))))
    (func $bar (i32.store8 (global.get $o) (i32.const 124)) (global.set $o (i32.add (global.get $o) (i32.const 1))))
    (func $digit (param $n i32)
      (i32.store8 (i32.const 2900) (i32.add (i32.const 48) (i32.and (local.get $n) (i32.const 63))))
      (call $put (i32.const 2900) (i32.const 1)) (call $bar))
    (func $found
      (if (i32.eqz (i32.load8_u (i32.const 128)))
        (then (if (i32.load8_u (i32.const 132))
          (then (call $put (i32.load (i32.const 136)) (i32.load (i32.const 140)))))))
      (call $bar))"""


def spy() -> str:
    """Reports everything that an earlier call may have left (memory, global, sizes of table and memory,
    its key in the store, the setting ``secret``), joined by ``|``; then leaves its payload in all of
    them, and in the log. A payload that begins with ``!`` crashes then, with ``?`` never ends."""
    return text(
        """(global.set $o (i32.const 4096))
      (call $put (i32.const 2052) (i32.load (i32.const 2048))) (call $bar)
      (i64.store (i32.const 2900) (global.get $g))
      (if (i64.ne (global.get $g) (i64.const 0)) (then (call $put (i32.const 2900) (i32.const 8)))) (call $bar)
      (call $digit (table.size 0)) (call $digit (memory.size))
      (call $kv.get (i32.const 1024) (i32.const 5) (i32.const 128)) (call $found)
      (call $config.get (i32.const 1029) (i32.const 6) (i32.const 128)) (call $found)
      (i32.store (i32.const 2048) (local.get $len))
      (memory.copy (i32.const 2052) (local.get $text) (local.get $len))
      (global.set $g (i64.load (local.get $text)))
      (drop (table.grow 0 (ref.null func) (i32.const 1))) (drop (memory.grow (i32.const 1)))
      (call $kv.set (i32.const 1024) (i32.const 5) (local.get $text) (local.get $len) (i32.const 128))
      (call $log.write (i32.const 1) (local.get $text) (local.get $len))
      (if (i32.eq (i32.load8_u (local.get $text)) (i32.const 33)) (then unreachable))
      (if (i32.eq (i32.load8_u (local.get $text)) (i32.const 63)) (then (loop (br 0))))
      (call $answer (i32.const 4096) (i32.sub (global.get $o) (i32.const 4096)))""",
        uses=["kv.get", "kv.set", "config.get", "log.write"],
        module="(global $o (mut i32) (i32.const 0)) (global $g (mut i64) (i64.const 0)) (table 1 funcref)" + _OPTIONAL,
        data=b"stashsecret",
    )


_FIELDS = """
    (func $split (param $at i32) (param $end i32) (local $n i32)
      (i32.store (i32.const 2048) (local.get $at))
      (block $out (loop $next
        (br_if $out (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 1))
          (then
            (call $close (local.get $n) (local.get $at))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (i32.store (i32.add (i32.const 2048) (i32.mul (local.get $n) (i32.const 8)))
              (i32.add (local.get $at) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
      (call $close (local.get $n) (local.get $end)))
    (func $close (param $n i32) (param $end i32) (local $slot i32)
      (local.set $slot (i32.add (i32.const 2048) (i32.mul (local.get $n) (i32.const 8))))
      (i32.store offset=4 (local.get $slot) (i32.sub (local.get $end) (i32.load (local.get $slot)))))
    (func $refused (result i32)
      (i32.store8 (i32.const 3000) (i32.const 33))
      (memory.copy (i32.const 3001) (i32.load (i32.const 132)) (i32.load (i32.const 136)))
      (call $answer (i32.const 3000) (i32.add (i32.const 1) (i32.load (i32.const 136)))))"""


def sender() -> str:
    """Sends a request with one header: the payload's fields are method, address, name and value. Answers
    the body that came, or ``!`` and the failure's code."""
    fields = " ".join(f"(i32.load (i32.const {2048 + at}))" for at in (0, 4, 8, 12))
    return text(
        f"""(call $split (local.get $text) (i32.add (local.get $text) (local.get $len)))
      (call $http.send {fields} (i32.const 2064) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 128))
      (if (result i32) (i32.load8_u (i32.const 128))
        (then (call $refused)) (else (call $answer (i32.load (i32.const 144)) (i32.load (i32.const 148)))))""",
        uses=["http.send"],
        module=_FIELDS,
    )


def dripping(uses: str = "kv.get") -> str:
    """Makes one host call after the other, each answered in time, for ever."""
    return text(
        f"(loop (call ${uses} (i32.const 1024) (i32.const 3) (i32.const 128)) (br 0)) unreachable",
        uses=[uses],
        data=b"key",
    )


def holding() -> str:
    """Makes one host call and answers."""
    return text(
        "(call $kv.get (i32.const 1024) (i32.const 3) (i32.const 128))"
        "(call $answer (local.get $text) (local.get $len))",
        uses=["kv.get"],
        data=b"key",
    )


def turncoat(attack: str, module: str = "") -> str:
    """Echoes its payload, but for one that begins with ``!``: then it attacks."""
    return text(
        f"(if (i32.eq (i32.load8_u (local.get $text)) (i32.const 33)) (then {attack}))"
        "(call $answer (local.get $text) (local.get $len))",
        module=module,
    )
