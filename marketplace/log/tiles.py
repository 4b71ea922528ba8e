"""Tiles: the tree's hashes and entries as files that never change once they are full.

A tile of level L holds up to 256 hashes of subtrees of height 8 * L, next to each other; the hashes between the
levels are computed. An entry bundle holds the entries of one tile of level 0. Only the right-most tile of each level
is still growing; its present content is served with its width as a partial tile.

Source: C2SP tlog-tiles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from marketplace.log.tree import HASH_BYTES, perfect_root, root_hash

HEIGHT = 8
WIDTH = 1 << HEIGHT
MAX_ENTRY = 0xFFFF
_PATH = re.compile(
    r"^tile/(?P<level>entries|0|[1-9]|[1-5]\d|6[0-3])/(?P<number>(?:x\d{3}/)*\d{3})(?:\.p/(?P<width>[1-9]\d{0,2}))?$"
)
ReadTile = Callable[["Tile"], bytes]


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile's place. ``level`` None means the entry bundle beside the tile of level 0."""

    level: int | None
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Where it is served, e.g. ``tile/0/x001/x234/067.p/8``."""
        groups, rest = [f"{self.number % 1000:03d}"], self.number // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level is None else self.level
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def read_path(path: str) -> Tile | None:
    """The tile that is served at ``path``; None if no tile is."""
    match = _PATH.match(path)
    width = int(match["width"] or WIDTH) if match else 0
    if match is None or (match["width"] and width >= WIDTH) or len(path) > 100:
        return None
    level = None if match["level"] == "entries" else int(match["level"])
    tile = Tile(level, int(match["number"].replace("x", "").replace("/", "")), width)
    # One place has one path: leading groups of zeros are another path for the same tile.
    return tile if tile.path == path else None


def width_at(size: int, level: int, number: int) -> int:
    """How many hashes the tile ``number`` of ``level`` has in a tree of ``size`` leaves (0: there is none)."""
    return max(0, min(WIDTH, (size >> HEIGHT * level) - number * WIDTH))


def split_hashes(tile: bytes) -> list[bytes]:
    """The hashes in a tile."""
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


class TileNodes:
    """A ``tree.Nodes`` over the tiles of a tree of ``size`` leaves. Each tile is read once."""

    def __init__(self, size: int, read: ReadTile) -> None:
        """``read`` gives a tile's bytes; raises whatever it raises when a tile is not to be had."""
        self._size, self._read = size, read
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, height: int, number: int) -> bytes:
        """See ``tree.Nodes``. Raises ValueError if a tile has another size than it must have."""
        level, above = divmod(height, HEIGHT)
        tile, at = divmod(number << above, WIDTH)
        return perfect_root(self._tile(level, tile)[at : at + (1 << above)])

    def _tile(self, level: int, number: int) -> list[bytes]:
        if (level, number) not in self._tiles:
            place = Tile(level, number, width_at(self._size, level, number))
            body = self._read(place)
            if len(body) != place.width * HASH_BYTES:
                raise ValueError(f"{place.path} has {len(body)} bytes, not {place.width * HASH_BYTES}")
            self._tiles[level, number] = split_hashes(body)
        return self._tiles[level, number]


class GrowingTiles:
    """The right-most tiles of a log, while entries are appended. Only these are ever read or changed."""

    def __init__(self, size: int, tails: Mapping[int, bytes]) -> None:
        """``tails`` has the growing tile of each level that has one (see :func:`tails_of`)."""
        self.size = size
        self._tails = {level: split_hashes(body) for level, body in tails.items()}
        self._changed: dict[tuple[int, int], list[bytes]] = {}

    def append(self, leaf: bytes) -> None:
        """Add a leaf, by its hash."""
        level, number, rest = 0, leaf, self.size
        while True:
            tail = self._tails.setdefault(level, [])
            tail.append(number)
            self._changed[level, rest // WIDTH] = tail
            if len(tail) < WIDTH:
                break
            number = perfect_root(tail)
            self._tails[level] = []
            level, rest = level + 1, rest // WIDTH
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree as it is now: all that it takes is in the growing tiles."""
        return root_hash(self.size, TileNodes(self.size, lambda place: b"".join(self._tails[place.level or 0])))

    def changed(self) -> dict[tuple[int, int], bytes]:
        """(level, number) of every tile that changed, with its bytes now."""
        return {place: b"".join(hashes) for place, hashes in self._changed.items()}


def tails_of(size: int) -> list[tuple[int, int]]:
    """(level, number) of the tiles of a tree of ``size`` leaves that are not full."""
    found, level = [], 0
    while size >> HEIGHT * level:
        count = size >> HEIGHT * level
        if count % WIDTH:
            found.append((level, count // WIDTH))
        level += 1
    return found


def write_bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle. Raises ValueError if an entry is longer than its length can say."""
    body = bytearray()
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise ValueError(f"an entry of {len(entry)} bytes")
        body += len(entry).to_bytes(2, "big") + entry
    return bytes(body)


def read_bundle(body: bytes, count: int) -> Sequence[bytes]:
    """The ``count`` entries of a bundle. Raises ValueError if it has another number of them, or ends early."""
    entries, at = [], 0
    while at < len(body):
        length = int.from_bytes(body[at : at + 2], "big")
        entry = body[at + 2 : at + 2 + length]
        if at + 2 > len(body) or len(entry) != length:
            raise ValueError("the bundle ends in the middle of an entry")
        entries.append(entry)
        at += 2 + length
    if len(entries) != count:
        raise ValueError(f"the bundle has {len(entries)} entries, not {count}")
    return entries
