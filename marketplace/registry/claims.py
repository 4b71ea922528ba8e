"""Where a namespace resolves: here, or at one upstream. Decided once and never both, so neither is taken for the other.

A namespace that is registered here is this marketplace's own. One that a mirror brought is its upstream's: nobody
registers it here, publishes in it or changes its keys. An operator may decide before either happens
(``keelstone marketplace mirror claim``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
import sqlalchemy as sa

from marketplace.errors import NamespaceMirrored
from marketplace.index import Mirrored
from marketplace.registry.tables import ask, in_parts, namespaces, schema
from marketplace.rules.names import alike, kept_under, looked_up

LOCAL = "local"

upstreams = sa.Table(
    "upstreams",
    schema,
    # The SHA-256 of the pinned root: an upstream is its root, whatever its address.
    sa.Column("root", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("url", sa.Text, nullable=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("only", sa.JSON, nullable=False),
    sa.Column("witnesses", sa.JSON, nullable=False),
    sa.Column("needed", sa.Integer, nullable=False),
    sa.Column("added", sa.Text, nullable=False),
    sa.Column("removed", sa.Text, nullable=True),
    # What was seen last: versions of its metadata, size and root of its log, when, and in which way it came.
    sa.Column("seen", sa.JSON(none_as_null=True), nullable=True),
)

namespace_claims = sa.Table(
    "namespace_claims",
    schema,
    sa.Column("publisher", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Text, nullable=False),
)

mirrored_plugins = sa.Table(
    "mirrored_plugins",
    schema,
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("about", sa.JSON, nullable=False),
)

# What an upstream last listed of a plugin, by the SHA-256 of its index, and what it had verified of the publisher.
upstream_listings = sa.Table(
    "upstream_listings",
    schema,
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("listed", sa.Text, nullable=False),
    sa.Column("domain", sa.Text),
    sa.Column("repository", sa.Text),
)

# What an upstream ended that is not here (yet): an older bundle may still bring it.
upstream_revocations = sa.Table(
    "upstream_revocations",
    schema,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("document", sa.JSON, nullable=False),
)


def source_of(connection: sa.Connection, publisher: str) -> str | None:
    """Where a namespace resolves: ``local``, or the SHA-256 of an upstream's root; None: nobody has it."""
    query = "SELECT source FROM namespace_claims WHERE publisher = ?"
    found = connection.exec_driver_sql(query, (publisher,)).scalar()
    if found is not None:
        return str(found)
    known = sa.select(namespaces.c.publisher).where(namespaces.c.publisher == publisher)
    return None if connection.execute(known).scalar() is None else LOCAL


def refuse_mirrored(connection: sa.Connection, publisher: str) -> None:
    """Raise NamespaceMirrored if the namespace is an upstream's: nothing of it is changed from here."""
    query = (
        "SELECT u.name FROM namespace_claims c LEFT JOIN upstreams u ON u.root = c.source "
        "WHERE c.publisher = ? AND c.source != 'local'"
    )
    for (name,) in ask(connection, query, (publisher,)):
        raise NamespaceMirrored(
            f"The namespace {publisher} is the upstream {name}'s.",
            found=publisher,
            fix=f"Publish it there. A namespace of this marketplace's own needs another name than {publisher}.",
        )


def claim(connection: sa.Connection, publisher: str, source: str, now: str) -> None:
    """Let a namespace resolve at ``source`` from now on. Asked again, it changes nothing.

    Raises NamespaceMirrored if it resolves elsewhere already.
    """
    why = contested(connection, publisher, source)
    if why is not None:
        raise NamespaceMirrored(
            why, found=publisher, fix="A namespace's place is decided once; choose another namespace."
        )
    values = {"publisher": publisher, "source": source, "at": now}
    known = sa.select(namespace_claims.c.source).where(namespace_claims.c.publisher == publisher)
    if connection.execute(known).scalar() is None:
        connection.execute(sa.insert(namespace_claims).values(values))


def contested(connection: sa.Connection, publisher: str, source: str) -> str | None:
    """Why a namespace cannot resolve at ``source``, in a sentence; None if it can."""
    known = source_of(connection, publisher)
    if known is not None and known != source:
        whose = "this marketplace's own" if known == LOCAL else f"the upstream {name_of(connection, known)}'s"
        return f"The namespace {publisher} is {whose}."
    return None


def mistakable(connection: sa.Connection, publishers: Sequence[str], source: str) -> dict[str, str]:
    """Which of ``publishers`` are new here and could be taken for a namespace that resolves elsewhere, and for which.

    An operator who has claimed the namespace for ``source`` has looked at it.
    """
    known = {
        str(row.publisher): str(row.source)
        for row in connection.exec_driver_sql(
            "SELECT publisher, source FROM namespace_claims UNION SELECT publisher, 'local' FROM namespaces "
            "WHERE publisher NOT IN (SELECT publisher FROM namespace_claims)"
        )
    }
    keys: dict[str, list[str]] = {}
    for other, where in known.items():
        if where != source:
            for key in kept_under(other):
                keys.setdefault(key, []).append(other)
    found = {}
    for publisher in publishers:
        near = [each for key in looked_up(publisher) for each in keys.get(key, ()) if alike(publisher, each)]
        if publisher not in known and near:
            found[publisher] = near[0]
    return found


def name_of(connection: sa.Connection, source: str) -> str:
    """What an upstream is called here."""
    query = sa.select(upstreams.c.name).where(upstreams.c.root == source)
    return str(connection.execute(query).scalar() or source[:16])


def mirrored_from(connection: sa.Connection, wanted: Sequence[str]) -> Mapping[str, Mirrored]:
    """Where those of the plugins come from that were published elsewhere."""
    found: dict[str, Mirrored] = {}
    for some, marks in in_parts(wanted):
        query = f"SELECT plugin, about FROM mirrored_plugins WHERE plugin IN ({marks})"  # noqa: S608 - question marks only
        found |= {row.plugin: Mirrored(**orjson.loads(row.about)) for row in connection.exec_driver_sql(query, some)}
    return found


def verified_upstream(connection: sa.Connection, wanted: Sequence[str]) -> Mapping[str, tuple[str | None, str | None]]:
    """The domain and the repository that an upstream has verified of a plugin's publisher, by mirrored plugin."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for some, marks in in_parts(wanted):
        query = f"SELECT plugin, domain, repository FROM upstream_listings WHERE plugin IN ({marks})"  # noqa: S608
        found |= {row.plugin: (row.domain, row.repository) for row in connection.exec_driver_sql(query, some)}
    return found


def listed_upstream(connection: sa.Connection, root: str) -> dict[str, str]:
    """The SHA-256 of each index that was taken from an upstream, by plugin; empty where it is not known."""
    joined = mirrored_plugins.outerjoin(upstream_listings, upstream_listings.c.plugin == mirrored_plugins.c.plugin)
    query = sa.select(mirrored_plugins.c.plugin, upstream_listings.c.listed).select_from(joined)
    rows = connection.execute(query.where(mirrored_plugins.c.source == root).order_by(mirrored_plugins.c.plugin))
    return {row.plugin: row.listed or "" for row in rows}
