"""Releases that did not go live at once: taken in, scanned for long, held for a person, or turned away.

``received -> scanning -> quarantined | live | refused``, and ``quarantined -> live | rejected`` by a verdict. Whatever
is scanned quickly and found good goes live in one transaction and never has a row here. Every state has its signed
receipt, and whoever asks again gets the same one; but what was refused is looked at anew once the rules have changed.
A version that waits, or that was rejected, is taken: its name is never used for other bytes. What broke a rule
(``refused``) was never accepted, so its version is free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from marketplace.errors import VersionTaken
from marketplace.index import manifest_document
from marketplace.package import Package
from marketplace.registry.change import Pending, Touched
from marketplace.registry.profiles import keep_profile
from marketplace.registry.receipts import Receipt, State
from marketplace.registry.tables import releases, schema
from plugin_sdk.profile import HookProfile

OPEN: tuple[State, ...] = ("received", "scanning")
TAKES_VERSION: tuple[State, ...] = (*OPEN, "quarantined", "rejected")

# By which rules a package was refused: with others it is looked at anew.
refusals = sa.Table(
    "refusals",
    schema,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("rules", sa.Text, nullable=False),
)

submissions = sa.Table(
    "submissions",
    schema,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("plugin", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("received", sa.Text, nullable=False),
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("envelope", sa.JSON, nullable=False),
    sa.Column("findings", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("receipt", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True),
    sa.Index("submissions_of", "plugin", "version"),
)


@dataclass(frozen=True, slots=True)
class Wait:
    """Keep a release that is not live yet, in ``state``: its signature has been checked and its blob is stored.
    Asked again in the same state, it changes nothing."""

    package: Package
    envelope: bytes
    state: State
    findings: Sequence[Mapping[str, Any]] = ()
    """What the rules found, if they have been asked."""
    rules: str = ""
    """Which rules refused it: their fingerprint."""
    profile: Mapping[str, HookProfile] = field(default_factory=dict)
    """What its hooks needed, if they were tried."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Receipt | Pending:
        """The receipt. Raises VersionTaken if the version has other bytes."""
        manifest, digest = self.package.manifest, self.package.digest
        row = claim(connection, manifest.id, manifest.version, digest)
        live = connection.execute(sa.select(releases.c.receipt).where(releases.c.digest == digest)).scalar()
        if live is not None:  # its scan ended while this was on its way
            return Receipt(**live)
        if self.state == "refused":
            connection.execute(sa.delete(refusals).where(refusals.c.digest == digest))
            connection.execute(sa.insert(refusals).values(digest=digest, rules=self.rules))
        again = row is not None and (row.state == self.state or row.state not in (*OPEN, "refused"))
        if row is not None and row.receipt is not None and again:
            return Receipt(**row.receipt)
        keep_profile(connection, digest, self.profile)
        values = {"state": self.state, "findings": list(self.findings), "receipt": None}
        if row is not None:
            connection.execute(sa.update(submissions).where(submissions.c.digest == digest).values(values))
        else:
            connection.execute(
                sa.insert(submissions).values(
                    digest=digest,
                    plugin=manifest.id,
                    version=manifest.version,
                    size=len(self.package.data),
                    received=now,
                    manifest=manifest_document(manifest),
                    envelope=json.loads(self.envelope),
                    **values,
                )
            )
        return pending(manifest.id, manifest.version, digest, len(self.package.data), self.state, now)


def claim(connection: sa.Connection, plugin: str, version: str, digest: str) -> Any:
    """The row of the package with ``digest``, or None. Raises VersionTaken if other bytes have the version."""
    key = (submissions.c.plugin == plugin) & (submissions.c.version == version)
    rows = connection.execute(sa.select(submissions).where(key)).all()
    published = (releases.c.plugin == plugin) & (releases.c.version == version)
    taken = connection.execute(sa.select(releases.c.digest).where(published)).scalar()
    if taken is not None:
        refuse_other_bytes(plugin, version, taken, digest)
    for row in rows:
        if row.digest != digest and row.state in TAKES_VERSION:
            raise VersionTaken(
                f"{plugin} {version} was handed in already, with other bytes, and is {row.state}.",
                plugin=plugin,
                expected=f"sha256 {row.digest}",
                found=f"sha256 {digest}",
                fix="A version is never used for other bytes. Raise the version in plugin.toml and sign again.",
            )
    return next((row for row in rows if row.digest == digest), None)


def refuse_other_bytes(plugin: str, version: str, published: str, digest: str) -> None:
    """Raise VersionTaken unless both digests are the same."""
    if published != digest:
        raise VersionTaken(
            f"{plugin} {version} was published already, with other bytes.",
            plugin=plugin,
            expected=f"sha256 {published}",
            found=f"sha256 {digest}",
            fix="Published versions never change. Raise the version in plugin.toml and sign again.",
        )


def find_submission(connection: sa.Connection, digest: str) -> Any:
    """The row of the package with ``digest``, or None."""
    return connection.execute(sa.select(submissions).where(submissions.c.digest == digest)).one_or_none()


def refused_by(connection: sa.Connection, digest: str) -> str | None:
    """The fingerprint of the rules by which a package was refused; None if it was not, or nobody noted them."""
    return connection.execute(sa.select(refusals.c.rules).where(refusals.c.digest == digest)).scalar()


def pending(
    plugin: str, version: str, digest: str, size: int, state: State, now: str, position: int | None = None
) -> Pending:
    """The receipt to be of a release in ``state``; ``position`` is that of its log entry, if it has one."""
    values = {
        "plugin": plugin,
        "version": version,
        "digest": digest,
        "size": size,
        "state": state,
        "published": now,
    }
    return Pending(values, position)


def kept_waiting(connection: sa.Connection) -> set[str]:
    """Digests of packages that are not to be swept away: those that wait."""
    waiting = sa.select(submissions.c.digest).where(submissions.c.state.in_((*OPEN, "quarantined")))
    return set(connection.execute(waiting).scalars())
