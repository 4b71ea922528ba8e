"""A tenant's upgrade window: the hours in which the versions of its plugins may change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from plugin_sdk import ValidationFailed

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Window:
    """Days of the week (0 is Monday), hours and their time zone. One that ends before it begins goes on
    past midnight: those hours belong to the day on which it began. Equal hours are the whole day."""

    days: tuple[int, ...]
    begins: time
    ends: time
    zone: str

    def contains(self, moment: datetime) -> bool:
        """Whether the window is open at an aware ``moment``."""
        local = moment.astimezone(ZoneInfo(self.zone))
        clock = local.time()
        if self.begins == self.ends:
            return local.weekday() in self.days
        if self.begins < self.ends:
            return local.weekday() in self.days and self.begins <= clock < self.ends
        yesterday = (local - timedelta(days=1)).weekday()
        late, early = clock >= self.begins, clock < self.ends
        return (late and local.weekday() in self.days) or (early and yesterday in self.days)

    def __str__(self) -> str:
        days = ",".join(DAYS[d] for d in self.days)
        return f"{days} {self.begins:%H:%M}-{self.ends:%H:%M} {self.zone}"


def parse_window(days: str, hours: str, zone: str) -> Window:
    """A window from words: ``mon-fri,sun``, ``22:00-04:00``, ``Europe/Berlin``. Raises ValidationFailed."""
    span = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", hours)
    if span is None:
        raise ValidationFailed("These are no hours.", expected="HH:MM-HH:MM, e.g. 22:00-04:00", found=hours)
    begins, ends = (time(int(span[i]), int(span[i + 1])) for i in (1, 3))
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationFailed(
            f"There is no time zone {zone!r} on this machine.", expected="a name such as Europe/Berlin or UTC"
        ) from error
    return Window(_days(days), begins, ends, zone)


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.strip().partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValidationFailed("These are no days.", expected="e.g. mon-fri or sat,sun", found=text)
        start, end = DAYS.index(first), DAYS.index(last or first)
        # fri-mon goes round the end of the week.
        found |= {(start + step) % 7 for step in range((end - start) % 7 + 1)}
    return tuple(sorted(found))
