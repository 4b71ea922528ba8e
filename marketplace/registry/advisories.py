"""Advisories in the registry: taken from the operator, or from a publisher about plugins of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from kernel.errors import Conflict, Forbidden, NotFound
from marketplace.advisories import ADVISORIES_TARGET, advisories_document, advisory_from_dict
from marketplace.log.entry import advisory_entry, statement_digest
from marketplace.registry.change import Touched
from marketplace.registry.tables import Tables, plugins, schema
from plugin_sdk.services import BY_MARKETPLACE, Advisory

advisories = sa.Table(
    "advisories",
    schema,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("document", sa.JSON, nullable=False),
    sa.Column("first", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Advise:
    """Take an advisory in, or a newer word of one. Asked again, it changes nothing."""

    advisory: Advisory
    statement: bytes
    """Signed: by the registry, or by the publisher."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Advisory:
        """The advisory as it now stands.

        Raises NotFound if a plugin in it is not here, Forbidden if the id is another's, and Conflict if a newer
        word is here.
        """
        said = self.advisory
        for each in said.affected:
            known = sa.select(plugins.c.id).where(plugins.c.plugin == each.plugin, plugins.c.entry.is_not(None))
            if connection.execute(known).one_or_none() is None:
                raise NotFound(f"There is no plugin {each.plugin} in this marketplace.", plugin=each.plugin)
        row = connection.execute(sa.select(advisories).where(advisories.c.id == said.id)).one_or_none()
        if row is not None:
            before = advisory_from_dict(row.document)
            if before == said:
                return before
            if said.by not in (before.by, BY_MARKETPLACE):
                raise Forbidden(
                    f"The advisory {said.id} is another's.",
                    expected=f"a statement of {before.by}",
                    found=said.by,
                    fix="Give yours an id of your own.",
                )
            if before.modified >= said.modified:
                raise Conflict(
                    f"A newer word of {said.id} is here already.",
                    expected=f"modified after {before.modified}",
                    found=said.modified,
                    fix="Set `modified` to now.",
                )
            changed = sa.update(advisories).where(advisories.c.id == said.id)
            connection.execute(changed.values(document=asdict(said)))
        else:
            connection.execute(sa.insert(advisories).values(id=said.id, document=asdict(said), first=now))
        touched.render(ADVISORIES_TARGET, lambda after: advisories_document(all_advisories(after)))
        statement: Mapping[str, Any] = json.loads(self.statement)
        for each in said.affected:
            entry = advisory_entry(each.plugin, said.id, statement_digest(statement), now)
            touched.log(entry, statement)
        return said


def all_advisories(connection: sa.Connection) -> tuple[Advisory, ...]:
    """Every advisory, by id; withdrawn ones included."""
    rows = connection.execute(sa.select(advisories.c.document).order_by(advisories.c.id))
    return tuple(advisory_from_dict(document) for (document,) in rows)


class AdvisoryDesk:
    """Reads the advisories of one registry. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def all(self) -> tuple[Advisory, ...]:
        """Every advisory, by id; withdrawn ones included."""
        with self._tables.read() as connection:
            return all_advisories(connection)

    def about(self, plugin: str) -> tuple[Advisory, ...]:
        """What is said of one plugin, and was not withdrawn."""
        return tuple(
            each for each in self.all() if each.withdrawn is None and any(a.plugin == plugin for a in each.affected)
        )
