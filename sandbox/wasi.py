"""Our own small WASI 0.2: what a language runtime needs to start and nothing that can wait.

wasmtime's WASI lets a guest sleep past every deadline, because epochs do not interrupt a host call.
Here sleeping, polling, files and sockets do not exist: calling them ends the guest with an error
that names them. The environment is empty, standard output and error go to the plugin's log.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from sandbox.abi import Err, Shape
from sandbox.contract import Signature
from sandbox.errors import GuestExit, GuestOutputTooLarge, GuestTrapped

ERROR, POLLABLE, INPUT, OUTPUT, DESCRIPTOR = 1, 2, 3, 4, 5
RESOURCES = {
    "error": ERROR,
    "pollable": POLLABLE,
    "input-stream": INPUT,
    "output-stream": OUTPUT,
    "descriptor": DESCRIPTOR,
    "terminal-input": 6,
    "terminal-output": 7,
}
STDOUT, STDERR = 1, 2
MAX_RANDOM = 4_096
MAX_WRITE = 4_096
"""Bytes taken by one write: lists of bytes are costly to carry over the border."""

_DATETIME: Shape = ("record", ("seconds", "u64"), ("nanoseconds", "u32"))
_STREAM_ERROR: Shape = ("variant", ("last-operation-failed", ("own", ERROR)), ("closed", None))
_BYTES: Shape = ("list", "u8")
_SELF_IN: Shape = ("borrow", INPUT)
_SELF_OUT: Shape = ("borrow", OUTPUT)
_DONE: Shape = ("result", None, _STREAM_ERROR)

WASI: dict[str, dict[str, Signature]] = {
    "cli/environment": {
        "get-environment": Signature((), ("list", ("tuple", "string", "string"))),
        "get-arguments": Signature((), ("list", "string")),
        "initial-cwd": Signature((), ("option", "string")),
    },
    "cli/exit": {"exit": Signature((("result", None, None),))},
    "cli/stdin": {"get-stdin": Signature((), ("own", INPUT))},
    "cli/stdout": {"get-stdout": Signature((), ("own", OUTPUT))},
    "cli/stderr": {"get-stderr": Signature((), ("own", OUTPUT))},
    "cli/terminal-stdin": {"get-terminal-stdin": Signature((), ("option", ("own", 6)))},
    "cli/terminal-stdout": {"get-terminal-stdout": Signature((), ("option", ("own", 7)))},
    "cli/terminal-stderr": {"get-terminal-stderr": Signature((), ("option", ("own", 7)))},
    "clocks/wall-clock": {"now": Signature((), _DATETIME), "resolution": Signature((), _DATETIME)},
    "clocks/monotonic-clock": {"now": Signature((), "u64"), "resolution": Signature((), "u64")},
    "random/random": {
        "get-random-bytes": Signature(("u64",), _BYTES),
        "get-random-u64": Signature((), "u64"),
    },
    "random/insecure": {
        "get-insecure-random-bytes": Signature(("u64",), _BYTES),
        "get-insecure-random-u64": Signature((), "u64"),
    },
    "random/insecure-seed": {"insecure-seed": Signature((), ("tuple", "u64", "u64"))},
    "io/streams": {
        "[method]input-stream.read": Signature((_SELF_IN, "u64"), ("result", _BYTES, _STREAM_ERROR)),
        "[method]input-stream.blocking-read": Signature((_SELF_IN, "u64"), ("result", _BYTES, _STREAM_ERROR)),
        "[method]output-stream.check-write": Signature((_SELF_OUT,), ("result", "u64", _STREAM_ERROR)),
        "[method]output-stream.write": Signature((_SELF_OUT, _BYTES), _DONE),
        "[method]output-stream.blocking-write-and-flush": Signature((_SELF_OUT, _BYTES), _DONE),
        "[method]output-stream.flush": Signature((_SELF_OUT,), _DONE),
        "[method]output-stream.blocking-flush": Signature((_SELF_OUT,), _DONE),
    },
    "filesystem/preopens": {"get-directories": Signature((), ("list", ("tuple", ("own", DESCRIPTOR), "string")))},
}
"""The functions that answer, by interface."""

NONDETERMINISTIC = frozenset(
    {"clocks/wall-clock", "clocks/monotonic-clock", "random/random", "random/insecure", "random/insecure-seed"}
)
"""Interfaces whose answers a recording must hold."""

_MEMBERS = {
    ("clocks/wall-clock", "now"): "wall_now",
    ("clocks/wall-clock", "resolution"): "wall_resolution",
    ("clocks/monotonic-clock", "now"): "monotonic_now",
    ("clocks/monotonic-clock", "resolution"): "monotonic_resolution",
}


def to_json(answer: Any) -> Any:
    """An answer of NONDETERMINISTIC as JSON can say it."""
    if isinstance(answer, bytes):
        return {"hex": answer.hex()}
    return list(answer) if isinstance(answer, tuple) else answer


def from_json(recorded: Any) -> Any:
    """The answer that :func:`to_json` was given."""
    if isinstance(recorded, dict) and "hex" in recorded:
        return bytes.fromhex(recorded["hex"])
    return tuple(recorded) if isinstance(recorded, list) else recorded


class WasiCalls:
    """The implementation, for one call. ``log`` takes (is it standard error, a line). Times are nanoseconds."""

    def __init__(
        self,
        log: Callable[[bool, str], None],
        now: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._log = log
        self._now, self._monotonic, self._random = now, monotonic, random
        self._partial = {STDOUT: b"", STDERR: b""}

    def function(self, interface: str, name: str) -> Callable[..., Any]:
        """The implementation of a function listed in WASI."""
        member = _MEMBERS.get((interface, name)) or name.rpartition(".")[2].replace("-", "_")
        found: Callable[..., Any] = getattr(self, member)
        return found

    def flush_log(self) -> None:
        """Log what was written without an end of line."""
        for stream, rest in self._partial.items():
            if rest:
                self._log(stream == STDERR, rest.decode("utf-8", "replace"))
                self._partial[stream] = b""

    # ------------------------------------------------------------------ cli

    def get_environment(self) -> list[tuple[str, str]]:
        return []

    def get_arguments(self) -> list[str]:
        return []

    def initial_cwd(self) -> None:
        return None

    def exit(self, status: object) -> None:
        raise GuestExit(
            "The guest ended itself instead of answering.",
            expected="an answer from handle",
            found="exit with " + ("an error" if isinstance(status, Err) else "success"),
            fix="Return a result; do not call exit.",
        )

    def get_stdin(self) -> int:
        return 0

    def get_stdout(self) -> int:
        return STDOUT

    def get_stderr(self) -> int:
        return STDERR

    def get_terminal_stdin(self) -> None:
        return None

    get_terminal_stdout = get_terminal_stderr = get_terminal_stdin

    def get_directories(self) -> list[tuple[int, str]]:
        return []

    # ------------------------------------------------------------------ clocks and random

    def wall_now(self) -> dict[str, int]:
        seconds, nanoseconds = divmod(self._now(), 1_000_000_000)
        return {"seconds": seconds, "nanoseconds": nanoseconds}

    def wall_resolution(self) -> dict[str, int]:
        return {"seconds": 0, "nanoseconds": 1_000}

    def monotonic_now(self) -> int:
        return self._monotonic()

    def monotonic_resolution(self) -> int:
        return 1_000

    def get_random_bytes(self, size: int) -> bytes:
        if size > MAX_RANDOM:
            raise GuestTrapped(
                "The guest asked for too many random bytes at once.",
                expected=f"at most {MAX_RANDOM}",
                found=size,
                fix="Seed a generator of its own with fewer.",
            )
        return self._random(size)

    get_insecure_random_bytes = get_random_bytes

    def get_random_u64(self) -> int:
        return int.from_bytes(self._random(8), "little")

    get_insecure_random_u64 = get_random_u64

    def insecure_seed(self) -> tuple[int, int]:
        return self.get_random_u64(), self.get_random_u64()

    # ------------------------------------------------------------------ streams

    def read(self, stream: int, size: int) -> Err:
        return Err(("closed", None))

    blocking_read = read

    def check_write(self, stream: int) -> int:
        return MAX_WRITE

    def write(self, stream: int, data: bytes) -> None:
        if len(data) > MAX_WRITE:
            raise GuestOutputTooLarge(
                "The guest wrote more to its output than it had been allowed.",
                expected=f"at most {MAX_WRITE} bytes, as check-write answers",
                found=len(data),
                fix="Use the language's own print, which asks first.",
            )
        *lines, rest = (self._partial.get(stream, b"") + data).split(b"\n")
        for line in lines:
            self._log(stream == STDERR, line.decode("utf-8", "replace"))
        if len(rest) > MAX_WRITE:
            self._log(stream == STDERR, rest.decode("utf-8", "replace"))
            rest = b""
        self._partial[stream] = rest

    blocking_write_and_flush = write

    def flush(self, stream: int) -> None:
        return None

    blocking_flush = flush
