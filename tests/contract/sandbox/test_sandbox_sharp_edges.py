"""What hurts when WebAssembly is run from Python, one by one, and that it cannot happen here.

What ends the process where it does happen is tried in a process of its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kernel.errors import KeelstoneError
from kernel.settings import Settings
from sandbox import errors
from sandbox.engine import EngineShape, SandboxEngine
from sandbox.policy import WASM_STACK_KB
from sandbox.pool import THREAD_STACK
from tests.hostile.text import compiled, text

GOOD = '{"email": "ada@example.com"}'
ROOT = Path(__file__).parents[3]

HEAD = """
import asyncio, ctypes, hashlib, os, sys, threading
from pathlib import Path
from kernel.errors import KeelstoneError
from kernel.settings import Settings
from tests.hostile.corpus import CORPUS, good_guest, manifest_of
from tests.hostile.door import Door
from tests.hostile.text import compiled, text
from sandbox import open_runtime

home = Path(sys.argv[1])

def opened(**changes):
    settings = {"home": home, "sandbox_slots": 8, "sandbox_threads": 2, "sandbox_max_time_ms": 60_000}
    return Door(open_runtime(Settings(**(settings | changes))), None, [])

def of(name):
    return compiled(next(guest for guest in CORPUS if guest.name == name).text())
