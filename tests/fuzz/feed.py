"""Turns any bytes into decisions: the same bytes always into the same ones, and never out of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Feed:
    """Reads from the front; what is missing is zero."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """0 to 255."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def number(self, size: int) -> int:
        """Of ``size`` bytes, big-endian."""
        found = 0
        for _ in range(size):
            found = found << 8 | self.byte()
        return found

    def choice(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.byte() % len(items)]

    def raw(self, most: int = 255) -> bytes:
        """A length byte (two if ``most`` needs them) and so many bytes."""
        size = self.number(1 if most < 256 else 2) % (most + 1)
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self, most: int = 255) -> str:
        """Text as a guest can hand it over: any Unicode, no halves of surrogate pairs."""
        return self.raw(most).decode("utf-8", "replace")

    def rest(self) -> bytes:
        """Everything that is left."""
        found, self._at = self._data[self._at :], len(self._data)
        return found


def told(error: Exception) -> None:
    """An error as a person gets to read it: it can be said, and in a page."""
    assert len(str(error)) < 10_000
