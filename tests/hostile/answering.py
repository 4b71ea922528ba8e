"""Guests whose answer is the attack, or the component itself."""

from __future__ import annotations

from tests.hostile.model import SERVED, Hostile
from tests.hostile.text import text

INVALID, TRAP, LARGE = "guest-output-invalid", "guest-trap", "guest-output-limit"
BAD, UNCOVERED = "bad-component", "import-not-covered"


def _deep_answer() -> str:
    # 100,000 opening brackets: within limits.output_kb, and the death of a recursive reader.
    return text(
        "(memory.fill (i32.const 65536) (i32.const 91) (i32.const 100000))"
        "(call $answer (i32.const 65536) (i32.const 100000))",
        memory="4",
    )


def _import(name: str, body: str = "") -> str:
    return text(around=f'(import "{name}" (instance {body}))')


ANSWERS = [
    Hostile(
        "answer_giant", "answers 4 MiB",
        lambda: text("(call $answer (i32.const 0) (i32.const 4194304))", memory="64"), LARGE, "4194304 bytes",
    ),
    Hostile("answer_endless", "answers 4 GiB that it does not have",
            lambda: text("(call $answer (i32.const 0) (i32.const -1))"), TRAP, "out of bounds"),
    Hostile("answer_deep", "answers JSON nested 100,000 deep", _deep_answer, SERVED, "[[[["),
    Hostile("answer_no_json", "answers what is not JSON", lambda: text("(call $answer (i32.const 1024) (i32.const 4))",
            data=b"nil!"), SERVED, "nil!"),
    Hostile("answer_nul", "answers a NUL", lambda: text("(call $answer (i32.const 1024) (i32.const 3))", data=b"a\0b"),
            SERVED, "a\0b"),
    Hostile("answer_no_utf8", "answers no UTF-8", lambda: text("(call $answer (i32.const 1024) (i32.const 4))",
            data=b"\xff\xfe\xc0\x80"), INVALID, "UTF-8"),
    Hostile("answer_overlong", "answers UTF-8 longer than it may be",
            lambda: text("(call $answer (i32.const 1024) (i32.const 2))", data=b"\xc0\xaf"), INVALID, "UTF-8"),
    Hostile("answer_surrogate", "answers half a surrogate pair as UTF-8",
            lambda: text("(call $answer (i32.const 1024) (i32.const 3))", data=b"\xed\xa0\x80"), INVALID, "UTF-8"),
    Hostile(
        "answer_surrogate_16", "answers half a surrogate pair as UTF-16",
        lambda: text("(i32.store16 (i32.const 100) (i32.const 0xd800)) (call $answer (i32.const 100) (i32.const 1))",
                     lift="string-encoding=utf16"),
        INVALID, "UTF-8",
    ),
    Hostile("answer_tag", "answers a result that is neither", lambda: text(
        "(i32.store (i32.const 16) (i32.const 7)) (i32.const 16)"), TRAP, "discriminant 7"),
    Hostile("answer_unaligned", "answers at an odd address", lambda: text("(i32.const 17)"), TRAP, "aligned"),
    Hostile("answer_outside", "answers from outside its memory", lambda: text("(i32.const -4)"), TRAP, "out of bounds"),
    Hostile(
        "error_giant", "fails with 4 MiB of words",
        lambda: text("""(i32.store (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 65536))
          (memory.fill (i32.const 65536) (i32.const 120) (i32.const 4000000))
          (i32.store (i32.const 24) (i32.const 4000000)) (i32.const 16)""", memory="64"),
        "guest-error", "xxxx",
    ),
    Hostile(
        "error_no_utf8", "fails with words that are no UTF-8",
        lambda: text("""(i32.store (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 1024))
          (i32.store (i32.const 24) (i32.const 2)) (i32.const 16)""", data=b"\xff\xff"),
        INVALID, "UTF-8",
    ),
]  # fmt: skip