"""


def alone(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` after HEAD in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + textwrap.dedent(code), str(home)],
        capture_output=True, text=True, timeout=240, cwd=ROOT, check=False,
    )  # fmt: skip


def survived(code: str, home: Path) -> str:
    """What the process printed; it must have ended by itself."""
    done = alone(code, home)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3_000:]}"
    return done.stdout.strip()


# ---------------------------------------------------------------------------------- what aborts the process


def test_an_object_of_another_store_ends_the_process_in_wasmtime_itself(home: Path) -> None:
    done = alone(
        """
        import wasmtime
        engine = wasmtime.Engine()
        one, other = wasmtime.Store(engine), wasmtime.Store(engine)
        memory = wasmtime.Memory(one, wasmtime.MemoryType(wasmtime.Limits(1, None)))
        memory.size(other)
        """,
        home,
    )
    assert done.returncode == -6, "if it no longer aborts, this file and FACTS can be simpler"


def test_no_call_ever_meets_anothers_store(home: Path) -> None:
    said = survived(
        """
        async def main():
            doors = [opened(sandbox_lane=lane, sandbox_threads=4) for lane in ("auto", "package")]
            manifest = manifest_of(limits={"concurrency": 64, "time_ms": 60_000})
            live = manifest_of("acme/live", isolation="tenant", limits={"concurrency": 64, "time_ms": 60_000})
            good, trap = good_guest(), of("trap")
            for door in doors:
                await door.prepare(good, manifest)
                await door.prepare(trap, manifest)
            calls = []
            for n in range(400):
                door = doors[n % 2]
                if n % 5 == 0:
                    calls.append(door.run(trap, manifest=manifest))
                elif n % 3 == 0:
                    calls.append(door.run(good, f'{{"n":{n}}}', manifest=live, tenant=f"t{n % 4}"))
                else:
                    calls.append(door.run(good, f'{{"n":{n}}}', manifest=manifest))
            found = []
            for start in range(0, len(calls), 40):
                found += await asyncio.gather(*calls[start : start + 40], return_exceptions=True)
            for n, result in enumerate(found):
                if n % 5 == 0:
                    assert getattr(result, "code", "") == "guest-trap", result
                else:
                    assert result.output == f'{{"n":{n}}}', result
            for door in doors:
                await door.runtime.close()
        asyncio.run(main())
        print("served")
        """,
        home,
    )
    assert said == "served"


def test_every_shape_that_the_settings_allow_is_an_engine(home: Path) -> None:
    said = survived(
        """
        from sandbox.engine import EngineShape, SandboxEngine
        for slots in (8, 200, 20_000):
            for memory in (1, 3, 128, 4_096, 100_000):
                for threads in (1, 64):
                    settings = Settings(home=home, sandbox_slots=slots, sandbox_max_memory_mb=memory,
                                        sandbox_threads=threads)
                    SandboxEngine(EngineShape.of(settings)).close()
        print("all")
        """,
        home,
    )
    assert said == "all"


def test_a_pool_larger_than_the_machine_can_hold_is_refused_by_the_settings(home: Path) -> None:
    # Measured: 20,000 places work, 30,000 end the process.
    with pytest.raises(ValidationError, match="sandbox_slots"):
        Settings(home=home, sandbox_slots=20_001)
    with pytest.raises(ValidationError, match="sandbox_threads"):
        Settings(home=home, sandbox_threads=65)


def test_no_thread_that_runs_guests_has_less_stack_than_they_may_use() -> None:
    assert WASM_STACK_KB << 10 <= THREAD_STACK // 4


def test_an_event_loop_in_a_thread_with_a_small_stack_runs_no_guest_in_place(home: Path) -> None:
    said = survived(
        """
        async def main():
            door = opened()
            manifest = manifest_of(limits={"time_ms": 60_000})
            # Short for so long that it would run in place, then endlessly deep.
            turncoat = compiled(text(
                '(if (result i32) (i32.eq (i32.load8_u (local.get $text)) (i32.const 33))'
                ' (then (call $r)) (else (call $answer (local.get $text) (local.get $len))))',
                module='(func $r (result i32) (i32.add (call $r) (i32.const 1)))',
            ))
            for _ in range(60):
                await door.run(turncoat, manifest=manifest)
            for _ in range(3):
                try:
                    await door.run(turncoat, "!", manifest=manifest)
                except KeelstoneError as error:
                    print(error.code)
            await door.runtime.close()
        threading.stack_size(512 << 10)
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()
        """,
        home,
    )
    assert said.split() == ["guest-stack-limit"] * 3


def test_a_child_forked_after_compiling_compiles_too(home: Path) -> None:
    said = survived(
        """
        async def main(marker):
            door = opened()
            await door.run(compiled(text(data=marker)), manifest=manifest_of(limits={"time_ms": 60_000}))
            await door.runtime.close()
        asyncio.run(main(b"parent %d" % os.getpid()))
        child = os.fork()
        if child == 0:
            asyncio.run(main(b"child %d" % os.getpid()))
            os._exit(7)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        """,
        home,
    )
    assert said == "7"


# ---------------------------------------------------------------------------------- deadlines


async def test_a_live_instance_gets_a_deadline_for_each_call_and_not_for_its_life(box: Any, make_manifest: Any) -> None:
    live = make_manifest(isolation="tenant", limits={"time_ms": 200})
    await box.run("echo", GOOD, manifest=live)
    # Epochs go by far beyond the first call's deadline while another plugin runs.
    with pytest.raises(errors.GuestTimeLimit):
        await box.run("loop", manifest=make_manifest(id="acme/other", limits={"time_ms": 600}))
    assert (await box.run("echo", GOOD, manifest=live)).output == GOOD


@pytest.mark.lanes("fast", "package")
async def test_a_call_after_the_clock_has_slept_has_its_whole_time(box: Any, make_manifest: Any) -> None:
    patient = make_manifest(limits={"time_ms": 5_000})
    for _ in range(2):
        assert (await box.run("echo", GOOD, manifest=patient)).output == GOOD
        engine = box.runtime._shelves._usual.engine
        while engine._wake.is_set():  # noqa: ASYNC110 - a clock tells nobody that it sleeps
            await asyncio.sleep(0.05)


class _Stalling(dict[str, Any]):
    """Settings that are read while the machine gives the guest's thread no turn."""

    def get(self, key: str, default: Any = None) -> Any:
        time.sleep(0.4)
        return super().get(key, default)

    __getitem__ = get


@pytest.mark.lanes("fast", "package")
async def test_a_guest_is_not_ended_for_turns_that_its_thread_was_not_given(box: Any, make_manifest: Any) -> None:
    brief = make_manifest(limits={"time_ms": 150})
    settings = _Stalling(greeting="hi")
    assert (await box.run("host", "cgreeting", settings=settings, manifest=brief)).output == '"hi"'
    # The request that waits for it has a deadline too, and that one counts everything.
    with pytest.raises(errors.GuestTimeLimit, match="was interrupted"):
        await box.run("host", "cgreeting", settings=settings, manifest=brief, seconds=0.3)


