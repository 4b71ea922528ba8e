"""The adapter from WASI preview 1, as compilers' libraries call it: what it answers, refuses and leaves alone."""

import struct
from typing import Any

import pytest
import wasmtime

from plugin_sdk.toolchain.component import ADAPTER

NOW = 1_700_000_000, 123_456_789
STREAMS = {7: "out", 8: "err"}


class Adapter:
    """The adapter with hosts of ours, over a memory whose bytes are all 0xAA."""

    def __init__(self) -> None:
        self.store = wasmtime.Store()
        self.memory = wasmtime.Memory(self.store, wasmtime.MemoryType(wasmtime.Limits(1, None)))
        self.memory.write(self.store, b"\xaa" * 65536, 0)
        self.written: list[tuple[str, bytes]] = []
        self.exits: list[int] = []
        self.broken = False
        self.module = module = wasmtime.Module(self.store.engine, (ADAPTER / "preview1.wat").read_text())
        hosts = {
            "now": self._now,
            "get-random-u64": lambda: 0x1122334455667788,
            "exit": self.exits.append,
            "get-stdout": lambda: 7,
            "get-stderr": lambda: 8,
            "[method]output-stream.blocking-write-and-flush": self._write,
        }
        imports: list[Any] = []
        for one in module.imports:
            if one.module == "env":
                imports.append(self.memory)
                continue
            name = one.name or ""
            host = (lambda: 42) if "monotonic" in one.module else hosts[name]
            assert isinstance(one.type, wasmtime.FuncType)
            imports.append(wasmtime.Func(self.store, one.type, host))
        self.instance = wasmtime.Instance(self.store, module, imports)

    def _now(self, at: int) -> None:
        self.put(at, struct.pack("<QI4x", *NOW))

    def _write(self, stream: int, at: int, size: int, out: int) -> None:
        assert size <= 4096
        self.written.append((STREAMS[stream], self.get(at, size)))
        self.put(out, struct.pack("<B3xB3xI", self.broken, 0, 0))

    def put(self, at: int, data: bytes) -> None:
        self.memory.write(self.store, data, at)

    def get(self, at: int, size: int) -> bytes:
        return bytes(self.memory.read(self.store, at, at + size))

    def call(self, name: str, *arguments: int) -> Any:
        function = self.instance.exports(self.store)[name]
        assert isinstance(function, wasmtime.Func)
        return function(self.store, *arguments)


@pytest.fixture
def adapter() -> Adapter:
    return Adapter()


def test_it_has_every_function_of_preview_1(adapter: Adapter) -> None:
    names = {one.name for one in adapter.module.exports}
    assert len(names) == 46
    assert {"fd_write", "path_open", "poll_oneoff", "sock_shutdown", "proc_raise"} <= names


def test_what_is_written_goes_to_the_stream_in_pieces_and_nothing_behind_the_result_changes(adapter: Adapter) -> None:
    adapter.put(1000, struct.pack("<IIIIII", 2000, 5, 0, 0, 3000, 5000))
    adapter.put(2000, b"hello")
    adapter.put(3000, b"x" * 5000)
    assert adapter.call("fd_write", 1, 1000, 3, 900) == 0
    assert adapter.get(900, 12) == struct.pack("<I", 5005) + b"\xaa" * 8
    assert [(where, len(data)) for where, data in adapter.written] == [("out", 5), ("out", 4096), ("out", 904)]
    assert adapter.call("fd_write", 2, 1000, 1, 900) == 0
    assert adapter.written[-1] == ("err", b"hello")


@pytest.mark.parametrize("descriptor", [0, 3, -1])
def test_there_is_nothing_else_to_write_to(adapter: Adapter, descriptor: int) -> None:
    assert adapter.call("fd_write", descriptor, 1000, 1, 900) == 8
    assert adapter.written == []


def test_a_stream_that_refuses_is_an_error_of_input_and_output(adapter: Adapter) -> None:
    adapter.broken = True
    adapter.put(1000, struct.pack("<II", 2000, 5))
    assert adapter.call("fd_write", 1, 1000, 1, 900) == 29
    assert adapter.get(904, 8) == b"\xaa" * 8


def test_clocks_answer_nanoseconds_and_leave_the_bytes_behind_alone(adapter: Adapter) -> None:
    assert adapter.call("clock_time_get", 0, 1, 800) == 0
    assert struct.unpack("<Q", adapter.get(800, 8))[0] == NOW[0] * 1_000_000_000 + NOW[1]
    assert adapter.get(808, 8) == b"\xaa" * 8
    assert adapter.call("clock_time_get", 1, 1, 800) == 0
    assert struct.unpack("<Q", adapter.get(800, 8))[0] == 42
    assert adapter.call("clock_time_get", 2, 1, 800) == 28


@pytest.mark.parametrize("size", [0, 1, 7, 8, 13])
def test_random_bytes_fill_what_was_asked_for_and_no_more(adapter: Adapter, size: int) -> None:
    assert adapter.call("random_get", 700, size) == 0
    assert adapter.get(700, size) == (struct.pack("<Q", 0x1122334455667788) * 2)[:size]
    assert adapter.get(700 + size, 8) == b"\xaa" * 8


def test_waiting_is_over_at_once(adapter: Adapter) -> None:
    clock, reading = struct.pack("<QB39x", 5, 0), struct.pack("<QB39x", 6, 1)
    adapter.put(1000, clock + reading)
    assert adapter.call("poll_oneoff", 1000, 2000, 2, 900) == 0
    assert struct.unpack("<I", adapter.get(900, 4))[0] == 2
    assert struct.unpack("<QHB", adapter.get(2000, 11)) == (5, 0, 0)
    assert struct.unpack("<QHB", adapter.get(2032, 11)) == (6, 52, 1)


def test_there_are_no_arguments_files_or_sockets(adapter: Adapter) -> None:
    assert adapter.call("args_sizes_get", 100, 104) == 0
    assert adapter.call("environ_sizes_get", 108, 112) == 0
    assert adapter.get(100, 16) == b"\0" * 16
    assert adapter.call("fd_prestat_get", 3, 100) == 8
    assert adapter.call("path_open", 3, 0, 100, 1, 0, 0, 0, 0, 200) == 52
    assert adapter.call("sock_send", 3, 0, 0, 0, 0) == 52


def test_leaving_is_told_to_the_host_and_traps(adapter: Adapter) -> None:
    with pytest.raises(wasmtime.Trap):
        adapter.call("proc_exit", 3)
    assert adapter.exits == [1]
