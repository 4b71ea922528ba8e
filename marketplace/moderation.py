"""Moderating what was said of plugins, by whoever has the marketplace's data folder."""

from __future__ import annotations

from kernel.errors import ValidationFailed
from kernel.settings import Settings
from marketplace.datafolder import reading


def hide_here(settings: Settings, rating: str, reason: str | None) -> None:
    """Hide a rating in the registry of the data folder; None shows it again. Raises NotFound or ValidationFailed."""
    with reading(settings) as reader:
        reader.ratings.hide(rating, _told(reason))


def ignore_here(settings: Settings, platform: str, reason: str | None) -> None:
    """Ignore a platform; None listens to it again. Raises NotFound or ValidationFailed."""
    with reading(settings) as reader:
        reader.ratings.ignore(platform, _told(reason))


def _told(reason: str | None) -> str | None:
    told = None if reason is None else " ".join(reason.split())[:500]
    if told == "":
        raise ValidationFailed("Say why.", expected="--reason TEXT", fix="Or --undo, to take it back.")
    return told
