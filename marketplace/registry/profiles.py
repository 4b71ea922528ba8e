"""What releases' hooks needed when they were tried: kept by package, to compare the next version with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import orjson
import sqlalchemy as sa

from marketplace.registry.tables import schema
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
        connection.exec_driver_sql("INSERT OR REPLACE INTO release_profiles VALUES (?, ?)", (digest, said))


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
