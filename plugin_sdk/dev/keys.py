"""Single key presses from a terminal, while something else is on the screen."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Keys:
    """The terminal's keys; none where there is no terminal."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def next(self, seconds: float) -> str | None:
        """The next key, or None if none is pressed within ``seconds``."""
        if self._descriptor is None:
            return None
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return os.read(self._descriptor, 1).decode("utf-8", "replace") if ready else None


@contextmanager
def keys() -> Iterator[Keys]:
    """Read single keys inside the ``with``; afterwards the terminal is as it was."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    try:
        import termios
        import tty
    except ImportError:
        # Not a POSIX terminal: the commands `plugin call` and `plugin test` do the same.
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
