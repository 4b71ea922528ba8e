"""Plain data: what every database, bus and guest takes as JSON, and hashes the same everywhere.

Python's JSON parser lets in more: NaN, numbers of any size, halves of surrogate pairs. Such values
would be stored here and refused there, or change on their way, so they are refused at the door.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator

from kernel.errors import ValidationFailed

MAX_DEPTH = 32
"""Deepest nesting of lists and objects."""
_LEAST, _MOST = -(2**63), 2**63 - 1
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc (but for tab and line ends) and Cs."""


def flaw_in(value: object, at: str = "", depth: int = 0) -> str | None:
    """What keeps ``value`` from being plain data, with its place; None if it is."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _flaw_in_text(value, at)
    if isinstance(value, int):
        return None if _LEAST <= value <= _MOST else f"{at or 'value'}: a whole number beyond 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{at or 'value'}: not a finite number"
    if depth >= MAX_DEPTH:
        return f"{at[:80] or 'value'}: nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{at or 'value'}: a key that is not text"
            flaw = _flaw_in_text(key, at) or flaw_in(item, f"{at}.{key}" if at else key, depth + 1)
            if flaw:
                return flaw
        return None
    if isinstance(value, (list, tuple)):
        flaws = (flaw_in(item, f"{at}[{index}]", depth + 1) for index, item in enumerate(value))
        return next((flaw for flaw in flaws if flaw), None)
    return f"{at or 'value'}: {type(value).__name__} is not JSON"


def check_plain(value: object, what: str) -> None:
    """Raise ValidationFailed, naming the place, unless ``value`` is plain data. ``what`` names it to people."""
    flaw = flaw_in(value)
    if flaw is not None:
        raise ValidationFailed(
            f"{what} can't be kept: {flaw}.",
            expected="JSON with finite numbers of at most 64 bits and whole Unicode text without NUL",
            found=flaw,
        )


def _flaw_in_text(text: str, at: str) -> str | None:
    if "\0" in text:
        return f"{at or 'value'}: text with a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{at or 'value'}: text with half a surrogate pair"
    return None


def _plain_object(value: dict[str, Any]) -> dict[str, Any]:
    flaw = flaw_in(value)
    if flaw is not None:
        raise ValueError(flaw)
    return value


def _whole_text(value: str) -> str:
    odd = _ODD.search(value)
    if odd is not None:
        raise ValueError(f"the control character U+{ord(odd[0]):04X} is not allowed")
    return value


Text = Annotated[str, AfterValidator(_whole_text)]
"""Text that people write, such as a name: no control characters."""
JsonObject = Annotated[dict[str, Any], AfterValidator(_plain_object)]
"""A JSON object of plain data, for payloads and request bodies."""
