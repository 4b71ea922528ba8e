"""Ratings: what tenants who run a version say of it, one for each tenant and plugin, each signed by its platform.

The platform signs only for a tenant for which the version is active; the marketplace sees that signature, the digest
of a release that it published, and a tenant's name that means nothing elsewhere. ``docs/explanation/trust.md`` says
what that proves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from kernel.errors import NotFound, ValidationFailed
from marketplace.errors import TooManyReports
from marketplace.moments import utc_text
from marketplace.registry.platforms import NEW_A_DAY, Told, platforms, read_told, welcome
from marketplace.registry.tables import Tables, releases, schema
from plugin_sdk.reporting import MOST_TEXT, RATING

A_DAY = 200
"""Ratings that one platform may hand in each day, replaced ones counted."""

ratings = sa.Table(
    "ratings",
    schema,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("plugin", sa.Text, nullable=False, index=True),
    sa.Column("platform", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("stars", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("statement", sa.Text, nullable=False),
    sa.Column("hidden", sa.Text, nullable=True),
    sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
)
handed_in = sa.Table(
    "ratings_handed_in",
    schema,
    sa.Column("platform", sa.Text, primary_key=True),
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the publisher replied, by a statement with its keys. ``at`` is ISO 8601 in UTC."""

    text: str
    at: str


@dataclass(frozen=True, slots=True)
class Rating:
    """What a tenant that runs ``version`` says. ``stars`` 1 to 5; ``at`` ISO 8601 in UTC; ``statement`` the JWS of its
    platform; ``hidden`` why the operator hid the text, if so."""

    id: str
    plugin: str
    version: str
    stars: int
    text: str
    at: str
    platform: str
    statement: str
    answer: Answer | None = None
    hidden: str | None = None


@dataclass(frozen=True, slots=True)
class RatingSummary:
    """A plugin's ratings together. ``stars`` counts those with 1, 2, 3, 4 and 5 stars; ``mean`` is theirs."""

    number: int = 0
    mean: float = 0.0
    stars: tuple[int, ...] = (0, 0, 0, 0, 0)
    platforms: int = 0


class RatingsDesk:
    """Takes ratings in and hands them out, over one registry's database. Blocking; safe from several threads."""

    def __init__(self, tables: Tables, *, a_day: int = A_DAY, new_a_day: int = NEW_A_DAY) -> None:
        self._tables, self._a_day, self._new_a_day = tables, a_day, new_a_day

    def take(self, told: Told, now: float) -> Rating:
        """Keep a tenant's rating, in the place of its last one of the plugin; ``now`` in epoch seconds.

        Raises SignatureInvalid, ValidationFailed, NotFound (no such release) or TooManyReports.
        """
        platform, said = read_told(told, RATING)
        moment = datetime.fromtimestamp(now, UTC)
        rating, digest, tenant = _read(platform, said, told.statement, moment)
        with self._tables.write() as connection:
            welcome(connection, platform, told.keys, rating.at, self._new_a_day)
            wanted = (releases.c.plugin == rating.plugin) & (releases.c.version == rating.version)
            found = connection.execute(sa.select(releases.c.digest).where(wanted)).scalar()
            if found is None or found != digest:
                raise NotFound(
                    f"This marketplace did not publish this {rating.plugin} {rating.version}.", plugin=rating.plugin
                )
            _count(connection, platform, rating.at[:10], self._a_day)
            values = {
                "id": rating.id,
                "plugin": rating.plugin,
                "platform": platform,
                "tenant": tenant,
                "version": rating.version,
                "digest": digest,
                "stars": rating.stars,
                "text": rating.text,
                "at": rating.at,
                "statement": told.statement,
                # What was hidden is another text now; an answer was to the old one.
                "hidden": None,
                "answer": None,
            }
            connection.execute(insert(ratings).values(values).on_conflict_do_update(index_elements=["id"], set_=values))
        return rating

    def answer(self, plugin: str, rating: str, text: str | None, at: str) -> None:
        """Keep the publisher's (verified) answer to a rating; None takes it back. Raises NotFound."""
        kept = None if text is None else {"text": _clean(text), "at": at}
        with self._tables.write() as connection:
            wanted = (ratings.c.id == rating) & (ratings.c.plugin == plugin)
            if not connection.execute(sa.update(ratings).where(wanted).values(answer=kept)).rowcount:
                raise NotFound(f"{plugin} has no rating {rating}.", plugin=plugin, found=rating[:100])

    def hide(self, rating: str, reason: str | None) -> None:
        """Hide a rating, so that it neither shows nor counts; ``reason`` None shows it again. Raises NotFound."""
        with self._tables.write() as connection:
            wanted = sa.update(ratings).where(ratings.c.id == rating).values(hidden=reason)
            if not connection.execute(wanted).rowcount:
                raise NotFound(f"There is no rating {rating}.", found=rating[:100])

    def ignore(self, platform: str, reason: str | None) -> None:
        """Stop listening to a platform, and count nothing that it said; None listens again. Raises NotFound."""
        with self._tables.write() as connection:
            wanted = sa.update(platforms).where(platforms.c.name == platform).values(ignored=reason)
            if not connection.execute(wanted).rowcount:
                raise NotFound(f"No platform {platform} ever reported.", found=platform[:100])

    def of(self, plugin: str, most: int = 50) -> list[Rating]:
        """A plugin's ratings, newest first, without hidden ones."""
        query = _shown().where(ratings.c.plugin == plugin).order_by(ratings.c.at.desc(), ratings.c.id).limit(most)
        with self._tables.read() as connection:
            return [_rating(row) for row in connection.execute(query)]

    def newest(self, most: int = 50) -> list[Rating]:
        """The newest ratings of all plugins, hidden ones too: for the operator."""
        query = sa.select(ratings).order_by(ratings.c.at.desc(), ratings.c.id).limit(most)
        with self._tables.read() as connection:
            return [_rating(row) for row in connection.execute(query)]

    def summaries(self, plugins: Sequence[str]) -> dict[str, RatingSummary]:
        """The ratings of each plugin together; those without any are left out."""
        wanted = _shown().where(ratings.c.plugin.in_(plugins)).subquery()
        query = sa.select(wanted.c.plugin, wanted.c.stars, wanted.c.platform)
        found: dict[str, list[tuple[int, str]]] = {}
        with self._tables.read() as connection:
            for plugin, stars, platform in connection.execute(query):
                found.setdefault(plugin, []).append((stars, platform))
        return {
            plugin: RatingSummary(
                len(said),
                sum(stars for stars, _ in said) / len(said),
                tuple(sum(stars == each for stars, _ in said) for each in range(1, 6)),
                len({platform for _, platform in said}),
            )
            for plugin, said in found.items()
        }


