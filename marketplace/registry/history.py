"""What a registry changed before it kept a log, as entries in the order in which it happened."""

from __future__ import annotations

import sqlalchemy as sa

from marketplace.log.entry import (
    Entry,
    deprecation_entry,
    keys_entry,
    release_entry,
    statement_digest,
    yank_entry,
)
from marketplace.registry.tables import namespaces, plugins, releases

_ORDER = ("keys", "publish", "yank", "deprecate")


def past_changes(connection: sa.Connection) -> list[Entry]:
    """One entry for each namespace, release, withdrawal and advice there is.

    The statements behind withdrawals and advice were not kept then, so their entries name none.
    """
    found = [
        keys_entry(row.publisher, row.version, row.document, row.registered)
        for row in connection.execute(sa.select(namespaces))
    ]
    known = releases.c
    for row in connection.execute(
        sa.select(known.plugin, known.version, known.digest, known.published, known.yank, known.envelope)
    ):
        statement = statement_digest(row.envelope)
        found.append(release_entry(row.plugin, row.version, row.digest, statement, row.published))
        if row.yank:
            found.append(yank_entry(row.plugin, row.version, row.digest, None, row.yank["at"]))
    found += [
        deprecation_entry(row.plugin, None, row.deprecation["at"])
        for row in connection.execute(sa.select(plugins).where(plugins.c.deprecation.is_not(None)))
    ]
    # The clocks' fractions differ in kind; what happened within one second is put in the order that makes sense.
    return sorted(found, key=lambda each: (each.at[:19], _ORDER.index(each.kind), each.plugin or "", each.publisher))