def _ssa_bomb() -> str:
    # Few bytes, and for every one of 1,000 variables a merge at every one of 50,000 joins.
    turns = "".join(
        f"(if (i64.eqz (local.get {i % 1000}))"
        f" (then (local.set {i % 1000} (i64.mul (local.get {i * 7 % 1000}) (local.get {i * 13 % 1000})))))"
        for i in range(50_000)
    )
    return text(module=f"(func (local{' i64' * 1000}) {'(block ' * 1000}{turns}{')' * 1000})")


COMPONENTS = [
    Hostile("import_unknown", "imports a function of another world",
            lambda: _import("evil:host/files@1.0.0", '(export "read" (func (result string)))'),
            UNCOVERED, "evil:host/files@1.0.0", when="prepare"),
    Hostile("import_other_version", "imports a contract that nobody serves",
            lambda: _import("keelstone:plugin/kv@9.0.0", '(export "get" (func))'), UNCOVERED, "kv@9.0.0",
            when="prepare"),
    Hostile("import_bare", "imports a bare function", lambda: text(around='(import "abort" (func))'),
            UNCOVERED, "abort", when="prepare"),
    Hostile("import_other_type", "imports a function of ours with another type",
            lambda: _import("keelstone:plugin/config@1.0.0", '(export "get" (func (param "key" u64) (result u64)))'),
            BAD, "another type", when="prepare"),
    Hostile(
        "import_unknown_function", "calls a function that our interface has not",
        lambda: text(
            "(call $steal) unreachable",
            around='(import "keelstone:plugin/config@1.0.0" (instance $c (export "steal" (func))))',
            lowered='(core func $steal (canon lower (func $c "steal")))', more=[("steal", "")],
        ),
        "guest-unavailable", "config@1.0.0.steal",
    ),
    Hostile("import_long_name", "imports a name of a megabyte", lambda: _import("wasi:" + "a" * 1_000_000),
            BAD, "", when="prepare"),
    Hostile("no_handle", "exports nothing of the contract",
            lambda: '(component (core module $m (func (export "f"))) (core instance (instantiate $m)))',
            BAD, "handle", when="prepare"),
    Hostile(
        "other_handle", "exports the contract's function with another type",
        lambda: '(component (core module $m (func (export "f") (param i32) (result i32) (local.get 0)))'
        '(core instance $i (instantiate $m)) (func (export "handle") (param "n" u32) (result u32)'
        '(canon lift (core func $i "f"))))',
        BAD, "(u32) -> u32", when="prepare",
    ),
    Hostile("async_handle", "answers later", lambda: text(lift="string-encoding=utf8 async"), BAD, "async",
            when="prepare"),
    Hostile("data_outside", "brings 8 MiB of data for a memory of 128 KiB",
            lambda: text(module='(data (i32.const 100000) "' + "x" * (8 << 20) + '")'), TRAP, "out of bounds"),
    Hostile("data_huge", "brings 12 MiB of data", lambda: text(
        memory="200", module='(data (i32.const 65536) "' + "x" * (12 << 20) + '")'), SERVED, "ada@example.com"),
    Hostile("functions", "has more functions than can be compiled", lambda: text(module="(func)" * 1_000_001),
            BAD, "functions", when="prepare"),
    Hostile("branch_table", "branches a million ways", lambda: text(
        module=f"(func (block (br_table {'0 ' * 1_000_000}(i32.const 0))))"), BAD, "br_table", when="prepare"),
    Hostile("compile_bomb", "takes the compiler gigabytes", _ssa_bomb, "compile-limit", "3 GiB", when="prepare"),
    Hostile("nested_blocks", "nests 50,000 blocks", lambda: text(
        module=f"(func {'(block ' * 50_000}{')' * 50_000})"), SERVED, "ada@example.com"),
    Hostile("nested_components", "nests 95 components", lambda: text(
        around="(component " * 95 + ")" * 95), SERVED, "ada@example.com"),
]  # fmt: skip

ANSWERING = [*ANSWERS, *COMPONENTS]