def _shown() -> sa.Select[Any]:
    ignored = sa.select(platforms.c.name).where(platforms.c.ignored.is_not(None))
    return sa.select(ratings).where(ratings.c.hidden.is_(None), ratings.c.platform.not_in(ignored))


def _rating(row: Any) -> Rating:
    answer = Answer(**row.answer) if row.answer else None
    return Rating(
        row.id, row.plugin, row.version, row.stars, row.text, row.at, row.platform, row.statement, answer, row.hidden
    )


def _read(platform: str, said: Mapping[str, Any], statement: str, now: datetime) -> tuple[Rating, str, str]:
    """The rating in a verified statement, with the release's digest and the tenant's name."""
    stars, text = said.get("stars"), said.get("text", "")
    names = {name: said.get(name) for name in ("plugin", "version", "digest", "tenant", "at")}
    if type(stars) is not int or not 1 <= stars <= 5 or not isinstance(text, str) or len(text) > MOST_TEXT:
        raise ValidationFailed(
            "This is no rating.", expected=f"1 to 5 stars, and a text of at most {MOST_TEXT:,} characters"
        )
    if not all(isinstance(value, str) and 0 < len(value) <= 200 for value in names.values()):
        raise ValidationFailed("This is no rating.", expected="plugin, version, digest, tenant and at")
    plugin, version, digest, tenant, told_at = (str(value) for value in names.values())
    try:
        at = datetime.fromisoformat(told_at)
        if at.tzinfo is None or abs(at.timestamp() - now.timestamp()) > 86_400:
            raise ValueError(told_at)
    except ValueError as error:
        # A statement that somebody kept must not take the place of a newer one for ever.
        raise ValidationFailed("The rating was not made today.", found=told_at, fix="Rate again.") from error
    number = hashlib.sha256("\0".join((plugin, platform, tenant)).encode()).hexdigest()[:16]
    moment = utc_text(at)
    return Rating(number, plugin, version, stars, _clean(text), moment, platform, statement), digest, tenant


def _clean(text: str) -> str:
    """A stranger's text without control characters and at most so long."""
    plain = "".join(c for c in text.strip() if c == "\n" or c.isprintable())
    return plain[:MOST_TEXT]


def _count(connection: sa.Connection, platform: str, day: str, most: int) -> None:
    mine = (handed_in.c.platform == platform) & (handed_in.c.day == day)
    number = connection.execute(sa.select(handed_in.c.count).where(mine)).scalar() or 0
    if number >= most:
        raise TooManyReports(
            "This platform has rated enough for today.", expected=f"{most} ratings a day", fix="Try tomorrow."
        )
    connection.execute(sa.delete(handed_in).where(handed_in.c.day < day))
    values = {"platform": platform, "day": day, "count": number + 1}
    connection.execute(
        insert(handed_in).values(values).on_conflict_do_update(index_elements=["platform", "day"], set_=values)
    )
