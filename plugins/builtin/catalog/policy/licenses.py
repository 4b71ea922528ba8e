"""Whether a licence expression can be satisfied by a list of allowed licences.

Expressions as in SPDX 2.3, annex D (https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/):
``WITH`` binds closest, then ``AND``, then ``OR``; identifiers are compared without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_WORDS = ("and", "or", "with")


class _Unreadable(Exception):
    """The text is no expression."""


def allows(allowed: Iterable[str], expression: str) -> bool:
    """Whether somebody who takes only ``allowed`` licences may use what is under ``expression``.

    Of ``A OR B`` one must be allowed, of ``A AND B`` both. ``A WITH E`` only permits more than ``A``: it is
    allowed with ``A``, or when the list has it as a whole. What is no expression must be in the list as it is.
    """
    known = {" ".join(name.lower().split()) for name in allowed}
    text = " ".join(expression.lower().split())
    if text in known:
        return True
    try:
        return _Reader(_TOKEN.findall(text), known).whole()
    except (_Unreadable, RecursionError):
        return False


class _Reader:
    """Reads an expression by recursive descent; the value of each part is whether it is allowed."""

    def __init__(self, tokens: list[str], known: set[str]) -> None:
        self._tokens = tokens
        self._known = known
        self._at = 0

    def whole(self) -> bool:
        found = self._either()
        if self._next() is not None:
            raise _Unreadable
        return found

    def _either(self) -> bool:
        found = self._both()
        while self._take("or"):
            # Read to its end whatever came before: the rest must be an expression too.
            found = self._both() or found
        return found

    def _both(self) -> bool:
        found = self._one()
        while self._take("and"):
            found = self._one() and found
        return found

    def _one(self) -> bool:
        if self._take("("):
            found = self._either()
            if not self._take(")"):
                raise _Unreadable
            return found
        name = self._name()
        if not self._take("with"):
            return name in self._known
        whole = f"{name} with {self._name()}"
        return name in self._known or whole in self._known

    def _name(self) -> str:
        name = self._next()
        if name is None or name in _WORDS or name in "()":
            raise _Unreadable
        self._at += 1
        return name

    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, token: str) -> bool:
        if self._next() != token:
            return False
        self._at += 1
        return True
