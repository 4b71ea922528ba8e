"""What releases' hooks needed when they were tried: kept by package, to compare the next version with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import orjson
import sqlalchemy as sa

from marketplace.registry.tables import ask, schema
from plugin_sdk.profile import HookProfile

release_profiles = sa.Table(
    "release_profiles",
    schema,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("profile", sa.JSON, nullable=False),
)


def keep_profile(connection: sa.Connection, digest: str, profile: Mapping[str, HookProfile]) -> None:
    """Keep it, in place of an earlier one of the same package. Nothing is kept of what was not tried."""
    if profile:
        said = orjson.dumps({hook: asdict(each) for hook, each in profile.items()}).decode()
        ask(connection, "INSERT OR REPLACE INTO release_profiles VALUES (?, ?)", (digest, said))


def newest_profile(
    connection: sa.Connection, releases: Sequence[tuple[str, str]]
) -> tuple[str, Mapping[str, HookProfile]] | None:
    """The first of some releases (version and digest, newest first) that was tried, and what its hooks needed."""
    for version, digest in releases:
        query = "SELECT profile FROM release_profiles WHERE digest = ?"
        found = connection.exec_driver_sql(query, (digest,)).scalar()
        if found is not None:
            return version, {hook: HookProfile(**each) for hook, each in orjson.loads(found).items()}
    return None


@dataclass(frozen=True, slots=True)
class HookCost:
    """What one hook of a release needed, beside the version that it follows (``base``, where that was tried)."""

    hook: str
    now: HookProfile
    before: HookProfile | None
    base: str | None


def hook_costs(connection: sa.Connection, digest: str, older: Sequence[tuple[str, str]]) -> tuple[HookCost, ...]:
    """What each hook of a package needed; ``older`` are versions and digests before it, newest first. Nothing of what
    was not tried."""
    mine = newest_profile(connection, [("", digest)])
    if mine is None:
        return ()
    base, before = newest_profile(connection, older) or (None, {})
    return tuple(HookCost(hook, now, before.get(hook), base) for hook, now in sorted(mine[1].items()))
