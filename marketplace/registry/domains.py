"""Namespaces verified by DNS: the publisher names a domain with a signed statement, the domain names the publisher.

Both must speak: a domain alone could claim anybody's namespace, a publisher alone anybody's domain. It is looked up
again every day, and taken back when the domain no longer says it; while nobody can be asked, it stays. What is verified
stands in the signed index of each of the publisher's plugins.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from kernel.errors import BackendUnavailable
from marketplace.dns import TxtLookup, record_name, record_text
from marketplace.errors import DomainNotVerified
from marketplace.registry.change import Touched
from marketplace.registry.tables import Tables, in_parts, releases, schema

RECHECK_SECONDS = 86_400.0

namespace_domains = sa.Table(
    "namespace_domains",
    schema,
    sa.Column("publisher", sa.Text, primary_key=True),
    sa.Column("domain", sa.Text, nullable=False),
    sa.Column("statement", sa.JSON, nullable=False),
    sa.Column("verified", sa.Text, nullable=False),
    sa.Column("checked", sa.Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class VerifiedDomain:
    """A domain that speaks for a namespace; ``verified`` is since when (ISO 8601, UTC)."""

    publisher: str
    domain: str
    verified: str


@dataclass(frozen=True, slots=True)
class VerifyDomain:
    """A namespace gets the domain that speaks for it. ``statement`` is the publisher's; ``checked`` when the domain was
    asked, in epoch seconds. Answers what is verified."""

    publisher: str
    domain: str
    statement: bytes
    checked: float

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> VerifiedDomain:
        """See :class:`marketplace.registry.change.Change`."""
        known = sa.select(namespace_domains).where(namespace_domains.c.publisher == self.publisher)
        row = connection.execute(known).one_or_none()
        since = row.verified if row is not None and row.domain == self.domain else now
        said = json.loads(self.statement)
        values = {"domain": self.domain, "statement": said, "verified": since, "checked": self.checked}
        kept = insert(namespace_domains).values(publisher=self.publisher, **values)
        connection.execute(kept.on_conflict_do_update(index_elements=["publisher"], set_=values))
        _touch(connection, self.publisher, touched)
        return VerifiedDomain(self.publisher, self.domain, since)


@dataclass(frozen=True, slots=True)
class DropDomain:
    """A domain no longer speaks for a namespace."""

    publisher: str
    domain: str

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> None:
        """See :class:`marketplace.registry.change.Change`."""
        mine = (namespace_domains.c.publisher == self.publisher) & (namespace_domains.c.domain == self.domain)
        if connection.execute(sa.delete(namespace_domains).where(mine)).rowcount:
            _touch(connection, self.publisher, touched)


class DomainDesk:
    """Verified domains of one registry. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def of(self, publisher: str) -> VerifiedDomain | None:
        """The domain of a namespace, if one was verified."""
        with self._tables.read() as connection:
            known = sa.select(namespace_domains).where(namespace_domains.c.publisher == publisher)
            row = connection.execute(known).one_or_none()
        return None if row is None else _found(row)

    def ask(self, publisher: str, domain: str, statement: bytes, look_up: TxtLookup, now: float) -> VerifyDomain:
        """Look the domain up: the change that follows. ``statement`` is the publisher's, checked; ``now`` in epoch
        seconds. Raises DomainNotVerified, and BackendUnavailable if nobody can be asked.
        """
        texts = look_up(record_name(domain))
        if texts is None:
            raise BackendUnavailable(
                f"The domain {domain} could not be looked up.", fix="Try again; the marketplace needs a DNS resolver."
            )
        if record_text(publisher) not in texts:
            raise DomainNotVerified(
                f"{domain} does not say that the namespace {publisher} is its own.",
                expected=f"a TXT record at {record_name(domain)}: {record_text(publisher)}",
                found=", ".join(sorted(texts))[:300] or "none",
                fix="Add the record where the domain is administered, and ask again when it can be seen.",
            )
        return VerifyDomain(publisher, domain, statement, now)

    def recheck(self, look_up: TxtLookup, now: float) -> list[DropDomain]:
        """Look up again what was looked up more than a day ago: the changes that follow."""
        with self._tables.read() as connection:
            old = sa.select(namespace_domains).where(namespace_domains.c.checked <= now - RECHECK_SECONDS)
            rows = connection.execute(old).all()
        gone = []
        for row in rows:
            texts = look_up(record_name(row.domain))
            if texts is None:
                continue
            if record_text(row.publisher) not in texts:
                gone.append(DropDomain(row.publisher, row.domain))
                continue
            mine = (namespace_domains.c.publisher == row.publisher) & (namespace_domains.c.domain == row.domain)
            with self._tables.write() as connection:
                connection.execute(sa.update(namespace_domains).where(mine).values(checked=now))
        return gone


def domains_of(connection: sa.Connection, publishers: Sequence[str]) -> dict[str, str]:
    """The verified domains of some namespaces."""
    found: dict[str, str] = {}
    for some, marks in in_parts(publishers):
        query = f"SELECT publisher, domain FROM namespace_domains WHERE publisher IN ({marks})"  # noqa: S608
        found |= {row.publisher: row.domain for row in connection.exec_driver_sql(query, some)}
    return found


def _touch(connection: sa.Connection, publisher: str, touched: Touched) -> None:
    """Have the index of each of the publisher's plugins made anew."""
    mine = sa.select(releases.c.plugin).where(releases.c.plugin.startswith(f"{publisher}/", autoescape=True)).distinct()
    for plugin in connection.execute(mine).scalars():
        touched.plugins.setdefault(plugin, None)


def _found(row: Any) -> VerifiedDomain:
    return VerifiedDomain(row.publisher, row.domain, row.verified)