async def test_what_a_guest_waited_for_is_its_own_time(box: Any, make_manifest: Any) -> None:
    async def slow(*_: object) -> None:
        await asyncio.sleep(0.4)

    box.kv.get = slow
    try:
        found = (await box.run("host", "gname", manifest=make_manifest(limits={"time_ms": 150}))).output
    except errors.GuestTimeLimit:
        found = "interrupted"
    assert found in {"!deadline", "interrupted"}


@pytest.mark.lanes("fast", "package")
async def test_no_more_than_a_bound_is_given_back(box: Any, make_manifest: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("sandbox.calltime.MOST_GIVEN", 0.1)
    with pytest.raises(errors.GuestTimeLimit, match="was interrupted"):
        await box.run(
            "host",
            "cgreeting",
            settings=_Stalling(greeting="hi"),
            manifest=make_manifest(limits={"time_ms": 150}),
        )


@pytest.mark.lanes("fast", "package")
async def test_a_clock_that_gets_no_turn_for_long_still_ends_the_call(box: Any, make_manifest: Any) -> None:
    def starve() -> None:
        # Longer than the call's time and the clock's own patience together.
        with box.runtime._shelves._usual.engine._lock:
            time.sleep(1.5)

    brief = make_manifest(limits={"time_ms": 100})
    await box.run("echo", manifest=brief)
    task = asyncio.create_task(box.run("loop", manifest=brief))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(starve)
    with pytest.raises(errors.GuestTimeLimit):
        await task


def test_a_clock_that_catches_up_ends_no_call_early() -> None:
    engine = SandboxEngine(EngineShape(slots=8, memory_mb=16, threads=1))
    assert engine.ticks(0.1) in (50, 51, 52)
    engine.close()
    # The clock stands still from here: as if its thread had had no turn for the last second.
    engine._wake.set()
    engine._base -= 1.0
    # 500 epochs will come at once when it has one; the call's own 50 come after those.
    assert engine.ticks(0.1) >= 550


_SLEEPS = """(import "wasi:io/poll@0.2.{patch}" (instance $p (export "pollable" (type $pl (sub resource)))))
  (alias export $p "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.{patch}" (instance $c
    (alias outer 1 $pollable (type $q)) (export "pollable" (type $q2 (eq $q)))
    (export "now" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $q2))))))"""


@pytest.mark.parametrize("patch", [0, 3, 6, 9, 12, 40])
async def test_wasi_answers_to_every_patch_version_and_lets_nobody_sleep(box: Any, patch: int) -> None:
    source = text(
        "(drop (call $now)) (if (i32.eq (i32.load8_u (local.get $text)) (i32.const 33))"
        " (then (drop (call $sleep (i64.const 3600000000000)))))"
        "(call $answer (local.get $text) (local.get $len))",
        around=_SLEEPS.format(patch=patch),
        lowered='(core func $sleep (canon lower (func $c "subscribe-duration")))'
        '(core func $now (canon lower (func $c "now")))',
        more=[("sleep", "(param i64) (result i32)"), ("now", "(result i64)")],
    )
    assert (await box.run(compiled(source), GOOD)).output == GOOD
    with pytest.raises(errors.GuestUnavailable, match="subscribe-duration"):
        await box.run(compiled(source), "!")


# ---------------------------------------------------------------------------------- the wrapper's own traps


async def test_errors_raised_by_the_host_in_many_threads_reach_their_own_calls(opened: Any, make_manifest: Any) -> None:
    wide = make_manifest(limits={"concurrency": 64, "time_ms": 5_000})
    random = """(import "wasi:random/random@0.2.0" (instance $r
      (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"""

    def asking(size: int) -> str:
        return text(
            f"(call $draw (i64.const {size}) (i32.const 128)) unreachable",
            around=random,
            lowered='(core func $draw (canon lower (func $r "get-random-bytes")'
            ' (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))',
            more=[("draw", "(param i64 i32)")],
        )

    async with opened(sandbox_threads=8) as box:

        async def found(size: int) -> object:
            with pytest.raises(KeelstoneError) as caught:
                await box.run(compiled(asking(size)), manifest=wide)
            return caught.value.found

        sizes = [5_000, 6_000, 7_000, 8_000]
        for size in sizes:
            await found(size)
        assert await asyncio.gather(*(found(size) for size in sizes * 10)) == sizes * 10


def test_answers_of_the_host_leak_nothing(home: Path) -> None:
    # The wasmtime package leaks 48 bytes for each result<> of a host call; counted by the allocator itself.
    grown = survived(
        """
        class Info(ctypes.Structure):
            _fields_ = [(name, ctypes.c_size_t) for name in
                        ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
                         "fordblks", "keepcost")]
        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = Info

        async def main():
            door = opened(sandbox_lane=sys.argv[2] if len(sys.argv) > 2 else "auto")
            manifest = manifest_of(limits={"time_ms": 60_000})
            guest = compiled(text(
                "(loop (call $config.get (i32.const 1024) (i32.const 1) (i32.const 128))"
                " (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 50))))"
                " (call $answer (local.get $text) (local.get $len))", uses=["config.get"], data=b"k"))
            async def calls(count):
                for _ in range(count):
                    await door.run(guest, manifest=manifest, settings={"k": "v"})
            await calls(60)
            before = mallinfo().uordblks
            await calls(200)
            print(mallinfo().uordblks - before)
            await door.runtime.close()
        asyncio.run(main())
        """,
        home,
    )
    assert int(grown) < 200 * 50 * 48 // 4


async def test_the_memory_limit_is_for_all_memories_together(box: Any) -> None:
    # A store's limit is for each memory by itself, so a component has one.
    modules = "(core module $one (memory 200)) (core instance (instantiate $one))"
    with pytest.raises(errors.BadComponent, match="memories"):
        await box.run(compiled(text(around=modules)))


# ---------------------------------------------------------------------------------- the words of traps

_INDIRECT = "(type $t (func (result i32))) (table 2 funcref) (elem (i32.const 0) $f) (func $f)"
WORDS = [
    ("unreachable", "", errors.GuestTrapped, "wasm `unreachable` instruction executed"),
    ("(i32.div_s (i32.const 1) (i32.const 0))", "", errors.GuestTrapped, "integer divide by zero"),
    ("(i32.div_s (i32.const 0x80000000) (i32.const -1))", "", errors.GuestTrapped, "integer overflow"),
    ("(i32.trunc_f32_s (f32.const nan))", "", errors.GuestTrapped, "invalid conversion to integer"),
    ("(i32.load (i32.const -8))", "", errors.GuestTrapped, "out of bounds memory access"),
    ("(call_indirect (type $t) (i32.const 0))", _INDIRECT, errors.GuestTrapped, "indirect call type mismatch"),
    ("(call_indirect (type $t) (i32.const 1))", _INDIRECT, errors.GuestTrapped, "uninitialized element"),
    (
        "(call_indirect (type $t) (i32.const 9))",
        _INDIRECT,
        errors.GuestTrapped,
        "undefined element: out of bounds table access",
    ),
    ("(call $r)", "(func $r (result i32) (i32.add (call $r) (i32.const 1)))", errors.GuestStackLimit, "more"),
    (
        "(i32.store (i32.const 16) (i32.const 7)) (i32.const 16)",
        "",
        errors.GuestTrapped,
        "discriminant 7 out of range [0..2)",
    ),
    ("(i32.const 17)", "", errors.GuestTrapped, "return pointer not aligned"),
    ("(i32.const -4)", "", errors.GuestTrapped, "pointer out of bounds of memory"),
    (
        "(i32.store8 (i32.const 64) (i32.const 255)) (call $answer (i32.const 64) (i32.const 1))",
        "",
        errors.GuestOutputInvalid,
        "invalid utf-8 sequence of 1 bytes from index 0",
    ),
]


@pytest.mark.parametrize(("handle", "module", "error", "words"), WORDS, ids=[words for *_, words in WORDS])
async def test_the_words_of_this_wasmtime_are_the_words_that_are_read(
    box: Any, handle: str, module: str, error: type[KeelstoneError], words: str
) -> None:
    """Component traps carry no code. If an upgrade says it otherwise, this tells before a tenant does."""
    with pytest.raises(error) as caught:
        await box.run(compiled(text(handle, module=module)))
    assert type(caught.value) is error
    assert caught.value.found == words
