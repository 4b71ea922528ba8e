"""Figures that platforms report of the versions they run, kept by day, and shown only of many platforms together."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from kernel.errors import ValidationFailed
from marketplace.errors import TooManyReports
from marketplace.moments import utc_text
from marketplace.registry.platforms import Told, platforms, read_told, welcome
from marketplace.registry.tables import Tables, releases, schema
from plugin_sdk.reporting import FIGURES, LATENCY_MS, TENANTS, percentile

LEAST_PLATFORMS = 5
"""Nothing is shown that fewer platforms reported: one of them could be told from the rest."""
DAYS = 28
"""What is shown is of so many days."""
KEPT_DAYS = 90
MOST_ROWS = 2_000
"""Versions in one report."""
MOST_PARTS = 64
"""Reports of one platform for one day: one by each of its processes, each time it ends."""
MOST_CALLS = 10**12
_PART = re.compile(r"^[0-9a-f]{8,32}$")

figures = sa.Table(
    "figures",
    schema,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("platform", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("tenants", sa.Integer, nullable=False),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("errors", sa.Integer, nullable=False),
    sa.Column("latency", sa.JSON, nullable=False),
    sa.Index("figures_about", "plugin", "day"),
)


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """What the platforms that run one version say of it, of the last ``DAYS`` days together.

    ``tenants`` is the sum of what each said, which is coarse, so at least so many run it; ``share`` of all that run the
    plugin. Times are milliseconds, None without calls.
    """

    version: str
    platforms: int
    tenants: int
    share: float
    calls: int
    errors: int
    error_rate: float
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class PluginFigures:
    """A plugin's figures. ``platforms`` 0: too few reported for anything to be shown. ``withheld`` counts versions of
    which too few did."""

    plugin: str
    platforms: int = 0
    tenants: int = 0
    calls: int = 0
    error_rate: float = 0.0
    versions: tuple[VersionFigures, ...] = ()
    withheld: int = 0


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    errors: int = 0


class FiguresDesk:
    """Takes figures in and hands them out, over one registry's database. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def take(self, told: Told, now: float) -> int:
        """Keep a platform's report of a day; ``now`` in epoch seconds. The same part again changes nothing.

        Returns how many of its lines are about releases of this marketplace; the others are dropped. Raises
        SignatureInvalid, ValidationFailed or TooManyReports.
        """
        platform, said = read_told(told, FIGURES)
        moment = datetime.fromtimestamp(now, UTC)
        day, part, rows = _read(said, moment.date())
        with self._tables.write() as connection:
            welcome(connection, platform, told.keys, utc_text(now))
            mine = (figures.c.platform == platform) & (figures.c.day == day)
            parts = set(connection.execute(sa.select(figures.c.part).where(mine).distinct()).scalars())
            if part not in parts and len(parts) >= MOST_PARTS:
                raise TooManyReports(
                    "This platform has reported enough for that day.", expected=f"{MOST_PARTS} reports"
                )
            oldest = (moment.date() - timedelta(days=KEPT_DAYS)).isoformat()
            connection.execute(sa.delete(figures).where(figures.c.day < oldest))
            kept = 0
            for row in rows:
                wanted = (releases.c.plugin == row["plugin"]) & (releases.c.version == row["version"])
                if connection.execute(sa.select(releases.c.digest).where(wanted)).scalar() is None:
                    continue
                values = {"day": day, "platform": platform, "part": part, **row}
                connection.execute(insert(figures).values(values).on_conflict_do_nothing())
                kept += 1
        return kept

    def of(self, plugin: str, today: date) -> PluginFigures:
        """What may be shown of a plugin."""
        first = (today - timedelta(days=DAYS - 1)).isoformat()
        ignored = sa.select(platforms.c.name).where(platforms.c.ignored.is_not(None))
        wanted = (figures.c.plugin == plugin) & (figures.c.day >= first) & figures.c.platform.not_in(ignored)
        with self._tables.read() as connection:
            rows = connection.execute(sa.select(figures).where(wanted).order_by(figures.c.day)).all()
        everybody = {row.platform for row in rows}
        if len(everybody) < LEAST_PLATFORMS:
            return PluginFigures(plugin)
        by_version: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            by_version[row.version].append(row)
        enough = {v: said for v, said in by_version.items() if len({row.platform for row in said}) >= LEAST_PLATFORMS}
        tenants = {version: _tenants(said) for version, said in enough.items()}
        running = sum(tenants.values())
        # Totals are of what is shown: otherwise what is withheld could be had by subtracting.
        shown = [row for said in enough.values() for row in said]
        whole = _summed(shown)
        versions = [_version(v, said, tenants[v], running) for v, said in enough.items()]
        return PluginFigures(
            plugin,
            len({row.platform for row in shown}),
            running,
            whole.calls,
            whole.errors / whole.calls if whole.calls else 0.0,
            tuple(sorted(versions, key=lambda each: (-each.tenants, each.version))),
            len(by_version) - len(enough),
        )

    def platforms_lately(self, now: float) -> int:
        """How many platforms reported lately: for the operator. ``now`` in epoch seconds."""
        first = (datetime.fromtimestamp(now, UTC).date() - timedelta(days=DAYS - 1)).isoformat()
        query = sa.select(sa.func.count(sa.distinct(figures.c.platform))).where(figures.c.day >= first)
        with self._tables.read() as connection:
            return int(connection.execute(query).scalar_one())


