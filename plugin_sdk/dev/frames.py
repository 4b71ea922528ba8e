"""From a trap's frames to the author's source: names from the component's name section, lines from
the source map that the build left beside the component.

A frame of wasmtime's says ``0x2f3a - <unknown>!assembly/index/user_creating``: an offset from the
start of the component, and a name if the module has a name section
(https://webassembly.github.io/spec/core/appendix/custom.html#name-section). Source maps are those of
https://tc39.es/ecma426/: one generated line, its columns being offsets in the core module.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plugin_sdk.dev.places import Place, place_at, places_in

_FRAME = re.compile(r"^\s*\d+:\s+(?:0x(?P<offset>[0-9a-f]+) - )?(?P<name>\S.*)$", re.MULTILINE)
_DIGITS = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
_CORE = b"\0asm\x01\0\0\0"
_CODE_SECTION = 10


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a trap: the offset in the component (None if unknown) and the function's name."""

    offset: int | None
    name: str


def frames(trap: str) -> list[Frame]:
    """The frames in wasmtime's text, innermost first."""
    backtrace = trap.partition("wasm backtrace:")[2].partition("Caused by:")[0]
    found = []
    for match in _FRAME.finditer(backtrace):
        offset = int(match["offset"], 16) if match["offset"] else None
        found.append(Frame(offset, match["name"].rpartition("!")[2].strip()))
    return found


def frames_of(trap: str, folder: Path, component: bytes | None = None) -> list[Place]:
    """The author's lines among the frames of a trap, innermost first.

    ``component`` is what trapped; the map beside the build is used only if it was made for it.
    """
    backtrace = trap.partition("wasm backtrace:")[2]
    found = places_in(backtrace, folder)
    lines = SourceMap.beside(folder, component)
    if lines is None:
        return found
    for frame in frames(trap):
        # What the compiler put in line from its library hides the author's line, which comes just before.
        spots = () if frame.offset is None else lines.around(frame.offset)
        function = readable(frame.name)
        places = (place_at(folder, source, line, column, function=function) for source, line, column in spots)
        place = next((place for place in places if place is not None), None)
        if place is not None and all((place.file, place.line) != (known.file, known.line) for known in found):
            found.append(place)
    return found


def readable(name: str) -> str:
    """A symbol as its author wrote it: ``assembly/index/user_creating`` -> ``user_creating``."""
    if name.startswith("_R") or name.startswith("<"):
        return ""
    plain = re.sub(r"::h[0-9a-f]{16}$", "", name)
    return plain.rpartition("/")[2]


class SourceMap:
    """Where each instruction of a core module comes from."""

    def __init__(self, text: str, base: int, functions: Sequence[int] = ()) -> None:
        """``base`` is the offset of the core module in the component, ``functions`` are where its functions
        begin, from ``base``."""
        document = json.loads(text)
        self._base = base
        self._functions = list(functions)
        self._sources: list[str] = document["sources"]
        self._columns: list[int] = []
        self._spots: list[tuple[int, int, int]] = []
        for column, source, line, place in _segments(document["mappings"]):
            self._columns.append(column)
            self._spots.append((source, line, place))

    @classmethod
    def beside(cls, folder: Path, component: bytes | None = None) -> SourceMap | None:
        """The map of the plugin's last build, if there is one and it fits ``component``."""
        from plugin_sdk.toolchain.builder import BUILD

        maps = sorted((folder / BUILD).glob("*.component.wasm.map"))
        if not maps:
            return None
        try:
            built = maps[0].with_suffix("").read_bytes()
            if component is not None and component != built:
                return None
            base = built.find(_CORE)
            return cls(maps[0].read_text(encoding="utf-8"), base, function_starts(built[base:]))
        except (OSError, ValueError, KeyError, IndexError):
            return None

    def around(self, offset: int) -> Iterator[tuple[str, int, int]]:
        """The source of an offset, then those of what comes before it in the same function, nearest first."""
        at = offset - self._base
        start = self._functions[max(bisect_right(self._functions, at) - 1, 0)] if self._functions else at
        index = first = bisect_right(self._columns, at) - 1
        while index >= 0 and (index == first or self._columns[index] >= start):
            source, line, column = self._spots[index]
            if index == first and self._sources[source].startswith("build/"):
                # The generated entry: what it called stands in the frames above.
                return
            yield self._sources[source], line + 1, column + 1
            index -= 1

    def find(self, offset: int) -> tuple[str, int, int] | None:
        """Source, line and column (from 1) of an offset in the component."""
        index = bisect_right(self._columns, offset - self._base) - 1
        if index < 0:
            return None
        source, line, column = self._spots[index]
        return self._sources[source], line + 1, column + 1


def function_starts(module: bytes) -> list[int]:
    """Where the functions of a core module begin, from its first byte. Raises IndexError if it is cut short."""
    starts: list[int] = []
    at = len(_CORE)
    while at < len(module) and not starts:
        section = module[at]
        size, at = _leb(module, at + 1)
        if section == _CODE_SECTION:
            count, body = _leb(module, at)
            for _ in range(count):
                length, body = _leb(module, body)
                starts.append(body)
                body += length
        at += size
    return starts


def _leb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _segments(mappings: str) -> Iterator[tuple[int, int, int, int]]:
    column = source = line = place = 0
    for group in mappings.split(";")[:1]:
        for segment in group.split(","):
            values = list(_numbers(segment))
            if not values:
                continue
            column += values[0]
            if len(values) >= 4:
                source, line, place = source + values[1], line + values[2], place + values[3]
                yield column, source, line, place


def _numbers(segment: str) -> Iterator[int]:
    """Base64 VLQ."""
    value = shift = 0
    for character in segment:
        digit = _DIGITS[character]
        value |= (digit & 31) << shift
        if digit & 32:
            shift += 5
            continue
        yield -(value >> 1) if value & 1 else value >> 1
        value = shift = 0
