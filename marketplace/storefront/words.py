"""How numbers, moments and sizes are said on pages."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from markupsafe import Markup, escape

_STEPS = ((60, "minute"), (3_600, "hour"), (86_400, "day"), (7 * 86_400, "week"), (30.44 * 86_400, "month"))
_YEAR = 365.25 * 86_400
HUES = 6


def count(number: float) -> str:
    """A number with thousands apart: ``12,345``; from 100,000 on shortened, ``1.2 M``."""
    for size, unit in ((1e9, " G"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number / 1_000:.0f} k" if number >= 100_000 else f"{number:,.0f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 plugin``, ``2 plugins``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """Bytes in units that people read."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1_024 or unit == "MiB":
            break
        number /= 1_024
    return f"{number:,.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:,.1f} {unit}"


def milliseconds(number: float | None) -> str:
    """A length of time given in milliseconds; None: not known."""
    if number is None:
        return "-"
    return (
        f"{number / 1_000:,.1f} s" if number >= 1_000 else f"{number:,.1f} ms" if number < 10 else f"{number:,.0f} ms"
    )


def percent(share: float) -> str:
    """A share between 0 and 1. What is not nothing is not shown as nothing."""
    return f"{share:.0%}" if share == 0 or share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def moment(iso: str | float, now: float) -> Markup:
    """A ``<time>``: relative words, the exact moment on hover."""
    at = datetime.fromtimestamp(iso, UTC) if isinstance(iso, int | float) else datetime.fromisoformat(iso)
    exact = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), exact, relative(at.timestamp() - now)
    )


def relative(seconds: float) -> str:
    """``3 days ago``, ``in 2 hours``, ``just now``."""
    apart = abs(seconds)
    if apart < 60:
        return "just now"
    unit, length = "year", _YEAR
    if apart < _YEAR:
        length, unit = max((step for step in _STEPS if apart >= step[0]), default=_STEPS[0])
    number = int(apart // length)
    words = f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{words} ago" if seconds < 0 else f"in {words}"


def short(text: str, ends: int = 8) -> str:
    """An id shortened in the middle."""
    return text if len(text) <= 2 * ends + 1 else f"{text[:ends]}…{text[-ends:]}"


def hue(text: str) -> int:
    """One of the page's colours, always the same for the same text."""
    return hashlib.sha256(text.encode()).digest()[0] % HUES


def initials(name: str) -> str:
    """One or two letters that stand for a plugin without an icon."""
    words = [word for word in name.split() if word[0].isalnum()]
    return ("".join(word[0] for word in words[:2]) or name[:1]).upper()


def breakable(text: str) -> Markup:
    """A long name that may be broken after its slash, dots and hyphens."""
    found = escape(text)
    for mark in ("/", ".", "-", "_"):
        found = Markup(str(found).replace(mark, f"{mark}<wbr>"))  # noqa: S704 - escaped above, marks are fixed
    return found