def _summed(rows: list[Any]) -> _Sum:
    return _Sum(sum(row.calls for row in rows), sum(row.errors for row in rows))


def _tenants(rows: list[Any]) -> int:
    """Of each platform what it said last, of its parts the one that saw most."""
    last: dict[str, tuple[str, int]] = {}
    for row in rows:
        day, most = last.get(row.platform, ("", 0))
        last[row.platform] = (row.day, max(most, row.tenants) if row.day == day else row.tenants)
    return sum(number for _, number in last.values())


def _version(version: str, rows: list[Any], tenants: int, running: int) -> VersionFigures:
    whole = _summed(rows)
    latency = [sum(row.latency[at] for row in rows) for at in range(len(LATENCY_MS) + 1)]
    return VersionFigures(
        version,
        len({row.platform for row in rows}),
        tenants,
        tenants / running if running else 0.0,
        whole.calls,
        whole.errors,
        whole.errors / whole.calls if whole.calls else 0.0,
        *(percentile(latency, share) for share in (0.5, 0.95, 0.99)),
    )


def _read(said: dict[str, Any], today: date) -> tuple[str, str, list[dict[str, Any]]]:
    """Day, part and lines of a verified report. Raises ValidationFailed."""
    try:
        day, part, rows = date.fromisoformat(said["day"]), str(said["part"]), said["rows"]
        if not timedelta() <= today - day <= timedelta(days=3) or not _PART.match(part) or len(rows) > MOST_ROWS:
            raise ValueError("another day, part or length")
        return day.isoformat(), part, [asdict(_Line(**row).checked()) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValidationFailed(
            f"These are no figures: {error}.",
            expected="day (of the last three), part and rows of plugin, version, tenants, calls, errors and latency",
        ) from error


@dataclass(frozen=True, slots=True)
class _Line:
    plugin: str
    version: str
    tenants: int
    calls: int
    errors: int
    latency: list[int]

    def checked(self) -> _Line:
        """Itself. Raises ValueError."""
        counts = [self.calls, self.errors, *self.latency]
        if not all(type(each) is int and 0 <= each <= MOST_CALLS for each in counts):
            raise ValueError("a count is none")
        if self.tenants not in TENANTS or len(self.latency) != len(LATENCY_MS) + 1 or self.errors > self.calls:
            raise ValueError("tenants, latency or errors do not fit")
        if not all(isinstance(each, str) and len(each) <= 200 for each in (self.plugin, self.version)):
            raise ValueError("plugin or version is none")
        return self
